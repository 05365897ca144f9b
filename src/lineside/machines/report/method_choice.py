"""Is deep learning worth it on this machine? Every detector's record, and a plain answer.

A deep detector earns its place where it is clearly better than every simple one. Even then it may
be what it looks at and not its depth: `rivals` gives simple detectors the same inputs, and where
one of them does as well the answer says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import binomtest

from lineside.core.contract import Outcome
from lineside.core.study import MethodStudy
from lineside.machines.metrics import METRICS

OF = {metric.name: metric.of for metric in METRICS}
SIMPLE = ("classical", "trivial")
WORTH_HOURS = 0.1
"""A deep detector must warn earlier by this share of the time from onset to failure."""
WORTH_FALSE = 2
"""Or raise so many false alarms less; one may be chance on histories of weeks."""
FEW_FAULTS = 5
"""With fewer known faults an answer is called a record of what happened, not a law."""

Choice = Literal["deep", "inputs", "simple", "tie", "no fault", "one kind"]
"""``inputs``: a deep detector won, but a simple one with its inputs does as well."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one detector did on one machine.

    Attributes:
        method: Its name.
        kind: ``deep``, ``classical`` or ``trivial``.
        false: False alarm episodes.
        months: Healthy machine-months that it was tested on.
        faults: Faults that there were.
        found: Faults that it found before the failure.
        delay_hours: From onset to alarm, NaN if nothing was found.
        lead_hours: From alarm to failure, NaN if nothing was found.
        fit_seconds: Of learning, all machines of the run together, NaN if not measured.
        ms: From a snapshot to its verdict, median, reading it included; NaN if not measured.
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
        """Faults that raised no alarm before the failure."""
        return self.faults - self.found

    @property
    def order(self) -> tuple[float, float, float]:
        """Best first: no missed fault, few false episodes, early warning."""
        delay = np.inf if np.isnan(self.delay_hours) else self.delay_hours
        return float(self.missed), self.false, float(delay)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Which detector to use on one machine.

    Attributes:
        choice: Whether the deep detector won, and what speaks against it if it did.
        use: The detector to use.
        deep: The best deep one, None if there is none.
        simple: The best of the others, None if there is none.
        rival: The best simple one that looks at what `deep` looks at, None if none was tried.
    """

    choice: Choice
    use: Record
    deep: Record | None = None
    simple: Record | None = None
    rival: Record | None = None


def records(studies: Sequence[MethodStudy], machine: str) -> list[Record]:
    """Return the record of every method on one machine, best first."""
    found = []
    for study in studies:
        own = [o for o in study.outcomes["test"] if o.unit == machine]
        found.append(make_record(study.name, study.kind, own, study.fit_seconds))
    return sorted(found, key=lambda record: record.order)


def make_record(
    method: str, kind: str, own: Sequence[Outcome], fit_seconds: float = float("nan")
) -> Record:
    """Return the record of one detector from its test outcomes on one machine."""
    from lineside.machines.metrics import column, healthy_months

    healthy = column(own, "label") == 0
    onset = column(own, "onset") == 1
    times = column(own, "ms")
    return Record(
        method=method,
        kind=kind,
        false=float(np.nansum(column(own, "episode")[healthy])),
        months=healthy_months(own),
        faults=int(onset.sum()),
        found=int(np.nansum(column(own, "found")[onset])),
        delay_hours=OF["delay"](own),
        lead_hours=OF["lead_time"](own),
        fit_seconds=fit_seconds,
        ms=float(np.nanmedian(times)) if np.isfinite(times).any() else np.nan,
    )


def decide(found: Sequence[Record], rivals: Sequence[Record] = ()) -> Decision:
    """Return which detector to use on a machine.

    Args:
        found: What `records` returned.
        rivals: Records of simple detectors that looked at what the best deep one looks at.
    """
    ordered = sorted(found, key=lambda record: record.order)
    deep = next((record for record in ordered if record.kind == "deep"), None)
    simple = next((record for record in ordered if record.kind in SIMPLE), None)
    if deep is None or simple is None:
        return Decision(choice="one kind", use=ordered[0], deep=deep, simple=simple)
    rival = min(rivals, key=lambda record: record.order, default=None)
    if not simple.faults and abs(simple.false - deep.false) < WORTH_FALSE:
        return Decision(choice="no fault", use=simple, deep=deep, simple=simple)
    if _clearly_better(deep, simple):
        choice: Choice = "deep"
        if rival is not None and not _clearly_better(deep, rival):
            choice = "inputs"
        return Decision(choice=choice, use=deep, deep=deep, simple=simple, rival=rival)
    choice = "simple" if _clearly_better(simple, deep) else "tie"
    return Decision(choice=choice, use=simple, deep=deep, simple=simple)


def verdict(found: Sequence[Record], rivals: Sequence[Record] = ()) -> str:
    """Return in plain words which detector to use, whether deep learning is worth it, and why."""
    made = decide(found, rivals)
    if made.deep is None or made.simple is None:
        return answer(made)
    deep, simple = made.deep, made.simple
    told = f"{simple.method}: {_told(simple)}; {deep.method}: {_told(deep)}."
    parts = [answer(made), told, _cost(deep, simple), _rival(made), _doubt(deep)]
    return " ".join(part for part in parts if part)


def answer(made: Decision) -> str:
    """Return a decision in one sentence, or two where depth is not what counts."""
    if made.deep is None or made.simple is None:
        return f"Only one kind of detector was run; {made.use.method} has the best record."
    deep, simple = made.deep, made.simple
    answers = {
        "deep": f"Deep learning is worth it here: use {deep.method}, {_why(deep, simple)}.",
        "inputs": f"Among these detectors a deep one is worth it here: use {deep.method}, "
        f"{_why(deep, simple)}. But it is what it looks at that counts, not its depth.",
        "simple": f"Deep learning is not worth it here: use {simple.method}, {_why(simple, deep)}.",
        "tie": f"Deep learning is not worth it here: use {simple.method}, which is simpler than "
        f"{deep.method} and does as well: {_close(simple, deep)}.",
        "no fault": f"No fault was known, so no difference can be shown; use {simple.method}.",
    }
    return answers[made.choice]


def _clearly_better(one: Record, other: Record) -> bool:
    """Fewer missed faults, or clearly fewer false alarms, or hardly more and clearly earlier."""
    if one.missed != other.missed:
        return one.missed < other.missed
    if abs(one.false - other.false) >= WORTH_FALSE:
        return one.false < other.false
    if one.false > other.false:
        return False
    if np.isnan(one.delay_hours) or np.isnan(other.delay_hours):
        return False
    until_failure = other.delay_hours + (0.0 if np.isnan(other.lead_hours) else other.lead_hours)
    return bool(other.delay_hours - one.delay_hours > WORTH_HOURS * until_failure)


def _why(better: Record, worse: Record) -> str:
    """The first difference in the order in which detectors are compared."""
    if better.missed != worse.missed:
        what = "the fault" if worse.faults == 1 else "faults"
        if worse.found == 0 and better.missed == 0:
            others = "simple" if better.kind == "deep" else "deep"
            return f"which found {what} that no {others} one did"
        return f"which missed {better.missed} of {better.faults} faults instead of {worse.missed}"
    if worse.false - better.false >= WORTH_FALSE:
        return (
            f"which raised {better.false:.0f} false alarms instead of {worse.false:.0f} (p = "
            f"{poisson_p_value(better.false, worse.false):.2g} if both had one rate)"
        )
    return f"which warned {worse.delay_hours - better.delay_hours:.0f} h earlier"


def poisson_p_value(few: float, many: float) -> float:
    """Return how likely two counts of one rate, over the same time, are at least so far apart.

    Two-sided conditional test of two Poisson counts (Przyborowski and Wilenski 1940).
    """
    return float(binomtest(int(few), int(few + many)).pvalue) if few + many else 1.0


def _close(simple: Record, deep: Record) -> str:
    """How close a tie is; a deep detector that is earlier by too little does not win."""
    if simple.false != deep.false:
        return (
            f"one false alarm more or less ({simple.false:.0f} and {deep.false:.0f}) may be chance"
        )
    hours = simple.delay_hours - deep.delay_hours
    if np.isnan(hours) or hours == 0:
        return "the same record"
    what = "later" if hours > 0 else "earlier"
    return (
        f"its alarm came {abs(hours):.0f} h {what}, and less than {WORTH_HOURS:.0%} of the time "
        "from onset to failure counts as a tie"
    )


def _told(record: Record) -> str:
    alarms = "false alarm" if record.false == 1 else "false alarms"
    false = f"{record.false:.0f} {alarms} in {record.months:.1f} healthy months"
    if not record.faults:
        return false
    if not record.found:
        return f"{false}, fault missed"
    lead = "" if np.isnan(record.lead_hours) else f", {record.lead_hours:.0f} h before the failure"
    return f"{false}, fault found {record.delay_hours:.0f} h after it began{lead}"


def _cost(deep: Record, simple: Record) -> str:
    """What both cost, as far as it was measured."""
    parts = []
    if np.isfinite([deep.fit_seconds, simple.fit_seconds]).all():
        parts.append(f"{deep.fit_seconds:.1f} against {simple.fit_seconds:.1f} s to learn")
    if np.isfinite([deep.ms, simple.ms]).all():
        parts.append(f"{deep.ms:.1f} against {simple.ms:.1f} ms a snapshot")
    return f"{deep.method} costs {', '.join(parts)}." if parts else ""


def _rival(made: Decision) -> str:
    """Whether it is depth, or what the deep detector looks at."""
    if made.rival is None or made.deep is None:
        return ""
    told = f"{made.rival.method}: {_told(made.rival)}"
    if made.choice == "inputs":
        return (
            "A simple detector with the same inputs does as well or better than "
            f"{made.deep.method} ({told})."
        )
    return f"Its depth counts: with the same inputs the best simple detector is worse ({told})."


def _doubt(deep: Record) -> str:
    if deep.faults >= FEW_FAULTS or not deep.faults:
        return ""
    faults = "one fault" if deep.faults == 1 else f"{deep.faults} faults"
    return f"This rests on {faults} of one machine, which decides little."
