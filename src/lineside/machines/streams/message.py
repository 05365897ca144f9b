"""One snapshot as bytes, the body of an HTTP request and of an MQTT message: NPZ or JSON.

NPZ (compact; what `encode` writes): arrays ``machine`` and ``time``; ``channel.NAME`` with
``rate_hz.NAME`` and, if it is not g, ``unit.NAME`` for each channel; ``value.NAME`` for each slow
value; ``speed_hz`` and ``load`` where they are known. JSON: ``{"machine": ..., "time": ...,
"channels": {NAME: {"samples": [...], "rate_hz": ..., "unit": ...}}, "values": {NAME: ...},
"speed_hz": ..., "load": ...}``, ``null`` for a missing sample or value. Time is in seconds since
1970 (UTC). Both carry the same numbers bit by bit.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from lineside.core.errors import UserError, did_you_mean
from lineside.machines.data.measurement import Channel, Measurement, Waveform
from lineside.machines.data.record import (
    DEFAULT_UNIT,
    LEAST_SAMPLES,
    plausible_speed,
    unit_of,
)

MOST_BYTES = 32 * 2**20
"""Of one message, and of what it unpacks to."""
MOST_CHANNELS = 256
LONGEST_NAME = 200
KEYS = ("machine", "time", "channels", "values", "speed_hz", "load")
CHANNEL_KEYS = ("samples", "rate_hz", "unit")
GROUPS = ("channel", "rate_hz", "unit", "value")
"""What stands before the dot in names of arrays."""


def encode(measurement: Measurement, kind: Literal["npz", "json"] = "npz") -> bytes:
    """Return a snapshot as a message."""
    if kind == "json":
        return json.dumps(_as_json(measurement), allow_nan=False).encode()
    arrays: dict[str, Any] = {"machine": measurement.machine, "time": measurement.time}
    for name, channel in measurement.channels.items():
        arrays[f"channel.{name}"] = channel.samples
        arrays[f"rate_hz.{name}"] = channel.rate_hz
        arrays[f"unit.{name}"] = channel.unit
    for name, value in measurement.values.items():
        arrays[f"value.{name}"] = value
    for name in ("speed_hz", "load"):
        if getattr(measurement, name) is not None:
            arrays[name] = getattr(measurement, name)
    body = io.BytesIO()
    np.savez(body, **arrays)
    return body.getvalue()


def decode(body: bytes, *, most_bytes: int = MOST_BYTES) -> Measurement:
    """Return the snapshot of a message; NPZ and JSON are told apart by the first bytes.

    Raises:
        UserError: in one line, if it is too large, damaged, incomplete, or holds what no snapshot
            has.
    """
    if not body:
        raise UserError("the message is empty", "send a snapshot as NPZ or JSON")
    if len(body) > most_bytes:
        raise too_large(most_bytes)
    if body[:4] == b"PK\x03\x04":
        facts = _from_npz(body, most_bytes)
    elif body.lstrip()[:1] == b"{":
        facts = _from_json(body)
    else:
        raise UserError("the message is neither NPZ nor JSON", "send a snapshot as NPZ or JSON")
    return _measurement(facts)


def too_large(most_bytes: int) -> UserError:
    """Return what is told of a message beyond the limit."""
    return UserError(
        f"the message is larger than {most_bytes / 2**20:g} MB", "send fewer samples at a time"
    )


def _as_json(measurement: Measurement) -> dict[str, Any]:
    found: dict[str, Any] = {"machine": measurement.machine, "time": measurement.time}
    if measurement.channels:
        found["channels"] = {
            name: {
                "samples": [_or_none(v) for v in channel.samples.tolist()],
                "rate_hz": channel.rate_hz, "unit": channel.unit,
            }
            for name, channel in measurement.channels.items()
        }  # fmt: skip
    if measurement.values:
        found["values"] = {name: _or_none(v) for name, v in measurement.values.items()}
    for name in ("speed_hz", "load"):
        if getattr(measurement, name) is not None:
            found[name] = getattr(measurement, name)
    return found


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _from_json(body: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the message is no JSON: {error}", "check how it is written") from error
    _only(facts, KEYS, "the message")
    return dict(facts)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number, null stands for a missing one")


def _from_npz(body: bytes, most_bytes: int) -> dict[str, Any]:
    """Facts as the JSON form has them, from arrays; nothing in them is ever executed."""
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > most_bytes:
            raise too_large(most_bytes)
        with np.load(io.BytesIO(body), allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except UserError:
        raise
    except Exception as error:  # damaged archives raise many kinds
        raise UserError(
            f"the message is a damaged NPZ: {' '.join(str(error).split())}", "send it again"
        ) from error
    facts: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise UserError(f"{_short(key)} in the NPZ is no array", "write it with numpy.savez")
        group, dot, name = key.partition(".")
        if dot and group in groups:
            groups[group][name] = array if group == "channel" else _scalar(key, array)
        else:
            facts[key] = _scalar(key, array) if key in KEYS else array
    _only(facts, ("machine", "time", "speed_hz", "load"), "the message", ("channel.NAME",))
    for group in ("rate_hz", "unit"):
        _only(groups[group], tuple(groups["channel"]), f"{group}.NAME")
    channels = {}
    for name, samples in groups["channel"].items():
        channels[name] = {"samples": samples}
        for group in ("rate_hz", "unit"):
            if name in groups[group]:
                channels[name][group] = groups[group][name]
    return {**facts, "channels": channels, "values": groups["value"]}


def _scalar(key: str, array: Any) -> Any:
    if array.size != 1:
        raise UserError(f"{key} has {array.size} entries", "it is a single one")
    return array.reshape(()).item()


def _only(facts: Any, known: tuple[str, ...], where: str, also: tuple[str, ...] = ()) -> None:
    """Refuse what is no object, and keys that nobody knows, with the nearest that is known."""
    if not isinstance(facts, Mapping):
        raise UserError(f"{where} is no object", f"its keys are {', '.join((*known, *also))}")
    for key in facts:
        if key not in known:
            near = did_you_mean(key, known).removeprefix(", ")
            hint = near or f"known: {', '.join((*known, *also))}"
            raise UserError(f"{where} has the unknown key {_short(key)}", hint)


def _measurement(facts: Mapping[str, Any]) -> Measurement:
    for key in ("machine", "time"):
        if key not in facts:
            raise UserError(f"the message has no {key}", f"it needs {key}")
    channels, values = facts.get("channels") or {}, facts.get("values") or {}
    _objects("channels", channels)
    _objects("values", values)
    if not channels and not values:
        raise UserError("the message has neither channels nor values", "it needs one of them")
    if len(channels) > MOST_CHANNELS:
        raise UserError(f"the message has {len(channels)} channels", f"{MOST_CHANNELS} at most")
    return Measurement(
        machine=_machine(facts["machine"]),
        time=_number("time", facts["time"]),
        channels={_name(name): _channel(name, entry) for name, entry in channels.items()},
        values={_name(n): _number(f"values.{_short(n)}", v, gap=True) for n, v in values.items()},
        speed_hz=plausible_speed(_known("speed_hz", facts)),
        load=_known("load", facts),
    )


def _objects(key: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise UserError(f"{key} is no object", "it holds entries by name")


def _channel(name: str, entry: Any) -> Channel:
    _only(entry, CHANNEL_KEYS, f"channel {_short(name)}")
    for key in ("samples", "rate_hz"):
        if key not in entry:
            raise UserError(f"channel {_short(name)} has no {key}", f"it needs {key}")
    unit = entry.get("unit", DEFAULT_UNIT)
    if not isinstance(unit, str):
        raise UserError(f"channel {_short(name)} has the unit {_short(unit)}", "it is a word")
    rate = _number(f"rate_hz of {_short(name)}", entry["rate_hz"])
    if rate <= 0:
        raise UserError(f"rate_hz of {_short(name)} is {rate:g}", "it is positive")
    unit = unit_of(unit) or DEFAULT_UNIT
    return Channel(samples=_samples(name, entry["samples"]), rate_hz=rate, unit=unit)


def _samples(name: str, given: Any) -> Waveform:
    """Samples as float32; null becomes NaN, as where a sensor gave nothing."""
    where = f"channel {_short(name)}"
    if isinstance(given, list):
        if not all(v is None or type(v) in (int, float) for v in given):
            raise UserError(f"{where} has samples that are no numbers", "numbers or null")
        try:
            given = np.array([np.nan if v is None else v for v in given], dtype=np.float64)
        except OverflowError:
            raise UserError(f"{where} has samples that are too large", "check them") from None
    if not isinstance(given, np.ndarray) or given.ndim != 1:
        raise UserError(f"{where}: samples are no list", "one number after the other")
    if not (np.issubdtype(given.dtype, np.floating) or np.issubdtype(given.dtype, np.integer)):
        raise UserError(f"{where} has samples of type {given.dtype}", "numbers, not complex")
    if len(given) < LEAST_SAMPLES:
        raise UserError(f"{where} has {len(given)} samples", f"{LEAST_SAMPLES} are the fewest")
    with np.errstate(over="ignore"):
        return given.astype(np.float32)


def _machine(name: Any) -> str:
    found = _name(name, "machine")
    if "/" in found or "\\" in found or found.startswith("."):
        raise UserError(f"machine is {_short(found)}", "a name, not a path")
    return found


def _name(name: Any, what: str = "a name") -> str:
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise UserError(f"{what} is {_short(name)}", "it is printable text, not empty")
    if len(name) > LONGEST_NAME:
        raise UserError(f"{what} has {len(name)} letters", f"{LONGEST_NAME} at most")
    return name


def _known(key: str, facts: Mapping[str, Any]) -> float | None:
    return None if facts.get(key) is None else _number(key, facts[key])


def _number(where: str, value: Any, *, gap: bool = False) -> float:
    """Return a finite number; where there may be gaps, None and NaN are NaN."""
    if gap and value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{where} is {_short(value)}", "it is a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) and not gap:
        raise UserError(f"{where} is {number}", "it is a finite number")
    return number if math.isfinite(number) else math.nan


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
