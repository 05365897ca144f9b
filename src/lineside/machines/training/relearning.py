"""Learning a machine anew, or a new one, with a person's consent: makes a child of a model.

A model never changes its idea of normal by itself: after a repair a machine is learned on
request, from a stated time on, under a person's name.
"""

from __future__ import annotations

import dataclasses
import time as clock
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from lineside.core.errors import UserError
from lineside.core.run.folder import rng_of
from lineside.core.run.tables import used_items
from lineside.machines.alarms import robust_spread, spread_within
from lineside.machines.alarms.verdict import Verdict, date
from lineside.machines.data import find_snapshots
from lineside.machines.data.dataset import FITTED_SHARE, by_machine
from lineside.machines.data.items import FAULTY, Snapshot
from lineside.machines.explain.evidence import describe_feature
from lineside.machines.model import MachinesModel
from lineside.machines.models.machine import Machine
from lineside.machines.monitoring.sensors import is_well
from lineside.machines.outcomes import calibrate, outcomes
from lineside.machines.signals import Engine
from lineside.machines.training.derived_models import parent_of, save_child, settings_of
from lineside.machines.training.fitting import learn_machine, load_all
from lineside.machines.training.fleet import options_of
from lineside.machines.training.learning_record import needs_words, rows_of

FEWEST = 60
"""Snapshots to learn a machine from: a third of them calibrates."""
FEWEST_COMPARED = 5
DAY = 86400.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Consent:
    """Who answers for a learning, and why.

    Attributes:
        by: Name of the person.
        why: The reason, e.g. ``"bearing replaced"``.
        over_alarm: Learn although an alarm was running.
    """

    by: str = ""
    why: str = ""
    over_alarm: bool = False

    @property
    def given(self) -> bool:
        """True if there are a name and a reason."""
        return bool(self.by.strip() and self.why.strip())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Move:
    """What learning anew would do to a machine's normal.

    Attributes:
        shift: Largest move of a feature, over all the snapshots or over the last fifth of them,
            in robust spreads; 0 where nothing can be compared.
        feature: Its name, empty where nothing can be compared.
        alarm: Whether the old model ends these snapshots with an alarm.
    """

    shift: float = 0.0
    feature: str = ""
    alarm: bool = False


def learn_anew(
    data: Path,
    model: Path,
    out: Path,
    *,
    machine: str,
    since: str,
    until: str = "",
    consent: Consent,
) -> list[str]:
    """Learn one machine from its snapshots since a time, and write a child model.

    All other machines stay as they are. The machine may be one that the model never learned.

    Args:
        data: A folder of machines or of this machine.
        model: A run or a model folder; it stays as it is.
        out: The child's folder; it may not exist yet.
        machine: Name of the machine.
        since: Date, date and time (UTC), or seconds, of the first snapshot.
        until: The same of the last one; a date includes its day. Without it the first ``learn``
            snapshots of the run's settings are taken.
        consent: Without one the learning is refused with what it would change.

    Returns:
        Lines that say what was learned.

    Raises:
        UserError: no consent, an alarm that was running, too few snapshots, or an existing folder.
    """
    folder, parent = parent_of(model, out)
    config = settings_of(folder)
    own = _chosen(data, machine, since, until, config.learn)
    old = parent.machines.get(machine)
    move = Move() if old is None else _move(parent, old, own)
    _check(machine, own, old, move, consent)
    fitted = round(FITTED_SHARE * len(own))
    train, held = own[:fitted], own[fitted:]
    new = learn_machine(
        train, parent.method, rng=rng_of(config.seed, f"{parent.method} {machine}"),
        log=lambda row: None, stop=lambda: False, options=options_of(parent.method, config),
        held_out=held,
    )  # fmt: skip
    row = dataclasses.replace(
        new.ledger[-1], shift=move.shift, shifting=move.feature, by=consent.by, why=consent.why,
        over_alarm=move.alarm, decided=clock.time(),
    )  # fmt: skip
    before = () if old is None else tuple(rows_of(old))
    alone = MachinesModel(
        method=parent.method, machines={machine: dataclasses.replace(new, ledger=(*before, row))}
    )
    alone = calibrate(alone, list(outcomes(alone, held)), config)
    child = dataclasses.replace(parent, machines={**parent.machines, **alone.machines})
    used = [*used_items(train, "train"), *used_items(held, "calibration")]
    lines = save_child(folder, parent, child, machine, out, used)
    learned = child.machines[machine]
    if row.drift > row.steady:
        lines.append(f"note: {machine}: {needs_words(learned)}")
    return lines


