"""The example application of docs/architecture.md works as printed, through the whole workflow."""

import dataclasses
import json
import re
import shutil
import sys
import types
from pathlib import Path

import pytest

from lineside.core.contract import Figure, Refusal
from lineside.core.errors import UserError
from lineside.core.predictor import load_predictor
from lineside.core.report.figures import save_figures
from lineside.core.run.folder import Run, Stopped
from lineside.core.run.model_store import load_model, save_calibration
from lineside.core.run.progress import Progress
from lineside.core.run.tables import read_outcomes
from lineside.core.workflow import evaluate, train

DOCS = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"


@pytest.fixture
def toy(monkeypatch):
    code = re.search(r"```python\n(.*?)```", DOCS.read_text(), re.S)
    module = types.ModuleType("lineside.lengths")
    monkeypatch.setitem(sys.modules, "lineside.lengths", module)
    exec(compile(code.group(1), str(DOCS), "exec"), module.__dict__)
    return module


@pytest.fixture
def numbers(toy, tmp_path):
    return toy.APPLICATION.demo(tmp_path / "data", 0)


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


def test_files_are_predicted_and_explained(toy, numbers, tmp_path):
    run(toy, numbers, tmp_path / "run")
    for name, text in {"fine": "0.1", "long": "9.0", "odd": "nine"}.items():
        (tmp_path / f"{name}_left.txt").write_text(text)
    predictor = load_predictor(tmp_path / "run", toy.APPLICATION)
    files = [tmp_path / f"{name}_left.txt" for name in ("fine", "odd", "long")]
    fine, odd, long = predictor.predict(files)
    assert (fine.finding, long.finding) == (False, True)
    assert isinstance(odd, Refusal) and "nine" in odd.message
    assert "mm from the mean" in predictor.explain(files[2]).text
    assert predictor.session().push(predictor.items(files[0])[0]) == fine
    with pytest.raises(UserError, match="no files are given"):
        predictor.predict([])


def test_an_application_without_calibration(toy, numbers, tmp_path):
    """No operating point: calibration items are not judged, and `evaluate` asks for none."""
    bare = dataclasses.replace(toy.APPLICATION, calibrate=None, summary=lambda study: [])
    study = train(bare, numbers, tmp_path / "run", toy.Config(), Progress(quiet=True))
    assert study.best.outcomes["calibration"] == []
    assert study.best.model.calibration_block() == {}
    unseen = dataclasses.replace(bare, read=lambda data, config: study.split.test)
    again = evaluate(unseen, numbers, tmp_path / "run", toy.Config(), Progress(quiet=True))
    assert list(again.outcomes) == list(study.best.outcomes["test"])
    assert bare.check_guarantee(again.model, again.outcomes) is None


def test_evaluate_refuses_a_model_that_was_never_calibrated(toy, numbers, tmp_path):
    study = run(toy, numbers, tmp_path / "run")
    save_calibration(tmp_path / "run" / "models" / "distance", {})
    unseen = dataclasses.replace(toy.APPLICATION, read=lambda data, config: study.split.test)
    with pytest.raises(UserError, match="was never calibrated"):
        evaluate(unseen, numbers, tmp_path / "run", toy.Config(), Progress(quiet=True))


def test_many_labels_do_not_fill_the_report(toy, tmp_path):
    for i in range(90):
        folder = tmp_path / "data" / f"fault {i % 60:02}" if i % 3 else tmp_path / "data" / "good"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"b{i:02}_left.txt").write_text(str(i % 3 * 4.0))
    run(toy, tmp_path / "data", tmp_path / "run")
    report = (tmp_path / "run" / "report.html").read_text()
    assert "other labels" in report
    row = next(line for line in report.split("<tr>") if "<td>train</td>" in line)
    assert row.count("fault") <= 8


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
        ("model.json", lambda b: re.sub(rb'"mean": [-0-9.e]+', b'"mean": 9.5', b), "altered"),
        (
            "model.json",
            lambda b: b.replace(b'"format": 2', b'"format": 9'),
            "format 9, written by lineside 0.2.0; this version reads format 2",
        ),
        ("model.json", lambda b: b.replace(b'"lengths"', b'"alien"'), "alien"),
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


