"""From a snapshot that lies somewhere to the measurement itself."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lineside.core.errors import UserError
from lineside.machines.data.formats import read_record
from lineside.machines.data.items import Snapshot
from lineside.machines.data.measurement import Channel, Measurement
from lineside.machines.data.record import DEFAULT_UNIT, Record, plausible_speed
from lineside.machines.data.sidecar import NAME, Sidecar, read_sidecar
from lineside.machines.data.tables import is_table, read_table


def load_measurement(snapshot: Snapshot) -> Measurement:
    """Read one snapshot.

    Raises:
        UserError: if its file cannot be read, or nobody knows its sample rate.
    """
    sidecar = read_sidecar(snapshot.path.parent)
    if _is_table(snapshot.path, snapshot.path.stat().st_mtime_ns):
        table = read_table(snapshot.path)
        row = table.values[snapshot.place]
        return Measurement(
            machine=snapshot.machine,
            time=snapshot.time,
            values=dict(zip(table.names, row.tolist(), strict=True)),
            speed_hz=sidecar.speed_hz,
            load=sidecar.load,
        )
    record = _record(snapshot.path, snapshot.path.stat().st_mtime_ns)
    return Measurement(
        machine=snapshot.machine,
        time=snapshot.time,
        channels=_channels(record, snapshot, sidecar),
        values={name: float(v[snapshot.place]) for name, v in record.values.items()},
        speed_hz=plausible_speed(_told(sidecar.speed_hz, record.speed_hz, snapshot.place)),
        load=_told(sidecar.load, record.load, snapshot.place),
    )


@lru_cache(maxsize=64)
def _is_table(path: Path, changed_ns: int) -> bool:
    """Whether it is one, asked once per file: looking costs ten times a snapshot of a table."""
    return is_table(path)


def _told(by_people: float | None, by_file: NDArray[np.float64] | None, place: int) -> float | None:
    """What people say wins over what the file says."""
    if by_people is not None or by_file is None:
        return by_people
    value = float(by_file[place])
    return value if np.isfinite(value) else None


@lru_cache(maxsize=4)
def _record(path: Path, changed: int) -> Record:
    """The file's content; kept, since a history holds many snapshots in one file."""
    return read_record(path)


def _channels(record: Record, snapshot: Snapshot, sidecar: Sidecar) -> dict[str, Channel]:
    names = list(record.samples)
    if sidecar.channels and len(sidecar.channels) != len(names):
        raise UserError(
            f"{snapshot.path} has {len(names)} channels, {NAME} names {len(sidecar.channels)}",
            f"name all of them: the file has {', '.join(names)}",
        )
    found = {}
    for name, shown in zip(names, sidecar.channels or names, strict=True):
        rate = sidecar.rate_hz or record.rate_hz[name]
        if rate is None:
            raise UserError(
                f"{snapshot.path} does not say its sample rate",
                f"put rate_hz into {NAME} beside it",
            )
        values = record.samples[name][snapshot.place]
        samples = values.astype(np.float32) * np.float32(record.scale)
        unit = sidecar.unit or record.units.get(name) or DEFAULT_UNIT
        found[shown] = Channel(samples=samples, rate_hz=float(rate), unit=unit)
    return found
