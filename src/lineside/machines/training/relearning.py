"""Learning one machine again, or a new one, with a person's consent: makes a derived model.

A baseline never adapts by itself. After a repair a machine is learned again on request, from a
stated time on, under a person's name.
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
from lineside.machines.alarms.verdict import Verdict, format_time
from lineside.machines.data import find_snapshots, load_measurements
from lineside.machines.data.dataset import FITTED_SHARE, by_machine
from lineside.machines.data.items import FAULTY, Snapshot
from lineside.machines.explain.evidence import describe_feature
from lineside.machines.model import MachinesModel
from lineside.machines.models.machine import Machine
from lineside.machines.models.presets import preset
from lineside.machines.outcomes import calibrate, outcomes
from lineside.machines.signals.engine import Engine
from lineside.machines.training.baseline import detrended_spread, robust_spread
from lineside.machines.training.derived_models import load_parent, load_settings, save_derived_model
from lineside.machines.training.fitting import compensated_rows, fit_machine
from lineside.machines.training.learning_record import consent_note, drift_sentence

FEWEST = 60
"""Fewest snapshots to learn a machine from: a third of them is held out for calibration."""
FEWEST_COMPARED = 5
DAY = 86400.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Consent:
    """Who takes responsibility for a training, and why.

    Attributes:
        by: Name of the person.
        why: The reason, e.g. ``"bearing replaced"``.
        over_alarm: Learn although an alarm is active.
    """

    by: str = ""
    why: str = ""
    over_alarm: bool = False

    @property
    def given(self) -> bool:
        """True if there are a name and a reason."""
        return bool(self.by.strip() and self.why.strip())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """New snapshots of a machine compared with its baseline.

    Attributes:
        shift: Largest move of a feature's median, over all snapshots or over the last fifth of
            them, in robust spreads; 0 if nothing can be compared.
        feature: Its name, empty if nothing can be compared.
        alarm: Whether an alarm of the old model is active at the last of these snapshots.
    """

    shift: float = 0.0
    feature: str = ""
    alarm: bool = False


def relearn(
    data: Path,
    model: Path,
    out: Path,
    *,
    machine: str,
    since: str,
    until: str = "",
    consent: Consent,
) -> list[str]:
    """Learn one machine from its snapshots since a time, and save a derived model.

    All other machines stay as they are. The machine may be new to the model.

    Args:
        data: A folder of machines or of this machine.
        model: A run or a model folder; it stays as it is.
        out: Folder of the derived model; it must not exist yet.
        machine: Name of the machine.
        since: Date, date and time (UTC), or seconds, of the first snapshot.
        until: The same of the last one; a date includes its day. Without it the first ``learn``
            snapshots of the run's settings are taken.
        consent: Without one the training is refused, with the change it would make.

    Returns:
        Lines that say what was learned.

    Raises:
        UserError: no consent, an active alarm, too few snapshots, or an existing folder.
    """
    folder, parent = load_parent(model, out)
    config = load_settings(folder)
    snapshots = _select(data, machine, since, until, config.learn)
    old = parent.machines.get(machine)
    comparison = Comparison() if old is None else _compare(parent, old, snapshots)
    _check_consent(machine, snapshots, old, comparison, consent)
    fitted = round(FITTED_SHARE * len(snapshots))
    train, held_out = snapshots[:fitted], snapshots[fitted:]
    new = fit_machine(
        train, parent.method, rng=rng_of(config.seed, f"{parent.method} {machine}"),
        options=preset(config.preset).get(parent.method, {}), held_out=held_out,
    )  # fmt: skip
    entry = dataclasses.replace(
        new.learning_record[-1], shift=comparison.shift, shift_feature=comparison.feature,
        by=consent.by, why=consent.why, over_alarm=comparison.alarm, decided_at=clock.time(),
    )  # fmt: skip
    record = () if old is None else old.learning_record
    new = dataclasses.replace(new, learning_record=(*record, entry))
    single = MachinesModel(method=parent.method, machines={machine: new})
    single = calibrate(single, list(outcomes(single, held_out)), config)
    derived = dataclasses.replace(parent, machines={**parent.machines, **single.machines})
    used = [*used_items(train, "train"), *used_items(held_out, "calibration")]
    lines = save_derived_model(folder, parent, derived, machine, out, used)
    if entry.drift > entry.drift_limit:
        lines.append(f"note: {machine}: {consent_note(derived.machines[machine])}")
    return lines


def give_consent(model: Path, out: Path, *, machine: str, consent: Consent) -> list[str]:
    """Consent to a baseline that drifted during training, and save a derived model.

    Raises:
        UserError: no name or reason, an unknown machine, or one that needs no consent.
    """
    folder, parent = load_parent(model, out)
    fitted = parent.machines.get(machine)
    if fitted is None:
        raise UserError(
            f"unknown machine {machine!r}", f"this model has {', '.join(sorted(parent.machines))}"
        )
    if not fitted.learning_record or not fitted.learning_record[-1].needs_consent:
        raise UserError(
            f"the baseline of {machine} needs no consent", "see: lineside machines ledger"
        )
    if not consent.given:
        raise UserError(
            f"{machine}: {drift_sentence(fitted)}",
            "inspect the machine, then give --by NAME and --why REASON",
        )
    entry = dataclasses.replace(
        fitted.learning_record[-1], by=consent.by, why=consent.why, decided_at=clock.time()
    )
    fitted = dataclasses.replace(fitted, learning_record=(*fitted.learning_record, entry))
    derived = dataclasses.replace(parent, machines={**parent.machines, machine: fitted})
    return save_derived_model(folder, parent, derived, machine, out)


def parse_time(text: str, *, end: bool = False) -> float:
    """Return the seconds of a date, of a date and time (UTC), or of a number of seconds.

    Args:
        text: E.g. ``2026-01-31``, ``2026-01-31T08:15``, or ``3600`` for a history without dates.
        end: Return the end of the day for a date without a time.

    Raises:
        UserError: if it is none of them.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            raise UserError(
                f"{text!r} is not a date", "e.g. 2026-01-31 or 2026-01-31T08:15"
            ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    is_date = len(text) <= len("2026-01-31")
    return moment.timestamp() + (DAY - 0.001 if end and is_date else 0.0)


def _select(data: Path, machine: str, since: str, until: str, most: int) -> list[Snapshot]:
    """Return the snapshots of a machine to learn from, in order of time."""
    if not data.exists():
        raise UserError(f"{data} does not exist", "check the path of the data")
    machines = by_machine([s for s in find_snapshots(data) if isinstance(s, Snapshot)])
    if machine not in machines:
        raise UserError(f"{data} has no machine {machine!r}", f"it has {', '.join(machines)}")
    first = parse_time(since)
    last = parse_time(until, end=True) if until else np.inf
    snapshots = [s for s in machines[machine] if first <= s.time <= last]
    snapshots = snapshots if until else snapshots[:most]
    span = f"since {since}" + (f" until {until}" if until else "")
    if len(snapshots) < FEWEST:
        raise UserError(
            f"{machine} has {len(snapshots)} snapshots {span}",
            f"at least {FEWEST} are needed to fit and calibrate it",
        )
    faulty = sum(s.label == FAULTY for s in snapshots)
    if faulty:
        raise UserError(
            f"{faulty} of the {len(snapshots)} snapshots of {machine} {span} are labelled faulty",
            "choose a period in which the machine was healthy",
        )
    return snapshots


def _compare(parent: MachinesModel, old: Machine, snapshots: Sequence[Snapshot]) -> Comparison:
    """Compare snapshots with the old baseline, feature by feature, and judge them by it."""
    measurements, _ = load_measurements(snapshots)
    model = old.operating_model
    rows, _ = compensated_rows(measurements, Engine(old.layout), old.norms, model)
    verdicts = [v for v in parent.predict(snapshots) if isinstance(v, Verdict)]
    alarm = bool(verdicts) and verdicts[-1].state in ("alert", "danger")
    columns = list(old.main.columns)
    values = rows[:, columns].astype(np.float64)
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) < FEWEST_COMPARED:
        return Comparison(alarm=alarm)
    reference = old.reference[:, columns].astype(np.float64)
    spread = np.minimum(robust_spread(reference), detrended_spread(values))
    last = values[-max(2, len(values) // 5) :]
    medians = np.stack([np.median(values, axis=0), np.median(last, axis=0)])  # (2, column)
    moves = np.abs((medians - model.medians[columns]) / spread).max(axis=0)
    worst = int(moves.argmax())
    return Comparison(
        shift=float(moves[worst]), feature=old.layout.names[columns[worst]], alarm=alarm
    )


def _check_consent(
    machine: str,
    snapshots: Sequence[Snapshot],
    old: Machine | None,
    comparison: Comparison,
    consent: Consent,
) -> None:
    """Refuse a training without consent, and say what it would change."""
    if consent.given and (consent.over_alarm or not comparison.alarm):
        return
    first, last = format_time(snapshots[0].time), format_time(snapshots[-1].time)
    what = f"learning {machine} from {first} to {last}"
    if old is not None:
        what += (
            f" would move its baseline by up to {comparison.shift:.1f} robust spreads "
            f"({describe_feature(old, comparison.feature)})"
            if comparison.feature
            else " cannot be compared with its baseline: no snapshot is at a trained speed and load"
        )
    if comparison.alarm:
        what += ", and an alarm is active at their end"
    missing = "" if consent.given else "give --by NAME and --why REASON"
    over = "add --over-alarm" if comparison.alarm and not consent.over_alarm else ""
    flags = " and ".join(flag for flag in (missing, over) if flag)
    raise UserError(
        f"{what}: nothing is learned as normal without a person's consent",
        f"inspect the machine; if it is healthy, {flags}",
    )
