"""What the verbs watch, replay, fleet, acknowledge and mute print and answer."""

import json

import pytest

from lineside.core.errors import UserError
from lineside.core.run.model_store import save_model
from lineside.machines.commands import watch
from lineside.machines.data import load_measurement
from lineside.machines.store import Journal, open_store
from lineside.machines.store.queries import actions
from lineside.machines.streams.commands import (
    run_action,
    run_fleet,
    run_replay,
)


def lines_of(store, *, as_json=False):
    lines = []
    code = run_fleet(store, as_json=as_json, print_line=lines.append)
    return code, lines


def test_fleet_tells_the_worst_first_until_somebody_has_seen_it(trained, tmp_path, capsys):
    model, items = trained
    where = str(tmp_path / "machines.db")
    with open_store(where) as store:
        journal = Journal(store, model, keep_waveforms=False)
        pump = [item for item in items if item.machine == "pump"]
        for item in pump[:-1]:
            journal.ingest(load_measurement(item))
        for item in [item for item in items if item.machine == "fan"][:10]:
            journal.ingest(load_measurement(item))
    code, lines = lines_of(where)
    assert code == 1 and lines[1].startswith("danger") and lines[1].endswith("pump")
    assert lines[2].startswith("normal") and lines[2].endswith("fan")
    assert run_action("acknowledge", "pump", where, by="Ada", why="parts are ordered") == 0
    assert run_action("mute", "fan", where, by="Ada", why="cleaning", hours=2) == 0
    assert "acknowledged by Ada" in capsys.readouterr().out
    with open_store(where) as store:
        Journal(store, model, keep_waveforms=False).ingest(load_measurement(pump[-1]))
        assert [(a.kind, a.by) for a in actions(store, "fan")] == [("mute", "Ada")]
    code, lines = lines_of(where)
    assert code == 0 and "acknowledged by Ada" in lines[1] + lines[2]
    code, lines = lines_of(where, as_json=True)
    assert {json.loads(line)["machine"] for line in lines} == {"pump", "fan"}


def test_watch_takes_up_a_stored_model(trained, tmp_path, capsys):
    model, items = trained
    save_model(tmp_path / "model", "machines", model)
    folder = items[0].path.parent.parent
    code = watch(
        folder, model=tmp_path / "model", store=str(tmp_path / "machines.db"), once=True,
        keep_days=400, json=True, everything=True,
    )  # fmt: skip
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 1 and {row["status"] for row in rows} == {"judged"}
    capsys.readouterr()
    run_replay("pump", tmp_path / "model", str(tmp_path / "machines.db"), as_json=True)
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    watched = [row for row in rows if row["machine"] == "pump"]
    assert len(again) > 50 and [row["novelty"] for row in again] == [
        row["novelty"] for row in watched
    ]
    assert [row["events"] for row in again] == [row["events"] for row in watched]


def test_a_store_that_was_emptied_is_not_taken_for_a_new_one(trained, tmp_path):
    model, items = trained
    save_model(tmp_path / "model", "machines", model)
    (tmp_path / "machines.db").touch()
    with pytest.raises(UserError, match="was emptied"):
        watch(
            items[0].path.parent.parent, model=tmp_path / "model", once=True,
            store=str(tmp_path / "machines.db"),
        )  # fmt: skip


def test_what_is_not_there_is_said_in_one_line(tmp_path):
    for ask in (
        lambda: lines_of(str(tmp_path / "no.db")),
        lambda: run_action("acknowledge", "pump", str(tmp_path / "no.db"), by="Ada", why=""),
    ):
        with pytest.raises(UserError, match="there is no store"):
            ask()
    where = str(tmp_path / "machines.db")
    (tmp_path / "machines.db").touch()
    with pytest.raises(UserError, match="was emptied"):
        lines_of(where)
    (tmp_path / "machines.db").unlink()
    open_store(where).close()
    assert lines_of(where) == (0, ["state          novelty  newest (UTC)         machine"])
    with pytest.raises(UserError, match="has no machine"):
        run_action("acknowledge", "pump", where, by="Ada", why="")
    with pytest.raises(UserError, match="hours"):
        run_action("mute", "pump", where, by="Ada", why="")
