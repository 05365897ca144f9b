"""Snapshots and feature rows as bytes: exact, little-endian, readable without this program."""

from __future__ import annotations

import dataclasses
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineside.core.errors import UserError
from lineside.machines.alarms.verdict import Event, Verdict
from lineside.machines.data.measurement import Channel, Measurement

MICROSECONDS = 1_000_000
LATEST_SECONDS = 9e12
"""Beyond it microseconds no longer fit into 64 bits."""
_COLUMNS = ("machine", "time", "state", "novelty", "limit", "note", "events")
WIDE = ("band_", "mel_")
"""Features with these words in their names come by the dozen: they are the spectrum."""


def key_of(time: float) -> int | None:
    """Return the time of a snapshot in whole microseconds, None if it has no usable time."""
    if not math.isfinite(time) or abs(time) > LATEST_SECONDS:
        return None
    return round(time * MICROSECONDS)


def storable(text: str) -> str:
    """Return a text as every database takes it: file names may hold any byte."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def exact(measurement: Measurement) -> Measurement:
    """Return the snapshot with samples as they are stored, float32: so they are judged, too."""
    channels = {
        name: dataclasses.replace(
            channel, samples=np.ascontiguousarray(channel.samples, dtype="<f4").ravel()
        )
        for name, channel in measurement.channels.items()
    }
    return dataclasses.replace(measurement, channels=channels)


def pack(measurement: Measurement) -> bytes:
    """Return everything but name and time: a line of JSON, then the samples of its channels."""
    head = {
        "channels": [
            [name, len(channel.samples), float(channel.rate_hz), channel.unit]
            for name, channel in measurement.channels.items()
        ],
        "values": {name: float(value) for name, value in measurement.values.items()},
        "speed_hz": measurement.speed_hz,
        "load": measurement.load,
    }
    samples = [channel.samples.tobytes() for channel in measurement.channels.values()]
    return b"".join([json.dumps(head).encode(), b"\n", *samples])


def unpack(content: bytes, machine: str, time: float) -> Measurement:
    """Return what `pack` was given."""
    line = content.index(b"\n")
    head = json.loads(content[:line])
    samples = np.frombuffer(content, dtype="<f4", offset=line + 1) if head["channels"] else None
    return assemble(head, samples, machine, time)


def assemble(
    head: dict[str, Any], samples: NDArray[np.float32] | None, machine: str, time: float
) -> Measurement:
    """Return the snapshot of a head and the samples of its channels one after the other."""
    channels, start = {}, 0
    for name, count, rate_hz, unit in head["channels"]:
        assert samples is not None
        wave = samples[start : start + count].astype(np.float32)
        channels[name] = Channel(samples=wave, rate_hz=rate_hz, unit=unit)
        start += count
    return Measurement(
        machine=machine, time=time, channels=channels, values=head["values"],
        speed_hz=head["speed_hz"], load=head["load"],
    )  # fmt: skip


def fingerprint(content: bytes) -> str:
    """Return a short name of packed content, to tell whether two are the same."""
    return f"{zlib.crc32(content):08x}-{len(content)}"


def verdict_row(verdict: Verdict) -> dict[str, Any]:
    """Return the columns of a verdict; its events have a table of their own."""
    more = {
        field.name: getattr(verdict, field.name)
        for field in dataclasses.fields(verdict)
        if field.name not in _COLUMNS and getattr(verdict, field.name) is not None
    }
    return {
        "state": verdict.state, "novelty": verdict.novelty, "novelty_limit": verdict.limit,
        "note": verdict.note, "more": json.dumps(more) if more else "",
    }  # fmt: skip


def verdict_of(row: Mapping[str, Any], machine: str, events: Sequence[Event]) -> Verdict:
    """Return the verdict of its columns and events."""
    return Verdict(
        machine=machine, time=row["seconds"], state=row["state"], novelty=row["novelty"],
        limit=row["novelty_limit"], note=row["note"], events=tuple(events),
        **(json.loads(row["more"]) if row["more"] else {}),
    )  # fmt: skip


class Columns:
    """Which features of a row go where.

    Attributes:
        levels: Names of the few that people trend.
        spectrum: Names of the bands.
    """

    def __init__(self, names: Sequence[str]) -> None:
        wide = np.array([any(word in name for word in WIDE) for name in names], dtype=bool)
        self._levels, self._spectrum = np.flatnonzero(~wide), np.flatnonzero(wide)
        self.levels = [names[place] for place in self._levels.tolist()]
        self.spectrum = [names[place] for place in self._spectrum.tolist()]

    def split(self, row: NDArray[np.float32]) -> tuple[bytes, bytes]:
        """Return both parts of a row as bytes."""
        if len(row) != len(self._levels) + len(self._spectrum):
            raise UserError(
                f"a row of {len(row)} features does not fit its layout", "train the machine anew"
            )
        return row[self._levels].astype("<f4").tobytes(), row[self._spectrum].astype(
            "<f4"
        ).tobytes()
