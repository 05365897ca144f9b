"""What a watch of weeks must survive: kill -9, clocks that jump, its own memory, a lost store."""

import dataclasses
import gc
import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from benchmarks.machines.senders import encode_message
from tests.machines.streaming import (
    FAST,
    Captured,
    count_judged,
    post,
    wait_until,
    watch_in_thread,
    write_file,
)  # fmt: skip

from lineside.core.errors import UserError
from lineside.machines.data.measurement import Measurement
from lineside.machines.store import Journal, open_store
from lineside.machines.store.queries import fleet, refusals
from lineside.machines.streams import console
from lineside.machines.streams import ingestor as ingestor_module
from lineside.machines.streams.ingestor import Clock, Ingestor, NotStoredError
from lineside.machines.streams.watch import Options, parse_address, watch


def at(measurement, seconds):
    return dataclasses.replace(measurement, time=seconds)


def test_nothing_is_lost_or_doubled_when_it_is_killed(tmp_path):
    from benchmarks.machines import senders, stream

    if senders.MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    counts = stream.kill_in(tmp_path, 6, 1, most=200)
    assert counts["kills"] == 6 and counts["sent"] > 20
    assert (counts["lost"], counts["doubled"], counts["differs"]) == (0, 0, 0)


def test_a_clock_ahead_is_reported_once_and_does_not_blind_the_machine(model, pump, store):
    now, captured = time.time(), Captured()
    ingestor = Ingestor(journal=Journal(store, model), report=captured.console.report)
    for number in range(3):
        result = ingestor.ingest(at(pump[number], now + 7200 + number), "http", live=True)
        assert result.status == "refused" and result.in_future
    assert ingestor.ingest(at(pump[3], now - 60), "http", live=True).status == "judged"
    assert ingestor.ingest(at(pump[4], now + 600), "http", live=True).status == "judged"
    assert len([line for line in captured.results if "in the future" in line]) == 1
    assert len(refusals(store)) == 3 and count_judged(store) == 2


def test_a_clock_that_jumped_back_is_reported_once_each_time(model, pump, store):
    captured = Captured()
    ingestor = Ingestor(journal=Journal(store, model), report=captured.console.report)
    for jump in range(2):
        start = pump[10 * jump].time
        for number in range(3):
            assert ingestor.ingest(at(pump[number], start + 10 + number), "http").status == "judged"
        for number in range(3):
            assert (
                ingestor.ingest(at(pump[5 + number], start - 90 + number), "http").status
                == "out_of_order"
            )
        assert ingestor.ingest(at(pump[8], start - 88), "http").status == "duplicate"
    assert len([line for line in captured.results if line.startswith("out_of_order")]) == 2
    assert fleet(store)[0].out_of_order == 6 and count_judged(store) == 6  # nothing is thrown away


def test_the_own_clock_may_jump_and_may_be_unset(monkeypatch, model, store):
    wall, monotonic = [1.8e9], [100.0]
    monkeypatch.setattr(ingestor_module.time, "time", lambda: wall[0])
    monkeypatch.setattr(ingestor_module.time, "monotonic", lambda: monotonic[0])
    clock = Clock()
    wall[0], monotonic[0] = 1.8e9 - 86400, 160.0  # a day back, a minute later
    assert clock.now() == pytest.approx(1.8e9 + 60)
    wall[0] = 1.8e9 + 86400
    assert clock.now() == pytest.approx(1.8e9 + 86400)
    wall[0] = 1e6  # a computer without a battery
    assert Clock().now() == np.inf
    ingestor = Ingestor(journal=Journal(store, model))
    assert not ingestor.is_in_future(2e9)


def test_a_file_from_the_future_waits_for_its_time(monkeypatch, model, pump, store, tmp_path):
    folder, captured = tmp_path / "data", Captured()
    now = [pump[0].time]
    monkeypatch.setattr(Clock, "now", lambda self: now[0])
    write_file(folder, at(pump[1], pump[0].time + 86400))
    write_file(folder, pump[0])
    with watch_in_thread(model, store, [folder], captured=captured):
        wait_until(lambda: count_judged(store) == 1)
        time.sleep(0.3)
        assert count_judged(store) == 1
        now[0] += 86400
        wait_until(lambda: count_judged(store) == 2)
    assert len(captured.results) == 1 and "in the future" in captured.results[0]


def test_memory_does_not_grow_with_snapshots(model, pump, store, tmp_path):
    captured = Captured(everything=True)
    captured.console.print_result = lambda line: None
    ingestor = Ingestor(
        journal=Journal(store, model, keep_waveforms=False), report=captured.console.report
    )
    start, small = pump[0].time, pump[0]

    def ingest_many(first, count):
        for number in range(first, first + count):
            measurement = at(small, start + number)
            ingestor.ingest(measurement, "http")
            ingestor.ingest(at(small, start - 1 - number), "http")  # late
            error = UserError(f"bad in its own way {number}", "fix it")
            ingestor.refuse(f"from {number}", error, f"file {number}")
        gc.collect()
        return len(gc.get_objects())

    size, console.MAX_REMEMBERED = console.MAX_REMEMBERED, 100
    try:
        before = ingest_many(0, 200)
        after = ingest_many(200, 300)
    finally:
        console.MAX_REMEMBERED = size
    assert after - before < 200


