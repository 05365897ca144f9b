"""Signals: sensor faults, features and spectra of one snapshot, orders, bearing diagnosis."""

from lineside.machines.signals.bearings import Bearing, bearing_of
from lineside.machines.signals.diagnosis import Diagnosis, MatchedLine, diagnose
from lineside.machines.signals.engine import Engine
from lineside.machines.signals.layout import Layout, make_layout, spoken
from lineside.machines.signals.quality import (
    Norms,
    SensorFault,
    learn_norms,
    sensor_faults,
)
from lineside.machines.signals.spectra import Spectrum
from lineside.machines.signals.speed import SpeedEstimate, estimate_speed, speed_contradiction

__all__ = [
    "Bearing", "Diagnosis", "Engine", "Layout", "MatchedLine", "Norms", "SensorFault", "Spectrum",
    "SpeedEstimate", "bearing_of", "diagnose", "estimate_speed", "learn_norms", "make_layout",
    "sensor_faults", "speed_contradiction", "spoken",
]  # fmt: skip
