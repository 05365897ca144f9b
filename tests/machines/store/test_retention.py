"""Waveforms in segments: bit by bit what was ingested, thinned by the policy, safe in a crash."""

import contextlib
import dataclasses
import json
import multiprocessing
import os
import signal
import sys

import numpy as np
import pytest
from sqlalchemy import func, select
from tests.databases import new_database

from lineside.core.database import read_transaction, write_transaction
from lineside.core.errors import UserError
from lineside.machines.data.measurement import Channel, Measurement
from lineside.machines.model import MachinesModel
from lineside.machines.store import Journal, RetentionPolicy, open_store, queries, retention, tidy
from lineside.machines.store.schema import PENDING
from lineside.machines.store.waveforms import segments
from lineside.machines.store.writes import insert_events

FORK = multiprocessing.get_context("fork")
DAY, START = 86400.0, 1767225600.0
NOBODY = MachinesModel(method="trend", machines={})


def measurement(time, machine="pump", samples=50, seed=None):
    rng = np.random.default_rng(int(time) if seed is None else seed)
    wave = rng.normal(size=samples).astype(np.float32)
    return Measurement(
        machine=machine, time=time, channels={"a": Channel(samples=wave, rate_hz=1000.0)}
    )


def fill(store, times, machine="pump", **options):
    """Keep snapshots of a machine that nobody judges."""
    journal = Journal(store, NOBODY)
    for time in times:
        assert journal.ingest(measurement(time, machine, **options)).status == "unknown_machine"


def alarm(store, time, kind="alert"):
    """Write an event as the journal would."""
    with write_transaction(store.engine) as connection:
        row = {
            "machine": 1, "time_us": round(1e6 * time), "origin": "verdict", "kind": kind,
            "episode": 1, "text": "", "evidence": json.dumps({}),
        }  # fmt: skip
        insert_events(connection, [row])


def kept(store, machine="pump"):
    """Times of the waveforms that are there, each checked against what was ingested."""
    stored = list(queries.measurements(store, machine))
    for one in stored:
        wave = one.channels["a"].samples
        assert np.array_equal(wave, measurement(one.time, samples=len(wave)).channels["a"].samples)
    return [one.time for one in stored]


def files(store):
    return sorted(str(p.relative_to(store.folder)) for p in store.folder.rglob("*.p*"))


def indexed(store):
    with read_transaction(store.engine) as connection:
        return sorted(row["path"] for row in segments(connection))


def moved_by_tidy(store, **options):
    """How many waveforms leave the database when the store is tidied."""

    def count():
        with read_transaction(store.engine) as connection:
            return connection.execute(select(func.count()).select_from(PENDING)).scalar_one()

    before = count()
    tidy(store, **options)
    return before - count()


@pytest.fixture
def where(tmp_path):
    return tmp_path / "machines.db"


def test_every_bit_of_a_snapshot_comes_back(where, monkeypatch):
    holes = np.array([1.5, np.nan, -0.0, np.inf, 1e-42], dtype=np.float32)
    odd = [
        Measurement(machine="halle 3/pumpe ö", time=START + 1 / 3, speed_hz=24.97, load=None,
                    channels={"a": Channel(samples=holes, rate_hz=25600.0, unit="g"),
                              "b ü": Channel(samples=holes[:3], rate_hz=1e4 / 3, unit="mm/s")},
                    values={"oil": float("nan"), "temperature": 0.1 + 0.2}),
        Measurement(machine="halle 3/pumpe ö", time=START + 600.0, load=float("nan")),
        Measurement(machine="halle 3/pumpe ö", time=START + 1200.0, values={"oil": 1.0},
                    channels={"a": Channel(samples=holes[:0], rate_hz=1.0, unit="")}),
    ]  # fmt: skip

    def text(one):
        waves = {n: (c.samples.tobytes(), c.rate_hz, c.unit) for n, c in one.channels.items()}
        return repr((one.machine, one.time, waves, one.values, one.speed_hz, one.load))

    with open_store(where) as store:
        journal = Journal(store, NOBODY)
        for one in odd:
            journal.ingest(one)
        for _ in range(2):
            stored = list(queries.measurements(store, odd[0].machine))
            assert [text(one) for one in stored] == [text(one) for one in odd]
            tidy(store, everything=True)
        assert indexed(store) == files(store) and len(files(store)) == 1


