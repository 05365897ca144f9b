"""Signals: sensor faults, features and spectra of one snapshot, orders, bearing diagnosis."""

from lineside.machines.signals.bearings import Bearing, bearing_from_geometry
from lineside.machines.signals.diagnosis import Diagnosis, MatchedLine, diagnose
from lineside.machines.signals.engine import Engine
from lineside.machines.signals.layout import Layout, feature_label, make_layout
from lineside.machines.signals.quality import (
    Norms,
    SensorFault,
    find_sensor_faults,
    learn_norms,
)
from lineside.machines.signals.spectra import Spectrum
from lineside.machines.signals.speed import SpeedEstimate, estimate_speed, speed_contradiction

__all__ = [
    "Bearing",
    "Diagnosis",
    "Engine",
    "Layout",
    "MatchedLine",
    "Norms",
    "SensorFault",
    "Spectrum",
    "SpeedEstimate",
    "bearing_from_geometry",
    "diagnose",
    "estimate_speed",
    "feature_label",
    "find_sensor_faults",
    "learn_norms",
    "make_layout",
    "speed_contradiction",
]  # fmt: skip
