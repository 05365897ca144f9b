"""The store: every snapshot once, judged as in one batch, whatever breaks in between."""

import dataclasses
import json
import multiprocessing
import os
import signal
import threading
import uuid
from pathlib import Path

import numpy as np
import pytest
from tests.databases import new_database
from tests.machines.streaming import learn_fleet

from lineside.core.database import read_transaction
from lineside.core.errors import UserError
from lineside.machines.alarms.verdict import format_time
from lineside.machines.data import load_measurement
from lineside.machines.data.measurement import Measurement
from lineside.machines.model import MachinesModel
from lineside.machines.monitoring.session import Session
from lineside.machines.store import (
    Journal,
    add_action,
    open_store,
    queries,
    replay,
    tidy,
    writes,
)
from lineside.machines.store.journal import identity_of

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
    with open_store(tmp_path / "machines.db") as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgres"])
def where(request, tmp_path):
    if request.param == "sqlite":
        return tmp_path / "machines.db"
    return new_database(request.getfixturevalue("postgres"), f"m{uuid.uuid4().hex}")


@pytest.fixture
def either(where, tmp_path):
    """A store in each kind of database."""
    with open_store(where, folder=tmp_path / "waves") as opened:
        yield opened


def plain(verdicts):
    return [verdict.as_json() for verdict in verdicts]


def counts(store):
    """How many rows each table holds."""
    from sqlalchemy import func, select

    from lineside.machines.store.schema import METADATA

    with read_transaction(store.engine) as connection:
        return {
            name: connection.execute(select(func.count()).select_from(table)).scalar()
            for name, table in METADATA.tables.items()
        }


def test_stream_batch_store_and_replay_agree_wherever_they_are_cut(either, model, later, batch):
    rng = np.random.default_rng(0)
    journal, verdicts = Journal(either, model), []
    for measurement in later:
        verdicts.append(journal.ingest(measurement).verdict)
        if rng.random() < 0.3:
            journal = Journal(either, model)
        if rng.random() < 0.1:
            tidy(either, everything=rng.random() < 0.5)
    assert plain(verdicts) == batch
    assert plain(queries.verdicts(either, "pump")) == batch
    assert plain(replay(either, model, "pump")) == batch
    tidy(either, everything=True)
    assert counts(either)["pending"] == 0
    assert plain(replay(either, model, "pump")) == batch
    kinds = [record.event.kind for record in queries.events(either, "pump")]
    assert "alert" in kinds and kinds == [e["kind"] for v in batch for e in v["events"]]


def test_a_duplicate_changes_nothing(store, model, later):
    journal = Journal(store, model)
    for measurement in later[:5]:
        journal.ingest(measurement, source="a.npz")
    before = counts(store)
    for other in (journal, Journal(store, model)):
        for measurement in (later[1], later[4]):
            result = other.ingest(measurement)
            assert (result.status, result.verdict, result.message) == ("duplicate", None, "")
    channels = {
        name: dataclasses.replace(channel, samples=channel.samples * 2)
        for name, channel in later[1].channels.items()
    }
    result = journal.ingest(dataclasses.replace(later[1], channels=channels))
    assert result.status == "duplicate" and "another snapshot" in result.as_line()
    assert counts(store) == before
    stored = next(queries.measurements(store, "pump", since=later[1].time))
    assert np.array_equal(
        stored.channels["vertical"].samples, later[1].channels["vertical"].samples
    )


def test_a_snapshot_out_of_order_is_kept_with_features_but_not_judged(either, model, later, batch):
    journal = Journal(either, model)
    order = [0, 1, 3, 2, 4, 5]
    result = [journal.ingest(later[index]) for index in order]
    assert [t.status for t in result] == [
        "judged",
        "judged",
        "judged",
        "out_of_order",
        "judged",
        "judged",
    ]
    assert "older than" in result[3].as_line()
    assert journal.ingest(later[2]).status == "duplicate"
    session = model.session("pump")
    without = plain(session.push(later[index]) for index in order if index != 2)
    assert plain(queries.verdicts(either, "pump")) == without
    assert plain(replay(either, model, "pump")) == without
    times, rows, _ = queries.features(either, "pump")
    assert len(times) == len(rows) == 6 and np.isfinite(rows[2]).all()
    assert len(list(queries.measurements(either, "pump"))) == 6
    (status,) = queries.fleet(either)
    assert (status.out_of_order, status.refused, status.time) == (1, 0, later[5].time)


