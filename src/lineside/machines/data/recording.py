"""The content of one waveform file, and its checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineside.core.errors import UserError

LEAST_SAMPLES = 64
FASTEST_HZ = 10_000.0
DEFAULT_UNIT = "g"
"""Unit of waveforms for which neither the file nor ``machine.json`` gives one."""
MILLISECONDS = 1e11
"""Larger times are not seconds since 1970 but milli-, micro- or nanoseconds."""
UNITS = {
    "gn": "g", "m/s^2": "m/s2", "m/s²": "m/s2", "m/s**2": "m/s2", "ms-2": "m/s2", "mm/s^2": "mm/s2",
    "mm/s²": "mm/s2", "ips": "in/s",
}  # fmt: skip
"""Other spellings of units."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Snapshots of one file as they are stored; None where the file does not say.

    Attributes:
        samples: Shape (snapshot, sample) by channel; times `scale` they are in the unit.
        rate_hz: Samples per second by channel.
        times: Seconds of each snapshot, shape (snapshot,).
        of_day: Whether `times` count from midnight because the file has no date.
        scale: Unit per stored number.
        units: Unit by channel, without channels that have none.
        speed_hz: Turns of the shaft per second, shape (snapshot,).
        load: Shape (snapshot,).
        values: Slow values by name, each of shape (snapshot,).
    """

    samples: Mapping[str, NDArray[Any]]
    rate_hz: Mapping[str, float | None]
    times: NDArray[np.float64] | None = None
    of_day: bool = False
    scale: float = 1.0
    units: Mapping[str, str] = field(default_factory=dict)
    speed_hz: NDArray[np.float64] | None = None
    load: NDArray[np.float64] | None = None
    values: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.samples.values())))


def check_recording(path: Path, recording: Recording) -> None:
    """Check that a recording has usable waveforms.

    Raises:
        UserError: if it has no waveform or a short one, complex numbers, or an impossible rate.
    """
    if not recording.samples or not len(recording):
        raise UserError(f"{path} has no waveform", "check the export")
    shortest = min(values.shape[1] for values in recording.samples.values())
    if shortest < LEAST_SAMPLES:
        raise UserError(
            f"{path} has {shortest} samples, at least {LEAST_SAMPLES} are needed",
            "a table of values needs a header that begins with time, and dates or seconds below it"
            if path.suffix.lower() in (".csv", ".txt")
            else "check the export",
        )
    if any(np.iscomplexobj(values) for values in recording.samples.values()):
        raise UserError(f"{path} has complex numbers", "save samples, not a spectrum")
    for name, rate in recording.rate_hz.items():
        if rate is not None and not (np.isfinite(rate) and rate > 0):
            raise UserError(
                f"{path}: {name} has a sample rate of {rate:g} Hz", "correct it in the file"
            )


def unit_of(text: object) -> str:
    """Return the spelling of a unit that is used here; empty for none."""
    unit = str(text or "").strip().strip("[]()")
    if unit == "G":
        return "g"
    return UNITS.get(unit.lower(), unit)


def plausible_speed(speed_hz: float | None) -> float | None:
    """Return the absolute speed; None for one that no shaft has."""
    if speed_hz is None or abs(speed_hz) > FASTEST_HZ:
        return None
    return abs(speed_hz)


def seconds_since_1970(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return seconds for times that may be milli-, micro- or nanoseconds since 1970."""
    finite = times[np.isfinite(times)]
    if not len(finite):
        return times
    greatest, factor = float(np.abs(finite).max()), 1.0
    while greatest * factor > MILLISECONDS:
        factor /= 1000.0
    return times * factor
