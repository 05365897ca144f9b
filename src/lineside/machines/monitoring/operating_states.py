"""Operating states: standing still, running as learned, or running as never before.

A machine that runs at several speeds or loads is not more novel at one of them. What is learned of
speed and load is taken off every feature by a linear model of the logarithm of the speed, of its
square and of the load: features are logarithms of amplitudes, which grow with a power of the
speed. Outside of what was learned that power is not known: there features without a unit
(kurtosis, crest, lines of the envelope over their neighbourhood) are judged, which a healthy
machine keeps at every speed, and amplitudes only as far as they leave what any speed and load
could explain, between no effect and the square of the speed (imbalance) times the load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lineside.machines.data.measurement import Measurement
from lineside.machines.models.detector import Rows

Running = Literal["learned", "unknown", "idle"]

MARGIN = 0.03
"""Speeds this far outside the learned ones, relatively, still count as learned."""
VARIES = 0.02
"""Speeds or loads that spread less than this, relatively, are one speed or load."""
IDLE_SPEED = 0.05
"""Below this share of the usual speed a machine stands still."""
IDLE_LEVEL = 0.3
"""So does one whose every channel is below this share of its usual level."""
RIDGE = 1e-3
SPEED_POWER = 2.0
"""Amplitudes of a healthy machine grow with at least the zeroth and at most this power of speed."""
LOAD_POWER = 1.0
"""The same for the load."""
AMPLITUDES = ("rms", "velocity", "envelope_level")
"""Amplitudes that are judged at unlearned speeds and loads."""
UNITLESS = (
    "crest",
    "kurtosis",
    "skew",
    "shape",
    "impulse",
    "clearance",
    "envelope_kurtosis",
    "envelope_line",
)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What was learned of a machine's speed, load and level.

    Attributes:
        speed_hz: Lowest and highest speed learned, None if speeds are not known.
        load: Lowest and highest load learned, None if loads are not known.
        level: Usual logarithm of the rms of each channel while it runs, by feature name.
        slope: What each driver adds to each feature, shape (driver, feature).
        centre: Mean of each driver, shape (driver,).
        drivers: Which drivers there are: ``speed``, ``speed2``, ``load``.
        usual: Median of each feature without what the drivers explain, shape (feature,).
        amplitudes: Places of the amplitudes that unlearned speeds and loads are judged by.
    """

    speed_hz: tuple[float, float] | None
    load: tuple[float, float] | None
    level: dict[str, float]
    slope: NDArray[np.float64]
    centre: NDArray[np.float64]
    drivers: tuple[str, ...]
    usual: NDArray[np.float64]
    amplitudes: tuple[int, ...]

    def running(self, measurement: Measurement, row: Rows, names: Sequence[str]) -> Running:
        """Say how the machine runs.

        Args:
            measurement: Tells speed and load where they are known.
            row: Its features, shape (feature,).
            names: Their names.
        """
        if self._stands_still(measurement, row, names):
            return "idle"
        if _is_outside(measurement.speed_hz, self.speed_hz):
            return "unknown"
        if _is_outside(measurement.load, self.load):
            return "unknown"
        known = {"speed": measurement.speed_hz, "load": measurement.load}
        return (
            "unknown" if any(known.get(name, 0.0) is None for name in self.drivers) else "learned"
        )

    def residual(self, measurement: Measurement, row: Rows) -> Rows:
        """Return the features without what speed and load explain, shape (feature,).

        Where speed or load were never learned, the nearest learned ones explain what they can, and
        amplitudes lose what the rest of the way could at most.
        """
        speed, faster = _nearest(measurement.speed_hz, self.speed_hz, "speed" in self.drivers)
        load, heavier = _nearest(measurement.load, self.load, "load" in self.drivers)
        left = row
        if self.drivers:
            x = _drivers(speed, load, self.drivers) - self.centre
            left = (row - x @ self.slope).astype(np.float32)
        if faster == 0.0 and heavier == 0.0:
            return left
        ends = (0.0, SPEED_POWER * faster), (0.0, LOAD_POWER * heavier)
        left = np.array(left, dtype=np.float32)
        places = list(self.amplitudes)
        above = left[places] - self.usual[places]
        explained = np.clip(above, sum(map(min, ends)), sum(map(max, ends)))
        left[places] = self.usual[places] + above - explained
        return left

    def rise(self, left: Rows, names: Sequence[str]) -> float:
        """Return the logarithm by which the channels are louder than usual, on average.

        Args:
            left: What `residual` returned.
            names: Names of the features.

        Returns:
            NaN without waveforms, or where a channel has no level.
        """
        places = [names.index(name) for name in self.level]
        return float((left[places] - self.usual[places]).mean()) if places else float("nan")

    def _stands_still(self, measurement: Measurement, row: Rows, names: Sequence[str]) -> bool:
        if measurement.speed_hz is not None and self.speed_hz is not None:
            return measurement.speed_hz < IDLE_SPEED * self.speed_hz[1]
        limit = np.log(IDLE_LEVEL)
        levels = [row[names.index(name)] - usual for name, usual in self.level.items()]
        return bool(levels) and max(levels) < limit


