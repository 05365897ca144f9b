"""Roles of snapshots: each machine is fitted to its own beginning and tested on what follows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lineside.core.contract import Refusal, Split
from lineside.machines.config import Config
from lineside.machines.data.histories import find_snapshots
from lineside.machines.data.items import Snapshot

FITTED_SHARE = 2 / 3
"""Share of the training snapshots that are fitted; the later third is for calibration."""
LARGEST_SHARE = 0.6
"""Largest share of a history to learn from, so that something is left to test."""


def split(items: Sequence[Snapshot], config: Config) -> Split:
    """Split every machine by time: fit, calibrate, test; the run-in is left out."""
    train: list[Snapshot] = []
    calibration: list[Snapshot] = []
    test: list[Snapshot] = []
    for history in by_machine(items).values():
        start = history[0].time + config.run_in_hours * 3600
        history = [s for s in history if s.time >= start]
        learned = min(config.learn, int(LARGEST_SHARE * len(history)))
        fitted = round(FITTED_SHARE * learned)
        train += history[:fitted]
        calibration += history[fitted:learned]
        test += history[learned:]
    return Split(
        train=tuple(train),
        calibration=tuple(calibration),
        test=tuple(test),
        unit="time within group",
    )


def by_machine(items: Sequence[Snapshot]) -> dict[str, list[Snapshot]]:
    """Return the snapshots of each machine in order of time."""
    machines: dict[str, list[Snapshot]] = {}
    for item in items:
        machines.setdefault(item.machine, []).append(item)
    return {
        name: sorted(history, key=lambda s: s.time) for name, history in sorted(machines.items())
    }


def sources(files: Sequence[Path], config: Config) -> list[Snapshot | Refusal]:
    """Return the snapshots of folders of machines, folders of one machine, or single files.

    Raises:
        UserError: if a folder holds nothing that could be a snapshot.
    """
    entries: list[Snapshot | Refusal] = []
    for path in files:
        if path.exists():
            entries += find_snapshots(path)
        else:
            entries.append(Refusal(item=str(path), message="does not exist", hint="check the path"))
    return entries
