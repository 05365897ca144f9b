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
from typing import Any

import numpy as np

from lineside.core.errors import UserError, did_you_mean
from lineside.machines.data.measurement import Channel, Measurement, Waveform
from lineside.machines.data.recording import DEFAULT_UNIT, LEAST_SAMPLES, plausible_speed, unit_of

MAX_MESSAGE_BYTES = 32 * 2**20
"""Of one message, and of what it unpacks to."""
MAX_CHANNELS = 256
MAX_NAME_LENGTH = 200
KEYS = ("machine", "time", "channels", "values", "speed_hz", "load")
CHANNEL_KEYS = ("samples", "rate_hz", "unit")
PREFIXES = ("channel", "rate_hz", "unit", "value")
"""What precedes the dot in names of arrays."""


def decode(body: bytes) -> Measurement:
    """Return the snapshot of a message; NPZ and JSON are distinguished by the first bytes.

    Raises:
        UserError: in one line, if it is too large, damaged, incomplete, or has unknown keys.
    """
    if not body:
        raise UserError("the message is empty", "send a snapshot as NPZ or JSON")
    if len(body) > MAX_MESSAGE_BYTES:
        raise too_large()
    if body[:4] == b"PK\x03\x04":  # a ZIP archive, which is what NPZ is
        fields = _from_npz(body)
    elif body.lstrip()[:1] == b"{":
        fields = _from_json(body)
    else:
        raise UserError("the message is neither NPZ nor JSON", "send a snapshot as NPZ or JSON")
    return _measurement(fields)


def too_large() -> UserError:
    """Return the error of a message beyond the limit."""
    megabytes = MAX_MESSAGE_BYTES / 2**20
    return UserError(f"the message is larger than {megabytes:g} MB", "send fewer samples at a time")


