"""What one setting gives on a public history, and the grid round the setting that was picked.

All settings were picked in hindsight, after these histories had been seen. A grid says how many of
the settings round it would have met the target too, and how a pick on one history fares on another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from benchmarks.machines.histories import (
    FITTED,
    HELD_OUT,
    ONSET,
    Floats,
    Span,
    Watch,
    dead_rows,
    features,
    femto_log_rms,
    ims,
    watch,
    z_series,
)
from benchmarks.results import Say
from lineside.core.contract import Estimate
from lineside.machines.alarms.calibration import Calibration
from lineside.machines.alarms.logic import Alarm, Rules
from lineside.machines.models.pca import fit_pca
from lineside.machines.models.trend import fit_trend

LATEST = 545
"""IMS test 2: the first alarm is right between the onset and this row."""
ROOM = 60
"""IMS test 1: an alarm is right within this number of rows of the published onset."""
B4_ONSET, B3_ONSET = 1435, 1790
LIMITS = (5.0, 5.5, 6.0, 7.0, 8.0)
FACTORS = (0.2, 0.25, 0.3, 0.35, 0.4)


def share(right: Sequence[bool], what: str) -> Estimate:
    """Return the share of settings that meet a target; settings are no random sample."""
    return Estimate(
        value=float(np.mean(right)), unit="fraction", n=len(right),
        reason=f"{what}; settings of a grid, not a random sample",
    )  # fmt: skip


IMS2_SPLITS = ((100, 166), (120, 186), (134, 200), (160, 226), (160, 260))


def ims2_grid(say: Say, fits: dict[str, tuple[Any, dict[str, Any]]]) -> None:
    """Print and publish how many settings alarm first between rows 532 and 545 of IMS test 2.

    Args:
        say: Publishes.
        fits: Function that fits and its options, by name.
    """
    times, table = ims(2)
    rows = features(table).reshape(len(table), -1)
    dead = dead_rows(times, table[:, :, 4], HELD_OUT)
    print(f"grid: first alarms of {' / '.join(fits)}; right is {ONSET}-{LATEST}")
    right: dict[str, list[bool]] = {name: [] for name in fits}
    for (fitted, held), factor in product(IMS2_SPLITS, (0.1, 0.2, 0.4)):
        made = {name: fit(rows[:fitted], **options) for name, (fit, options) in fits.items()}
        line = []
        for limit in (5.0, 6.0, 8.0):
            rules, told = Rules(limit=limit), []
            for name, detector in made.items():
                z = z_series(detector, rows, Span(0, fitted, held), rules, factor)
                first = watch(z, held, times, rules, dead).first
                right[name].append(ONSET <= first <= LATEST)
                told.append(f"{first:.0f}")
            line.append(f"z>{limit:g}: " + " / ".join(told))
        print(f"  fit 0-{fitted - 1}, held out to {held - 1}, a {factor}: " + "; ".join(line))
    for name, found in right.items():
        say(f"ims2_grid_share_right_{name}", share(found, "splits, factors and limits"))


IMS1_SPANS = {1: Span(155, 355, 500), 2: Span(0, FITTED, HELD_OUT)}
"""Test 1 starts behind its longest gap (148 h, with a step in level): the delayed start."""


def bearing_watch(
    test: int, bearing: int, columns: Sequence[int], components: int, factor: float, rules: Rules
) -> Watch:
    """One bearing of a test: the larger z of T2 and SPE, each calibrated on its own."""
    z = _bearing_z(test, bearing, tuple(columns), components, factor)
    held = IMS1_SPANS[test].held_out
    return watch(z, held, ims(test)[0], rules, _ims2_dead() if test == 2 else [])


@cache
def _bearing_z(
    test: int, bearing: int, columns: tuple[int, ...], components: int, factor: float
) -> Floats:
    rows, span = features(ims(test)[1])[:, bearing, list(columns)], IMS1_SPANS[test]
    made = [
        fit_pca(rows[span.first : span.fitted], components=components, statistic="t2"),
        fit_pca(rows[span.first : span.fitted], components=components, statistic="spe"),
    ]
    # z does not depend on the limit of the rules.
    return np.maximum(*(z_series(detector, rows, span, Rules(), factor) for detector in made))


@cache
def _ims2_dead() -> list[int]:
    times, table = ims(2)
    return dead_rows(times, table[:, :, 3], HELD_OUT)


def onset_alarm(seen: Watch, label: int, early: int = ROOM) -> float:
    """First episode that is not earlier than `early` rows before the label; NaN for none."""
    later = [start for start in seen.starts if start >= label - early]
    return float(later[0]) if later else np.nan


def false_starts(told: Sequence[Watch]) -> int:
    """Episodes of the whole machine of test 1 that begin before its first true onset."""
    return sum(start < B4_ONSET - ROOM for seen in told for start in seen.starts)


def ims1_grid(say: Say) -> None:
    """Print and publish how many settings meet the target of IMS test 1, and of test 2 beside.

    Leave one run out: of the settings that are right on the one test, how many are on the other?
    """
    print("grid: false episodes | bearing 4 | bearing 3 | test 2 bearing 1 (first); * meets both")
    one, two = [], []
    for columns, components, factor in product(((0, 1, 2), (0, 1, 2, 3, 4)), (1, 2), FACTORS):
        line = []
        for limit in LIMITS:
            rules = Rules(limit=limit)
            told = [bearing_watch(1, b, columns, components, factor, rules) for b in range(4)]
            four, three = onset_alarm(told[3], B4_ONSET), onset_alarm(told[2], B3_ONSET)
            first = bearing_watch(2, 0, columns, components, factor, rules).first
            near = abs(four - B4_ONSET) <= ROOM and abs(three - B3_ONSET) <= ROOM
            one.append(bool(near and false_starts(told) <= 1))
            two.append(bool(ONSET <= first <= LATEST))
            mark = "*" if one[-1] and two[-1] else ""
            line.append(f"{false_starts(told)}|{four:.0f}|{three:.0f}|{first:.0f}{mark}")
        print(
            f"  {len(columns)} features, {components} components, a {factor}, "
            f"z > {'/'.join(f'{v:g}' for v in LIMITS)}: {'  '.join(line)}"
        )
    both = [a and b for a, b in zip(one, two, strict=True)]
    print(
        f"right on test 1: {sum(one)} of {len(one)}, on test 2: {sum(two)}, on both: {sum(both)}. "
        f"A setting picked because it is right on test 2 is right on test 1 in "
        f"{sum(both)} of {sum(two)} cases; the other way round in {sum(both)} of {sum(one)}."
    )
    say("ims1_grid_share_right", share(one, "features, components, factors and limits"))
    say("ims1_grid_share_right_both", share(both, "tests 1 and 2 with one setting"))


FEMTO_RUNS = ("1_2", "2_1", "2_2", "3_1")
FEMTO_SECONDS = 10.0
WARNING_SECONDS = 60.0
FEMTO_START = 200


@cache
def femto_levels(run: str, factor: float, fusion: str) -> Floats:
    """Return the smoothed log ratio to the median of rows 0-133, shape (snapshot,)."""
    rows = femto_log_rms(run)
    detector = fit_trend(rows[:FITTED], relative=True, fusion=fusion)  # type: ignore[arg-type]
    raw = Calibration(factor=factor, center=0.0, spread=1.0, limit=1.0)
    smoothed: list[float] = []
    for score in detector.score(rows):
        smoothed.append(raw.smooth(float(score), smoothed[-1] if smoothed else None))
    return np.array(smoothed)


def first_over(level: Floats, limit: float, k: int, n: int) -> int | None:
    """First snapshot after row 200 where k of the last n levels pass the limit."""
    alarm = Alarm(Rules(limit=1e-9, k=k, n=n))
    for place in range(FEMTO_START, len(level)):
        _, event = alarm.push(float(level[place] - limit), FEMTO_SECONDS * place)
        if event is not None and event.kind == "alert":
            return place
    return None


def first_half(level: Floats) -> Floats:
    """Return what follows row 200 in the first half of life."""
    return level[FEMTO_START : max(FEMTO_START + 1, len(level) // 2)]


def _bounds(level: Floats, k: int, n: int) -> tuple[float, float]:
    """Highest level of the first half, and the highest limit that still leaves 60 s."""
    last = len(level) - 1 - int(WARNING_SECONDS / FEMTO_SECONDS)
    ends = [np.sort(level[max(0, i - n + 1) : i + 1])[-k] for i in range(FEMTO_START, last + 1)]
    return float(first_half(level).max()), float(max(ends)) - 1e-9


@dataclass(frozen=True)
class Left:
    """One FEMTO run whose level was fixed by the others.

    Attributes:
        ratio: The level, as a multiple of the healthy RMS.
        far: Share of the first half above it.
        lead: Seconds from the alarm to the end, 0 for none.
    """

    ratio: float
    far: float
    lead: float


def femto_fold(factor: float, k: int, n: int, fusion: str) -> Iterator[Left]:
    """For each run: what the level that the three other runs fix gives on it."""
    levels = {run: femto_levels(run, factor, fusion) for run in FEMTO_RUNS}
    for run, level in levels.items():
        bounds = [_bounds(levels[other], k, n) for other in FEMTO_RUNS if other != run]
        limit = 0.5 * (max(low for low, _ in bounds) + min(high for _, high in bounds))
        lead = lead_seconds(level, first_over(level, limit, k, n))
        yield Left(float(np.exp(limit)), float((first_half(level) > limit).mean()), lead)


def lead_seconds(level: Floats, first: int | None) -> float:
    """Seconds from an alarm to the end of life, 0 for no alarm."""
    return 0.0 if first is None else (len(level) - 1 - first) * FEMTO_SECONDS


def femto_grid(say: Say) -> None:
    """Print and publish how many settings meet the target of FEMTO, left-one-run-out each."""
    print("grid: fusion, a, k/n: worst first half, missed, shortest lead")
    right: dict[str, list[bool]] = {"mean": [], "max": []}
    for fusion, factor, (k, n) in product(right, (0.2, 0.4, 0.6), ((2, 3), (3, 4), (5, 6))):
        tried = list(femto_fold(factor, k, n, fusion))
        worst, shortest = max(t.far for t in tried), min(t.lead for t in tried)
        right[fusion].append(worst <= 0.02 and shortest >= WARNING_SECONDS)
        missed = sum(t.lead <= 0 for t in tried)
        print(f"  {fusion}, {factor}, {k}/{n}: {worst:.3f}, {missed}, {shortest:.0f} s")
    for ratio in (2.2, 2.6, 3.0, 3.6, 4.0):
        levels = [femto_levels(run, 0.4, "mean") for run in FEMTO_RUNS]
        leads = [lead_seconds(v, first_over(v, float(np.log(ratio)), 3, 4)) for v in levels]
        print(f"  one ratio of {ratio} for all: leads {[f'{lead:.0f}' for lead in leads]} s")
    say("femto_grid_share_right", share(right["mean"], "channels fused by their mean"))
    say("femto_grid_share_right_or", share(right["max"], "the larger channel: an OR"))
