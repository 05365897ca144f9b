"""What one file of waveforms holds, and what is refused about it."""

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
"""Of waveforms where nobody says one."""
MILLISECONDS = 1e11
"""Seconds since 1970 never reach this; smaller units of the clock do."""
UNITS = {
    "gn": "g", "m/s^2": "m/s2", "m/s²": "m/s2", "m/s**2": "m/s2", "ms-2": "m/s2", "mm/s^2": "mm/s2",
    "mm/s²": "mm/s2", "ips": "in/s",
}  # fmt: skip
"""Other ways to write a unit."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Snapshots of one file, as they are stored there.

    Attributes:
        samples: Shape (snapshot, sample) by channel name, in `unit` once multiplied by `scale`.
        rate_hz: Samples per second by channel; None where the file does not say.
        times: Seconds of each snapshot, None where the file does not say.
        of_day: Whether `times` count from midnight because the file tells no date.
        scale: Unit per stored number.
        units: Unit by channel, where the file says one.
        speed_hz: Turns per second of each snapshot, None where the file does not say.
        load: Of each snapshot, None where the file does not say.
        values: Slow values of each snapshot by name, each of shape (snapshot,).
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


def check_recording(path: Path, record: Recording) -> None:
    """Refuse a record that nothing can be made of.

    Raises:
        UserError: if it holds no waveform or a short one, complex numbers, or an impossible rate.
    """
    if not record.samples or not len(record):
        raise UserError(f"{path} holds no waveform", "check what was exported")
    shortest = min(values.shape[1] for values in record.samples.values())
    if shortest < LEAST_SAMPLES:
        raise UserError(
            f"{path} has {shortest} samples, at least {LEAST_SAMPLES} are needed",
            "a table of values needs a header whose first name is time, and dates or seconds there"
            if path.suffix.lower() in (".csv", ".txt")
            else "check what was exported",
        )
    if any(np.iscomplexobj(values) for values in record.samples.values()):
        raise UserError(f"{path} holds complex numbers", "a waveform is real: save the samples")
    for name, rate in record.rate_hz.items():
        if rate is not None and not (np.isfinite(rate) and rate > 0):
            raise UserError(
                f"{path} gives {name} a sample rate of {rate:g} Hz", "correct it in the file"
            )


def unit_of(text: object) -> str:
    """Return a unit in the way it is written here; empty for none."""
    unit = str(text or "").strip().strip("[]()")
    if unit == "G":
        return "g"
    return UNITS.get(unit.lower(), unit)


def plausible_speed(speed_hz: float | None) -> float | None:
    """Return a speed: backwards is as fast as forwards; what no shaft turns is not known."""
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
