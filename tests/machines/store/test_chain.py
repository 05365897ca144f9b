"""The hash chain of verdicts: what was changed in the database is named by machine and time."""

import json

import pytest
from sqlalchemy import text
from tests.machines.streaming import learn_fleet

from lineside.core.database import write_transaction
from lineside.core.errors import UserError
from lineside.core.run.seal import KEY_VARIABLE
from lineside.machines.alarms.verdict import format_time
from lineside.machines.commands import verify
from lineside.machines.data import load_measurement
from lineside.machines.store import Journal, journal, open_store
from lineside.machines.store.chain import Verified, check_ends, verify_store


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    model, items = learn_fleet(tmp_path_factory.mktemp("fleet"))
    return model, [load_measurement(item) for item in items if item.machine == "pump"][-40:]


def ingest(store, fleet, first, last):
    """With a new journal every ten snapshots, as after a restart."""
    for begin in range(first, last, 10):
        fresh = Journal(store, fleet[0], keep_waveforms=False)
        for measurement in fleet[1][begin : min(begin + 10, last)]:
            assert fresh.ingest(measurement).status == "judged"


@pytest.fixture
def store(fleet, tmp_path):
    with open_store(tmp_path / "machines.db") as store:
        ingest(store, fleet, 0, 40)
        yield store


def change(store, statement):
    with write_transaction(store.engine) as connection:
        assert connection.execute(text(statement)).rowcount > 0


def at(fleet, place):
    return format_time(fleet[1][place].time)


def us(fleet, place):
    return round(fleet[1][place].time * 1e6)


def test_what_was_written_verifies_over_restarts(fleet, store, tmp_path, capsys):
    assert verify_store(store).faults == [] and verify_store(store).verdicts == 40
    check_ends(store)
    assert verify(store=str(tmp_path / "machines.db")) == 0
    assert "40 verdicts are as they were written" in capsys.readouterr().out
    with pytest.raises(UserError, match="no store"):
        verify(store=str(tmp_path / "none.db"))


EDITS = {
    "flipped": ("update snapshots set state = 'x', novelty = 0 where time_us = {t}", "changed"),
    "event edited": ("update events set text = 'nothing' where kind = 'alert'", "changed"),
    "event removed": ("delete from events where kind = 'alert'", "changed"),
    "unlinked": ("update snapshots set more = '' where time_us = {t}", "changed"),
    "link edited": (
        "update snapshots set more = '{{\"chain\": 1}}' where time_us = {t}",
        "changed",
    ),
    "removed": ("delete from snapshots where time_us = {t}", "removed"),
    "inserted": (
        "insert into snapshots select machine, time_us + 1, seconds, status, state, novelty, "
        "novelty_limit, note, more, source, digest, stored from snapshots where time_us = {t}",
        "inserted",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_named_by_machine_and_time(fleet, store, tmp_path, capsys, name):
    statement, word = EDITS[name]
    change(store, statement.format(t=us(fleet, 20)))
    found = verify_store(store)
    assert found.faults and all(word in fault for fault in found.faults)
    assert all("pump" in fault for fault in found.faults)
    if "event" not in name:
        near = {at(fleet, 20), at(fleet, 21)}
        assert any(time in fault for time in near for fault in found.faults)
    assert verify(store=str(tmp_path / "machines.db")) == 1
    assert word in capsys.readouterr().out


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (
            "update machines set memory = replace(memory, '1', '2')",
            "the memory of pump was changed",
        ),
        ("update machines set memory = '{}'", "the memory of pump was changed"),
        ("update machines set state = 'x', novelty = 0", "the state of pump is not that"),
        ("delete from snapshots where time_us > {t}", "the last verdicts of pump were removed"),
    ],
)
def test_a_watch_does_not_go_on_from_a_state_that_was_edited(fleet, store, statement, words):
    change(store, statement.replace("{t}", str(us(fleet, 30))))
    with pytest.raises(UserError, match=f"the store was altered: {words}"):
        check_ends(store)
    assert any(words in fault for fault in verify_store(store).faults)


def test_a_store_from_before_is_continued(fleet, tmp_path):
    """Verdicts of 0.1 have no links; the chain begins with the next one."""
    with open_store(tmp_path / "old.db") as store:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(journal, "add_link", lambda last, snapshot, events: (snapshot, None))
            patch.setattr(journal, "pack_memory", lambda state, newest: json.dumps(state))
            ingest(store, fleet, 0, 20)
        check_ends(store)
        assert (verify_store(store).verdicts, verify_store(store).before) == (0, 20)
        ingest(store, fleet, 20, 40)
        check_ends(store)
        assert verify_store(store) == Verified(verdicts=20, before=20)


def test_with_a_key_links_are_signed(fleet, tmp_path, monkeypatch):
    (tmp_path / "key").write_bytes(b"k" * 32)
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "key"))
    with open_store(tmp_path / "signed.db") as store:
        ingest(store, fleet, 0, 5)
        assert verify_store(store).verdicts == 5
        monkeypatch.delenv(KEY_VARIABLE)
        with pytest.raises(UserError, match="signed with a key"):
            verify_store(store)
        for table, column in (("snapshots", "more"), ("machines", "memory")):
            plain = f"replace({column}, '\"signed\": true', '\"signed\": false')"
            change(store, f"update {table} set {column} = {plain}")
        assert len(verify_store(store).faults) == 6, "plain hashes are not those of the key"
        monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "key"))
        with pytest.raises(UserError, match="are not signed"):
            check_ends(store)
