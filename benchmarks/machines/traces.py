"""The detectors of "Beyond ImageNet" (Stadelmann et al. 2019, section 5) on IMS test 2, as traces.

Constants are those of ``--preset beyond-imagenet`` where they apply: the history is time features,
not sub-bands, so that "50 of 100 components" becomes half of the columns, and no logarithm is
undone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np

from benchmarks.checkpoints import checkpoint_folder
from benchmarks.machines.histories import (
    FITTED,
    HELD_OUT,
    SEEDS,
    Floats,
    features,
    ims,
)
from lineside.core.run.files import write_json
from lineside.core.run.folder import rng_of
from lineside.machines.alarms.calibration import Calibration, calibrate
from lineside.machines.alarms.logic import Rules
from lineside.machines.methods import DETECTORS
from lineside.machines.models.detector import Rows
from lineside.machines.models.presets import preset

STORE = checkpoint_folder("machines/traces", __file__)

Protocol = Literal["in_sample", "held_out"]
Columns = Literal["tame", "raw"]
PROTOCOLS: tuple[Protocol, ...] = ("in_sample", "held_out")
SIMPLE = ("rms", "kurtosis")
CLASSICAL = ("ocsvm", "gmm", "pca_maha", "pca_auto")
STUDY_NAMES = {"pca_maha": "mahalanobis", "pca_auto": "pca"}
"""Methods that the study calls by another name."""
DEEP = ("fc_ae", "lstm_ae", "denoising_ae", "vae")
SEEDED = ("gmm", *DEEP)
LATER_ONSET = 700
"""The second label set (vibdata, after Expert Systems with Applications 2018): "degraded"."""
DEAD = 982
"""Rows 982 and 983 are a rig that was switched off."""
AUC_ROWS = 168
RUN = 5
RULES = Rules(limit=6.0)
FACTOR = 0.2


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Scores of one detector on all rows, NaN where it has no history, and how to read them.

    Attributes:
        scores: Shape (row,).
        fitted: Rows [0, fitted) were fitted.
        calibrates: Rows [first, last) say what is normal.
        ceiling: Largest score that there is, None without a bound.
    """

    scores: Floats
    fitted: int
    calibrates: tuple[int, int]
    ceiling: float | None = None

    def z(self, *, ranked: bool = False) -> Floats:
        """Return z of smoothed log scores, as the product reads them, NaN before calibration.

        Args:
            ranked: Judge scores with a ceiling by rank, as alarms do; without it all scores are
                on the same scale.
        """
        calibration, first = self._calibration(self.ceiling if ranked else None)
        found = np.full(len(self.scores), np.nan)
        found[first:] = calibration.series(self.scores[first:])
        return found

    def novelty(self) -> Floats:
        """Return ``(score - median) / MAD`` of the calibration rows: the study's reading."""
        known = self._calibrating()
        centre = np.median(known)
        spread = max(float(np.median(np.abs(known - centre))), 1e-12)
        return np.asarray((self.scores - centre) / spread)

    def _calibrating(self) -> Floats:
        first, last = self.calibrates
        known = self.scores[first:last]
        return known[np.isfinite(known)]

    def _calibration(self, ceiling: float | None) -> tuple[Calibration, int]:
        known = self._calibrating()
        times = 600.0 * np.arange(len(known))
        made = calibrate(known, times, rules=RULES, factor=FACTOR, ceiling=ceiling)
        return made, self.calibrates[1] - len(known)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What is read off one trace, for one published onset.

    Attributes:
        p95: 95th percentile of z between calibration and onset.
        p95_linear: The same of the study's novelty.
        far: Share of those rows with z over the limit.
        first: First row of five successive exceedances, NaN for none.
        ratio: Median novelty after the onset over the 99th percentile before.
        auc: Rows before the onset against the first 168 after it.
    """

    p95: float
    p95_linear: float
    far: float
    first: float
    ratio: float
    auc: float


def read(trace: Trace, onset: int) -> Reading:
    """Read a trace against an onset."""
    z, ranked, novelty = trace.z(), trace.z(ranked=True), trace.novelty()
    before = slice(HELD_OUT, onset)
    over = ranked[HELD_OUT:DEAD] > RULES.limit
    runs = np.flatnonzero(np.convolve(over, np.ones(RUN), "valid") >= RUN)
    return Reading(
        p95=float(np.percentile(z[before], 95)),
        p95_linear=float(np.percentile(novelty[before], 95)),
        far=float((ranked[before] > RULES.limit).mean()),
        first=float(HELD_OUT + runs[0]) if len(runs) else np.nan,
        ratio=float(np.median(novelty[onset:DEAD]) / np.percentile(novelty[before], 99)),
        auc=_auc(trace.scores[before], trace.scores[onset : onset + AUC_ROWS]),
    )


def _auc(low: Floats, high: Floats) -> float:
    greater = (high[:, None] > low[None]).mean() + 0.5 * (high[:, None] == low[None]).mean()
    return float(greater)


@cache
def columns_of(kind: Columns) -> Rows:
    """Return the rows of IMS test 2: five tame features a bearing, or the nine raw ones."""
    table = ims(2)[1]
    rows = features(table) if kind == "tame" else table.astype(np.float32)
    return rows.reshape(len(rows), -1)


def constants_of(name: str, columns: int) -> tuple[str, dict[str, Any]]:
    """Return fit and keywords of a detector of the study for a number of time features."""
    fit = STUDY_NAMES.get(name, name)
    options = dict(preset("beyond-imagenet")[fit])
    options.pop("features")
    if name.startswith("pca_"):  # 50 of the study's 100 columns
        options["components"] = columns // 2
    if "fitting" in options:
        options["fitting"] = replace(options["fitting"], scaling="robust")
    else:
        options["scaling"] = "robust"
    return fit, options


def trace_of(name: str, seed: int, protocol: Protocol, kind: Columns = "tame") -> Trace:
    """Fit one detector and score all rows; kept on disk."""
    fitted = HELD_OUT if protocol == "in_sample" else FITTED
    calibrates = (0 if protocol == "in_sample" else FITTED, HELD_OUT)
    path = STORE / "figure" / f"{kind}-{protocol}-{name}-{seed}.json"
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        scores = np.array([np.nan if s is None else s for s in kept["scores"]])
        return Trace(scores=scores, fitted=fitted, calibrates=calibrates, ceiling=kept["ceiling"])
    rows = columns_of(kind)
    if name in SIMPLE:
        place = {"tame": (0, 2), "raw": (4, 6)}[kind][SIMPLE.index(name)]
        fit, options, rows = "trend", {"relative": True}, rows[:, [place]]
    else:
        fit, options = constants_of(name, rows.shape[1])
    detector = DETECTORS[fit].fit(rows[:fitted], rng=rng_of(seed, "figure"), **options)
    scores = np.full(len(rows), np.nan)
    scores[detector.history :] = detector.score(rows)
    ceiling = getattr(detector, "ceiling", None)
    told = [None if np.isnan(s) else float(s) for s in scores]
    write_json(path, {"scores": told, "ceiling": ceiling})
    return Trace(scores=scores, fitted=fitted, calibrates=calibrates, ceiling=ceiling)


def seeds_of(name: str) -> Sequence[int]:
    """Return the seeds of a detector: one where nothing is random."""
    return SEEDS if name in SEEDED else (0,)


def readings(name: str, protocol: Protocol, onset: int, kind: Columns = "tame") -> list[Reading]:
    """Return what every seed of a detector gives."""
    return [read(trace_of(name, seed, protocol, kind), onset) for seed in seeds_of(name)]