def _from_json(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the message is not JSON: {error}", "check how it is written") from error
    _check_keys(fields, KEYS, "the message")
    return dict(fields)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number, null stands for a missing one")


def _from_npz(body: bytes) -> dict[str, Any]:
    """Return the fields of the JSON form from arrays; nothing in them is ever executed."""
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if (
            unpacked > MAX_MESSAGE_BYTES
        ):  # before anything is unpacked: a small archive may hold much
            raise too_large()
        with np.load(io.BytesIO(body), allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except UserError:
        raise
    except Exception as error:  # damaged archives raise many kinds
        raise UserError(
            f"the message is a damaged NPZ: {' '.join(str(error).split())}", "send it again"
        ) from error
    fields: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {prefix: {} for prefix in PREFIXES}
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise UserError(f"{_shorten(key)} in the NPZ is not an array", "use numpy.savez")
        prefix, dot, name = key.partition(".")
        if dot and prefix in groups:
            groups[prefix][name] = array if prefix == "channel" else _scalar(key, array)
        else:
            fields[key] = _scalar(key, array) if key in KEYS else array
    _check_keys(fields, ("machine", "time", "speed_hz", "load"), "the message", ("channel.NAME",))
    channels: dict[str, dict[str, Any]] = {
        name: {"samples": samples} for name, samples in groups["channel"].items()
    }
    for prefix in ("rate_hz", "unit"):
        _check_keys(groups[prefix], tuple(channels), f"{prefix}.NAME")
        for name, value in groups[prefix].items():
            channels[name][prefix] = value
    return {**fields, "channels": channels, "values": groups["value"]}


def _scalar(key: str, array: Any) -> Any:
    if array.size != 1:
        raise UserError(f"{key} has {array.size} entries", "give one")
    return array.reshape(()).item()


def _check_keys(
    fields: Any, known: tuple[str, ...], where: str, also: tuple[str, ...] = ()
) -> None:
    """Refuse what is not an object, and unknown keys with the nearest that is known."""
    if not isinstance(fields, Mapping):
        raise UserError(f"{where} is not an object", f"its keys are {', '.join((*known, *also))}")
    for key in fields:
        if key not in known:
            near = did_you_mean(key, known).removeprefix(", ")
            hint = near or f"known: {', '.join((*known, *also))}"
            raise UserError(f"{where} has the unknown key {_shorten(key)}", hint)


def _measurement(fields: Mapping[str, Any]) -> Measurement:
    for key in ("machine", "time"):
        if key not in fields:
            raise UserError(f"the message has no {key}", f"it needs {key}")
    channels, values = fields.get("channels") or {}, fields.get("values") or {}
    for key, group in (("channels", channels), ("values", values)):
        if not isinstance(group, Mapping):
            raise UserError(f"{key} is not an object", "it holds entries by name")
    if not channels and not values:
        raise UserError("the message has neither channels nor values", "it needs one of them")
    if len(channels) > MAX_CHANNELS:
        raise UserError(f"the message has {len(channels)} channels", f"{MAX_CHANNELS} at most")
    return Measurement(
        machine=_machine(fields["machine"]),
        time=_number("time", fields["time"]),
        channels={_name(name): _channel(name, entry) for name, entry in channels.items()},
        values={_name(n): _number(f"values.{_shorten(n)}", v, gap=True) for n, v in values.items()},
        speed_hz=plausible_speed(_optional_number("speed_hz", fields)),
        load=_optional_number("load", fields),
    )


def _channel(name: str, entry: Any) -> Channel:
    _check_keys(entry, CHANNEL_KEYS, f"channel {_shorten(name)}")
    for key in ("samples", "rate_hz"):
        if key not in entry:
            raise UserError(f"channel {_shorten(name)} has no {key}", f"it needs {key}")
    unit = entry.get("unit", DEFAULT_UNIT)
    if not isinstance(unit, str):
        raise UserError(f"channel {_shorten(name)} has the unit {_shorten(unit)}", "give a word")
    rate = _number(f"rate_hz of {_shorten(name)}", entry["rate_hz"])
    if rate <= 0:
        raise UserError(f"rate_hz of {_shorten(name)} is {rate:g}", "it must be positive")
    unit = unit_of(unit) or DEFAULT_UNIT
    return Channel(samples=_samples(name, entry["samples"]), rate_hz=rate, unit=unit)


def _samples(name: str, samples: Any) -> Waveform:
    """Return samples as float32, shape (sample,); null becomes NaN: the sensor gave nothing."""
    where = f"channel {_shorten(name)}"
    if isinstance(samples, list):
        if not all(v is None or type(v) in (int, float) for v in samples):
            raise UserError(f"{where} has samples that are not numbers", "give numbers or null")
        try:
            samples = np.array([np.nan if v is None else v for v in samples], dtype=np.float64)
        except OverflowError:
            raise UserError(f"{where} has samples that are too large", "check them") from None
    if not isinstance(samples, np.ndarray) or samples.ndim != 1:
        raise UserError(f"{where}: samples are not a list", "give one number after the other")
    if not np.issubdtype(samples.dtype, np.floating) and not np.issubdtype(
        samples.dtype, np.integer
    ):
        raise UserError(f"{where} has samples of type {samples.dtype}", "give real numbers")
    if len(samples) < LEAST_SAMPLES:
        raise UserError(f"{where} has {len(samples)} samples", f"give {LEAST_SAMPLES} at least")
    with np.errstate(over="ignore"):
        return samples.astype(np.float32)


def _machine(name: Any) -> str:
    name = _name(name, "machine")
    if "/" in name or "\\" in name or name.startswith("."):
        raise UserError(f"machine is {_shorten(name)}", "give a name, not a path")
    return str(name)


def _name(name: Any, what: str = "a name") -> str:
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise UserError(f"{what} is {_shorten(name)}", "give printable text, not empty")
    if len(name) > MAX_NAME_LENGTH:
        raise UserError(f"{what} has {len(name)} characters", f"{MAX_NAME_LENGTH} at most")
    return name


def _optional_number(key: str, fields: Mapping[str, Any]) -> float | None:
    return None if fields.get(key) is None else _number(key, fields[key])


def _number(where: str, value: Any, *, gap: bool = False) -> float:
    """Return a finite number; where there may be gaps, None and NaN are NaN."""
    if gap and value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{where} is {_shorten(value)}", "give a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) and not gap:
        raise UserError(f"{where} is {number}", "give a finite number")
    return number if math.isfinite(number) else math.nan


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
