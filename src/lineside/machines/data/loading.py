"""Reading the measurement of a snapshot from its file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.machines.data.formats import read_recording
from lineside.machines.data.items import Snapshot
from lineside.machines.data.measurement import Channel, Measurement
from lineside.machines.data.recording import DEFAULT_UNIT, Recording, plausible_speed
from lineside.machines.data.sidecar import NAME, Sidecar, read_sidecar
from lineside.machines.data.tables import is_table, read_table


def load_measurement(snapshot: Snapshot) -> Measurement:
    """Read one snapshot.

    Raises:
        UserError: if its file cannot be read, or its sample rate is not known.
    """
    sidecar = read_sidecar(snapshot.path.parent)
    changed_ns = snapshot.path.stat().st_mtime_ns
    if _is_table(snapshot.path, changed_ns):
        table = read_table(snapshot.path)
        row = table.values[snapshot.index]
        return Measurement(
            machine=snapshot.machine,
            time=snapshot.time,
            values=dict(zip(table.names, row.tolist(), strict=True)),
            speed_hz=sidecar.speed_hz,
            load=sidecar.load,
        )
    recording = _recording(snapshot.path, changed_ns)
    index = snapshot.index
    return Measurement(
        machine=snapshot.machine,
        time=snapshot.time,
        channels=_channels(recording, snapshot, sidecar),
        values={name: float(values[index]) for name, values in recording.values.items()},
        speed_hz=plausible_speed(_stated(sidecar.speed_hz, recording.speed_hz, index)),
        load=_stated(sidecar.load, recording.load, index),
    )


def load_measurements(snapshots: Sequence[Snapshot]) -> tuple[list[Measurement], list[Refusal]]:
    """Read snapshots: measurements in their order, and refusals for those that cannot be read."""
    measurements, refused = [], []
    for snapshot in snapshots:
        try:
            measurements.append(load_measurement(snapshot))
        except UserError as error:
            refused.append(Refusal(item=snapshot.id, message=error.message, hint=error.hint))
    return measurements, refused


@lru_cache(maxsize=64)
def _is_table(path: Path, changed_ns: int) -> bool:
    """`is_table`, once per file: it takes ten times as long as reading a row of the table."""
    return is_table(path)


@lru_cache(maxsize=4)
def _recording(path: Path, changed_ns: int) -> Recording:
    """`read_recording`, once per file: a history has many snapshots in one file."""
    return read_recording(path)


def _stated(
    by_sidecar: float | None, by_file: NDArray[np.float64] | None, index: int
) -> float | None:
    """Return the sidecar's value if it has one, else the file's."""
    if by_sidecar is not None or by_file is None:
        return by_sidecar
    value = float(by_file[index])
    return value if np.isfinite(value) else None


def _channels(recording: Recording, snapshot: Snapshot, sidecar: Sidecar) -> dict[str, Channel]:
    names = list(recording.samples)
    if sidecar.channels and len(sidecar.channels) != len(names):
        raise UserError(
            f"{snapshot.path} has {len(names)} channels, {NAME} names {len(sidecar.channels)}",
            f"name all channels of the file: {', '.join(names)}",
        )
    channels = {}
    for name, new_name in zip(names, sidecar.channels or names, strict=True):
        rate = sidecar.rate_hz or recording.rate_hz[name]
        if rate is None:
            raise UserError(
                f"the sample rate of {snapshot.path} is not known",
                f"add rate_hz to {NAME} in the same folder",
            )
        stored = recording.samples[name][snapshot.index]
        samples = stored.astype(np.float32) * np.float32(recording.scale)
        unit = sidecar.unit or recording.units.get(name) or DEFAULT_UNIT
        channels[new_name] = Channel(samples=samples, rate_hz=float(rate), unit=unit)
    return channels