def give_consent(model: Path, out: Path, *, machine: str, consent: Consent) -> list[str]:
    """Answer for a normal that drifted while it was learned, and write a child model.

    Raises:
        UserError: no name or reason, an unknown machine, or one that needs no consent.
    """
    folder, parent = parent_of(model, out)
    learned = parent.machines.get(machine)
    if learned is None:
        raise UserError(
            f"machine {machine!r} was never learned",
            f"this model knows {', '.join(sorted(parent.machines))}",
        )
    if not learned.ledger or not learned.ledger[-1].needs_consent:
        raise UserError(
            f"the normal of {machine} needs no consent", "see: lineside machines ledger"
        )
    if not consent.given:
        raise UserError(
            f"{machine}: {needs_words(learned).partition(';')[0]}",
            "after looking at the machine give --by NAME and --why REASON",
        )
    row = dataclasses.replace(
        learned.ledger[-1], by=consent.by, why=consent.why, decided=clock.time()
    )
    changed = dataclasses.replace(learned, ledger=(*learned.ledger, row))
    child = dataclasses.replace(parent, machines={**parent.machines, machine: changed})
    return save_child(folder, parent, child, machine, out)


def moment(text: str, *, end: bool = False) -> float:
    """Return the seconds that a date, a date and time (UTC), or a number means.

    Args:
        text: E.g. ``2026-01-31``, ``2026-01-31T08:15``, or ``3600`` for an undated history.
        end: A date alone means the end of its day.

    Raises:
        UserError: if it is none of them.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            raise UserError(f"{text!r} is no date", "e.g. 2026-01-31 or 2026-01-31T08:15") from None
    dated = found if found.tzinfo else found.replace(tzinfo=UTC)
    whole_day = end and len(text) <= len("2026-01-31")
    return dated.timestamp() + (DAY - 0.001 if whole_day else 0.0)


def _chosen(data: Path, machine: str, since: str, until: str, most: int) -> list[Snapshot]:
    """The snapshots of a machine to learn from, in order of time."""
    if not data.exists():
        raise UserError(f"{data} does not exist", "check the path of the data")
    found = by_machine([s for s in find_snapshots(data) if isinstance(s, Snapshot)])
    if machine not in found:
        raise UserError(f"{data} has no machine {machine!r}", f"there is: {', '.join(found)}")
    first = moment(since)
    last = moment(until, end=True) if until else np.inf
    own = [s for s in found[machine] if first <= s.time <= last]
    own = own if until else own[:most]
    if len(own) < FEWEST:
        raise UserError(
            f"{machine} has {len(own)} snapshots {_span(since, until)}",
            f"at least {FEWEST} are needed to learn and calibrate it",
        )
    faulty = sum(s.label == FAULTY for s in own)
    if faulty:
        raise UserError(
            f"{faulty} of the {len(own)} snapshots of {machine} {_span(since, until)} are "
            "labelled faulty", "choose a time at which the machine was healthy",
        )  # fmt: skip
    return own


def _span(since: str, until: str) -> str:
    return f"since {since}" + (f" until {until}" if until else "")


def _check(
    machine: str, own: Sequence[Snapshot], old: Machine | None, move: Move, consent: Consent
) -> None:
    """Refuse what nobody answers for, saying what it would change."""
    if consent.given and (consent.over_alarm or not move.alarm):
        return
    what = f"learning {machine} from {date(own[0].time)} to {date(own[-1].time)}"
    if old is not None:
        change = (
            f"would move its normal by up to {move.shift:.1f} robust spreads "
            f"({describe_feature(old, move.feature)})"
            if move.feature
            else "cannot be compared with its normal: none of them runs as it was learned"
        )
        what = f"{what} {change}"
    if move.alarm:
        what += ", and an alarm is running at their end"
    missing = "" if consent.given else "give --by NAME and --why REASON"
    over = "add --over-alarm" if move.alarm and not consent.over_alarm else ""
    flags = " and ".join(flag for flag in (missing, over) if flag)
    raise UserError(
        f"{what}: nothing is learned as normal without a person's consent",
        f"look at the machine; if it is well, {flags}",
    )


def _move(parent: MachinesModel, old: Machine, own: Sequence[Snapshot]) -> Move:
    """Compare snapshots with the old normal, feature by feature, and judge them by it."""
    engine, names = Engine(old.layout), old.layout.names
    rows = []
    for measurement in load_all(own)[0]:
        if not is_well(measurement, old.norms):
            continue
        row = engine.features(measurement)
        if old.operation.running(measurement, row, names) == "learned":
            rows.append(old.operation.residual(measurement, row))
    verdicts = [v for v in parent.predict(own) if isinstance(v, Verdict)]
    alarm = bool(verdicts) and verdicts[-1].state in ("alert", "danger")
    columns = list(old.main.columns)
    values = np.array(rows, dtype=np.float64).reshape(-1, len(names))[:, columns]
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) < FEWEST_COMPARED:
        return Move(alarm=alarm)
    reference = old.reference[:, columns].astype(np.float64)
    centre = old.operation.usual[columns]
    spread = np.minimum(robust_spread(reference), spread_within(values))
    last = values[-max(2, len(values) // 5) :]
    middles = np.stack([np.median(values, axis=0), np.median(last, axis=0)])
    moves = np.abs((middles - centre) / spread).max(axis=0)
    worst = int(moves.argmax())
    return Move(shift=float(moves[worst]), feature=names[columns[worst]], alarm=alarm)
