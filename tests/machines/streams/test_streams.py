"""Snapshots from folder and HTTP: each stored once and judged as in one batch."""

import io
import itertools
import json
import socket
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from benchmarks.machines.senders import encode_message
from tests.machines.streaming import (
    SCENARIO,
    Captured,
    count_judged,
    get,
    post,
    rename_machine,
    stored_verdicts,
    wait_until,
    watch_in_thread,
    write_file,
)  # fmt: skip

from lineside.core.errors import UserError
from lineside.core.run import folder_watcher
from lineside.core.run.folder_watcher import Stamp
from lineside.machines.data.measurement import Measurement
from lineside.machines.store import Journal
from lineside.machines.store.queries import fleet, refusals
from lineside.machines.streams import watch as watch_module
from lineside.machines.streams.ingestor import Ingestor
from lineside.machines.streams.message import MAX_MESSAGE_BYTES
from lineside.machines.streams.watch import Options, watch


def test_a_folder_ingested_once_gives_what_the_batch_gives(trained, model, batch, store):
    folder = trained[1][0].path.parent.parent
    captured, again = Captured(), Captured()
    learned = ("pump", "fan")
    code = watch([folder], model, store, options=Options(once=True), console=captured.console)
    assert code == 1  # both machines fail
    assert any("danger" in line for line in captured.results)
    for name in learned:  # the beginning, which was learned from, is judged as well
        assert len(stored_verdicts(store, name)) > len(batch[name])
    code = watch([folder], model, store, options=Options(once=True), console=again.console)
    assert code == 0 and not again.results


def test_files_that_come_one_by_one_are_judged_as_in_the_batch(
    model, snapshots, batch, store, tmp_path
):
    folder = tmp_path / "data"
    folder.mkdir()
    with watch_in_thread(model, store, [folder]):
        for measurement in snapshots[:120]:
            write_file(folder, measurement)
        wait_until(lambda: count_judged(store) == 120)
    assert {name: stored_verdicts(store, name) for name in batch} == {
        n: b[:60] for n, b in batch.items()
    }


def test_a_file_that_is_still_written_holds_back_the_next(model, snapshots, store, tmp_path):
    folder = tmp_path / "data"
    first, second = [m for m in snapshots if m.machine == "pump"][:2]
    write_file(folder, first)
    slow = next((folder / "pump").iterdir())
    body = slow.read_bytes()
    slow.write_bytes(body[:500])
    with watch_in_thread(model, store, [folder], Options(interval_seconds=0.05)):
        write_file(folder, second)
        for end in range(600, 1500, 100):
            time.sleep(0.04)
            slow.write_bytes(body[:end])
            assert count_judged(store) == 0
        slow.write_bytes(body)
        wait_until(lambda: count_judged(store) == 2)
    assert fleet(store)[0].out_of_order == 0


def test_an_unreadable_file_is_reported_once_and_tried_again_when_it_changes(
    model, snapshots, store, tmp_path
):
    folder = tmp_path / "data"
    write_file(folder, snapshots[0])
    path = next((folder / snapshots[0].machine).iterdir())
    body = path.read_bytes()
    path.write_bytes(body[:700])
    captured = Captured()
    with watch_in_thread(model, store, [folder], captured=captured):
        wait_until(lambda: captured.results)
        time.sleep(0.3)
        assert len(captured.results) == 1 and captured.results[0].count(str(path)) == 1
        assert [r.item for r in refusals(store)] == [str(path)]
    with watch_in_thread(model, store, [folder], captured=captured):
        time.sleep(0.3)
        path.write_bytes(body)
        wait_until(lambda: count_judged(store) == 1)
    assert len([line for line in captured.results if str(path) in line]) == 1


