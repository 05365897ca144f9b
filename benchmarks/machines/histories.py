"""Public run-to-failure histories as rows of features, and how a detector is watched on them.

Development data, not shipped: NASA IMS features (Lee et al. 2007), FEMTO PRONOSTIA (Nectoux et
al. 2012), SKAB (Katser and Kozitsin 2020).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import ROOT
from lineside.core.errors import UserError
from lineside.machines.alarms.calibration import Calibration, calibrate
from lineside.machines.alarms.logic import Alarm, Rules
from lineside.machines.data.measurement import Measurement
from lineside.machines.models.detector import Detector, Rows
from lineside.machines.signals.quality import find_sensor_faults, learn_norms

DATA = ROOT.parent / "shared" / "data" / "machines"
SEEDS = (0, 1, 2, 3, 4)
ONSET = 532
FITTED, HELD_OUT = 134, 200
"""IMS test 2: rows 0-133 are fitted, rows 134-199 calibrate."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Span:
    """Rows [first, fitted) are fitted, [fitted, held_out) calibrate, later ones are judged."""

    first: int
    fitted: int
    held_out: int


@cache
def ims(test: int) -> tuple[Floats, Floats]:
    """Return times in seconds and the nine features, shape (row, bearing, 9), of an IMS test."""
    tables = []
    times: list[float] = []
    for bearing in range(1, 5):
        path = DATA / "ims_features" / f"b{bearing}_t{test}.csv"
        if not path.exists():
            raise UserError(f"{path} is absent", "this benchmark needs the IMS features")
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream))[1:]
        times = [datetime.fromisoformat(r[0]).replace(tzinfo=UTC).timestamp() for r in rows]
        tables.append(np.array([[float(v) for v in r[1:]] for r in rows]))
    return np.array(times), np.stack(tables, axis=1)


def features(table: Floats) -> Rows:
    """Return log Std, log peak-to-peak, asinh kurtosis, log crest, asinh skew: (row, bearing, 5).

    Std, not RMS: test 1 has an offset. Crest is the larger side over Std, since Max/RMS is signed.
    """
    top, low, mean, std, _, skew, kurtosis, _, _ = np.moveaxis(table, -1, 0)
    peak = np.maximum(np.abs(top - mean), np.abs(low - mean))
    parts = [np.log(std), np.log(top - low), np.arcsinh(kurtosis), np.log(peak / std)]
    return np.stack([*parts, np.arcsinh(skew)], axis=-1).astype(np.float32)


def dead_rows(times: Floats, levels: Floats, healthy: int) -> list[int]:
    """Return rows that the quality rule of the product calls a sensor fault, levels (row, any)."""
    stories = [
        Measurement(
            machine="rig", time=float(t), values={f"rms{i}": float(v) for i, v in enumerate(row)}
        )
        for t, row in zip(times, levels, strict=True)
    ]
    norms = learn_norms(stories[:healthy])
    return [i for i, story in enumerate(stories) if find_sensor_faults(story, norms)]


@dataclass(frozen=True)
class Watch:
    """One detector after another on one history: first rows of episodes, z of judged rows."""

    starts: tuple[int, ...]
    z: Floats

    @property
    def first(self) -> float:
        """First row of an alarm, NaN if there is none."""
        return float(self.starts[0]) if self.starts else np.nan


def z_series(detector: Detector, rows: Rows, span: Span, rules: Rules, factor: float) -> Floats:
    """Return z of the rows after the calibration rows, calibrated on rows never fitted."""
    start = span.fitted - detector.history
    scores = detector.score(rows[start:])
    held = span.held_out - span.fitted
    calibration: Calibration = calibrate(
        scores[:held],
        600.0 * np.arange(held),
        rules=rules,
        factor=factor,
        ceiling=getattr(detector, "ceiling", None),
    )
    return calibration.series(scores)[held:]


def watch(z: Floats, first: int, times: Floats, rules: Rules, skip: Sequence[int] = ()) -> Watch:
    """Fold z through the alarm logic; rows to skip (sensor faults) are not judged."""
    alarm, starts = Alarm(rules), []
    for i, value in enumerate(z):
        place = first + i
        judged = np.nan if place in skip else float(value)
        _, event = alarm.push(judged, float(times[place]))
        if event is not None and event.kind == "alert":
            starts.append(place)
    return Watch(tuple(starts), z)


@cache
def femto_log_rms(run: str) -> Rows:
    path = DATA / "femto" / f"Bearing{run}.npz"
    if not path.exists():
        raise UserError(f"{path} is absent", "this benchmark needs the FEMTO histories")
    with np.load(path) as kept:
        waves = kept["acc"].astype(np.float32) * np.float32(kept["scale"])
    waves -= waves.mean(axis=2, keepdims=True)
    level = np.sqrt(np.square(waves).mean(axis=2))
    # A drop-out reads 0; it is a sensor fault, not a quiet machine: hold it at a tenth.
    floor = 0.1 * np.median(level, axis=0)
    return np.log(np.maximum(level, floor)).astype(np.float32)


@cache
def skab_files() -> tuple[tuple[Rows, NDArray[np.int64]], ...]:
    """Return (rows, anomaly labels) of every labelled SKAB file here."""
    found = []
    for path in sorted((DATA / "skab").glob("valve*/*.csv")):
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream, delimiter=";"))[1:]
        found.append(
            (
                np.array([[float(v) for v in row[1:9]] for row in rows], dtype=np.float32),
                np.array([int(float(row[9])) for row in rows]),
            )
        )
    if not found:
        raise UserError(f"{DATA / 'skab'} is absent", "this benchmark needs the SKAB files")
    return tuple(found)