def flip(text):
    return re.sub(r'""score"": ([0-9])', r'""score"": 9\1', text, count=1)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("outcomes.csv", flip, "outcomes of distance in .* were changed: it is judged again"),
        ("outcomes.csv", lambda t: t[: len(t) // 2], "judged again"),
        ("outcomes.csv", lambda t: t[: t.rstrip().rindex("\n") + 1], "judged again"),
        ("outcomes.csv", lambda t: "", "not a table of outcomes: its methods are judged again"),
        ("outcomes.csv", lambda t: t.replace("[", "{"), "is damaged.*: its methods are judged"),
        ("models/distance/model.json", lambda t: t[:40], "distance is fitted again"),
        ("models/distance/model.json", lambda t: t.replace("mean", "median"), "is fitted again"),
        ("models/distance/model.safetensors", lambda t: "", "distance is fitted again"),
    ],
)
def test_a_stage_that_was_damaged_is_computed_again_and_said(
    toy, numbers, tmp_path, monkeypatch, capsys, name, change, said
):
    def stop(study, progress):
        raise Stopped

    def again():
        return train(toy.APPLICATION, numbers, tmp_path / "run", toy.Config(), Progress())

    whole = run(toy, numbers, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr("lineside.core.workflow._publish", stop)
        run(toy, numbers, tmp_path / "run")
    path = tmp_path / "run" / name
    path.write_text(change(path.read_text()))
    study = again()
    assert re.search(said, capsys.readouterr().err)
    assert study.best.estimates == whole.best.estimates
    assert study.best.model == dataclasses.replace(whole.best.model)
    assert read_outcomes(tmp_path / "run" / "outcomes.csv")["distance"] == study.best.outcomes


@pytest.mark.parametrize("damage", [Path.unlink, lambda p: p.write_text("{}")])
def test_figures_that_were_damaged_are_drawn_again(
    toy, numbers, tmp_path, monkeypatch, capsys, damage
):
    def stop(study, progress):
        raise Stopped

    def fit(split, config, run):
        """Trains up to a checkpoint of its own and draws only when it has trained."""
        checkpoint = run.folder / "checkpoint" / "distance"
        if not checkpoint.exists():
            checkpoint.mkdir(parents=True)
            save_figures(run.folder, "distance", [Figure(title="f", image=b"p", caption="c")])
        return plain_fit(split, config, run)

    plain_fit = toy.fit
    monkeypatch.setattr(toy, "fit", fit)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr("lineside.core.workflow._publish", stop)
        run(toy, numbers, tmp_path / "run")
    (figures,) = (tmp_path / "run" / "figures").iterdir()
    before = figures.read_bytes()
    damage(figures)
    train(toy.APPLICATION, numbers, tmp_path / "run", toy.Config(), Progress())
    assert "the figures of distance are not those that were drawn" in capsys.readouterr().err
    assert figures.read_bytes() == before


def test_a_model_of_another_fit_is_not_taken_for_the_one_of_this_run(
    toy, numbers, tmp_path, monkeypatch, capsys
):
    def stop(study, progress):
        raise Stopped

    other = run(toy, toy.APPLICATION.demo(tmp_path / "other-data", 1), tmp_path / "other")
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr("lineside.core.workflow._publish", stop)
        run(toy, numbers, tmp_path / "run")
    model = tmp_path / "run" / "models" / "distance"
    shutil.rmtree(model)
    shutil.copytree(tmp_path / "other" / "models" / "distance", model)
    study = train(toy.APPLICATION, numbers, tmp_path / "run", toy.Config(), Progress())
    assert "is not the model that was fitted: distance is fitted again" in capsys.readouterr().err
    assert study.best.model.mean != other.best.model.mean