def test_a_new_sidecar_makes_refused_files_readable(model, snapshots, store, tmp_path):
    folder = tmp_path / "data" / "pump"
    folder.mkdir(parents=True)
    pump = next(m for m in snapshots if m.machine == "pump")
    waves = np.stack([c.samples for c in pump.channels.values()], axis=1)
    np.savetxt(folder / "2026-01-20T00-00-00.csv", waves, delimiter=",")
    captured = Captured()
    with watch_in_thread(model, store, [folder.parent], captured=captured):
        wait_until(lambda: captured.results)
        assert "sample rate" in captured.results[0]
        facts = {"rate_hz": SCENARIO["rig"].rate_hz, "channels": ["horizontal", "vertical"]}
        (folder / "machine.json").write_text(json.dumps(facts))
        wait_until(lambda: count_judged(store) == 1)
        (folder / "machine.json").write_text("{")
        write_file(folder.parent, next(m for m in snapshots if m.machine == "fan"))
        wait_until(lambda: count_judged(store) == 2)  # the other machine goes on


def test_a_table_that_grows_gives_each_line_once(model, store, tmp_path):
    table = tmp_path / "data" / "boiler.csv"
    table.parent.mkdir()
    table.write_text("time,temperature,flow\n0,1,2\n60,1.5,2\n120,1.4")  # the last line is cut
    with watch_in_thread(model, store, [table.parent], Options(interval_seconds=0.05)) as loop:
        counts = loop.ingestor.counts
        time.sleep(0.3)
        with table.open("a") as stream:
            stream.write(",2.1\n180,1,2\n")
            stream.flush()
            for second in range(240, 3000, 60):
                stream.write(f"{second},1,2\n")
                stream.flush()
                time.sleep(0.005)
        wait_until(lambda: counts["unknown_machine"] >= 50)
        time.sleep(0.2)
    assert fleet(store)[0].unknown_machine == 50
    assert counts["unknown_machine"] == 50 and counts["duplicate"] == 0


def test_a_folder_that_goes_away_is_reported_once_and_resumed(model, snapshots, store, tmp_path):
    folder, away = tmp_path / "data", tmp_path / "away"
    write_file(folder, snapshots[0])
    captured = Captured()
    with watch_in_thread(model, store, [folder], captured=captured) as loop:
        wait_until(lambda: count_judged(store) == 1)
        folder.rename(away)
        wait_until(lambda: captured.notes)
        time.sleep(0.2)
        away.rename(folder)
        write_file(folder, snapshots[1])
        wait_until(lambda: count_judged(store) == 2)
        assert loop.ingestor.counts["duplicate"] == 0  # the store knows the file as finished
    assert len(captured.notes) == 1 and "cannot be read" in captured.notes[0]


def test_http_answers_after_the_commit_and_says_what_is_wrong(model, snapshots, batch, store):
    captured = Captured()
    with watch_in_thread(model, store, http="0", captured=captured) as loop:
        port = loop.http.port
        pump = [m for m in snapshots if m.machine == "pump"]
        for number, measurement in enumerate(pump):
            kind = ("npz", "json")[number % 2]
            code, answer = post(port, encode_message(measurement, kind))
            assert (code, answer["status"]) == (200, "judged")
            assert answer["state"] == batch["pump"][number]["state"]
            assert count_judged(store) == number + 1
        code, answer = post(port, encode_message(pump[3]))
        assert (code, answer["status"]) == (200, "duplicate")
        code, answer = post(port, b"nonsense")
        assert code == 400 and "neither NPZ nor JSON" in answer["error"]
        for measurement in pump[:3]:
            code, answer = post(port, encode_message(rename_machine(measurement)))
            assert code == 200 and answer["status"] == "unknown_machine"
        assert json.loads(get(port, "/health"))["status"] == "ok"
        rows = {row["machine"]: row for row in json.loads(get(port, "/machines"))}
        assert rows["pump"]["state"] == "danger" and rows["pump"]["level"] == "danger"
        text = get(port, "/metrics")
        assert f'lineside_snapshots_total{{status="judged"}} {len(pump)}' in text
        assert 'lineside_machine_state{machine="pump",state="danger"} 1' in text
    assert stored_verdicts(store, "pump") == batch["pump"]
    assert len([line for line in captured.results if "unknown_machine" in line]) == 1
    with pytest.raises(urllib.error.URLError):
        get(port, "/health")