def learn_operation(
    measurements: Sequence[Measurement], rows: Rows, names: Sequence[str]
) -> tuple[Operation, NDArray[np.bool_]]:
    """Learn from healthy snapshots; return what was learned and which of them were running.

    Args:
        measurements: Healthy snapshots.
        rows: Their features, shape (snapshot, feature).
        names: Names of the features.
    """
    speeds = _known([m.speed_hz for m in measurements])
    loads = _known([m.load for m in measurements])
    # Slow values are no logarithms, whatever they are called.
    level_names = [n for n in names if n.endswith(".rms") and not n.startswith("value.")]
    running = _running_rows(speeds, rows, names, level_names)
    moving = None if speeds is None else speeds[running]
    loaded = None if loads is None else loads[running]
    drivers = [name for name, values in (("speed", moving), ("load", loaded)) if _varies(values)]
    if "speed" in drivers:
        drivers.append("speed2")
    x = np.array(
        [
            _drivers(m.speed_hz, m.load, drivers)
            for m, runs in zip(measurements, running, strict=True)
            if runs
        ]
    ).reshape(int(running.sum()), len(drivers))
    centre = x.mean(axis=0)
    own = rows[running].astype(np.float64)
    centred = x - centre
    weight = centred.T @ centred + RIDGE * len(x) * np.eye(len(drivers))
    slope = np.linalg.solve(weight, centred.T @ np.nan_to_num(own - np.nanmean(own, axis=0)))
    operation = Operation(
        speed_hz=_range(moving), load=_range(loaded),
        level={n: float(np.median(own[:, names.index(n)])) for n in level_names},
        slope=slope, centre=centre, drivers=tuple(drivers),
        usual=np.median(own - centred @ slope, axis=0), amplitudes=tuple(amplitudes(names)),
    )  # fmt: skip
    return operation, running


def unitless(names: Sequence[str]) -> list[int]:
    """Return the places of features that a healthy machine keeps at every speed and load."""
    found = []
    for place, name in enumerate(names):
        kind = name.rpartition(".")[2]
        line = kind.startswith("envelope_") and kind.split("_", 1)[1].startswith(
            ("outer", "inner", "ball")
        )
        if not name.startswith("value.") and (kind in UNITLESS or line):
            found.append(place)
    return found


def amplitudes(names: Sequence[str]) -> list[int]:
    """Return the places of amplitudes that unlearned speeds and loads are judged by."""
    return [
        place for place, name in enumerate(names)
        if not name.startswith("value.") and name.rpartition(".")[2] in AMPLITUDES
    ]  # fmt: skip


def _is_outside(value: float | None, learned: tuple[float, float] | None) -> bool:
    if learned is None or value is None:
        return False
    room = MARGIN * max(abs(learned[0]), abs(learned[1]))
    return not learned[0] - room <= value <= learned[1] + room


def _nearest(
    value: float | None, learned: tuple[float, float] | None, drives: bool
) -> tuple[float | None, float]:
    """Return the learned value nearest to an unlearned one, and the logarithm of their ratio.

    The ratio of a driver that is not known, or of opposite signs, is infinite: it explains
    everything.
    """
    if learned is not None and value is None and drives:
        return 0.5 * (learned[0] + learned[1]), np.inf
    if learned is None or value is None or not _is_outside(value, learned):
        return value, 0.0
    edge = min(max(value, learned[0]), learned[1])
    return edge, float(np.log(value / edge)) if value * edge > 0 else np.inf


def _known(values: Sequence[float | None]) -> NDArray[np.float64] | None:
    if any(value is None for value in values):
        return None
    return np.array(values, dtype=np.float64)


def _running_rows(
    speeds: NDArray[np.float64] | None, rows: Rows, names: Sequence[str], levels: Sequence[str]
) -> NDArray[np.bool_]:
    """Which snapshots run: by speed where it is known, else by the level of the channels."""
    if speeds is not None and speeds.max() > 0:
        return np.asarray(speeds >= IDLE_SPEED * speeds.max())
    if not levels:
        return np.ones(len(rows), dtype=bool)
    level = rows[:, [names.index(name) for name in levels]].max(axis=1)
    return np.asarray(level >= np.quantile(level, 0.75) + np.log(IDLE_LEVEL))


def _varies(values: NDArray[np.float64] | None) -> bool:
    if values is None or len(values) < 2:
        return False
    return float(np.ptp(values)) > VARIES * max(float(np.abs(values).max()), 1e-12)


def _range(values: NDArray[np.float64] | None) -> tuple[float, float] | None:
    return None if values is None or not len(values) else (float(values.min()), float(values.max()))


def _drivers(
    speed_hz: float | None, load: float | None, names: Sequence[str]
) -> NDArray[np.float64]:
    """Values of the drivers: logarithm of the speed and its square, and the load."""
    log = float(np.log(max(speed_hz or 1e-6, 1e-6)))
    known = {"speed": log, "speed2": log * log, "load": 0.0 if load is None else load}
    return np.array([known[name] for name in names], dtype=np.float64)
