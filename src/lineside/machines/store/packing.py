"""Byte layouts of the store: exact, little-endian, readable without this program.

waveform (`pending.content`)
    one line of JSON (channels, values, speed, load), a line feed, then the samples of all channels
    one after the other, float32, in the order in which the line lists the channels
feature row (`levels.row`, `spectra.row`)
    float32, in the order of the names of its layout (`layouts.levels`, `layouts.spectrum`)

Verdicts and events are columns, with JSON for what only some of them have.
"""

from __future__ import annotations

import dataclasses
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineside.machines.alarms.actions import Action
from lineside.machines.alarms.verdict import Event, Verdict
from lineside.machines.data.measurement import Channel, Measurement

Row = Mapping[str, Any]
CHAIN = "chain"
"""Where the JSON columns `snapshots.more` and `machines.memory` hold links, see `chain`."""
MICROSECONDS = 1_000_000
LATEST_SECONDS = 9e12
"""Beyond it microseconds no longer fit into 64 bits."""
SPECTRUM_WORDS = ("band_", "mel_")
"""Features with these words in their names come by the dozen: they are the spectrum."""


def time_key(seconds: float) -> int | None:
    """Return the time of a snapshot in whole microseconds, None if it has no usable time."""
    if not math.isfinite(seconds) or abs(seconds) > LATEST_SECONDS:
        return None
    return round(seconds * MICROSECONDS)


def storable(text: str) -> str:
    """Return a text that every database accepts: file names may hold any byte.

    Lone surrogates and NUL become their escapes, as in ``\\udcff`` and ``\\0``.
    """
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def with_stored_samples(measurement: Measurement) -> Measurement:
    """Return a snapshot with its samples as they are stored, float32.

    It is judged in this form, so that a replay of the stored samples gives the same verdict.
    """
    channels = {
        name: dataclasses.replace(
            channel, samples=np.ascontiguousarray(channel.samples, dtype="<f4").ravel()
        )
        for name, channel in measurement.channels.items()
    }
    return dataclasses.replace(measurement, channels=channels)


def pack(measurement: Measurement) -> bytes:
    """Return everything of a snapshot but its machine and time, see the module's layout."""
    header = {
        "channels": [
            [name, len(channel.samples), float(channel.rate_hz), channel.unit]
            for name, channel in measurement.channels.items()
        ],
        "values": {name: float(value) for name, value in measurement.values.items()},
        "speed_hz": measurement.speed_hz,
        "load": measurement.load,
    }
    samples = [channel.samples.tobytes() for channel in measurement.channels.values()]
    return b"".join([json.dumps(header).encode(), b"\n", *samples])


def unpack(content: bytes, machine: str, time: float) -> Measurement:
    """Return the snapshot that `pack` was given, bit by bit."""
    line_end = content.index(b"\n")  # JSON escapes line feeds: the first one ends the header
    header = json.loads(content[:line_end])
    samples = np.frombuffer(content, dtype="<f4", offset=line_end + 1)  # all channels, in a row
    channels, start = {}, 0
    for name, count, rate_hz, unit in header["channels"]:
        wave = samples[start : start + count].astype(np.float32)
        channels[name] = Channel(samples=wave, rate_hz=rate_hz, unit=unit)
        start += count
    return Measurement(
        machine=machine, time=time, channels=channels, values=header["values"],
        speed_hz=header["speed_hz"], load=header["load"],
    )  # fmt: skip


def fingerprint(content: bytes) -> str:
    """Return checksum and length of packed content, to tell a duplicate from another snapshot."""
    return f"{zlib.crc32(content):08x}-{len(content)}"


def verdict_to_row(verdict: Verdict) -> dict[str, Any]:
    """Return the columns of a verdict; its events have a table of their own."""
    more = {} if verdict.forecast is None else {"forecast": verdict.forecast}
    return {
        "state": verdict.state, "novelty": verdict.novelty, "novelty_limit": verdict.limit,
        "note": verdict.note, "more": json.dumps(more) if more else "",
    }  # fmt: skip


def verdict_from_row(row: Row, machine: str, events: Sequence[Event]) -> Verdict:
    """Return the verdict of its columns and events."""
    more = json.loads(row["more"]) if row["more"] else {}
    more.pop(CHAIN, None)
    return Verdict(
        machine=machine, time=row["seconds"], state=row["state"], novelty=row["novelty"],
        limit=row["novelty_limit"], note=row["note"], events=tuple(events), **more,
    )  # fmt: skip


def event_to_row(machine: int, time_us: int, origin: str, event: Event) -> dict[str, Any]:
    """Return the columns of an event."""
    return {
        "machine": machine, "time_us": time_us, "origin": origin, "kind": event.kind,
        "episode": event.episode, "text": event.text,
        "evidence": json.dumps(dict(event.evidence)),
    }  # fmt: skip


def event_from_row(row: Row) -> Event:
    """Return the event of its columns."""
    return Event(
        kind=row["kind"], episode=row["episode"], text=row["text"],
        evidence=json.loads(row["evidence"]),
    )  # fmt: skip


def action_from_row(row: Row) -> Action:
    """Return the operator's action of its columns."""
    return Action(
        kind=row["kind"], by=row["who"], why=row["why"], until=row["until"],
        applied=row["applied"], number=row["id"],
    )  # fmt: skip


class FeatureColumns:
    """Which features of a row are stored as levels and which as the spectrum.

    Attributes:
        levels: Names of the few features that people trend.
        spectrum: Names of the bands.
    """

    def __init__(self, names: Sequence[str]) -> None:
        wide = np.array([any(word in name for word in SPECTRUM_WORDS) for name in names], bool)
        self._levels, self._spectrum = np.flatnonzero(~wide), np.flatnonzero(wide)
        self.levels = [names[column] for column in self._levels.tolist()]
        self.spectrum = [names[column] for column in self._spectrum.tolist()]

    def split(self, row: NDArray[np.float32]) -> tuple[bytes, bytes]:
        """Return levels and spectrum of a row, shape (feature,), as bytes."""
        levels, spectrum = row[self._levels], row[self._spectrum]
        return levels.astype("<f4").tobytes(), spectrum.astype("<f4").tobytes()