def test_a_large_body_is_refused_and_a_stopping_watch_says_so(model, snapshots, store, monkeypatch):
    http = pytest.importorskip("lineside.machines.streams.http")
    ingestor = Ingestor(journal=Journal(store, model))
    source = http.HttpSource(ingestor=ingestor, fleet=list)
    monkeypatch.setattr(http, "MAX_MESSAGE_BYTES", 3000)
    source.start()
    try:
        code, answer = post(source.port, encode_message(snapshots[0]))
        assert code == 413 and "larger" in answer["error"]
        small = encode_message(
            Measurement(machine="pump", time=1.0, channels={}, values={"t": 1.0}), "json"
        )
        with ThreadPoolExecutor() as pool:
            answer = pool.submit(post, source.port, small)
            wait_until(lambda: ingestor.waiting == 1)
            ingestor.close()
            code, reply = answer.result()
        assert code == 503 and "ends" in reply["error"]
        assert not fleet(store)
        monkeypatch.setattr(http, "MAX_HELD_BYTES", 10)
        code, reply = post(source.port, small)
        assert code == 503 and "too many" in reply["error"]
    finally:
        source.stop()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        second = http.HttpSource(ingestor=ingestor, fleet=list, port=other.getsockname()[1])
        with pytest.raises(UserError, match="cannot be listened on"):
            second.start()


def test_http_accepts_compressed_arrays_up_to_the_limit(model, snapshots, store):
    pytest.importorskip("lineside.machines.streams.http")
    arrays = {"machine": "pump", "time": 1.0, "channel.a": np.zeros(20_000), "rate_hz.a": 100.0}
    body = io.BytesIO()
    np.savez_compressed(body, **arrays)
    assert len(body.getvalue()) < 10_000
    with watch_in_thread(model, store, http="0") as loop:
        code, reply = post(loop.http.port, body.getvalue())
        assert code == 200 or "larger" not in reply["error"], reply
        body = io.BytesIO()
        np.savez_compressed(body, **{**arrays, "channel.a": np.zeros(MAX_MESSAGE_BYTES // 8 + 1)})
        code, reply = post(loop.http.port, body.getvalue())
        assert code == 400 and "larger than 32 MB" in reply["error"]


def test_http_says_so_while_the_store_does_not_answer(store):
    http = pytest.importorskip("lineside.machines.streams.http")

    def away():
        raise UserError("the store is away", "wait")

    ingestor = Ingestor(journal=None)
    source = http.HttpSource(ingestor=ingestor, fleet=away)
    source.start()
    try:
        for path in ("/machines", "/metrics"):
            with ThreadPoolExecutor() as pool:
                answer = pool.submit(get, source.port, path)
                wait_until(lambda: ingestor.run_next(0.05))
                with pytest.raises(urllib.error.HTTPError) as raised:
                    answer.result()
            assert raised.value.code == 503 and b"the store is away" in raised.value.read()
    finally:
        ingestor.close()
        source.stop()


def test_once_gives_up_on_a_file_that_changes_but_not_on_a_long_one(
    model, store, tmp_path, monkeypatch
):
    monkeypatch.setattr(watch_module, "GIVE_UP_SECONDS", 0.6)
    table = tmp_path / "data" / "slow.csv"
    table.parent.mkdir()
    table.write_text("time,a\n" + "".join(f"{1.7e9 + 60 * k:.0f},{k}\n" for k in range(40)))
    captured = Captured()
    ingest = Journal.ingest

    def slowly(*given, **named):
        time.sleep(0.02)
        return ingest(*given, **named)

    monkeypatch.setattr(Journal, "ingest", slowly)
    watch([table.parent], model, store, options=Options(once=True), console=captured.console)
    assert fleet(store)[0].unknown_machine == 40, "the last line comes with the second scan"
    assert not captured.notes
    changes = itertools.count()
    monkeypatch.setattr(folder_watcher, "stamp_of", lambda path: Stamp(next(changes), 0))
    code = watch([table.parent], model, store, options=Options(once=True), console=captured.console)
    assert code == 2 and "still being written" in captured.notes[-1]
