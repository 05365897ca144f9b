"""Items and roles: each machine learns from its own beginning and is tested on what follows."""

from __future__ import annotations

from collections.abc import Sequence

from lineside.core.contract import Split
from lineside.machines.config import Config
from lineside.machines.data.items import Snapshot

FITTED_SHARE = 2 / 3
"""Of the snapshots that are learned from; the later third calibrates."""
LARGEST_SHARE = 0.6
"""Of a history that may be learned from, so that something is left to test."""


def split(items: Sequence[Snapshot], config: Config) -> Split:
    """Split every machine by time: fit, then calibrate, then test; run-in is left out."""
    train: list[Snapshot] = []
    calibration: list[Snapshot] = []
    test: list[Snapshot] = []
    for own in by_machine(items).values():
        begun = own[0].time + config.run_in_hours * 3600
        settled = [s for s in own if s.time >= begun]
        learned = min(config.learn, int(LARGEST_SHARE * len(settled)))
        fitted = round(FITTED_SHARE * learned)
        train += settled[:fitted]
        calibration += settled[fitted:learned]
        test += settled[learned:]
    return Split(
        train=tuple(train),
        calibration=tuple(calibration),
        test=tuple(test),
        unit="time within group",
    )


def by_machine(items: Sequence[Snapshot]) -> dict[str, list[Snapshot]]:
    """Return the snapshots of each machine in order of time."""
    found: dict[str, list[Snapshot]] = {}
    for item in items:
        found.setdefault(item.machine, []).append(item)
    return {name: sorted(own, key=lambda s: s.time) for name, own in sorted(found.items())}
