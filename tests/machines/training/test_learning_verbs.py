"""The verbs learn, consent and ledger: exit codes, and errors of one line."""

import numpy as np
import pytest

from lineside.cli import main
from lineside.core.run.progress import Progress
from lineside.core.workflow import train
from lineside.machines.application import APPLICATION
from lineside.machines.config import Config
from lineside.machines.simulation.demo import save_history
from lineside.machines.simulation.rig import Rig
from lineside.machines.simulation.scenarios import Scenario, simulate_history


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet")
    for name, drift in (("fan", 0.0), ("mill", 1.5)):
        one = Scenario(
            name=name, rig=Rig(seconds=0.1), days=15.0, onset_day=None, run_in=0.0, drift=drift
        )
        save_history(simulate_history(one, np.random.default_rng(1)), folder / name)
    return folder


@pytest.fixture(scope="module")
def run(fleet, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "run"
    config = Config(methods=("pca",), learn=96, robustness=False)
    train(APPLICATION, fleet, out, config, Progress(quiet=True))
    return out


def call(capsys, *words):
    code = main(["machines", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_drifting_baseline_is_reported_until_somebody_consents(run, tmp_path, capsys):
    code, out, _ = call(capsys, "ledger", "--model", run)
    assert code == 1 and "mill: learned" in out and "CONSENT IS MISSING" in out
    assert "note    mill: the " in out
    child = tmp_path / "child"
    words = ["consent", "--machine", "mill", "--model", run, "--out", child, "--by", "Kim"]
    code, _, err = call(capsys, *words)
    assert code == 2 and len(err.strip().splitlines()) == 1 and "--why REASON" in err
    code, out, _ = call(capsys, *words, "--why", "a new belt")
    assert code == 0 and "Kim: a new belt" in out and str(child) in out
    code, out, _ = call(capsys, "ledger", "--model", child)
    assert code == 0 and "note" not in out


def test_learning_needs_a_name_a_reason_and_a_free_folder(run, fleet, tmp_path, capsys):
    child = tmp_path / "child"
    words = [
        "learn", fleet, "--machine", "fan", "--since", "2026-01-08", "--model", run, "--out", child
    ]  # fmt: skip
    code, _, err = call(capsys, *words)
    assert code == 2 and len(err.strip().splitlines()) == 1
    assert "would move its baseline by up to" in err and "--by NAME and --why REASON" in err
    assert not child.exists()
    consent = ["--by", "Kim", "--why", "a new bearing"]
    code, out, _ = call(capsys, *words, *consent)
    assert code == 0 and "Kim: a new bearing" in out
    code, _, err = call(capsys, *words, *consent)
    assert code == 2 and "exists already" in err
    code, _, err = call(capsys, "learn", fleet, "--machine", "fan", *consent)
    assert code == 2 and len(err.strip().splitlines()) == 1