def test_snapshots_of_an_unknown_machine_are_kept(store, model, later):
    stranger = MachinesModel(method="trend", machines={"fan": model.machines["fan"]})
    journal = Journal(store, stranger)
    result = [journal.ingest(m) for m in later[:3]]
    assert {t.status for t in result} == {"unknown_machine"} and "unknown_machine" in result[
        0
    ].as_line()
    assert queries.fleet(store)[0].unknown_machine == 3
    stored = list(queries.measurements(store, "pump"))
    assert [m.time for m in stored] == [m.time for m in later[:3]]
    journal = Journal(store, model)
    assert journal.ingest(later[2]).status == "duplicate"
    assert journal.ingest(later[1]).status == "duplicate"
    assert journal.ingest(later[3]).status == "judged"
    assert len(queries.verdicts(store, "pump")) == 1


def test_another_model_starts_again_and_reports_it(store, model, later):
    journal = Journal(store, model)
    for measurement in later[:10]:
        journal.ingest(measurement)
    pump = model.machines["pump"]
    limit = dataclasses.replace(pump.main.calibration, limit=pump.main.calibration.limit * 1.5)
    pump = dataclasses.replace(pump, main=dataclasses.replace(pump.main, calibration=limit))
    changed = dataclasses.replace(model, machines={**model.machines, "pump": pump})
    journal = Journal(store, changed)
    result = [journal.ingest(m) for m in later[10:20]]
    assert [e.kind for e in result[0].events] == ["model changed"] and not result[1].events
    assert "another model" in result[0].as_line()
    session = changed.session("pump")
    assert plain(t.verdict for t in result) == plain(session.push(m) for m in later[10:20])
    assert plain(replay(store, changed, "pump")) == plain(t.verdict for t in result)
    assert [t.origin for t in queries.events(store, "pump")].count("journal") == 1
    older = journal.ingest(dataclasses.replace(later[9], time=later[9].time + 1))
    assert older.status == "out_of_order"  # although the new session has not seen any before
    # A model whose other machines changed is the same for this one.
    fewer = MachinesModel(method="trend", machines={"pump": pump})
    assert not Journal(store, fewer).ingest(later[20]).events


def test_journals_that_share_a_store_judge_as_one(store, model, later, batch):
    rng = np.random.default_rng(1)
    several = [Journal(store, model) for _ in range(3)]
    for measurement in later:
        first, second = rng.choice(3, 2, replace=False)
        assert several[first].ingest(measurement).status == "judged"
        if rng.random() < 0.3:
            assert several[second].ingest(measurement).status == "duplicate"
    assert plain(queries.verdicts(store, "pump")) == batch


def test_journals_at_the_same_time_lose_and_double_nothing(where, tmp_path, model, later, batch):
    some, failures = later[:40], []

    def work():
        try:
            with open_store(where, folder=tmp_path / "waves") as opened:
                journal = Journal(opened, model)
                for measurement in some:
                    assert journal.ingest(measurement).status in ("judged", "duplicate")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    with open_store(where, folder=tmp_path / "waves") as store:
        assert plain(queries.verdicts(store, "pump")) == batch[:40]
        assert counts(store)["snapshots"] == counts(store)["pending"] == 40


@pytest.mark.parametrize("step", ["advance_machine", "insert_snapshot", "insert_features",
                                  "insert_waveform", "insert_events"])  # fmt: skip
def test_a_failure_before_the_commit_leaves_nothing(store, model, later, batch, step, monkeypatch):
    journal = Journal(store, model)
    for measurement in later[:5]:
        journal.ingest(measurement)
    before = counts(store)
    whole = getattr(writes, step)

    def broken(*given):
        whole(*given)
        raise OSError("the cable is out")

    with monkeypatch.context() as patch:
        patch.setattr(writes, step, broken)
        with pytest.raises(OSError, match="cable"):
            journal.ingest(later[5])
    assert counts(store) == before
    assert journal.ingest(later[5]).verdict.as_json() == batch[5]  # its session was thrown away


