"""Operating states: at standstill, at trained operating conditions, or at others.

Features are logarithms of amplitudes, and amplitudes grow with a power of the speed. The effect of
speed and load is therefore a linear regression of each feature x on the drivers d,

    x = slope . (d - mean d) + residual,    d = (log speed, (log speed)^2, load),

fitted to healthy snapshots and subtracted from every snapshot, so that a machine is not more novel
at one of its speeds. Outside of the trained range the power is not known. There, features without
a unit (kurtosis, crest factor, envelope lines relative to their neighbourhood) are judged, which
do not change with speed on a healthy machine; amplitudes are judged only as far as they exceed
what any speed and load can explain, between no effect and the square of the speed (unbalance)
times the load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lineside.machines.data.measurement import Measurement
from lineside.machines.models.detector import Rows

OperatingState = Literal["learned", "unknown", "idle"]
"""At trained conditions, at other speeds or loads (or at unknown ones), at standstill."""
Range = tuple[float, float]

MARGIN = 0.03
"""A speed or load this far outside the trained range, relatively, still counts as trained."""
VARIES = 0.02
"""Speeds or loads that differ by less than this, relatively, count as constant."""
IDLE_SPEED = 0.05
"""Below this share of the highest trained speed a machine is at standstill."""
IDLE_LEVEL = 0.3
"""It is also at standstill if every channel is below this share of its usual level."""
RIDGE = 1e-3
SPEED_POWER = 2.0
"""Amplitudes of a healthy machine grow with a power of the speed between 0 and this."""
LOAD_POWER = 1.0
"""The same for the load."""
AMPLITUDES = ("rms", "velocity", "envelope_level")
"""Amplitudes that are judged outside of the trained range."""
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
class OperatingModel:
    """Trained operating conditions of a machine, and their effect on its features.

    Attributes:
        speed_range_hz: Lowest and highest trained speed, None if speeds are not known.
        load_range: Lowest and highest trained load, None if loads are not known.
        levels: Median log rms of each channel while running, by feature name.
        slopes: Regression coefficients, shape (driver, feature).
        driver_means: Mean of each driver, shape (driver,).
        drivers: Names of the drivers: ``speed``, ``speed2``, ``load``.
        medians: Median of each compensated feature, shape (feature,).
        amplitude_columns: Columns of the amplitudes that are judged outside of the trained range.
    """

    speed_range_hz: Range | None
    load_range: Range | None
    levels: dict[str, float]
    slopes: NDArray[np.float64]
    driver_means: NDArray[np.float64]
    drivers: tuple[str, ...]
    medians: NDArray[np.float64]
    amplitude_columns: tuple[int, ...]

    def state_of(self, measurement: Measurement, row: Rows, names: Sequence[str]) -> OperatingState:
        """Return the operating state of a snapshot.

        Args:
            measurement: Has speed and load where they are known.
            row: Its features, shape (feature,).
            names: Names of the features.
        """
        if self._is_idle(measurement, row, names):
            return "idle"
        if _is_outside(measurement.speed_hz, self.speed_range_hz):
            return "unknown"
        if _is_outside(measurement.load, self.load_range):
            return "unknown"
        stated = {"speed": measurement.speed_hz, "load": measurement.load}
        return (
            "unknown" if any(stated.get(name, 0.0) is None for name in self.drivers) else "learned"
        )

    def compensate(self, measurement: Measurement, row: Rows) -> Rows:
        """Return the features without the effect of speed and load, (feature,) -> (feature,).

        Outside of the trained range the regression is evaluated at the nearest trained value;
        amplitudes are then moved towards their median by as much as the remaining change of speed
        and load can explain.
        """
        speed, log_speed = _nearest(
            measurement.speed_hz, self.speed_range_hz, "speed" in self.drivers
        )
        load, log_load = _nearest(measurement.load, self.load_range, "load" in self.drivers)
        residual = row
        if self.drivers:
            x = _driver_values(speed, load, self.drivers) - self.driver_means
            residual = (row - x @ self.slopes).astype(np.float32)
        if log_speed == 0.0 and log_load == 0.0:
            return residual
        # An amplitude may have changed by exp(p log_speed + q log_load), 0 <= p <= 2, 0 <= q <= 1.
        ends = (0.0, SPEED_POWER * log_speed), (0.0, LOAD_POWER * log_load)
        residual = np.array(residual, dtype=np.float32)
        columns = list(self.amplitude_columns)
        deviation = residual[columns] - self.medians[columns]
        explained = np.clip(deviation, sum(map(min, ends)), sum(map(max, ends)))
        residual[columns] = self.medians[columns] + deviation - explained
        return residual

    def level_rise(self, compensated: Rows, names: Sequence[str]) -> float:
        """Return the mean log ratio of the channels' rms to their healthy level.

        Args:
            compensated: What `compensate` returned, shape (feature,).
            names: Names of the features.

        Returns:
            NaN without waveforms, or if a channel has no level.
        """
        columns = [names.index(name) for name in self.levels]
        if not columns:
            return float("nan")
        return float((compensated[columns] - self.medians[columns]).mean())

    def _is_idle(self, measurement: Measurement, row: Rows, names: Sequence[str]) -> bool:
        if measurement.speed_hz is not None and self.speed_range_hz is not None:
            return measurement.speed_hz < IDLE_SPEED * self.speed_range_hz[1]
        limit = np.log(IDLE_LEVEL)
        rises = [row[names.index(name)] - level for name, level in self.levels.items()]
        return bool(rises) and max(rises) < limit


def fit_operating_model(
    measurements: Sequence[Measurement], rows: Rows, names: Sequence[str]
) -> tuple[OperatingModel, NDArray[np.bool_]]:
    """Fit the operating model to healthy snapshots; also return which of them were running.

    Args:
        measurements: Healthy snapshots.
        rows: Their features, shape (snapshot, feature).
        names: Names of the features.
    """
    speeds = _all_or_none([m.speed_hz for m in measurements])
    loads = _all_or_none([m.load for m in measurements])
    # Slow values are no logarithms, whatever their names.
    level_names = [n for n in names if n.endswith(".rms") and not n.startswith("value.")]
    running = _running_rows(speeds, rows, names, level_names)
    running_speeds = None if speeds is None else speeds[running]
    running_loads = None if loads is None else loads[running]
    drivers = [
        name
        for name, values in (("speed", running_speeds), ("load", running_loads))
        if _varies(values)
    ]
    if "speed" in drivers:
        drivers.append("speed2")
    x = np.array(
        [
            _driver_values(m.speed_hz, m.load, drivers)
            for m, runs in zip(measurements, running, strict=True)
            if runs
        ]
    ).reshape(int(running.sum()), len(drivers))
    driver_means = x.mean(axis=0)
    y = rows[running].astype(np.float64)
    centred = x - driver_means  # (snapshot, driver)
    # Ridge regression, slopes = (X'X + n RIDGE I)^-1 X'Y: (driver, driver), (driver, feature).
    gram = centred.T @ centred + RIDGE * len(x) * np.eye(len(drivers))
    slopes = np.linalg.solve(gram, centred.T @ np.nan_to_num(y - np.nanmean(y, axis=0)))
    model = OperatingModel(
        speed_range_hz=_range(running_speeds), load_range=_range(running_loads),
        levels={n: float(np.median(y[:, names.index(n)])) for n in level_names},
        slopes=slopes, driver_means=driver_means, drivers=tuple(drivers),
        medians=np.median(y - centred @ slopes, axis=0),
        amplitude_columns=tuple(amplitude_columns(names)),
    )  # fmt: skip
    return model, running


def unitless_columns(names: Sequence[str]) -> list[int]:
    """Return the columns of features that a healthy machine keeps at every speed and load."""
    columns = []
    for column, name in enumerate(names):
        kind = name.rpartition(".")[2]
        is_line = kind.startswith("envelope_") and kind.split("_", 1)[1].startswith(
            ("outer", "inner", "ball")
        )
        if not name.startswith("value.") and (kind in UNITLESS or is_line):
            columns.append(column)
    return columns


def amplitude_columns(names: Sequence[str]) -> list[int]:
    """Return the columns of the amplitudes that are judged outside of the trained range."""
    return [
        column for column, name in enumerate(names)
        if not name.startswith("value.") and name.rpartition(".")[2] in AMPLITUDES
    ]  # fmt: skip


def _is_outside(value: float | None, trained: Range | None) -> bool:
    if trained is None or value is None:
        return False
    margin = MARGIN * max(abs(trained[0]), abs(trained[1]))
    return not trained[0] - margin <= value <= trained[1] + margin


def _nearest(
    value: float | None, trained: Range | None, is_driver: bool
) -> tuple[float | None, float]:
    """Return the trained value nearest to another one, and the logarithm of their ratio.

    The ratio of a driver that is not known, or of opposite signs, is infinite: it explains every
    change of an amplitude.
    """
    if trained is not None and value is None and is_driver:
        return 0.5 * (trained[0] + trained[1]), np.inf
    if trained is None or value is None or not _is_outside(value, trained):
        return value, 0.0
    edge = min(max(value, trained[0]), trained[1])
    return edge, float(np.log(value / edge)) if value * edge > 0 else np.inf


def _all_or_none(values: Sequence[float | None]) -> NDArray[np.float64] | None:
    if any(value is None for value in values):
        return None
    return np.array(values, dtype=np.float64)


def _running_rows(
    speeds: NDArray[np.float64] | None, rows: Rows, names: Sequence[str], level_names: Sequence[str]
) -> NDArray[np.bool_]:
    """Which snapshots are running: by speed where it is known, else by the level of the channels.

    Returns:
        Shape (snapshot,).
    """
    if speeds is not None and speeds.max() > 0:
        return np.asarray(speeds >= IDLE_SPEED * speeds.max())
    if not level_names:
        return np.ones(len(rows), dtype=bool)
    level = rows[:, [names.index(name) for name in level_names]].max(axis=1)
    return np.asarray(level >= np.quantile(level, 0.75) + np.log(IDLE_LEVEL))


def _varies(values: NDArray[np.float64] | None) -> bool:
    if values is None or len(values) < 2:
        return False
    return float(np.ptp(values)) > VARIES * max(float(np.abs(values).max()), 1e-12)


def _range(values: NDArray[np.float64] | None) -> Range | None:
    return None if values is None or not len(values) else (float(values.min()), float(values.max()))


def _driver_values(
    speed_hz: float | None, load: float | None, names: Sequence[str]
) -> NDArray[np.float64]:
    """Values of the named drivers, shape (driver,): log speed, its square, and the load."""
    log = float(np.log(max(speed_hz or 1e-6, 1e-6)))
    values = {"speed": log, "speed2": log * log, "load": 0.0 if load is None else load}
    return np.array([values[name] for name in names], dtype=np.float64)
