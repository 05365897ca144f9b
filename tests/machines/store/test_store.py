"""The store: every snapshot once, judged as in one batch, whatever breaks in between."""

import dataclasses
import json
import multiprocessing
import os
import signal
import threading
import uuid

import numpy as np
import pytest
from tests.databases import new_database
from tests.machines.streaming import learn_fleet

from lineside.core.errors import UserError
from lineside.machines.alarms.verdict import date
from lineside.machines.data import load_measurement
from lineside.machines.data.measurement import Measurement
from lineside.machines.model import MachinesModel
from lineside.machines.store import Ring, journal, open_store, queries, replay
from lineside.machines.store.taking import tables

FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """A model of two machines, and the snapshots of one of them that it did not learn."""
    model, items = learn_fleet(tmp_path_factory.mktemp("fleet"))
    return model, [load_measurement(item) for item in items if item.machine == "pump"]


@pytest.fixture(scope="module")
def model(fleet):
    return fleet[0]


@pytest.fixture(scope="module")
def later(fleet):
    return fleet[1]


@pytest.fixture(scope="module")
def batch(model, later):
    session = model.session("pump")
    return [session.push(m).as_json() for m in later]


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path / "machines.db") as found:
        yield found


@pytest.fixture(params=["sqlite", "postgres"])
def where(request, tmp_path):
    if request.param == "sqlite":
        return tmp_path / "machines.db"
    return new_database(request.getfixturevalue("postgres"), f"m{uuid.uuid4().hex}")


@pytest.fixture
def either(where, tmp_path):
    """A store in each kind of database."""
    with open_store(where, waves=tmp_path / "waves") as found:
        yield found


def plain(verdicts):
    return [verdict.as_json() for verdict in verdicts]


def counts(store):
    """How many rows each table holds."""
    from sqlalchemy import func, select

    from lineside.core.database import reading
    from lineside.machines.store.tables import METADATA

    with reading(store.engine) as connection:
        return {
            name: connection.execute(select(func.count()).select_from(table)).scalar()
            for name, table in METADATA.tables.items()
        }


def test_stream_batch_store_and_replay_agree_wherever_they_are_cut(either, model, later, batch):
    rng = np.random.default_rng(0)
    taking, said = either.journal(model), []
    for measurement in later:
        said.append(taking.take(measurement).verdict)
        if rng.random() < 0.3:
            taking = either.journal(model)
        if rng.random() < 0.1:
            either.tidy(everything=rng.random() < 0.5)
    assert plain(said) == batch
    assert plain(queries.verdicts(either, "pump")) == batch
    assert plain(replay(either, model, "pump")) == batch
    either.tidy(everything=True)
    assert counts(either)["pending"] == 0
    assert plain(replay(either, model, "pump")) == batch
    kinds = [told.event.kind for told in queries.events(either, "pump")]
    assert "alert" in kinds and kinds == [e["kind"] for v in batch for e in v["events"]]


def test_a_known_snapshot_changes_nothing(store, model, later):
    taking = store.journal(model)
    for measurement in later[:5]:
        taking.take(measurement, source="a.npz")
    before = counts(store)
    for other in (taking, store.journal(model)):
        for measurement in (later[1], later[4]):
            taken = other.take(measurement)
            assert (taken.status, taken.verdict, taken.refusal) == ("known", None, None)
    channels = {
        name: dataclasses.replace(channel, samples=channel.samples * 2)
        for name, channel in later[1].channels.items()
    }
    taken = taking.take(dataclasses.replace(later[1], channels=channels))
    assert taken.status == "known" and "another snapshot" in taken.line()
    assert counts(store) == before
    kept = next(queries.measurements(store, "pump", since=later[1].time))
    assert np.array_equal(kept.channels["vertical"].samples, later[1].channels["vertical"].samples)


def test_a_late_snapshot_is_kept_with_features_but_not_judged(either, model, later, batch):
    taking = either.journal(model)
    order = [0, 1, 3, 2, 4, 5]
    taken = [taking.take(later[place]) for place in order]
    assert [t.status for t in taken] == ["judged", "judged", "judged", "late", "judged", "judged"]
    assert "older than" in taken[3].line()
    assert taking.take(later[2]).status == "known"
    session = model.session("pump")
    without = plain(session.push(later[place]) for place in order if place != 2)
    assert plain(queries.verdicts(either, "pump")) == without
    assert plain(replay(either, model, "pump")) == without
    times, rows, _ = queries.features(either, "pump")
    assert len(times) == len(rows) == 6 and np.isfinite(rows[2]).all()
    assert len(list(queries.measurements(either, "pump"))) == 6
    (standing,) = queries.fleet(either)
    assert (standing.late, standing.refused, standing.time) == (1, 0, later[5].time)