def test_other_programs_can_read_a_segment(where):
    parquet = pytest.importorskip("pyarrow.parquet")
    with open_store(where) as store:
        fill(store, [START, START + 600], samples=20_000)
        tidy(store, everything=True)
        table = parquet.read_table(store.folder / files(store)[0])
        assert table.column("machine").to_pylist() == ["pump", "pump"]
        assert table.column("seconds").to_pylist() == [START, START + 600]
        assert len(table.column("samples")[1]) == 20_000
        group = parquet.ParquetFile(store.folder / files(store)[0]).metadata.row_group(0)
        samples = group.column(group.num_columns - 1)
        assert samples.compression == "ZSTD" and "BYTE_STREAM_SPLIT" in samples.encodings


def test_segments_close_with_their_day_or_when_they_are_full(where, monkeypatch):
    times = [START + 6 * 3600 * k for k in range(10)]  # two days and a half
    with open_store(where) as store:
        fill(store, times)
        assert moved_by_tidy(store) == 8 and len(files(store)) == 2
        assert kept(store) == times
        monkeypatch.setattr(retention, "SEGMENT_BYTES", 500)  # two snapshots
        assert moved_by_tidy(store) == 2 and len(files(store)) == 3
        monkeypatch.undo()
        fill(store, [times[-1] + 1])
        assert moved_by_tidy(store) == 0
        monkeypatch.setattr(retention, "PENDING_BYTES", 100)
        assert moved_by_tidy(store) == 1
        assert kept(store) == [*times, times[-1] + 1] and indexed(store) == files(store)


def test_the_policy_thins_what_is_old_and_stays_dense_around_an_alarm(where):
    hours = np.arange(0, 30 * 24, 3.0)
    times = (START + 3600 * hours).tolist()
    policy = RetentionPolicy(days=10, thin_hours=24, around_hours=12)
    with open_store(where, retention=policy) as store:
        fill(store, times)
        alarm(store, START + 8.5 * DAY)
        alarm(store, START + 5.5 * DAY, kind="cleared")
        tidy(store)
        left = (np.array(kept(store)) - START) / DAY
        assert sum((left >= 8) & (left <= 9)) == 9  # every three hours
        assert sum((left >= 4) & (left < 7)) == 3  # one a day
        assert sum(left >= 20) == sum(hours >= 20 * 24)  # the young ones
        assert indexed(store) == files(store)
        assert len(files(store)) < 15  # thinned segments are put together
        before = kept(store), files(store)
        tidy(store)
        assert (kept(store), files(store)) == before
        before = kept(store)
        fill(store, [times[-1] + 3600, times[-1] + 4 * DAY])
        tidy(store)
        after = kept(store)
        assert set(after) < {*before, times[-1] + 3600, times[-1] + 4 * DAY}
        assert sum((np.array(after) >= START + 8 * DAY) & (np.array(after) <= START + 9 * DAY)) == 9
        assert len(queries.features(store, "pump")[0]) == 0  # never learned


def test_a_clock_that_jumps_ahead_does_not_make_everything_old(where):
    with open_store(where, retention=RetentionPolicy(days=1)) as store:
        import time

        now = float(round(time.time()))
        fill(store, [now - 3600 * k for k in range(6, 0, -1)])
        fill(store, [now + 3000 * DAY])
        tidy(store, everything=True)
        assert len(kept(store)) == 7


def test_the_largest_size_is_kept_and_alarms_go_last(where):
    times = [START + 6 * 3600 * k for k in range(40)]
    with open_store(where) as store:
        fill(store, times, samples=20_000)
        tidy(store, everything=True)
        alarm(store, START + 2.25 * DAY)
    policy = RetentionPolicy(days=100, around_hours=6, max_gb=6e-4)  # about seven of forty
    with open_store(where, retention=policy) as store:
        tidy(store)
        left = (np.array(kept(store)) - START) / DAY
        assert set(left[:3]) == {2.0, 2.25, 2.5} and left[-1] == 9.75
        assert sum(p.stat().st_size for p in store.folder.rglob("*.parquet")) < 6e5
    with open_store(where, retention=RetentionPolicy(max_gb=1e-7)) as store:
        tidy(store)
        assert kept(store) == [] and files(store) == []


def killed(work):
    """Run in a process of its own, which has to die of SIGKILL."""
    child = FORK.Process(target=work)
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL


def die(*given, **named):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("thin", [False, True], ids=["moving", "thinning"])
@pytest.mark.parametrize(
    ("module", "step"),
    [
        ("os", "replace"),
        ("retention", "insert_segment"),
        ("retention", "delete_segment"),
        ("retention", "_delete_file"),
    ],
    ids=["before rename", "between rename and commit", "in the commit", "before deleting"],
)
def test_a_crash_while_tidying_loses_nothing_and_leaves_nothing(where, thin, module, step):
    times = [START + 6 * 3600 * k for k in range(16)]
    policy = RetentionPolicy(days=1, around_hours=0) if thin else RetentionPolicy()
    with open_store(where) as store:
        fill(store, times)
        if thin:
            tidy(store, everything=True)

    def work():
        with open_store(where, retention=policy) as store:
            setattr({"os": os, "retention": retention}[module], step, die)
            tidy(store, everything=True)
            die()  # where the step is not part of it

    killed(work)
    with open_store(where, retention=policy) as store:
        assert indexed(store) == files(store)  # what the crash left is gone
        assert set(kept(store)) >= {*times[-4:], times[0]}
        if not thin:
            assert kept(store) == times
        tidy(store, everything=True)
        assert kept(store) == (times[:8:4] + times[8:] if thin else times)
        assert indexed(store) == files(store)