@pytest.mark.parametrize("step", ["advance_machine", "insert_waveform", "insert_events", "after"])
def test_a_killed_process_loses_and_doubles_nothing(tmp_path, model, later, batch, step):
    where = tmp_path / "machines.db"

    def die(*given):
        os.kill(os.getpid(), signal.SIGKILL)

    def work():
        with open_store(where) as store:
            journal = Journal(store, model)
            for measurement in later[:5]:
                journal.ingest(measurement)
            if step != "after":
                setattr(writes, step, die)
            journal.ingest(later[5])
            die()

    child = FORK.Process(target=work)
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    with open_store(where) as store:
        assert counts(store)["snapshots"] == 5 + (step == "after")
        journal = Journal(store, model)
        statuses = [journal.ingest(m).status for m in later[:8]]
        assert statuses == ["duplicate"] * (5 + (step == "after")) + ["judged"] * (
            3 - (step == "after")
        )
        assert plain(queries.verdicts(store, "pump")) == batch[:8]
        assert counts(store)["snapshots"] == counts(store)["pending"] == 8


def test_operators_act_at_a_time_that_a_replay_repeats(either, model, later, batch):
    alert = next(i for i, v in enumerate(batch) for e in v["events"] if e["kind"] == "alert")
    journal = Journal(either, model)
    with pytest.raises(UserError, match="has no machine 'pmup'"):
        add_action(either, "pmup", "acknowledge", by="Ada")
    for measurement in later[: alert - 1]:
        journal.ingest(measurement)
    with pytest.raises(UserError, match="nobody"):
        add_action(either, "pump", "mute", by="", until=0.0)
    add_action(either, "pump", "acknowledge", by="Ada", why="looked at it")
    result = journal.ingest(later[alert - 1])
    assert [e.kind for e in result.events] == ["nothing to acknowledge"]
    until = later[alert + 3].time
    add_action(either, "pump", "mute", by="Bo", why="tests on site", until=until)
    verdicts = [journal.ingest(m).verdict for m in later[alert : alert + 2]]
    assert verdicts[0].state == "alert" and not verdicts[0].events  # held back
    assert queries.fleet(either)[0].muted_until == until
    texts = [t.event.text for t in queries.events(either, "pump") if t.event.kind == "muted"]
    assert format_time(until) in texts[0], "people read dates"
    verdicts += [journal.ingest(m).verdict for m in later[alert + 2 : alert + 6]]
    assert "alert" in [e.kind for v in verdicts for e in v.events]
    add_action(either, "pump", "acknowledge", by="Ada")
    result = journal.ingest(later[alert + 6])
    assert [(e.kind, e.episode) for e in result.events] == [("acknowledged", 1)]
    assert "acknowledged by Ada" in result.as_line()
    (status,) = queries.fleet(either)
    assert (status.acknowledged_by, status.episode, status.muted_until) == ("Ada", 1, None)
    actions = queries.actions(either, "pump")
    assert [a.applied for a in actions] == [later[alert + k].time for k in (-1, 0, 6)]
    assert plain(replay(either, model, "pump")) == plain(queries.verdicts(either, "pump"))


def test_bad_input_is_kept_once(either, model, later):
    journal = Journal(either, model)
    for _ in range(3):
        journal.refuse("a.csv", "no numbers in it", "check it", source="/data/a.csv")
    nameless = dataclasses.replace(later[0], machine="")
    cut = dataclasses.replace(later[0], machine="pu\0mp")
    endless = dataclasses.replace(later[0], time=float("inf"))
    timeless = dataclasses.replace(later[0], time=float("nan"))
    for bad in (nameless, endless, timeless, cut):
        assert journal.ingest(bad).status == "refused"
    texts = [refusal.message for refusal in queries.refusals(either)]
    assert sorted(texts) == [
        "no numbers in it",
        *["the snapshot has no usable name of its machine"] * 2,
        *["the snapshot has no usable time"] * 2,
    ]
    assert counts(either)["snapshots"] == 0


