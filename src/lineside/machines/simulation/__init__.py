"""Simulated machines with known faults: for the demo, the tests and what no data set can show."""

from lineside.machines.simulation.demo import FLEET, make_demo, save_history
from lineside.machines.simulation.rig import Condition, Rig, vibration
from lineside.machines.simulation.sensors import Sensor, sensed
from lineside.machines.simulation.stories import Episode, History, Story, severity, tell

__all__ = [
    "FLEET", "Condition", "Episode", "History", "Rig", "Sensor", "Story", "make_demo",
    "save_history", "sensed", "severity", "tell", "vibration",
]  # fmt: skip
