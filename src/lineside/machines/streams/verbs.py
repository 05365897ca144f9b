"""What the verbs ``watch``, ``fleet``, ``acknowledge`` and ``mute`` of the command line do."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from lineside.core.commands import print_results
from lineside.core.errors import UserError
from lineside.core.run.files import canonical
from lineside.machines.alarms.verdict import FIRST_DATED, date
from lineside.machines.store import Ring, Store, open_store, replay
from lineside.machines.store.queries import Standing, fleet
from lineside.machines.streams.telling import Teller
from lineside.machines.streams.watching import FINDING, Options, watch
from lineside.machines.training.derived_models import model_of
from lineside.machines.training.learning_record import notes


def run_watch(
    data: Sequence[Path],
    model: Path,
    store: str,
    *,
    mqtt: str,
    http: str,
    options: Options,
    ring: Ring,
    durable: bool,
    as_json: bool,
    everything: bool,
) -> int:
    """Watch with a stored model and return the exit code, see `watching.watch`.

    Raises:
        UserError: see `watching.watch`; or the model is of another application.
    """
    fitted = model_of(model)
    teller = Teller(as_json=as_json, everything=everything)
    for line in notes(fitted):
        teller.note(line)
    with open_store(store, ring=ring, durable=durable) as opened:
        return watch(
            data, fitted, opened, mqtt=mqtt, http=http, options=options, teller=teller
        )  # fmt: skip


def run_replay(machine: str, model: Path, store: str, *, as_json: bool) -> int:
    """Judge the stored snapshots of a machine again and print each.

    Raises:
        UserError: if there is no such store or machine, or the model never learned it.
    """
    fitted = model_of(model)
    with existing(store) as opened:
        return print_results(list(replay(opened, fitted, machine)), as_json=as_json)


def run_fleet(store: str, *, as_json: bool, say: Callable[[str], None] = print) -> int:
    """Print one line per machine, the worst first; exit code 1 if one needs a person.

    Raises:
        UserError: if there is no such store.
    """
    with existing(store) as opened:
        machines = sorted(fleet(opened), key=_urgency)
    if not as_json:
        say(f"{'state':<13} {'novelty':>8}  {'newest (UTC)':<19}  machine")
    for machine in machines:
        say(canonical(asdict(machine)).decode() if as_json else _line(machine))
    return FINDING if any(_needs_person(machine) for machine in machines) else 0


def run_action(
    kind: str, machine: str, store: str, *, by: str, why: str, hours: float = 0.0
) -> int:
    """Acknowledge an alarm or mute a machine for some hours; effective with its next snapshot.

    Raises:
        UserError: if there is no such store or machine, or the hours are not positive.
    """
    by = by or getpass.getuser()
    with existing(store) as opened:
        if kind == "acknowledge":
            opened.acknowledge(machine, by, why)
            print(f"{machine}: acknowledged by {by}, effective with its next snapshot")
            return 0
        if hours <= 0:
            raise UserError("a mute needs hours", "e.g. --hours 8")
        until = _now(opened, machine) + 3600 * hours
        opened.mute(machine, until, by, why)
        print(f"{machine}: muted by {by} until {date(until)}, effective with its next snapshot")
    return 0


def existing(store: str) -> Store:
    """Open a store that is there already.

    Raises:
        UserError: if it is not.
    """
    if "://" not in store and not Path(store).expanduser().exists():
        raise UserError(f"there is no store {store}", "lineside machines watch makes one")
    return open_store(store)


def _now(store: Store, machine: str) -> float:
    """Return the time that the snapshots of a machine go by: ours, or that of its newest one."""
    newest = next((row.time for row in fleet(store) if row.machine == machine), None)
    dated = newest is None or newest >= FIRST_DATED
    return time.time() if dated or newest is None else newest


def _needs_person(machine: Standing) -> bool:
    running = machine.level in ("alert", "danger") and not machine.acknowledged_by
    return running or machine.state in ("sensor fault", "unknown state")


def _urgency(machine: Standing) -> tuple[int, str]:
    order = ["danger", "alert"]
    place = order.index(machine.level) if machine.level in order else len(order)
    return place + (not _needs_person(machine)) * len(order), machine.machine


def _line(machine: Standing) -> str:
    novelty = "       -" if machine.novelty is None else f"{machine.novelty:8.2f}"
    newest = "never judged" if machine.time is None else date(machine.time)
    notes = []
    if machine.level != "normal" and machine.level != machine.state:
        notes.append(f"{machine.level} goes on")
    if machine.acknowledged_by:
        notes.append(f"acknowledged by {machine.acknowledged_by}")
    if machine.muted_until is not None:
        notes.append(f"muted until {date(machine.muted_until)}")
    for count, word in (
        (machine.late, "late"),
        (machine.refused, "refused"),
        (machine.never_learned, "never learned"),
    ):
        if count:
            notes.append(f"{count} {word}")
    told = f"  ({', '.join(notes)})" if notes else ""
    return f"{machine.state or '-':<13} {novelty}  {newest:<19}  {machine.machine}{told}"
