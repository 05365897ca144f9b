"""`parts` keeps the contract of an application: what core relies on, checked on real pictures."""

import csv
import dataclasses
import json

import pytest

import lineside
from lineside.core.contract import (
    Application,
    Check,
    Item,
    Method,
    Metric,
    Outcome,
    Refusal,
    Result,
    Section,
    Split,
)
from lineside.core.run import model_store
from lineside.core.workflow import read
from lineside.parts.application import APPLICATION
from lineside.parts.commands import app
from lineside.parts.config import Config

RESULT_KEYS = {
    "item", "part", "verdict", "score", "part_score", "threshold", "findings", "health",
    "certificate", "model", "sha256",
}  # fmt: skip


@pytest.fixture(scope="module")
def config(shop):
    methods = ("gaussian", "brightness")
    return Config(methods=methods, robustness=False, part_pattern=shop.pattern)


@pytest.fixture(scope="module")
def items(trained, config):
    found, refusals = read(APPLICATION, trained.parent / "data", config)
    assert refusals == []
    return found


@pytest.fixture(scope="module")
def split(items, config):
    return APPLICATION.split(items, config)


def test_the_record():
    assert isinstance(APPLICATION, Application) and APPLICATION.config is Config
    Config()
    assert all(isinstance(metric, Metric) for metric in APPLICATION.metrics)


def test_items_and_splits(items, split):
    assert all(isinstance(item, Item) for item in items)
    assert len({item.id for item in items}) == len(items) == 72
    assert isinstance(split, Split)
    assert sorted(i.id for _, i in split.rows()) == sorted(i.id for i in items)
    roles: dict[str, set[str]] = {}
    for role, item in split.rows():
        roles.setdefault(item.groups, set()).add(role)
    assert len(roles) == 36
    assert all(len(found) == 1 for found in roles.values()), "no group is in two roles"
    assert {role for role, _ in split.rows()} == {"train", "validation", "calibration", "test"}


def test_the_audit_has_evidence(items, config):
    checks = APPLICATION.audit([*items, Refusal(item="x.png", message="is damaged")], config)
    assert all(isinstance(check, Check) and check.name for check in checks)
    assert len({check.name for check in checks}) == len(checks)
    assert all(check.evidence for check in checks)
    assert any(check.status == "fail" and "x.png" in check.items for check in checks)


def test_methods_come_predicting_one_first(config):
    methods = APPLICATION.methods(config)
    assert [m.name for m in methods] == list(config.methods)
    assert all(isinstance(m, Method) and m.help for m in methods)
    kinds = {m.kind for m in APPLICATION.methods(Config())}
    assert kinds == {"deep", "classical", "trivial"}


def test_one_outcome_per_item_and_calibration_round_trip(trained, split, config, tmp_path):
    model = lineside.load(trained).model
    found = list(APPLICATION.outcomes(model, split.calibration))
    assert all(isinstance(outcome, Outcome) for outcome in found)
    assert [o.item for o in found] == [i.id for i in split.calibration]
    assert [o.groups for o in found] == [i.groups for i in split.calibration]
    assert all({"score", "label", "ms"} <= set(o.value) for o in found)
    fresh = APPLICATION.load(model.spec(), model.tensors())
    assert fresh.calibration_block() == {}
    calibrated = APPLICATION.calibrate(fresh, found, config)
    assert calibrated.threshold == model.threshold, "as the training set it"
    model_store.save_model(tmp_path / "copy", "parts", calibrated)
    again = lineside.load(tmp_path / "copy").model
    assert again.identity == model.identity
    assert json.dumps(again.calibration_block()) == json.dumps(calibrated.calibration_block())
    assert again.predict(split.test) == dataclasses.replace(
        calibrated, identity=model.identity
    ).predict(split.test)


def test_results_keep_their_protocol_and_keys(trained, split):
    model = lineside.load(trained).model
    results = model.predict(split.test[:2])
    for result in results:
        assert isinstance(result, Result)
        plain = json.loads(json.dumps(result.as_json()))
        assert set(plain) == RESULT_KEYS
        assert result.item in result.as_line()
    told = model.explain(split.test[0])
    assert told.text and told.figures


def test_the_verbs_are_the_common_ones_and_its_own():
    verbs = {name for name in app if not name.startswith("-")}
    common = {"train", "demo", "audit", "evaluate", "predict", "explain"}
    assert verbs == common | {"watch", "feedback", "recalibrate"}


def test_a_finished_run_holds_what_it_promises(trained, split):
    for name in ("config", "environment", "status", "report"):
        json.loads((trained / f"{name}.json").read_text())
    report = json.loads((trained / "report.json").read_text())
    kinds = {name: method["kind"] for name, method in report["methods"].items()}
    assert kinds == {"gaussian": "classical", "brightness": "trivial"}, "a baseline is always there"
    page = (trained / "report.html").read_text()
    assert "Leaderboard" in page and "brightness" in page
    with (trained / "split.csv").open(newline="") as stream:
        rows = {row["item"]: row["role"] for row in csv.DictReader(stream)}
    assert rows == {item.id: role for role, item in split.rows()}
    with (trained / "outcomes.csv").open(newline="") as stream:
        judged = [(r["method"], r["role"], r["item"]) for r in csv.DictReader(stream)]
    expected = [
        (method, role, item.id)
        for method in kinds
        for role in ("calibration", "test")
        for item in split.role(role)
    ]
    assert sorted(judged) == sorted(expected)
    for name in kinds:
        card = (trained / "models" / name / "MODEL_CARD.md").read_text()
        assert "Operating point" in card
        model = lineside.load(trained / "models" / name).model
        assert model.operating.point.model == model.identity


def test_chapters_are_sections(trained):
    assert Section(title="x").blocks == ()


def test_the_demo_is_read_like_any_data(tmp_path):
    from lineside.parts.simulation import demo

    folder = demo(tmp_path / "demo", 0, good_parts=2, faulty_parts=2, exposures=1, size_px=96)
    found, refusals = read(APPLICATION, folder, Config())
    assert len(found) == 4 and refusals == []
    assert {item.part for item in found} == {"p0001", "p0002", "p0003", "p0004"}