def test_names_of_files_that_are_gone_are_forgotten(model, pump, store, tmp_path):
    folder = tmp_path / "data"
    with watch_in_thread(model, store, [folder_with(folder, pump[:20])]) as loop:
        wait_until(lambda: count_judged(store) == 20)
        files = loop.folders[0]._files
        wait_until(lambda: len(files.done) == 20 and not files.pending)
        for path in list((folder / "pump").iterdir())[:15]:
            path.unlink()
        wait_until(lambda: len(files.done) == 5)


def folder_with(folder, measurements):
    for measurement in measurements:
        write_file(folder, measurement)
    return folder


def test_a_store_that_fails_for_a_while_loses_no_file(model, pump, store, tmp_path, monkeypatch):
    from lineside.machines.streams import watch as watch_module

    monkeypatch.setattr(watch_module, "STORE_PAUSE_SECONDS", 0.1)
    captured = Captured()
    folder = tmp_path / "data"
    folder.mkdir()
    with watch_in_thread(model, store, [folder], captured=captured) as loop:
        ingest, failing = loop.ingestor.journal.ingest, [True]

        def sometimes(measurement, *, source=""):
            if failing:
                raise UserError("the disk is full", "free some space")
            return ingest(measurement, source=source)

        monkeypatch.setattr(loop.ingestor.journal, "ingest", sometimes)
        folder_with(folder, pump[:5])
        wait_until(lambda: captured.notes)
        time.sleep(0.3)
        failing.clear()
        wait_until(lambda: count_judged(store) == 5)
    assert captured.notes == ["the disk is full - free some space"]
    assert not refusals(store) and not captured.results


def test_a_bug_in_judging_refuses_one_snapshot_and_the_watch_goes_on(
    model, pump, store, monkeypatch
):
    ingestor = Ingestor(journal=Journal(store, model))
    ingest = ingestor.journal.ingest

    def buggy(measurement, *, source=""):
        if measurement.time == pump[1].time:
            raise ZeroDivisionError("division by zero")
        return ingest(measurement, source=source)

    monkeypatch.setattr(ingestor.journal, "ingest", buggy)
    assert [ingestor.ingest(m, "http").status for m in pump[:3]] == ["judged", "refused", "judged"]
    assert "ZeroDivisionError" in refusals(store)[0].message


def test_a_closed_ingestor_answers_those_who_wait(model, store):
    ingestor = Ingestor(journal=Journal(store, model))
    ingestor.close()
    with pytest.raises(NotStoredError, match="ends"):
        ingestor.run_on_writer(lambda: None)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_signals_end_it_cleanly(model, pump, tmp_path, number, code):
    folder = folder_with(tmp_path / "data", pump[:3])

    def run():
        with open_store(tmp_path / "machines.db") as store:
            ready = lambda loop: (tmp_path / "ready").touch()  # noqa: E731
            sys.exit(watch([folder], model, store, options=FAST, on_ready=ready,
                           console=Captured().console))  # fmt: skip

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    wait_until((tmp_path / "ready").exists)
    time.sleep(0.2)
    os.kill(child.pid, number)
    child.join(20)
    assert child.exitcode == code


def test_http_after_a_restart_knows_what_it_has(model, pump, store):
    for _ in range(2):
        with watch_in_thread(model, store, http="127.0.0.1:0") as loop:
            statuses = [post(loop.http.port, encode_message(m))[1]["status"] for m in pump[:3]]
    assert statuses == ["duplicate"] * 3
    changed = Measurement(machine="pump", time=pump[0].time, values={"temperature": 1.0})
    with watch_in_thread(model, store, http="127.0.0.1:0") as loop:
        code, answer = post(loop.http.port, encode_message(changed))
    assert code == 409 and "another snapshot" in answer["error"]


def test_what_cannot_be_watched_is_said_in_one_line(model, store, tmp_path):
    with pytest.raises(UserError, match="nothing to watch"):
        watch([], model, store)
    with pytest.raises(UserError, match="does not exist"):
        watch([tmp_path / "no"], model, store)
    with pytest.raises(UserError, match="waits for senders"):
        watch([], model, store, http="1", options=Options(once=True))
    with pytest.raises(UserError, match="above 0"):
        Options(interval_seconds=0)
    for wrong in ("x", "host:", "host:99999"):
        with pytest.raises(UserError):
            parse_address(wrong)
    assert parse_address("8000") == ("127.0.0.1", 8000)
    assert parse_address("[::1]:80") == ("::1", 80)


def test_who_waits_is_answered_when_the_judging_is_interrupted(store, model):
    ingestor = Ingestor(journal=Journal(store, model))

    def interrupted():
        raise KeyboardInterrupt

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(ingestor.run_on_writer, interrupted)
        wait_until(lambda: ingestor.waiting)
        with pytest.raises(KeyboardInterrupt):
            ingestor.run_next()
        with pytest.raises(NotStoredError, match="ends"):
            waiting.result(timeout=5)
