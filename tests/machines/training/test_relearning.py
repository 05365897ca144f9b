"""Learning on request: what is refused without a person's consent, and what a derived model is."""

import dataclasses
import json

import numpy as np
import pytest

import lineside
from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.core.run.codec import encode
from lineside.core.run.progress import Progress
from lineside.core.workflow import train
from lineside.machines.application import APPLICATION
from lineside.machines.audit.data_audit import audit
from lineside.machines.config import Config
from lineside.machines.data import find_snapshots
from lineside.machines.model import load
from lineside.machines.simulation.demo import save_history
from lineside.machines.simulation.rig import Rig
from lineside.machines.simulation.scenarios import Scenario, simulate_history
from lineside.machines.training.learning_record import (
    consent_notes,
    learning_record_lines,
    learning_record_section,
)
from lineside.machines.training.relearning import Consent, give_consent, parse_time, relearn

RIG = Rig(seconds=0.15)
KIM = Consent(by="Kim", why="bearing replaced")


def scenario(name, **facts):
    usual = {"days": 16.0, "interval_hours": 2.0, "onset_day": None, "run_in": 0.0}
    return Scenario(name=name, rig=RIG, **{**usual, **facts})


FLEET = (
    scenario("fan"),
    scenario("mill", drift=1.5),  # 35 % louder in the course of the learning
    scenario("pump", onset_day=10.0, growth_days=12.0),
)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet")
    for one in (*FLEET, scenario("new")):
        save_history(simulate_history(one, np.random.default_rng(1)), folder / one.name)
    return folder


