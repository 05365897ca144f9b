"""The robustness chapter: how verdicts are counted, summarised, and reused."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from lineside.core.contract import Split
from lineside.machines.config import Config
from lineside.machines.data import find_snapshots
from lineside.machines.data.items import Snapshot
from lineside.machines.model import MachinesModel
from lineside.machines.outcomes import calibrate, outcomes
from lineside.machines.report import robustness
from lineside.machines.report.robustness import Counts, _summary
from lineside.machines.simulation.demo import save_history
from lineside.machines.simulation.rig import Rig
from lineside.machines.simulation.scenarios import Scenario, simulate_history
from lineside.machines.training.fitting import fit_machine


def test_counts_add_up_and_are_summarised():
    clean = Counts(healthy=10, faults=1, detected=1, snapshots=20)
    exceeding = dataclasses.replace(clean, exceedances=8, false_alarms=1, detected=0)
    blind = Counts(faults=1, flagged=20, snapshots=20)
    assert (clean + exceeding).exceedances == 8 and (clean + exceeding).snapshots == 40
    rows = {"noise": [clean, clean, exceeding, exceeding, exceeding], "gaps": [clean] * 4 + [blind]}
    assert _summary("pca", rows) == (
        "pca raises false alarms under noise from grade 2; misses a fault but flags the snapshots "
        "under gaps from grade 4; misses a fault without a flag under noise from grade 2."
    )
    assert _summary("pca", {"noise": [clean] * 5}) == "pca raises no false alarm."


@pytest.fixture(scope="module")
def pump(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet")
    scenario = Scenario(
        name="pump", rig=Rig(seconds=0.1), days=14.0, onset_day=9.0, growth_days=5.0, run_in=0.0
    )
    save_history(simulate_history(scenario, np.random.default_rng(0)), folder / "pump")
    items = [s for s in find_snapshots(folder) if isinstance(s, Snapshot)]
    machine = fit_machine(
        items[:56], "pca", rng=np.random.default_rng(0), log=lambda row: None, stop=lambda: False
    )
    model = MachinesModel(method="pca", machines={"pump": machine}, identity="abc")
    config = Config(methods=("pca",))
    return calibrate(model, list(outcomes(model, items[56:84])), config), items[84:], config


def study_of(pump, folder):
    model, items, config = pump
    method = SimpleNamespace(
        name="pca", kind="classical", model=model, outcomes={"test": list(outcomes(model, items))}
    )
    run = SimpleNamespace(folder=folder, check_stop=lambda: None, beat=lambda **facts: None)
    return SimpleNamespace(
        run=run, methods=[method], chosen="pca", best=method, config=config,
        split=Split(test=tuple(items)),
    )  # fmt: skip


def test_the_suite_runs_once_and_flagged_snapshots_are_no_exceedances(pump, tmp_path, monkeypatch):
    monkeypatch.setattr(robustness, "BUDGET_SECONDS", 0.1)
    study = study_of(pump, tmp_path)
    results = robustness.numbers(study)
    assert results["snapshots"] == 2 * robustness.MIN_SNAPSHOTS and results["machines"] == ["pump"]
    counts = results["methods"]["pca"]
    clean = counts["load"][0]
    assert clean["faults"] == 1 and clean["detected"] == 1 and clean["false_alarms"] == 0
    assert counts["missing sensor"][4]["flagged"] == results["snapshots"]
    assert counts["missing sensor"][4]["exceedances"] == 0
    assert counts["load"][4]["exceedances"] > counts["load"][4]["healthy"] / 2
    before = (tmp_path / robustness.NAME).stat().st_mtime_ns
    section = robustness.robustness_section(study)
    assert (tmp_path / robustness.NAME).stat().st_mtime_ns == before
    assert section.blocks[0].startswith("pca ") and b"lost snapshots" in section.blocks[1].image


def test_without_healthy_snapshots_there_is_no_chapter(pump, tmp_path):
    study = study_of((pump[0], [s for s in pump[1] if s.label == "faulty"], pump[2]), tmp_path)
    assert robustness.robustness_section(study).blocks == ()