def test_a_machine_that_was_never_learned_is_kept_until_it_is(store, model, later):
    stranger = MachinesModel(method="trend", machines={"fan": model.machines["fan"]})
    taking = store.journal(stranger)
    taken = [taking.take(m) for m in later[:3]]
    assert {t.status for t in taken} == {"never learned"} and "never learned" in taken[0].line()
    assert queries.fleet(store)[0].never_learned == 3
    kept = list(queries.measurements(store, "pump"))
    assert [m.time for m in kept] == [m.time for m in later[:3]]
    taking = store.journal(model)
    assert taking.take(later[2]).status == "known"
    assert taking.take(later[1]).status == "known"
    assert taking.take(later[3]).status == "judged"
    assert len(queries.verdicts(store, "pump")) == 1


def test_another_model_starts_anew_and_says_so(store, model, later):
    taking = store.journal(model)
    for measurement in later[:10]:
        taking.take(measurement)
    pump = model.machines["pump"]
    limit = dataclasses.replace(pump.main.calibration, limit=pump.main.calibration.limit * 1.5)
    pump = dataclasses.replace(pump, main=dataclasses.replace(pump.main, calibration=limit))
    changed = dataclasses.replace(model, machines={**model.machines, "pump": pump})
    taking = store.journal(changed)
    taken = [taking.take(m) for m in later[10:20]]
    assert [e.kind for e in taken[0].events] == ["model changed"] and not taken[1].events
    assert "another model" in taken[0].line()
    session = changed.session("pump")
    assert plain(t.verdict for t in taken) == plain(session.push(m) for m in later[10:20])
    assert plain(replay(store, changed, "pump")) == plain(t.verdict for t in taken)
    assert [t.origin for t in queries.events(store, "pump")].count("journal") == 1
    older = taking.take(dataclasses.replace(later[9], time=later[9].time + 1))
    assert older.status == "late"  # although the new session has not seen any before
    # A model whose other machines changed is the same for this one.
    fewer = MachinesModel(method="trend", machines={"pump": pump})
    assert not store.journal(fewer).take(later[20]).events


def test_journals_that_share_a_store_judge_as_one(store, model, later, batch):
    rng = np.random.default_rng(1)
    several = [store.journal(model) for _ in range(3)]
    for measurement in later:
        first, second = rng.choice(3, 2, replace=False)
        assert several[first].take(measurement).status == "judged"
        if rng.random() < 0.3:
            assert several[second].take(measurement).status == "known"
    assert plain(queries.verdicts(store, "pump")) == batch


def test_journals_at_the_same_time_lose_and_double_nothing(where, tmp_path, model, later, batch):
    some, failures = later[:40], []

    def work():
        try:
            with open_store(where, waves=tmp_path / "waves") as own:
                taking = own.journal(model)
                for measurement in some:
                    assert taking.take(measurement).status in ("judged", "known")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    with open_store(where, waves=tmp_path / "waves") as store:
        assert plain(queries.verdicts(store, "pump")) == batch[:40]
        assert counts(store)["snapshots"] == counts(store)["pending"] == 40


@pytest.mark.parametrize("step", ["advance", "put_snapshot", "put_features", "put_pending",
                                  "put_events"])  # fmt: skip
def test_a_failure_before_the_commit_leaves_nothing(store, model, later, batch, step, monkeypatch):
    taking = store.journal(model)
    for measurement in later[:5]:
        taking.take(measurement)
    before = counts(store)
    whole = getattr(tables, step)

    def broken(*given):
        whole(*given)
        raise OSError("the cable is out")

    with monkeypatch.context() as patch:
        patch.setattr(tables, step, broken)
        with pytest.raises(OSError, match="cable"):
            taking.take(later[5])
    assert counts(store) == before
    assert taking.take(later[5]).verdict.as_json() == batch[5]  # its session was thrown away


@pytest.mark.parametrize("step", ["advance", "put_pending", "put_events", "after"])
def test_a_killed_process_loses_and_doubles_nothing(tmp_path, model, later, batch, step):
    where = tmp_path / "machines.db"

    def die(*given):
        os.kill(os.getpid(), signal.SIGKILL)

    def work():
        with open_store(where) as store:
            taking = store.journal(model)
            for measurement in later[:5]:
                taking.take(measurement)
            if step != "after":
                setattr(tables, step, die)
            taking.take(later[5])
            die()

    child = FORK.Process(target=work)
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    with open_store(where) as store:
        assert counts(store)["snapshots"] == 5 + (step == "after")
        taking = store.journal(model)
        statuses = [taking.take(m).status for m in later[:8]]
        assert statuses == ["known"] * (5 + (step == "after")) + ["judged"] * (
            3 - (step == "after")
        )
        assert plain(queries.verdicts(store, "pump")) == batch[:8]
        assert counts(store)["snapshots"] == counts(store)["pending"] == 8


