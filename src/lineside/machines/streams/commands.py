"""What the verbs ``watch``, ``replay``, ``fleet``, ``acknowledge`` and ``mute`` do."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from lineside.core.commands import print_results
from lineside.core.errors import UserError
from lineside.core.run.files import canonical
from lineside.core.run.model_store import load_model
from lineside.machines.alarms.actions import ActionKind
from lineside.machines.alarms.verdict import FIRST_DATED, format_time
from lineside.machines.application import APPLICATION
from lineside.machines.store import RetentionPolicy, Store, add_action, open_store, replay
from lineside.machines.store.chain import check_ends, verify_store
from lineside.machines.store.queries import MachineStatus, fleet
from lineside.machines.streams.console import ConsoleReporter
from lineside.machines.streams.watch import FINDING, Options, watch
from lineside.machines.training.learning_record import consent_notes


def run_watch(
    data: Sequence[Path],
    model: Path,
    store: str,
    *,
    mqtt: str,
    http: str,
    options: Options,
    retention: RetentionPolicy,
    durable: bool,
    as_json: bool,
    everything: bool,
) -> int:
    """Watch with a stored model and return the exit code, see `watch`.

    Raises:
        UserError: see `watch`; or the model is of another application.
    """
    fitted = load_model(model, APPLICATION)
    console = ConsoleReporter(as_json=as_json, everything=everything)
    for line in consent_notes(fitted):
        console.note(line)
    _refuse_emptied(store)
    if "://" not in store and not Path(store).expanduser().exists():
        console.note(f"a new store: {store}")
    with open_store(store, retention=retention, durable=durable) as opened:
        check_ends(opened)
        return watch(
            data, fitted, opened, mqtt=mqtt, http=http, options=options, console=console
        )  # fmt: skip


def run_verification(store: str) -> int:
    """Print which verdicts of a store were changed, one line each; exit code 1 if any was.

    Raises:
        UserError: if there is no such store, or it is signed and no key is given.
    """
    with open_existing(store) as opened:
        found = verify_store(opened)
    for fault in found.faults:
        print(fault)
    if found.faults:
        return FINDING
    older = f"; {found.before} older ones have no hash" if found.before else ""
    print(f"{found.verdicts} verdicts are as they were written{older}")
    return 0


def run_replay(machine: str, model: Path, store: str, *, as_json: bool) -> int:
    """Judge the stored snapshots of a machine again and print each.

    Raises:
        UserError: if there is no such store or machine, or the model does not know it.
    """
    fitted = load_model(model, APPLICATION)
    with open_existing(store) as opened:
        return print_results(list(replay(opened, fitted, machine)), as_json=as_json)


def run_fleet(store: str, *, as_json: bool, print_line: Callable[[str], None] = print) -> int:
    """Print one line per machine, the worst first; exit code 1 if one needs a person.

    Raises:
        UserError: if there is no such store.
    """
    with open_existing(store) as opened:
        machines = sorted(fleet(opened), key=_urgency)
    if not as_json:
        print_line(f"{'state':<13} {'novelty':>8}  {'newest (UTC)':<19}  machine")
    for machine in machines:
        print_line(canonical(asdict(machine)).decode() if as_json else _line(machine))
    return FINDING if any(_needs_person(machine) for machine in machines) else 0


def run_action(
    kind: ActionKind, machine: str, store: str, *, by: str, why: str, hours: float = 0.0
) -> int:
    """Acknowledge an alarm or mute a machine for some hours; effective with its next snapshot.

    Raises:
        UserError: if there is no such store or machine, or the hours are not positive.
    """
    by = by or getpass.getuser()
    until, done = None, f"acknowledged by {by}"
    with open_existing(store) as opened:
        if kind == "mute":
            if hours <= 0:
                raise UserError("a mute needs hours", "e.g. --hours 8")
            until = _now(opened, machine) + 3600 * hours
            done = f"muted by {by} until {format_time(until)}"
        add_action(opened, machine, kind, by=by, why=why, until=until)
    print(f"{machine}: {done}, effective with its next snapshot")
    return 0


def open_existing(store: str) -> Store:
    """Open a store that exists.

    Raises:
        UserError: if it does not.
    """
    if "://" not in store and not Path(store).expanduser().exists():
        raise UserError(f"there is no store {store}", "lineside machines watch creates one")
    _refuse_emptied(store)
    return open_store(store)


def _refuse_emptied(store: str) -> None:
    """Refuse a file of no bytes, which SQLite would take for a new database."""
    path = Path(store).expanduser()
    if "://" in store or not path.is_file() or path.with_name(f"{path.name}-wal").exists():
        return
    if path.stat().st_size == 0:
        raise UserError(f"the store {store} was emptied", "restore a copy, or remove it")


def _now(store: Store, machine: str) -> float:
    """Return the present time of a machine's snapshots: ours, or that of its newest one.

    Snapshots without dates count seconds from some start, to which our clock means nothing.
    """
    newest = next((status.time for status in fleet(store) if status.machine == machine), None)
    return time.time() if newest is None or newest >= FIRST_DATED else newest


def _needs_person(machine: MachineStatus) -> bool:
    running = machine.level in ("alert", "danger") and not machine.acknowledged_by
    return running or machine.state in ("sensor fault", "unknown state")


def _urgency(machine: MachineStatus) -> tuple[int, str]:
    """Sort dangers before alerts before the rest; those that need nobody two ranks later."""
    rank = {"danger": 0, "alert": 1}.get(machine.level, 2)
    return rank + 2 * (not _needs_person(machine)), machine.machine


def _line(machine: MachineStatus) -> str:
    novelty = "       -" if machine.novelty is None else f"{machine.novelty:8.2f}"
    newest = "never judged" if machine.time is None else format_time(machine.time)
    remarks = []
    if machine.level != "normal" and machine.level != machine.state:
        remarks.append(f"{machine.level} goes on")
    if machine.acknowledged_by:
        remarks.append(f"acknowledged by {machine.acknowledged_by}")
    if machine.muted_until is not None:
        remarks.append(f"muted until {format_time(machine.muted_until)}")
    for count, reason in (
        (machine.out_of_order, "out of order"),
        (machine.refused, "refused"),
        (machine.unknown_machine, "before the model knew it"),
    ):
        if count:
            remarks.append(f"{count} {reason}")
    remark = f"  ({', '.join(remarks)})" if remarks else ""
    return f"{machine.state or '-':<13} {novelty}  {newest:<19}  {machine.machine}{remark}"
