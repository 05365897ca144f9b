"""Onsets on public histories: when does each detector first alarm, and how often before?

Settings here were chosen after these histories had been seen (hindsight), so the grid round each
of them is printed and published beside; only FEMTO's level is fixed by the other runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.checkpoints import checkpoint_folder
from benchmarks.machines.grids import (
    B3_ONSET,
    B4_ONSET,
    FEMTO_RUNS,
    bearing_watch,
    false_starts,
    femto_fold,
    femto_grid,
    ims1_grid,
    ims2_grid,
    onset_alarm,
)
from benchmarks.machines.histories import (
    FITTED,
    HELD_OUT,
    ONSET,
    SEEDS,
    Floats,
    Span,
    dead_rows,
    features,
    ims,
    skab_files,
    watch,
    z_series,
)
from benchmarks.results import Say, plain
from lineside.core.contract import Estimate
from lineside.core.run.files import write_json
from lineside.core.run.folder import rng_of
from lineside.machines.alarms.calibration import calibrate
from lineside.machines.alarms.logic import Rules
from lineside.machines.models.autoencoders import fit_denoising_ae, fit_fc_ae, fit_lstm_ae, fit_vae
from lineside.machines.models.detector import Detector, Rows
from lineside.machines.models.gmm import fit_gmm
from lineside.machines.models.isolation_forest import fit_iforest
from lineside.machines.models.knn import fit_knn
from lineside.machines.models.mahalanobis import fit_mahalanobis
from lineside.machines.models.ocsvm import fit_ocsvm
from lineside.machines.models.pca import fit_pca
from lineside.machines.models.trend import Trend, fit_trend

STORE = checkpoint_folder("machines/onsets", __file__)

Fit = Callable[..., Detector]

IMS2_RULES = Rules(limit=6.0, k=5, n=6)


@dataclass(frozen=True, kw_only=True)
class ColumnTrend:
    """The trend of one column."""

    column: int
    trend: Trend
    history: int = 0

    def score(self, rows: Rows) -> Floats:
        """Return the novelty of every row, shape (snapshot,)."""
        return self.trend.score(rows[:, [self.column]])


def fit_column_trend(
    rows: Rows,
    *,
    column: int,
    rng: np.random.Generator | None = None,
    relative: bool = False,
) -> ColumnTrend:
    """Fit the trend of one column; see `fit_trend`."""
    return ColumnTrend(column=column, trend=fit_trend(rows[:, [column]], relative=relative))


DEEP: dict[str, Fit] = {
    "fc_ae": fit_fc_ae,
    "denoising_ae": fit_denoising_ae,
    "vae": fit_vae,
    "lstm_ae": fit_lstm_ae,
}
CLASSICAL: dict[str, tuple[Fit, dict[str, Any]]] = {
    "rms": (fit_column_trend, {"column": 0, "relative": True}),
    "kurtosis": (fit_column_trend, {"column": 2}),
    "pca": (fit_pca, {"components": 10}),
    "pca_t2": (fit_pca, {"components": 10, "statistic": "t2"}),
    "pca_spe": (fit_pca, {"components": 10, "statistic": "spe"}),
    "mahalanobis": (fit_mahalanobis, {}),
    "gmm": (fit_gmm, {}),
    "knn": (fit_knn, {}),
    "ocsvm": (fit_ocsvm, {}),
    "iforest": (fit_iforest, {}),
}


def ims2(say: Say) -> None:
    """First persistent alarm on IMS test 2, bearing 1; in-sample beside held-out calibration.

    These are time features, not the 100 sub-bands of the original study. The learning rate of the
    deep detectors (Adam's own default) was kept after 3e-3 had given the fully connected one three
    false episodes, at the earliest in row 407, over five seeds: hindsight as well.
    """
    times, table = ims(2)
    rows = features(table).reshape(len(table), -1)
    dead = dead_rows(times, table[:, :, 4], HELD_OUT)
    print(f"rows called a sensor fault by rule: {dead}")
    print(f"{'detector':<14}{'first alarm (range)':<24}{'before':>7}  p95 of z, rows 200-531")
    before = 0
    published = {"rms", "pca", "fc_ae", "lstm_ae", "vae"}
    for name in [*CLASSICAL, *DEEP]:
        seeds = SEEDS if name in DEEP else (0,)
        told = [_ims2_piece(name, seed, rows, times, dead) for seed in seeds]
        firsts = np.array([t["first"] for t in told], dtype=np.float64)
        early = sum(int(t["before"]) for t in told)
        held = [t["p95_held_out"] for t in told]
        fitted = [t["p95_in_sample"] for t in told]
        span = f"{np.median(firsts):.0f} ({firsts.min():.0f}-{firsts.max():.0f})"
        print(
            f"{name:<14}{span:<24}{early:>7}  held-out {np.median(held):5.1f}"
            f"  in-sample {np.median(fitted):5.1f}"
        )
        if name in published:
            before += early
            say(f"ims2_first_alarm_{name}", _median(firsts))
    say("ims2_false_alarms_before", plain(before, "episodes", 1, "lower", "one machine"))
    ims2_grid(say, {name: CLASSICAL[name] for name in ("rms", "pca")})


def _median(values: Floats) -> Estimate:
    return Estimate(
        value=float(np.median(values)), low=float(values.min()), high=float(values.max()),
        unit="row", n=1, better="lower", method=f"median and range of {len(values)} seeds",
    ) if len(values) > 1 else plain(float(values[0]), "row", 1, "lower", "one machine")  # fmt: skip


def _ims2_piece(
    name: str, seed: int, rows: Rows, times: Floats, dead: Sequence[int]
) -> dict[str, Any]:
    """One detector and seed, kept on disk."""
    path = STORE / "onsets" / f"ims2-{name}-{seed}.json"
    if path.exists():
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {k: np.nan if v is None else v for k, v in kept.items()}
    fit, options = CLASSICAL[name] if name in CLASSICAL else (DEEP[name], {})
    held = fit(rows[:FITTED], rng=rng_of(seed, "onsets"), **options)
    z = z_series(held, rows, Span(0, FITTED, HELD_OUT), IMS2_RULES, 0.2)
    seen = watch(z, HELD_OUT, times, IMS2_RULES, dead)
    whole = fit(rows[:HELD_OUT], rng=rng_of(seed, "onsets"), **options)
    in_sample = _in_sample(whole, rows)
    piece: dict[str, Any] = {
        "first": seen.starts[0] if seen.starts else None,
        "before": sum(start < ONSET for start in seen.starts),
        "p95_held_out": float(np.percentile(z[: ONSET - HELD_OUT], 95)),
        "p95_in_sample": float(np.percentile(in_sample[: ONSET - HELD_OUT], 95)),
    }
    write_json(path, piece)
    return {k: np.nan if v is None else v for k, v in piece.items()}


def _in_sample(detector: Detector, rows: Rows) -> Floats:
    """z of rows 200 on, by the protocol of the original: calibrated on the fitted rows."""
    scores, fitted = detector.score(rows), HELD_OUT - detector.history
    calibration = calibrate(
        scores[:fitted], 600.0 * np.arange(fitted), rules=IMS2_RULES, factor=0.2
    )
    return calibration.series(scores)[fitted:]


BEARING_COLUMNS = (0, 1, 2, 3, 4)
BEARING_COMPONENTS = 2
BEARING_FACTOR = 0.3
BEARING_RULES = Rules(limit=5.5, k=5, n=6)


def ims1(say: Say) -> None:
    """IMS test 1: both onsets and the false episodes of the whole machine, one preset for 1 and 2.

    The preset was picked in hindsight from the grid that is printed: few settings meet both.
    """
    options = (BEARING_COLUMNS, BEARING_COMPONENTS, BEARING_FACTOR, BEARING_RULES)
    told = [bearing_watch(1, b, *options) for b in range(4)]
    for bearing, seen in enumerate(told, 1):
        print(f"test 1 bearing {bearing}: episodes begin at {seen.starts}")
    two = [bearing_watch(2, b, *options) for b in range(4)]
    for bearing, seen in enumerate(two, 1):
        print(f"test 2 bearing {bearing}: episodes begin at {seen.starts}")
    say("ims2_first_alarm_ims1_preset", plain(two[0].first, "row", 1, "lower", "one machine"))
    say("ims1_b4_alarm", plain(onset_alarm(told[3], B4_ONSET), "row", 1, "lower", "one machine"))
    say("ims1_b3_alarm", plain(onset_alarm(told[2], B3_ONSET), "row", 1, "lower", "one machine"))
    say("ims1_false_episodes", plain(false_starts(told), "episodes", 1, "lower", "one machine"))
    ims1_grid(say)


def femto(say: Say) -> None:
    """FEMTO: both channels fused, the alarm level of each run fixed by the three others.

    The factor, k of n and the fusion were seen to work on these runs (hindsight); the grid shows
    how others do. Run 2_2 rises in mid-life, falls and fails much later: its early alarm is no
    prognosis.
    """
    found = list(femto_fold(0.4, 3, 4, "mean"))
    for run, left in zip(FEMTO_RUNS, found, strict=True):
        print(
            f"{run}: alarm at {left.ratio:.2f} times healthy, first half {left.far:.3f}, "
            f"lead {left.lead:.0f} s"
        )
    say("femto_far_worst", plain(max(left.far for left in found), "fraction", 4, "lower"))
    say("femto_missed", plain(sum(left.lead <= 0 for left in found), "failures", 4, "lower"))
    say("femto_lead_seconds_min", plain(min(left.lead for left in found), "s", 4))
    femto_grid(say)


SKAB_SENTENCE = (
    "The published F1 of SKAB says little: it also scores the 400 rows that each detector learned "
    "from, and faults begin and end at nearly the same rows of every file, so that always alarming "
    "gives {always:.2f} and a clock that never looks at a sensor {position:.2f}; "
    "{late:.0%} of our own false alarms here come after recovery."
)
"""Why `skab` promises nothing."""


def _f1(said: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float(2 * (said & truth).sum() / max(1, said.sum() + truth.sum()))


def skab(say: Say) -> None:
    """SKAB, rows 400 on: PCA fitted on rows 0-299 of each file, calibrated on 300-399.

    No promise, see `SKAB_SENTENCE`.
    """
    said, truth, before, after, position = [], [], [], [], []
    begins = [int(np.flatnonzero(labels)[0]) for _, labels in skab_files()]
    ends = [int(np.flatnonzero(labels)[-1]) for _, labels in skab_files()]
    for i, (rows, labels) in enumerate(skab_files()):
        detector = fit_pca(rows[:300])
        z = z_series(detector, rows, Span(0, 300, 400), Rules(), 0.2)
        place = np.arange(400, len(rows))
        said.append(z > 6.0)
        truth.append(labels[400:] == 1)
        before.append(place < begins[i])
        after.append(place > ends[i])
        begin = np.median(np.delete(begins, i))
        position.append((place >= begin) & (place <= np.median(np.delete(ends, i))))
    all_said, all_true = np.concatenate(said), np.concatenate(truth)
    early, late = np.concatenate(before), np.concatenate(after)
    n = len(skab_files())
    say("skab_f1", plain(_f1(all_said, all_true), "fraction", n))
    say("skab_far_before", plain(float(all_said[early].mean()), "fraction", n, "lower"))
    say("skab_far_after", plain(float(all_said[late].mean()), "fraction", n, "lower"))
    always, clock = _f1(np.ones_like(all_true), all_true), _f1(np.concatenate(position), all_true)
    say("skab_f1_always", plain(always, "fraction", n))
    say("skab_f1_position", plain(clock, "fraction", n))
    after_recovery = (all_said & late).sum() / max(1, (all_said & ~all_true).sum())
    print(SKAB_SENTENCE.format(always=always, position=clock, late=after_recovery))