def test_operators_act_at_a_time_that_a_replay_repeats(either, model, later, batch):
    alert = next(i for i, v in enumerate(batch) for e in v["events"] if e["kind"] == "alert")
    taking = either.journal(model)
    with pytest.raises(UserError, match="never saw a machine 'pmup'"):
        either.acknowledge("pmup", "Ada")
    for measurement in later[: alert - 1]:
        taking.take(measurement)
    with pytest.raises(UserError, match="nobody"):
        either.mute("pump", 0, by="")
    either.acknowledge("pump", "Ada", "looked at it")
    taken = taking.take(later[alert - 1])
    assert [e.kind for e in taken.events] == ["nothing to acknowledge"]
    until = later[alert + 3].time
    either.mute("pump", until, "Bo", "tests on site")
    said = [taking.take(m).verdict for m in later[alert : alert + 2]]
    assert said[0].state == "alert" and not said[0].events  # held back
    assert queries.fleet(either)[0].muted_until == until
    told = [t.event.text for t in queries.events(either, "pump") if t.event.kind == "muted"]
    assert date(until) in told[0], "people read dates"
    said += [taking.take(m).verdict for m in later[alert + 2 : alert + 6]]
    assert "alert" in [e.kind for v in said for e in v.events]
    either.acknowledge("pump", "Ada")
    taken = taking.take(later[alert + 6])
    assert [(e.kind, e.episode) for e in taken.events] == [("acknowledged", 1)]
    assert "acknowledged by Ada" in taken.line()
    (standing,) = queries.fleet(either)
    assert (standing.acknowledged_by, standing.episode, standing.muted_until) == ("Ada", 1, None)
    asked = queries.actions(either, "pump")
    assert [a.applied for a in asked] == [later[alert + k].time for k in (-1, 0, 6)]
    assert plain(replay(either, model, "pump")) == plain(queries.verdicts(either, "pump"))


def test_bad_input_is_kept_once(either, model, later):
    taking = either.journal(model)
    for _ in range(3):
        taking.refuse("a.csv", "no numbers in it", "check it", source="/data/a.csv")
    nameless = dataclasses.replace(later[0], machine="")
    cut = dataclasses.replace(later[0], machine="pu\0mp")
    endless = dataclasses.replace(later[0], time=float("inf"))
    timeless = dataclasses.replace(later[0], time=float("nan"))
    for bad in (nameless, endless, timeless, cut):
        assert taking.take(bad).status == "refused"
    told = [refusal.message for refusal in queries.refusals(either)]
    assert sorted(told) == [
        "no numbers in it",
        *["the snapshot has no usable name of its machine"] * 2,
        *["the snapshot has no usable time"] * 2,
    ]
    assert counts(either)["snapshots"] == 0


def test_what_a_session_refuses_is_kept(store, model, later, monkeypatch):
    def refuse(session, measurement):
        raise UserError("cannot be judged", "send another")

    taking = store.journal(model)
    taking.take(later[0])
    with monkeypatch.context() as patch:
        patch.setattr(journal.Session, "push", refuse)
        taken = taking.take(later[1])
    assert taken.status == "refused" and "cannot be judged" in taken.line()
    assert taking.take(later[1]).status == "known"
    assert taking.take(later[2]).status == "judged"
    assert queries.fleet(store)[0].refused == 1
    assert len(list(queries.measurements(store, "pump"))) == 3


def test_files_are_done_until_they_change(store, model):
    taking = store.journal(model)
    assert not taking.done("/data/a.npz", "10-1")
    taking.finish("/data/a.npz", "10-1")
    assert taking.done("/data/a.npz", "10-1") and not taking.done("/data/a.npz", "12-2")
    taking.finish("/data/a.npz", "12-2")
    strange = "/data/\udcff\0.npz"  # a file name may hold any byte
    taking.finish(strange, "1-1")
    assert taking.done(strange, "1-1") and not taking.done("/data/.npz", "1-1")
    assert store.journal(model).done("/data/a.npz", "12-2")