@pytest.fixture(scope="module")
def run(fleet, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    known = out / "data"
    known.mkdir()
    for name in ("fan", "mill", "pump"):
        (known / name).symlink_to(fleet / name)
    config = Config(methods=("pca",), learn=96, robustness=False)
    train(APPLICATION, known, out / "run", config, Progress(quiet=True))
    return out / "run"


def unlabelled(fleet, folder, name):
    """Copy a history without what is known of its fault, as its user has it."""
    target = folder / name
    target.mkdir(parents=True)
    (target / "history.npz").symlink_to(fleet / name / "history.npz")
    facts = json.loads((fleet / name / "machine.json").read_text())
    facts = {k: v for k, v in facts.items() if k not in ("fault_from", "failed_at")}
    (target / "machine.json").write_text(json.dumps(facts))
    return folder


def test_every_training_is_in_the_learning_record_and_drift_needs_consent(run):
    model = lineside.load(run).model
    for machine in model.machines.values():
        (row,) = machine.learning_record
        assert row.rows == 64 and row.by == "" and row.decided_at is None
        assert (row.last - row.first) / 7200 == pytest.approx(95)  # calibration included
    assert [line.partition(":")[0] for line in consent_notes(model)] == ["mill"]
    assert "robust spreads during training" in consent_notes(model)[0]
    again = load(json.loads(json.dumps(model.spec())), model.tensors())
    assert again.machines["mill"].learning_record == model.machines["mill"].learning_record


def test_the_table_and_the_lines_say_who_consented(run):
    model = lineside.load(run).model
    table = learning_record_section(model).blocks[-1]
    assert [row[0] for row in table.rows] == ["fan", "mill", "pump"]
    assert all(len(row) == len(table.columns) for row in table.rows)
    lines = learning_record_lines(model)
    assert "first training" in lines[0] and "stationary" in lines[0]
    assert "CONSENT IS MISSING" in lines[1] and "drifted" in lines[1]


def test_the_audit_reports_drift_before_training(fleet):
    items = [s for s in find_snapshots(fleet) if s.machine != "new"]
    found = {c.name: c for c in audit(items, Config(learn=96))}["drift in the training period"]
    assert found.status == "warn" and found.count == 1
    assert found.evidence.startswith("mill: ") and "rises by" in found.evidence
    steady = [s for s in items if s.machine == "fan"]
    found = {c.name: c for c in audit(steady, Config(learn=96))}["drift in the training period"]
    assert found.status == "ok"


def test_a_consent_makes_a_derived_model_that_judges_alike(run, tmp_path, fleet):
    model = lineside.load(run).model
    with pytest.raises(UserError, match="robust spreads") as error:
        give_consent(run, tmp_path / "no", machine="mill", consent=Consent(by="Kim"))
    assert "--by NAME and --why REASON" in error.value.hint
    assert not (tmp_path / "no").exists()
    lines = give_consent(run, tmp_path / "child", machine="mill", consent=KIM)
    child = lineside.load(tmp_path / "child").model
    assert f"derived model {child.identity} of {model.identity}" in lines[-1]
    assert not consent_notes(child)
    assert [row.by for row in child.machines["mill"].learning_record] == ["", "Kim"]
    items = [s for s in find_snapshots(fleet) if s.machine == "mill"][96:130]
    assert model.predict(items) == child.predict(items)
    with pytest.raises(UserError, match="needs no consent"):
        give_consent(run, tmp_path / "x", machine="fan", consent=KIM)
    with pytest.raises(UserError, match="unknown machine"):
        give_consent(run, tmp_path / "x", machine="crane", consent=KIM)


def test_without_consent_nothing_is_learned_and_the_move_is_reported(run, fleet, tmp_path):
    data = unlabelled(fleet, tmp_path / "data", "pump")
    before = {p: p.read_bytes() for p in (run / "models" / "pca").iterdir()}
    ask = {"machine": "pump", "since": "2026-01-11"}
    for consent in (Consent(), Consent(by="Kim"), Consent(why="it is fine"), Consent(by=" ")):
        with pytest.raises(UserError, match="would move its baseline by up to") as error:
            relearn(data, run, tmp_path / "child", consent=consent, **ask)
        assert "--by NAME and --why REASON" in error.value.hint
        assert "\n" not in error.value.message
    with pytest.raises(UserError, match="an alarm is active") as error:
        relearn(data, run, tmp_path / "child", consent=KIM, **ask)
    assert "--over-alarm" in error.value.hint and "--by" not in error.value.hint
    assert not (tmp_path / "child").exists()
    assert before == {p: p.read_bytes() for p in (run / "models" / "pca").iterdir()}
    assert not [p for p in tmp_path.iterdir() if p.name != "data"]


def test_a_machine_is_learned_again_and_the_others_stay_as_they_are(run, fleet, tmp_path):
    data = unlabelled(fleet, tmp_path / "data", "pump")
    consent = dataclasses.replace(KIM, over_alarm=True)
    out = tmp_path / "child"
    lines = relearn(data, run, out, machine="pump", since="2026-01-11", consent=consent)
    parent, child = lineside.load(run).model, lineside.load(out).model
    described = json.loads((out / "model.json").read_text())
    assert described["parent"] == parent.identity and described["id"] == child.identity
    row = child.machines["pump"].learning_record[-1]
    assert row.by == "Kim" and row.over_alarm and row.shift > 3.0 and row.decided_at > 1.7e9
    assert (
        row.first >= parse_time("2026-01-11") and len(child.machines["pump"].learning_record) == 2
    )
    assert "Kim: bearing replaced, while an alarm was active" in lines[0]
    for name in ("fan", "mill"):
        assert encode(child.machines[name])[0] == encode(parent.machines[name])[0]
        assert child.machines[name].operating() == parent.machines[name].operating()
        assert np.array_equal(child.machines[name].reference, parent.machines[name].reference)
    items = [s for s in find_snapshots(data) if not isinstance(s, Refusal)]
    late = [v.novelty for v in parent.predict(items[-20:])]
    assert {v.state for v in child.predict(items[-20:])} == {"warming up"}, "learned from them"
    forgetful = dataclasses.replace(child.machines["pump"], learning_record=())
    again = dataclasses.replace(child, machines={"pump": forgetful}).predict(items[-20:])
    assert np.median(late) > 3 * np.median([v.novelty for v in again])
    with pytest.raises(UserError, match="exists already"):
        relearn(data, run, out, machine="pump", since="2026-01-11", consent=consent)
    again = relearn(
        fleet, out, tmp_path / "grandchild", machine="fan", since="2026-01-09", consent=KIM
    )
    assert f"of {child.identity}" in again[-1]
    roles = (tmp_path / "grandchild" / "used.csv").read_text()
    assert roles.count("\n") > 3 * 96  # the run's, the derived model's and its own


def test_a_new_machine_is_added(run, fleet, tmp_path):
    with pytest.raises(UserError, match=r"learning new from .* without a person's consent"):
        relearn(fleet, run, tmp_path / "x", machine="new", since="2026-01-01", consent=Consent())
    relearn(fleet, run, tmp_path / "child", machine="new", since="2026-01-01", consent=KIM)
    child = lineside.load(tmp_path / "child").model
    assert sorted(child.machines) == ["fan", "mill", "new", "pump"]
    assert child.machines["new"].learning_record[0].shift == 0.0
    items = [s for s in find_snapshots(fleet) if s.machine == "new"][96:]
    assert {v.state for v in child.predict(items)} <= {"normal"}


@pytest.mark.parametrize(
    ("machine", "since", "until", "words"),
    [
        ("crane", "2026-01-01", "", "has no machine 'crane'"),
        ("fan", "yesterday", "", "'yesterday' is not a date"),
        ("fan", "2026-01-14", "", "fan has 36 snapshots since 2026-01-14"),
        ("fan", "2026-01-01", "2026-01-02", "fan has 24 snapshots since .* until 2026-01-02"),
        ("pump", "2026-01-08", "2026-01-16", "labelled faulty"),
    ],
)
def test_what_cannot_be_learned_is_refused(run, fleet, tmp_path, machine, since, until, words):
    with pytest.raises(UserError, match=words):
        relearn(fleet, run, tmp_path / "x", machine=machine, since=since, until=until, consent=KIM)


def test_times_are_parsed():
    assert parse_time("1970-01-02") == 86400.0
    assert parse_time("1970-01-02", end=True) == 2 * 86400.0 - 0.001
    assert parse_time("1970-01-02T01:00", end=True) == 90000.0
    assert parse_time("3600") == 3600.0
