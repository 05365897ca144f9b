"""``machine.json``: facts about a machine that its files do not contain."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lineside.core.errors import UserError, unknown_key
from lineside.core.run.files import read_json
from lineside.machines.data.recording import unit_of

NAME = "machine.json"
POSITIVE = ("rate_hz", "interval_seconds")
GERMAN = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})([ T]\d{2}:\d{2}.*)?")
"""Day, month, year with dots; with slashes the order is ambiguous."""


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """Facts about one machine, all optional.

    Attributes:
        rate_hz: Samples per second, if the files do not say.
        interval_seconds: Time between snapshots, if the files have no times.
        unit: Unit of the waveforms; if empty, that of the file, or g.
        channels: Names of the channels, in the order of the columns.
        speed_hz: Turns of the shaft per second.
        load: Load in any unit.
        bearing: ``balls``, ``ball_mm``, ``pitch_mm`` and ``contact_degrees`` of the bearing.
        fault_from: Time (seconds, or a date) from which the fault is known to be present; before it
            the machine was healthy.
        failed_at: Time of the failure, from which lead times are counted back.
    """

    rate_hz: float | None = None
    interval_seconds: float | None = None
    unit: str = ""
    channels: tuple[str, ...] = ()
    speed_hz: float | None = None
    load: float | None = None
    bearing: Mapping[str, float] = field(default_factory=dict)
    fault_from: float | None = None
    failed_at: float | None = None


def read_sidecar(folder: Path) -> Sidecar:
    """Read the facts of the machine in a folder; empty without a ``machine.json``.

    Raises:
        UserError: for unknown keys and for values of the wrong kind.
    """
    path = folder / NAME
    if not path.exists():
        return Sidecar()
    facts = read_json(path)
    if not isinstance(facts, dict):
        raise UserError(f"{path} must contain a JSON object", 'e.g. {"rate_hz": 25600}')
    keys = [f.name for f in dataclasses.fields(Sidecar)]
    for key in facts:
        if key not in keys:
            raise unknown_key(path, key, keys)
    return Sidecar(**{key: _value(path, key, value) for key, value in facts.items()})


def _value(path: Path, key: str, value: Any) -> Any:
    if value is None:
        return None
    if key == "unit":
        return unit_of(value)
    if key == "channels":
        if not isinstance(value, list) or len({str(name) for name in value}) < len(value):
            raise UserError(f"{path}: channels is {value!r}", 'give different names: ["x", "y"]')
        return tuple(str(name) for name in value)
    if key == "bearing":
        return _bearing(path, value)
    if key in ("fault_from", "failed_at") and isinstance(value, str):
        return seconds_of(value, str(path))
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {key} is {value!r}", "give a number") from error
    if not math.isfinite(number) or (key in POSITIVE and number <= 0):
        raise UserError(f"{path}: {key} is {number:g}", "give a positive number")
    return number


def _bearing(path: Path, value: Any) -> dict[str, float]:
    try:
        return {str(name): float(size) for name, size in value.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: bearing is {value!r}", 'e.g. {"balls": 9, "ball_mm": 7.9, "pitch_mm": 38.5}'
        ) from error


def seconds_of(text: str, where: str) -> float:
    """Return the seconds since 1970 (UTC) of ``2004-02-16 03:12`` or ``16.2.2004 03:12``.

    Raises:
        UserError: if it is not such a date.
    """
    german = GERMAN.fullmatch(text)
    if german:
        day, month, year, clock = german.groups()
        text = f"{year}-{month:0>2}-{day:0>2}{clock or ''}"
    try:
        date = datetime.fromisoformat(text)
    except ValueError as error:
        raise UserError(
            f"{where}: {text!r} is not a date", "write it like 2004-02-16 03:12:39"
        ) from error
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