def test_features_come_back_by_name_and_time(either, model, later):
    taking = either.journal(model)
    session = model.session("pump")
    rows = []
    for measurement in later[:8]:
        taking.take(measurement)
        session.push(measurement)
        rows.append(session.row)
    rows, names = np.stack(rows), model.machines["pump"].layout.names
    times, found, few = queries.features(either, "pump")
    assert not any("band" in name or "mel" in name for name in few) and "vertical.rms" in few
    assert np.array_equal(found, rows[:, [names.index(name) for name in few]], equal_nan=True)
    asked = ("vertical.mel_03", "horizontal.rms", "vertical.band_017")
    times, found, _ = queries.features(
        either, "pump", asked, since=later[2].time, until=later[5].time
    )
    assert times.tolist() == [m.time for m in later[2:5]]
    assert np.array_equal(found, rows[2:5][:, [names.index(name) for name in asked]])
    with pytest.raises(UserError, match=r"no feature 'vertical\.rsm'"):
        queries.features(either, "pump", ["vertical.rsm"])
    with pytest.raises(UserError, match="never saw a machine 'fan'"):
        queries.features(either, "fan")
    assert queries.features(either, "pump", since=later[7].time + 1)[1].shape == (0, len(few))


def test_another_layout_leaves_holes_where_it_has_no_such_feature(store, model, later):
    taking = store.journal(model)
    taking.take(later[0])
    pump = model.machines["pump"]
    layout = dataclasses.replace(pump.layout, values=(*pump.layout.values, "oil"))
    changed = dataclasses.replace(pump, layout=layout)
    other = dataclasses.replace(model, machines={"pump": changed})
    oily = dataclasses.replace(later[1], values={**later[1].values, "oil": 3.5})
    assert store.journal(other).take(oily).events[0].kind == "model changed"
    _, rows, _ = queries.features(store, "pump", ["value.oil", "vertical.rms"])
    assert np.isnan(rows[0, 0]) and rows[1, 0] == 3.5 and np.isfinite(rows[:, 1]).all()
    _, _, names = queries.features(store, "pump")
    assert "value.oil" in names
    assert counts(store)["layouts"] == 2


def test_without_waveforms_everything_else_is_kept(tmp_path, model, later, batch):
    with open_store(tmp_path / "machines.db", ring=Ring(off=True)) as store:
        taking = store.journal(model)
        for measurement in later[:5]:
            taking.take(measurement)
        assert plain(queries.verdicts(store, "pump")) == batch[:5]
        assert list(queries.measurements(store, "pump")) == []
        assert not store.folder.exists() and store.tidy().moved == 0


def test_a_verdict_on_slow_values_only_and_in_float64(store, model, later):
    doubled = {
        name: dataclasses.replace(channel, samples=channel.samples.astype(np.float64) + 1e-12)
        for name, channel in later[0].channels.items()
    }
    taking = store.journal(model)
    taken = taking.take(dataclasses.replace(later[0], channels=doubled))
    assert plain(replay(store, model, "pump")) == plain([taken.verdict])
    slow = Measurement(machine="pump", time=later[1].time, values={"temperature": float("nan")})
    taken = taking.take(slow)
    again = list(replay(store, model, "pump"))[-1]
    assert json.dumps(again.as_json()) == json.dumps(taken.verdict.as_json())


def test_a_consent_changes_no_verdict_and_forgets_no_alarm(store, model, later):
    taking = store.journal(model)
    for measurement in later[:-5]:
        taking.take(measurement)
    before = queries.fleet(store)[0]
    assert before.level != "normal"
    pump = model.machines["pump"]
    row = dataclasses.replace(pump.ledger[-1], by="Ada", why="looked at it", decided=1.0)
    pump = dataclasses.replace(pump, ledger=(*pump.ledger, row))
    consented = dataclasses.replace(model, machines={**model.machines, "pump": pump})
    taking = store.journal(consented)
    assert not any(taking.take(measurement).events for measurement in later[-5:])
    after = queries.fleet(store)[0]
    assert (after.level, after.episode) == (before.level, before.episode)
    relearned = dataclasses.replace(row, last=row.last + 1.0)
    pump = dataclasses.replace(pump, ledger=(*pump.ledger, relearned))
    assert journal.identity_of(pump) != journal.identity_of(model.machines["pump"])


def test_spans_beyond_all_times_are_empty_or_whole(store, model, later):
    taking = store.journal(model)
    for measurement in later[:3]:
        taking.take(measurement)
    for bound, whole in ((np.inf, 3), (1e15, 3), (-np.inf, 0), (-1e15, 0)):
        assert len(queries.verdicts(store, "pump", until=bound)) == whole
        assert len(queries.verdicts(store, "pump", since=bound)) == 3 - whole