def test_what_a_session_refuses_is_kept(store, model, later, monkeypatch):
    def refuse(session, measurement):
        raise UserError("cannot be judged", "send another")

    journal = Journal(store, model)
    journal.ingest(later[0])
    with monkeypatch.context() as patch:
        patch.setattr(Session, "push", refuse)
        result = journal.ingest(later[1])
    assert result.status == "refused" and "cannot be judged" in result.as_line()
    assert journal.ingest(later[1]).status == "duplicate"
    assert journal.ingest(later[2]).status == "judged"
    assert queries.fleet(store)[0].refused == 1
    assert len(list(queries.measurements(store, "pump"))) == 3


def test_files_are_done_until_they_change(store, model):
    journal = Journal(store, model)
    assert not journal.is_finished("/data/a.npz", "10-1")
    journal.finish("/data/a.npz", "10-1")
    assert journal.is_finished("/data/a.npz", "10-1") and not journal.is_finished(
        "/data/a.npz", "12-2"
    )
    journal.finish("/data/a.npz", "12-2")
    strange = "/data/\udcff\0.npz"  # a file name may hold any byte
    journal.finish(strange, "1-1")
    assert journal.is_finished(strange, "1-1") and not journal.is_finished("/data/.npz", "1-1")
    assert Journal(store, model).is_finished("/data/a.npz", "12-2")


def test_features_come_back_by_name_and_time(either, model, later):
    journal = Journal(either, model)
    session = model.session("pump")
    rows = []
    for measurement in later[:8]:
        journal.ingest(measurement)
        session.push(measurement)
        rows.append(session.row)
    rows, names = np.stack(rows), model.machines["pump"].layout.names
    times, features, few = queries.features(either, "pump")
    assert not any("band" in name or "mel" in name for name in few) and "vertical.rms" in few
    assert np.array_equal(features, rows[:, [names.index(name) for name in few]], equal_nan=True)
    chosen = ("vertical.mel_03", "horizontal.rms", "vertical.band_017")
    times, features, _ = queries.features(
        either, "pump", chosen, since=later[2].time, until=later[5].time
    )
    assert times.tolist() == [m.time for m in later[2:5]]
    assert np.array_equal(features, rows[2:5][:, [names.index(name) for name in chosen]])
    with pytest.raises(UserError, match=r"no feature 'vertical\.rsm'"):
        queries.features(either, "pump", ["vertical.rsm"])
    with pytest.raises(UserError, match="has no machine 'fan'"):
        queries.features(either, "fan")
    assert queries.features(either, "pump", since=later[7].time + 1)[1].shape == (0, len(few))


def test_another_layout_leaves_holes_where_it_has_no_such_feature(store, model, later):
    journal = Journal(store, model)
    journal.ingest(later[0])
    pump = model.machines["pump"]
    layout = dataclasses.replace(pump.layout, values=(*pump.layout.values, "oil"))
    changed = dataclasses.replace(pump, layout=layout)
    other = dataclasses.replace(model, machines={"pump": changed})
    oily = dataclasses.replace(later[1], values={**later[1].values, "oil": 3.5})
    assert Journal(store, other).ingest(oily).events[0].kind == "model changed"
    _, rows, _ = queries.features(store, "pump", ["value.oil", "vertical.rms"])
    assert np.isnan(rows[0, 0]) and rows[1, 0] == 3.5 and np.isfinite(rows[:, 1]).all()
    _, _, names = queries.features(store, "pump")
    assert "value.oil" in names
    assert counts(store)["layouts"] == 2


def test_without_waveforms_everything_else_is_kept(tmp_path, model, later, batch):
    with open_store(tmp_path / "machines.db") as store:
        journal = Journal(store, model, keep_waveforms=False)
        for measurement in later[:5]:
            journal.ingest(measurement)
        assert plain(queries.verdicts(store, "pump")) == batch[:5]
        assert list(queries.measurements(store, "pump")) == []
        tidy(store)
        assert not store.folder.exists()


