"""Sensor faults, features, spectra, orders and bearing diagnosis of one snapshot."""

from lineside.machines.signals.bearings import Bearing, bearing_from_geometry
from lineside.machines.signals.diagnosis import Diagnosis, diagnose
from lineside.machines.signals.engine import Engine
from lineside.machines.signals.layout import Layout, feature_label, make_layout
from lineside.machines.signals.quality import (
    Norms,
    SensorFault,
    find_sensor_faults,
    learn_norms,
)
from lineside.machines.signals.spectra import Spectrum
from lineside.machines.signals.speed import estimate_speed, speed_contradiction

__all__ = [
    "Bearing", "Diagnosis", "Engine", "Layout", "Norms", "SensorFault", "Spectrum",
    "bearing_from_geometry", "diagnose", "estimate_speed", "feature_label", "find_sensor_faults",
    "learn_norms", "make_layout", "speed_contradiction",
]  # fmt: skip
