"""Data of machines: which snapshots a folder holds, and reading each of them."""

from lineside.machines.data.histories import find_snapshots
from lineside.machines.data.loading import load_measurement, load_measurements
from lineside.machines.data.sidecar import read_sidecar

__all__ = ["find_snapshots", "load_measurement", "load_measurements", "read_sidecar"]
