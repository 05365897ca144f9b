"""The example application of docs/architecture.md works as printed, through the whole workflow."""

import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from lineside.core.errors import UserError
from lineside.core.run.folder import Run, Stopped
from lineside.core.run.model_store import load_model
from lineside.core.run.progress import Progress
from lineside.core.workflow import evaluate, train

DOCS = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"


@pytest.fixture
def toy(monkeypatch):
    code = re.search(r"```python\n(.*?)```", DOCS.read_text(), re.S)
    module = types.ModuleType("lineside.toy")
    monkeypatch.setitem(sys.modules, "lineside.toy", module)
    exec(compile(code.group(1), str(DOCS), "exec"), module.__dict__)
    return module


@pytest.fixture
def numbers(tmp_path):
    rng = np.random.default_rng(0)
    for label, middle in (("good", 0.0), ("bent", 6.0)):
        folder = tmp_path / "data" / label
        folder.mkdir(parents=True)
        for i in range(45):
            (folder / f"{label}{i}.txt").write_text(str(rng.normal(middle)))
    return tmp_path / "data"


def run(toy, data, out):
    return train(toy.APPLICATION, data, out, toy.Config(), Progress(quiet=True))


def test_it_trains_reports_and_evaluates(toy, numbers, tmp_path):
    study = run(toy, numbers, tmp_path / "run")
    assert study.best.estimates["auroc"].value > 0.9
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Leaderboard" in report
    assert "http://" not in re.sub(r"http://www.w3.org/\S+", "", report)
    for name in ("config.json", "environment.json", "split.csv", "outcomes.csv", "report.json"):
        assert (tmp_path / "run" / name).exists()
    assert "Operating point" in (tmp_path / "run/models/distance/MODEL_CARD.md").read_text()
    loaded = load_model(tmp_path / "run", toy.APPLICATION)
    assert loaded.mean == pytest.approx(study.best.model.mean)
    with pytest.raises(UserError, match="were used to make this model"):
        evaluate(toy.APPLICATION, numbers, tmp_path / "run", toy.Config(), Progress(quiet=True))


def test_a_stopped_run_is_taken_up_and_ends_alike(toy, numbers, tmp_path, monkeypatch):
    whole = run(toy, numbers, tmp_path / "whole")
    calls = {"n": 0}

    def stopping(self):
        calls["n"] += 1
        return calls["n"] > 12

    with monkeypatch.context() as patch:
        patch.setattr(Run, "stopping", stopping)
        with pytest.raises(Stopped):
            run(toy, numbers, tmp_path / "run")
    assert json.loads((tmp_path / "run/status.json").read_text())["state"] == "stopped"
    again = run(toy, numbers, tmp_path / "run")
    assert again.best.model.identity == whole.best.model.identity
    assert again.best.estimates["auroc"] == whole.best.estimates["auroc"]


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("model.safetensors", lambda b: b[:-1], "damaged"),
        ("model.safetensors", lambda b: b[:-1] + bytes([b[-1] ^ 1]), "damaged"),
        ("model.json", lambda b: b.replace(b'"mm"', b'"cm"'), "altered"),
        (
            "model.json",
            lambda b: b.replace(b'"format": 2', b'"format": 9'),
            "format 9, written by lineside 0.1.0; this version reads format 2",
        ),
        ("model.json", lambda b: b.replace(b'"toy"', b'"alien"'), "alien"),
        ("model.json", lambda b: b[:40], "cannot be read as JSON"),
        (
            "model.json",
            lambda b: re.sub(rb'"threshold": [0-9.]+', b'"threshold": 0.1', b),
            "altered",
        ),
    ],
)
def test_a_tampered_model_is_refused(toy, numbers, tmp_path, name, change, words):
    run(toy, numbers, tmp_path / "run")
    path = tmp_path / "run" / "models" / "distance" / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=words):
        load_model(tmp_path / "run", toy.APPLICATION)


def test_a_crash_leaves_a_failed_run_with_a_log(toy, tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(ZeroDivisionError):
        run(toy, tmp_path / "data", tmp_path / "run")
    state = json.loads((tmp_path / "run" / "status.json").read_text())["state"]
    assert state == "failed"
    assert "ZeroDivisionError" in (tmp_path / "run" / "log").read_text()
