"""Is deep learning worth it on this machine? Every detector's record, and a plain answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lineside.core.contract import Outcome
from lineside.core.workflow import MethodStudy
from lineside.machines.metrics import METRICS

OF = {metric.name: metric.of for metric in METRICS}
SIMPLE = ("classical", "trivial")
WORTH_HOURS = 0.1
"""A deep detector must warn earlier by this share of the time from onset to failure."""


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
    """

    method: str
    kind: str
    false: float
    months: float
    faults: int
    found: int
    delay_hours: float
    lead_hours: float

    @property
    def order(self) -> tuple[float, float, float]:
        """Best first: no missed fault, few false episodes, early warning."""
        delay = np.inf if np.isnan(self.delay_hours) else self.delay_hours
        return float(self.faults - self.found), self.false, float(delay)


def records(studies: Sequence[MethodStudy], machine: str) -> list[Record]:
    """Return the record of every method on one machine, best first."""
    found = []
    for study in studies:
        own = [o for o in study.outcomes["test"] if o.group == machine]
        found.append(_record(study, own))
    return sorted(found, key=lambda record: record.order)


def verdict(found: Sequence[Record]) -> str:
    """Return which detector to use on a machine, and whether deep learning is worth it."""
    deep = [record for record in found if record.kind == "deep"]
    simple = [record for record in found if record.kind in SIMPLE]
    if not deep or not simple:
        return f"Only one kind of detector was run; {found[0].method} has the best record."
    best_deep, best_simple = deep[0], simple[0]
    told = f"{best_simple.method}: {_told(best_simple)}; {best_deep.method}: {_told(best_deep)}."
    if best_simple.faults == 0 and best_simple.false == best_deep.false:
        return (
            f"No fault was known, so no difference can be shown; use {best_simple.method}. {told}"
        )
    if _clearly_better(best_deep, best_simple):
        return f"Deep learning is worth it here: use {best_deep.method}. {told}"
    return f"Deep learning is not worth it here: use {best_simple.method}. {told}"


def _clearly_better(deep: Record, simple: Record) -> bool:
    """Fewer missed faults, or fewer false alarms, or as few and clearly earlier."""
    missed = (deep.faults - deep.found) - (simple.faults - simple.found)
    if missed or deep.false != simple.false:
        return (missed, deep.false - simple.false) < (0, 0.0)
    if np.isnan(deep.delay_hours) or np.isnan(simple.delay_hours):
        return False
    until_failure = simple.delay_hours + (0.0 if np.isnan(simple.lead_hours) else simple.lead_hours)
    return bool(simple.delay_hours - deep.delay_hours > WORTH_HOURS * until_failure)


def _record(study: MethodStudy, own: Sequence[Outcome]) -> Record:
    from lineside.machines.metrics import column, healthy_months

    healthy = column(own, "label") == 0
    onset = column(own, "onset") == 1
    return Record(
        method=study.name,
        kind=study.kind,
        false=float(np.nansum(column(own, "episode")[healthy])),
        months=healthy_months(own),
        faults=int(onset.sum()),
        found=int(np.nansum(column(own, "found")[onset])),
        delay_hours=OF["delay"](own),
        lead_hours=OF["lead_time"](own),
    )


def _told(record: Record) -> str:
    false = f"{record.false:.0f} false alarms in {record.months:.1f} healthy months"
    if not record.faults:
        return false
    if not record.found:
        return f"{false}, fault missed"
    lead = "" if np.isnan(record.lead_hours) else f", {record.lead_hours:.0f} h before the failure"
    return f"{false}, fault found {record.delay_hours:.0f} h after it began{lead}"
