"""One machine judged snapshot by snapshot: stream, batch and replay agree bit by bit."""

import dataclasses
import json

import numpy as np
import pytest

import lineside
from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.core.run.progress import Progress
from lineside.core.workflow import train
from lineside.machines.application import APPLICATION
from lineside.machines.config import METHOD_NAMES, Config
from lineside.machines.data import find_snapshots, load_measurement
from lineside.machines.data.measurement import Channel
from lineside.machines.monitoring.session import NO_SCORE, Session
from lineside.machines.outcomes import outcomes
from lineside.machines.simulation.demo import save_history
from lineside.machines.simulation.rig import Rig, Sensor
from lineside.machines.simulation.scenarios import Scenario, SensorEpisode, simulate_history

RIG = Rig(seconds=0.15)
SCENARIO = Scenario(
    name="pump", rig=RIG, days=16.0, interval_hours=2.0, onset_day=10.0, growth_days=6.0,
    run_in=0.0, gaps=((9.0, 0.6),),
    episodes=(SensorEpisode(channel=1, from_day=8.0, until_day=8.5, sensor=Sensor(kind="dead")),),
)  # fmt: skip


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet")
    save_history(simulate_history(SCENARIO, np.random.default_rng(0)), folder / "pump")
    return folder


@pytest.fixture(scope="module")
def run(fleet, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "run"
    config = Config(methods=("pca", "trend", "lstm_ae"), learn=84, robustness=False)
    train(APPLICATION, fleet, out, config, Progress(quiet=True))
    return out


@pytest.fixture(scope="module")
def model(run):
    return lineside.load(run).model


@pytest.fixture(scope="module")
def later(fleet):
    return [s for s in find_snapshots(fleet) if not isinstance(s, Refusal)][84:]


def test_machine_fault_and_sensor_fault_are_distinguished_and_reported(run, model, later):
    verdicts = model.predict(later)
    events = [(e.kind, v.time) for v in verdicts for e in v.events]
    onset = later[0].time + (SCENARIO.onset_day - 7.0) * 86400
    assert [t > onset for kind, t in events if kind == "alert"] == [True]
    dead = [v for v in verdicts if v.state == "sensor fault"]
    assert len(dead) == 6 and all(v.novelty is None for v in dead)
    assert [k for k, _ in events].count("sensor fault") == 1
    alert = next(e for v in verdicts for e in v.events if e.kind == "alert")
    assert sum(alert.evidence["features"].values()) > 0.3
    assert json.dumps(dict(alert.evidence), allow_nan=False)
    assert alert.evidence["diagnosis"]["status"] == "refused", "0.15 s are too short for one"
    page = (run / "report.html").read_text()
    assert "Novelty over time" in page and "pca found 1 of 1 faults in time" in page
    assert "Deep learning is" in page


def test_the_training_period_is_not_judged(model, fleet, later):
    learned = [s for s in find_snapshots(fleet) if not isinstance(s, Refusal)][:84]
    verdicts = model.predict(learned)
    assert {v.state for v in verdicts} == {"warming up"} and verdicts[0].novelty is None
    assert "part of the training period" in verdicts[0].note
    assert model.predict(later)[0].novelty == model.predict([*learned, *later])[84].novelty
    machine = model.machines["pump"]
    assert not machine.was_trained_on(later[0].time) and not machine.was_trained_on(1000.0)


@pytest.mark.parametrize("method", ["pca", "lstm_ae"])
def test_stream_batch_and_replay_agree_wherever_they_are_cut(run, later, method):
    model = lineside.load(run / "models" / method).model
    batch = [v.as_json() for v in model.predict(later)]
    rng = np.random.default_rng(0)
    session, found = model.session("pump"), []
    for item in later:
        found.append(session.push(load_measurement(item)).as_json())
        if rng.random() < 0.3:  # killed and taken up from what was stored as JSON
            session = model.session("pump", json.loads(json.dumps(session.state())))
    assert found == batch
    shuffled = rng.permutation(len(later))
    again = model.predict([later[i] for i in shuffled])
    assert [
        again[int(np.flatnonzero(shuffled == i)[0])].as_json() for i in range(len(later))
    ] == batch


def test_old_and_duplicate_snapshots_are_refused_and_change_nothing(model, later):
    session = model.session("pump")
    first, second = (load_measurement(item) for item in later[:2])
    session.push(second)
    state = json.dumps(session.state())
    for old in (first, second):
        assert isinstance(session.push(old), Refusal)
    assert json.dumps(session.state()) == state
    nameless = dataclasses.replace(first, time=float("nan"))
    assert "no time" in session.push(nameless).message


def test_an_untrained_speed_is_judged_by_unitless_features(model, later):
    session = model.session("pump")
    base = load_measurement(later[0])
    verdict = session.push(dataclasses.replace(base, speed_hz=40.0))
    assert "outside of the trained range" in verdict.note and verdict.novelty is not None
    still = dataclasses.replace(load_measurement(later[1]), speed_hz=0.0)
    assert session.push(still).state == "idle"


def test_the_same_samples_twice_are_a_stuck_sensor(model, later):
    session = model.session("pump")
    base = load_measurement(later[0])
    session.push(base)
    again = session.push(dataclasses.replace(base, time=base.time + 600))
    assert again.state == "sensor fault" and "repeated its samples" in again.note


def test_missing_channels_and_missing_samples_are_sensor_faults(model, later):
    session = model.session("pump")
    base = load_measurement(later[0])
    alone = {"horizontal": base.channels["horizontal"]}
    assert session.push(dataclasses.replace(base, channels=alone)).state == "sensor fault"
    holes = base.channels["vertical"].samples.copy()
    holes[::3] = np.nan
    channels = {**base.channels, "vertical": Channel(samples=holes, rate_hz=RIG.rate_hz)}
    later_one = dataclasses.replace(base, time=base.time + 1, channels=channels)
    assert session.push(later_one).state == "sensor fault"


def test_unknown_machines_and_uncalibrated_models_are_refused(model, later):
    stranger = dataclasses.replace(later[0], machine="stranger")
    assert "never learned" in model.predict([stranger])[0].message
    bare = dataclasses.replace(
        model.machines["pump"],
        main=dataclasses.replace(model.machines["pump"].main, calibration=None),
    )
    with pytest.raises(UserError, match="not calibrated"):
        Session(bare)


def test_a_snapshot_is_explained_with_pictures(model, later):
    explanation = model.explain(later[-1])
    assert "contributes most" in explanation.text
    assert [figure.title for figure in explanation.figures] == [
        "Top features", "Power spectral density", "Envelope spectrum of horizontal",
        "Envelope spectrum of vertical",
    ]  # fmt: skip
    assert explanation.facts["diagnosis"]


@pytest.mark.parametrize(
    "method", [m for m in METHOD_NAMES if m not in ("pca", "trend", "lstm_ae")]
)
def test_every_method_is_learned_stored_and_read_back(fleet, later, method, tmp_path):
    from lineside.machines.model import MachinesModel, load
    from lineside.machines.training.fitting import fit_machine

    items = [s for s in find_snapshots(fleet) if not isinstance(s, Refusal)][:40]
    machine = fit_machine(
        items, method, rng=np.random.default_rng(0), log=lambda row: None, stop=lambda: False
    )
    model = MachinesModel(method=method, machines={"pump": machine})
    again = load(json.loads(json.dumps(model.spec())), model.tensors())
    rows = machine.reference[:8]
    one, two = (m.machines["pump"].main for m in (model, again))
    assert np.array_equal(
        one.detector.score(one.select(rows)), two.detector.score(two.select(rows))
    )


def test_an_active_alarm_is_forecast_until_danger(model, later):
    verdicts = model.predict(later)
    place, alert = next((i, e) for i, v in enumerate(verdicts) for e in v.events if e.episode)
    assert alert.kind == "alert" and set(alert.evidence["forecast"]) > {"hours", "text", "danger"}
    assert all(v.forecast is None and v.as_json()["forecast"] is None for v in verdicts[:place])
    running = [v for v in verdicts[place:] if v.novelty is not None]
    assert all(v.forecast["made"] <= v.time for v in running)
    assert verdicts[place].forecast["text"] in verdicts[place].note
    reported = [v for v in running if v.forecast["text"] in v.note]
    assert len(reported) < len(running) / 3, "only news is reported"
    reached = next(v for v in running if v.forecast["hours"] == 0.0)
    danger = next(v for v in running for e in v.events if e.kind == "danger")
    # At danger it was expected about then: the interval of the last forecast before holds it.
    before = [v for v in running if v.time < danger.time and v.forecast["hours"]][-1].forecast
    assert abs(reached.time - danger.time) < 12 * 3600
    latest = np.inf if before["latest_hours"] is None else before["latest_hours"]
    hours = (danger.time - before["made"]) / 3600
    assert before["earliest_hours"] <= hours + 4 and hours <= latest + 4


def test_a_suspect_speed_is_not_used_and_the_snapshot_is_judged(model, later):
    base = load_measurement(later[0])
    trusting = model.session("pump")
    plain = trusting.push(base)
    suspecting = {**trusting.state(), "last": None, "main": None}
    suspecting["stuck"] = {"hashes": {}, "values": "", "repeats": 0}
    suspecting["speed"] = {"suspect": True, "hz": base.speed_hz, "age": 0, "wait": 64}
    session = model.session("pump", suspecting)
    verdict = session.push(base)
    assert np.isnan(session.row).any() and not np.isnan(trusting.row).any()
    assert plain.novelty is not None and verdict.novelty is not None
    assert verdict.novelty < verdict.limit


def test_a_score_that_is_no_number_is_not_remembered(model, later, monkeypatch):
    """It would stay in the EWMA, and the machine would never alarm again."""
    detector = type(model.machines["pump"].main.detector)
    score, calls = detector.score, []

    def broken(self, rows):
        calls.append(1)
        return score(self, rows) * (np.nan if len(calls) == 3 else 1.0)

    whole = model.predict(later[:40])
    monkeypatch.setattr(detector, "score", broken)
    verdicts = model.predict(later[:40])
    odd = [v for v in verdicts if v.note == NO_SCORE]
    assert [v.state for v in odd] == ["unknown state"] and odd[0].novelty is None
    assert verdicts[-1].novelty == pytest.approx(whole[-1].novelty, abs=0.2)
    calls.clear()
    with pytest.raises(UserError, match="pca: the detector gave no score"):
        list(outcomes(model, later[:40]))
