"""FEMTO's four run-to-failure histories through the product: alert by novelty, danger by level.

Nothing is set here: a training's defaults, the files as they lie on the disk. Two tiers are the
default because of these four histories (and the ratio was chosen on them), so that this shows that
the product does what was found, not that it would on other bearings. Nectoux et al. 2012.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from pathlib import Path

from benchmarks.machines.histories import DATA
from benchmarks.machines.simulated import calibrated
from benchmarks.results import Say, plain
from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.machines.data import find_snapshots, load_measurement
from lineside.machines.data.items import Snapshot
from lineside.machines.models.machine import Machine
from lineside.machines.monitoring.session import Session

RUNS = ("1_2", "2_1", "2_2", "3_1")
LEARN = 200
STEP_SECONDS = 10.0
Told = tuple[list[int], list[int], int]
"""Rows where episodes begin, rows where danger is told, number of rows."""


def tiers(say: Say) -> None:
    """FEMTO by the product's defaults: which tier speaks when, with and without danger by level.

    About 20 s.
    """
    found: dict[str, list[Told]] = {}
    for run in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            for name, told in _run(run, Path(folder)).items():
                found.setdefault(name, []).append(told)
                alerts, dangers, count = told
                lead = (count - 1 - dangers[0]) * STEP_SECONDS if dangers else math.nan
                print(
                    f"{run} {name:<20} episodes begin at {alerts[:6]}, danger at {dangers[:4]} of "
                    f"{count}, lead of the danger {lead:.0f} s"
                )
    for name, suffix in (("pca", ""), ("pca, novelty only", "_novelty_only")):
        own = found[name]
        early = sum(sum(d < count / 2 for d in dangers) for _, dangers, count in own)
        missed = sum(not dangers for _, dangers, _ in own)
        leads = [(n - 1 - dangers[0]) * STEP_SECONDS if dangers else 0.0 for _, dangers, n in own]
        say(f"femto_product_danger_early{suffix}", plain(early, "episodes", 4, "lower"))
        say(f"femto_product_danger_missed{suffix}", plain(missed, "failures", 4, "lower"))
        say(f"femto_product_danger_lead_min{suffix}", plain(min(leads), "s", 4))


def _run(run: str, folder: Path) -> dict[str, Told]:
    """Learn, calibrate and judge one history by two methods, with and without danger by level."""
    path = DATA / "femto" / f"Bearing{run}.npz"
    if not path.exists():
        raise UserError(f"{path} is absent", "this benchmark needs the FEMTO histories")
    (folder / run).mkdir()
    (folder / run / "history.npz").symlink_to(path)
    snapshots = [s for s in find_snapshots(folder) if isinstance(s, Snapshot)]
    found = {}
    for method, machine in calibrated(snapshots[:LEARN], ("pca", "trend"), 0).items():
        rules = dataclasses.replace(machine.rules, growth=math.inf)
        found[method] = (*_episodes(machine, snapshots), len(snapshots))
        other = dataclasses.replace(machine, rules=rules)
        found[f"{method}, novelty only"] = (*_episodes(other, snapshots), len(snapshots))
    return found


def _episodes(machine: Machine, snapshots: list[Snapshot]) -> tuple[list[int], list[int]]:
    """Rows where episodes begin, and where danger is told."""
    session, begun, dangers = Session(machine), [], []
    for place in range(LEARN, len(snapshots)):
        verdict = session.push(load_measurement(snapshots[place]))
        for event in () if isinstance(verdict, Refusal) else verdict.events:
            begun += [place] if event.evidence.get("first") else []
            dangers += [place] if event.kind == "danger" else []
    return begun, dangers
