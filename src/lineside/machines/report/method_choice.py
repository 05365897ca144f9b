"""Choice of the detector for a machine, and whether a deep one is worth its cost there.

A deep detector is chosen where it is clearly better than every simple one. Its inputs may be the
reason and not its depth: `baselines` fits simple detectors on the same inputs, and where one of
them does as well the answer says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lineside.core.contract import Outcome
from lineside.core.study import MethodStudy
from lineside.machines.metrics import MEASURES, column, healthy_months

SIMPLE = ("classical", "trivial")
MIN_EARLIER = 0.1
"""The better detector warns earlier by at least this share of the time from onset to failure."""
MIN_FEWER_ALARMS = 2
"""Or raises at least this many false alarms fewer; one may be chance on histories of weeks."""
FEW_FAULTS = 5
"""With fewer known faults the answer says how little it rests on."""

Choice = Literal["deep", "inputs", "simple", "tie", "no fault", "one kind"]
"""``inputs``: a deep detector is the best, but a simple one with its inputs does as well."""


@dataclass(frozen=True, kw_only=True)
class DetectorRecord:
    """Test results of one detector on one machine.

    Attributes:
        method: Name of the detector.
        kind: ``deep``, ``classical`` or ``trivial``.
        false: False alarm episodes.
        months: Healthy machine-months of the test.
        faults: Known faults.
        found: Faults detected before the failure.
        delay_hours: From onset to alarm, NaN without a detected fault.
        lead_hours: From alarm to failure, NaN without a detected fault.
        fit_seconds: Fit time of all machines of the run together, NaN if not measured.
        ms: Median time per snapshot, reading included; NaN if not measured.
    """

    method: str
    kind: str
    false: float
    months: float
    faults: int
    found: int
    delay_hours: float
    lead_hours: float
    fit_seconds: float = float("nan")
    ms: float = float("nan")

    @property
    def missed(self) -> int:
        """Faults without an alarm before the failure."""
        return self.faults - self.found

    @property
    def order(self) -> tuple[float, float, float]:
        """Sort key, best first: missed faults, false alarms, delay."""
        delay = np.inf if np.isnan(self.delay_hours) else self.delay_hours
        return float(self.missed), self.false, float(delay)


@dataclass(frozen=True, kw_only=True)
class DetectorChoice:
    """The detector to use on one machine.

    Attributes:
        choice: Whether the deep detector is better, and if so whether its depth is the reason.
        use: The detector to use.
        deep: The best deep one, None if there is none.
        simple: The best of the others, None if there is none.
        baseline: The best simple one with the inputs of `deep`, None if none was fitted.
    """

    choice: Choice
    use: DetectorRecord
    deep: DetectorRecord | None = None
    simple: DetectorRecord | None = None
    baseline: DetectorRecord | None = None


def detector_records(studies: Sequence[MethodStudy], machine: str) -> list[DetectorRecord]:
    """Return the record of every method on one machine, best first."""
    records = []
    for study in studies:
        outcomes = [o for o in study.outcomes["test"] if o.unit == machine]
        records.append(make_record(study.name, study.kind, outcomes, study.fit_seconds))
    return sorted(records, key=lambda record: record.order)


def make_record(
    method: str, kind: str, outcomes: Sequence[Outcome], fit_seconds: float = float("nan")
) -> DetectorRecord:
    """Return the record of one detector from its test outcomes on one machine."""
    healthy = column(outcomes, "label") == 0
    onset = column(outcomes, "onset") == 1
    times = column(outcomes, "ms")
    return DetectorRecord(
        method=method,
        kind=kind,
        false=float(np.nansum(column(outcomes, "episode")[healthy])),
        months=healthy_months(outcomes),
        faults=int(onset.sum()),
        found=int(np.nansum(column(outcomes, "found")[onset])),
        delay_hours=MEASURES["delay"](outcomes),
        lead_hours=MEASURES["lead_time"](outcomes),
        fit_seconds=fit_seconds,
        ms=float(np.nanmedian(times)) if np.isfinite(times).any() else np.nan,
    )


def choose_detector(
    records: Sequence[DetectorRecord], baselines: Sequence[DetectorRecord] = ()
) -> DetectorChoice:
    """Return the detector to use on a machine.

    Args:
        records: Of all detectors.
        baselines: Of simple detectors with the inputs of the best deep one.
    """
    ordered = sorted(records, key=lambda record: record.order)
    deep = next((record for record in ordered if record.kind == "deep"), None)
    simple = next((record for record in ordered if record.kind in SIMPLE), None)
    if deep is None or simple is None:
        return DetectorChoice(choice="one kind", use=ordered[0], deep=deep, simple=simple)
    baseline = min(baselines, key=lambda record: record.order, default=None)
    if not simple.faults and abs(simple.false - deep.false) < MIN_FEWER_ALARMS:
        return DetectorChoice(choice="no fault", use=simple, deep=deep, simple=simple)
    if _clearly_better(deep, simple):
        choice: Choice = "deep"
        if baseline is not None and not _clearly_better(deep, baseline):
            choice = "inputs"
        return DetectorChoice(choice=choice, use=deep, deep=deep, simple=simple, baseline=baseline)
    choice = "simple" if _clearly_better(simple, deep) else "tie"
    return DetectorChoice(choice=choice, use=simple, deep=deep, simple=simple)


def explain_choice(
    records: Sequence[DetectorRecord], baselines: Sequence[DetectorRecord] = ()
) -> str:
    """Return the detector to use, whether deep learning is worth it, and why."""
    chosen = choose_detector(records, baselines)
    if chosen.deep is None or chosen.simple is None:
        return state_choice(chosen)
    deep, simple = chosen.deep, chosen.simple
    results = f"{simple.method}: {_describe(simple)}; {deep.method}: {_describe(deep)}."
    caution = _caution(deep)
    parts = [state_choice(chosen), results, _cost(deep, simple), _compare_baseline(chosen), caution]
    return " ".join(part for part in parts if part)


def state_choice(chosen: DetectorChoice) -> str:
    """Return a choice in one sentence, or two where the depth is not the reason."""
    if chosen.deep is None or chosen.simple is None:
        return f"Only one kind of detector was run; {chosen.use.method} has the best results."
    deep, simple = chosen.deep, chosen.simple
    answers = {
        "deep": f"Deep learning is worth it here: use {deep.method}, {_why(deep, simple)}.",
        "inputs": f"Among these detectors a deep one is worth it here: use {deep.method}, "
        f"{_why(deep, simple)}. The reason is its inputs, not its depth.",
        "simple": f"Deep learning is not worth it here: use {simple.method}, {_why(simple, deep)}.",
        "tie": f"Deep learning is not worth it here: use {simple.method}, which is simpler than "
        f"{deep.method} and does as well: {_close(simple, deep)}.",
        "no fault": f"No fault is known, so the detectors cannot be compared; use {simple.method}.",
    }
    return answers[chosen.choice]


def _clearly_better(one: DetectorRecord, other: DetectorRecord) -> bool:
    """Return whether one misses fewer faults, or has clearly fewer false alarms or delay."""
    if one.missed != other.missed:
        return one.missed < other.missed
    if abs(one.false - other.false) >= MIN_FEWER_ALARMS:
        return one.false < other.false
    if one.false > other.false:
        return False
    if np.isnan(one.delay_hours) or np.isnan(other.delay_hours):
        return False
    until_failure = other.delay_hours + (0.0 if np.isnan(other.lead_hours) else other.lead_hours)
    return bool(other.delay_hours - one.delay_hours > MIN_EARLIER * until_failure)


def _why(better: DetectorRecord, worse: DetectorRecord) -> str:
    """Return the first difference in the order of comparison."""
    if better.missed != worse.missed:
        what = "the fault" if worse.faults == 1 else "faults"
        if worse.found == 0 and better.missed == 0:
            others = "simple" if better.kind == "deep" else "deep"
            return f"which found {what} that no {others} one found"
        return f"which missed {better.missed} of {better.faults} faults instead of {worse.missed}"
    if worse.false - better.false >= MIN_FEWER_ALARMS:
        return (
            f"which raised {better.false:.0f} false alarms instead of {worse.false:.0f} (p = "
            f"{poisson_p_value(better.false, worse.false):.2g} if both had one rate)"
        )
    return f"which warned {worse.delay_hours - better.delay_hours:.0f} h earlier"


def poisson_p_value(few: float, many: float) -> float:
    """Return the p-value of two Poisson counts over the same time, if both have one rate.

    Two-sided conditional test: given the sum, each count is binomial with p = 1/2 (Przyborowski
    and Wilenski, Biometrika 31, 1940).
    """
    from scipy.stats import binomtest

    return float(binomtest(int(few), int(few + many)).pvalue) if few + many else 1.0


def _close(simple: DetectorRecord, deep: DetectorRecord) -> str:
    """Return why a small difference counts as a tie."""
    if simple.false != deep.false:
        return (
            f"one false alarm more or less ({simple.false:.0f} and {deep.false:.0f}) may be chance"
        )
    hours = simple.delay_hours - deep.delay_hours
    if np.isnan(hours) or hours == 0:
        return "the same results"
    what = "later" if hours > 0 else "earlier"
    return (
        f"its alarm came {abs(hours):.0f} h {what}, and less than {MIN_EARLIER:.0%} of the time "
        "from onset to failure counts as a tie"
    )


def _describe(record: DetectorRecord) -> str:
    """Return false alarms, detection and lead time in words."""
    alarms = "false alarm" if record.false == 1 else "false alarms"
    false = f"{record.false:.0f} {alarms} in {record.months:.1f} healthy months"
    if not record.faults:
        return false
    if not record.found:
        return f"{false}, fault missed"
    lead = "" if np.isnan(record.lead_hours) else f", {record.lead_hours:.0f} h before the failure"
    return f"{false}, fault found {record.delay_hours:.0f} h after it began{lead}"


def _cost(deep: DetectorRecord, simple: DetectorRecord) -> str:
    """Return the fit time and the time per snapshot of both, as far as they were measured."""
    parts = []
    if np.isfinite([deep.fit_seconds, simple.fit_seconds]).all():
        parts.append(f"{deep.fit_seconds:.1f} against {simple.fit_seconds:.1f} s to fit")
    if np.isfinite([deep.ms, simple.ms]).all():
        parts.append(f"{deep.ms:.1f} against {simple.ms:.1f} ms per snapshot")
    return f"{deep.method} costs {', '.join(parts)}." if parts else ""


def _compare_baseline(chosen: DetectorChoice) -> str:
    """Return whether the depth or the inputs make the difference."""
    if chosen.baseline is None or chosen.deep is None:
        return ""
    results = f"{chosen.baseline.method}: {_describe(chosen.baseline)}"
    if chosen.choice == "inputs":
        return (
            "A simple detector with the same inputs does as well as or better than "
            f"{chosen.deep.method} ({results})."
        )
    return f"Its depth counts: with the same inputs the best simple detector is worse ({results})."


def _caution(deep: DetectorRecord) -> str:
    if deep.faults >= FEW_FAULTS or not deep.faults:
        return ""
    faults = "one fault" if deep.faults == 1 else f"{deep.faults} faults"
    return f"This rests on {faults} of one machine: weak evidence."