def test_a_verdict_on_slow_values_only_and_in_float64(store, model, later):
    doubled = {
        name: dataclasses.replace(channel, samples=channel.samples.astype(np.float64) + 1e-12)
        for name, channel in later[0].channels.items()
    }
    journal = Journal(store, model)
    result = journal.ingest(dataclasses.replace(later[0], channels=doubled))
    assert plain(replay(store, model, "pump")) == plain([result.verdict])
    slow = Measurement(machine="pump", time=later[1].time, values={"temperature": float("nan")})
    result = journal.ingest(slow)
    again = list(replay(store, model, "pump"))[-1]
    assert json.dumps(again.as_json()) == json.dumps(result.verdict.as_json())


def test_a_consent_changes_no_verdict_and_forgets_no_alarm(store, model, later):
    journal = Journal(store, model)
    for measurement in later[:-5]:
        journal.ingest(measurement)
    before = queries.fleet(store)[0]
    assert before.level != "normal"
    pump = model.machines["pump"]
    row = dataclasses.replace(pump.learning_record[-1], by="Ada", why="inspected", decided_at=1.0)
    pump = dataclasses.replace(pump, learning_record=(*pump.learning_record, row))
    consented = dataclasses.replace(model, machines={**model.machines, "pump": pump})
    journal = Journal(store, consented)
    assert not any(journal.ingest(measurement).events for measurement in later[-5:])
    after = queries.fleet(store)[0]
    assert (after.level, after.episode) == (before.level, before.episode)
    relearned = dataclasses.replace(row, last=row.last + 1.0)
    pump = dataclasses.replace(pump, learning_record=(*pump.learning_record, relearned))
    assert identity_of(pump) != identity_of(model.machines["pump"])


def test_spans_beyond_all_times_are_empty_or_whole(store, model, later):
    journal = Journal(store, model)
    for measurement in later[:3]:
        journal.ingest(measurement)
    for bound, whole in ((np.inf, 3), (1e15, 3), (-np.inf, 0), (-1e15, 0)):
        assert len(queries.verdicts(store, "pump", until=bound)) == whole
        assert len(queries.verdicts(store, "pump", since=bound)) == 3 - whole


def test_the_stored_format_is_that_of_version_1(store, model, later):
    """Names in the code may change; tables, columns and stored words may not."""
    with read_transaction(store.engine) as connection:
        names = connection.exec_driver_sql(
            "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
        ).scalars()
        columns = {
            name: " ".join(
                row[1] for row in connection.exec_driver_sql(f"PRAGMA table_info({name})")
            )
            for name in list(names)
        }
        version = connection.exec_driver_sql("SELECT * FROM schema_versions").all()
    assert version == [("machines", 1)]
    assert columns == {
        "actions": "id machine kind who why until asked applied",
        "events": "id machine time_us origin kind episode text evidence",
        "finished": "source stamp",
        "layouts": "id digest levels spectrum",
        "levels": "machine time_us layout row",
        "litter": "path",
        "machines": "id name sequence model memory layout last_us state novelty novelty_limit",
        "pending": "machine time_us size content",
        "refusals": "digest item message hint source stored",
        "schema_versions": "application version",
        "segments": "id machine path size thinned",
        "snapshots": "machine time_us seconds status state novelty novelty_limit note more source "
        "digest stored",
        "spectra": "machine time_us layout row",
        "waves": "machine time_us segment place",
    }
    journal = Journal(store, model)
    for measurement in (later[1], later[0], dataclasses.replace(later[0], machine="other")):
        journal.ingest(measurement)
    with read_transaction(store.engine) as connection:
        stored = connection.exec_driver_sql("SELECT status FROM snapshots").scalars()
        assert sorted(stored) == ["judged", "late", "never learned"]


def test_the_example_of_the_docs_runs(tmp_path, model, later, monkeypatch, capsys):
    page = Path(__file__).parents[3] / "docs" / "machines.md"
    (example,) = [
        block.partition("```")[0]
        for block in page.read_text().split("```python\n")[1:]
        if "open_store" in block
    ]
    monkeypatch.chdir(tmp_path)
    with open_store("machines.db") as store:
        journal = Journal(store, model)
        for measurement in later:
            journal.ingest(measurement)
    names: dict[str, object] = {}
    exec(example.replace("1768600800.0", str(later[2].time)), names)
    assert len(names["rms"]) == len(later) - 2 and names["alarms"]
    assert capsys.readouterr().out.startswith("pump danger")
