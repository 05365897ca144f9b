"""Reading of snapshots: which there are in a folder, and what each one holds."""

from lineside.machines.data.histories import find_snapshots, snapshots_of
from lineside.machines.data.loading import load_measurement
from lineside.machines.data.sidecar import NAME as SIDECAR
from lineside.machines.data.sidecar import Sidecar, read_sidecar

__all__ = [
    "SIDECAR", "Sidecar", "find_snapshots", "load_measurement", "read_sidecar", "snapshots_of",
]  # fmt: skip