def test_files_that_are_not_ours_stay(where):
    with open_store(where) as store:
        fill(store, [START])
        tidy(store, everything=True)
        foreign = store.folder / "000001-pump" / "notes.parquet"
        foreign.write_text("mine")
    with open_store(where) as store:
        tidy(store, everything=True)
        assert foreign.read_text() == "mine" and kept(store) == [START]


def test_two_may_tidy_at_once(where):
    with open_store(where) as one, open_store(where) as two:
        fill(one, [START, START + 2 * DAY])
        with retention._lock_folder(one.folder) as alone:
            assert alone and moved_by_tidy(two) == 0
        assert moved_by_tidy(two) == 1


def test_reading_follows_a_segment_that_is_moved_meanwhile(where):
    times = [START + 6 * 3600 * k for k in range(40)]
    with open_store(where) as store:
        fill(store, times)
        tidy(store, everything=True)
        reader = queries.measurements(store, "pump")
        times_read = [next(reader).time]
        tidy(dataclasses.replace(store, retention=RetentionPolicy(days=2)))
        times_read += [one.time for one in reader]  # thinned ones are gone, no error
        assert times_read == times[:28:4] + times[28:]
        for file in store.folder.rglob("*.parquet"):
            file.unlink()
        with pytest.raises(UserError, match="missing"):
            kept(store)


def test_a_damaged_segment_is_told(where):
    with open_store(where) as store:
        fill(store, [START])
        tidy(store, everything=True)
        (store.folder / files(store)[0]).write_bytes(b"PAR1 no more PAR1")
        with pytest.raises(UserError, match="cannot be read"):
            kept(store)


def test_a_missing_library_names_the_extra(where, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with open_store(where) as store:
        with pytest.raises(UserError, match=r"lineside\[machines\]"):
            Journal(store, NOBODY)
        Journal(store, NOBODY, keep_waveforms=False).ingest(measurement(START))


def test_a_full_disk_while_tidying_loses_nothing(where, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    with open_store(where) as store:
        fill(store, [START, START + 60])
        with monkeypatch.context() as patch, pytest.raises(UserError, match="disk is full"):
            patch.setattr("lineside.machines.store.segments._fsync", full)
            tidy(store, everything=True)
        assert kept(store) == [START, START + 60] and files(store) == []
        assert moved_by_tidy(store, everything=True) == 2
        assert indexed(store) == files(store)


def test_waveforms_of_a_store_in_postgresql_lie_in_a_folder(postgres, tmp_path):
    url = new_database(postgres, f"waves{os.getpid()}")
    times = [START + 6 * 3600 * k for k in range(40)]
    with open_store(url, folder=tmp_path / "waves", retention=RetentionPolicy(days=2)) as store:
        fill(store, times)
        tidy(store)
        assert kept(store) == times[:28:4] + times[28:]
        assert indexed(store) == files(store)


@pytest.mark.parametrize("days", [0.0, 3.0])
def test_a_policy_is_a_rule(days):
    hour = 3_600_000_000
    times = [hour * k for k in range(24 * 10)]
    policy = RetentionPolicy(days=days, thin_hours=24, around_hours=2)
    selected = policy.select(times, times[-1], [hour * 50])
    young = {t for t in times if t >= times[-1] - days * 24 * hour}
    near = {hour * k for k in range(48, 53)}
    assert selected == young | near | set(times[::24])
    assert (
        policy.select(sorted(selected), times[-1], [hour * 50]) == selected
    )  # selecting again changes nothing
    with contextlib.suppress(UserError):
        RetentionPolicy(days=-1)
        raise AssertionError


def test_a_segment_holds_a_bounded_number_of_small_snapshots(where, monkeypatch):
    monkeypatch.setattr(retention, "SEGMENT_SNAPSHOTS", 3)
    times = [START + k for k in range(8)]
    with open_store(where) as store:
        fill(store, times)
        assert moved_by_tidy(store) == 6 and len(files(store)) == 2
        assert moved_by_tidy(store, everything=True) == 2 and len(files(store)) == 3
        assert kept(store) == times and indexed(store) == files(store)
