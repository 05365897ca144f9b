"""Stream and store of `machines`: is anything lost when it is killed, and how fast is it?

`kill` needs mosquitto; PostgreSQL numbers are left out where no server can be started.
"""

from __future__ import annotations

import dataclasses
import gc
import multiprocessing
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.machines.senders import (
    Mosquitto,
    MqttSender,
    encode_message,
    free_port,
    post,
    write_file,
)
from benchmarks.results import Say, plain
from lineside.core.contract import Refusal
from lineside.core.database import read_transaction, write_transaction
from lineside.machines.config import Config
from lineside.machines.data import find_snapshots, load_measurement
from lineside.machines.data.dataset import split
from lineside.machines.data.items import Snapshot
from lineside.machines.data.measurement import Measurement
from lineside.machines.model import MachinesModel
from lineside.machines.outcomes import calibrate, outcomes
from lineside.machines.simulation.demo import save_history
from lineside.machines.simulation.rig import Rig
from lineside.machines.simulation.scenarios import Scenario, simulate_history
from lineside.machines.store import Journal, open_store
from lineside.machines.store.queries import events, features, fleet, refusals, verdicts
from lineside.machines.store.schema import LEVELS, SPECTRA
from lineside.machines.streams.console import ConsoleReporter
from lineside.machines.streams.maintenance import Maintenance
from lineside.machines.streams.watch import Options, watch
from lineside.machines.training.fitting import fit_machine

KILLS = 100
LONGEST_LIFE_SECONDS = 0.8
BROKER_LOSSES = 6
"""Every second one by SIGKILL, after which the broker has forgotten what it had not saved."""
LEARNED = 84
SENT_AT_MOST = 2400
PAUSE_SECONDS = 0.01
SOURCES = ("folder", "http", "mqtt")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Plant:
    """What is watched: a model, and for each machine the snapshots that will be sent."""

    model: MachinesModel
    items: dict[str, list[Snapshot]]


def make_plant(folder: Path, names: Sequence[str], count: int, rig: Rig, method: str) -> Plant:
    """Tell a history for each machine, learn from its beginning, and return what follows."""
    days = (LEARNED + count) / 12
    items: dict[str, list[Snapshot]] = {}
    learned, judged = {}, []
    config = Config(methods=(method,), learn=LEARNED)
    for seed, name in enumerate(names):
        scenario = Scenario(
            name=name, rig=rig, days=days, interval_hours=2.0, run_in=0.0, gaps=((20.0, 0.6),),
            onset_day=LEARNED / 12 + 10 + seed, growth_days=2 * days,
        )  # fmt: skip
        save_history(simulate_history(scenario, np.random.default_rng(seed)), folder / name)
        snapshots = [s for s in find_snapshots(folder / name) if not isinstance(s, Refusal)]
        parts = split(snapshots[: LEARNED * 2], config)
        learned[name] = fit_machine(
            parts.train, method, rng=np.random.default_rng(seed), log=lambda row: None,
            stop=lambda: False,
        )  # fmt: skip
        model = MachinesModel(method=method, machines={name: learned[name]})
        judged += list(outcomes(model, parts.calibration))
        items[name] = snapshots[LEARNED:]
    model = calibrate(MachinesModel(method=method, machines=learned), judged, config)
    return Plant(model=model, items=items)


# --- killed a hundred times ------------------------------------------------------------------


def kill(say: Say) -> None:
    """Kill the watch a hundred times while folder, HTTP and MQTT stream (2 minutes).

    The killed process is forked from one that has imported everything and runs the real `watch`
    from its start: opening the store, listening, connecting. The broker is killed and ended in
    turns meanwhile. Senders try again until they are answered.
    """
    with tempfile.TemporaryDirectory() as folder:
        counts = kill_in(Path(folder), KILLS, BROKER_LOSSES)
    reason = (
        f"{counts['kills']} x SIGKILL at moments uniform in 0-{LONGEST_LIFE_SECONDS} s after the "
        f"fork, {counts['broker']} losses of the broker, {counts['sent']} snapshots of six "
        f"machines; {counts['again']} came a second time"
    )
    say("kill_lost", plain(counts["lost"], "snapshots", counts["sent"], "lower", reason))
    say("kill_doubled", plain(counts["doubled"], "rows", counts["sent"], "lower", reason))
    say("kill_differs", plain(
        counts["differs"], "snapshots", counts["sent"], "lower",
        reason + "; verdicts and events against one batch over the same snapshots",
    ))  # fmt: skip
    say("kill_snapshots", plain(counts["sent"], "snapshots", KILLS, "higher", reason))


def kill_in(
    folder: Path, kills: int, broker_losses: int, most: int = SENT_AT_MOST, where: str = ""
) -> dict[str, int]:
    """Stream and kill, up to `most` snapshots of each machine; return what was counted.

    `where` is the store, by default a SQLite file in `folder`.
    """
    where = where or str(folder / "machines.db")
    names = [f"{source}_{letter}" for source in SOURCES for letter in "ab"]
    rig = Rig(seconds=0.05, rate_hz=6400.0)
    plant = make_plant(folder / "truth", names, most, rig, "pca")
    import lineside.machines.streams.http  # noqa: F401 - before the fork

    broker = Mosquitto(folder)
    (folder / "data").mkdir()
    port = free_port()
    fork = multiprocessing.get_context("fork")
    stop, sent = fork.Event(), fork.Queue()
    senders = fork.Process(target=_send_all, args=(plant, folder, port, broker.port, stop, sent))
    senders.start()
    rng = np.random.default_rng(0)
    done = last = 0
    try:
        losses = set(np.linspace(min(3, kills // 2), kills - 3, broker_losses).astype(int).tolist())
        for number in range(kills):
            child = _fork_watch(plant.model, where, folder, port, broker.port)
            time.sleep(rng.uniform(0, LONGEST_LIFE_SECONDS))
            os.kill(child, signal.SIGKILL)
            done += os.WIFSIGNALED(os.waitpid(child, 0)[1])
            if number in losses:
                broker.end((signal.SIGKILL, signal.SIGTERM)[number % 2])
                broker.start()
        stop.set()
        child = last = _fork_watch(plant.model, where, folder, port, broker.port)
        counts = sent.get(timeout=120)
        assert counts["sent"], "a sender has failed"
        _wait_for_folder(where, counts)
        os.kill(child, signal.SIGTERM)
        status = os.waitpid(child, 0)[1]
        last = 0
        assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0, status
        senders.join(20)
    finally:
        senders.kill()
        broker.end()
        if last:
            os.kill(last, signal.SIGKILL)
    differences = _compare(plant, where, counts["sent"])
    return {
        **differences, "kills": done, "broker": broker_losses, "again": counts["again"],
        "sent": sum(counts["sent"].values()),
    }  # fmt: skip


def _fork_watch(model: MachinesModel, where: str, folder: Path, port: int, broker: int) -> int:
    """Run the watch in a child that can be killed; return its process number."""
    child = os.fork()
    if child:
        return child
    code = 3
    try:
        quiet = ConsoleReporter(print_result=lambda line: None, note=lambda line: None)
        with open_store(where) as store:
            code = watch(
                [folder / "data"], model, store, http=str(port),
                mqtt=f"mqtt://127.0.0.1:{broker}/plant/#", console=quiet,
                options=Options(interval_seconds=0.05, client_id="watch"),
            )  # fmt: skip
    except BaseException as error:
        print(f"the watch ended by itself: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def _send_all(plant: Plant, folder: Path, port: int, broker: int, stop: Any, result: Any) -> None:
    """Send each machine's snapshots in order until told to stop; report how many were sent."""
    sent: Counter[str] = Counter()
    again: Counter[str] = Counter()
    alive: list[str] = []

    def run(name: str) -> None:
        source = name.partition("_")[0]
        sender = MqttSender(broker, name) if source == "mqtt" else None
        for item in plant.items[name]:
            measurement = load_measurement(item)
            body = encode_message(measurement)
            while True:
                if source == "folder":
                    write_file(folder / "data", measurement)
                    break
                answer = post(port, body) if sender is None else sender.send(measurement)
                if answer is not None:
                    again[name] += answer["status"] == "duplicate"
                    assert answer["status"] in ("judged", "duplicate"), answer
                    break
                time.sleep(PAUSE_SECONDS)
            sent[name] += 1
            if stop.is_set():
                break
            time.sleep(10 * PAUSE_SECONDS if source == "folder" else PAUSE_SECONDS)
        if sender is not None:
            sender.end()
        alive.append(name)

    threads = [threading.Thread(target=run, args=(name,)) for name in plant.items]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended = len(alive) == len(threads)  # a sender that died would count wrongly
    result.put({"sent": dict(sent) if ended else {}, "again": sum(again.values())})


def _wait_for_folder(where: str, counts: dict[str, Any]) -> None:
    """Wait while the last watch takes files; what it does not take counts as lost."""
    sent = sum(n for name, n in counts["sent"].items() if name.startswith("folder"))
    before, until = -1, time.monotonic() + 20
    with open_store(where) as store:
        while time.monotonic() < until:
            with read_transaction(store.engine) as connection:
                stored = connection.exec_driver_sql(
                    "SELECT count(*) FROM snapshots JOIN machines ON snapshots.machine = "
                    "machines.id WHERE substr(name, 1, 6) = 'folder'"
                ).scalar_one()
            if stored >= sent:
                return
            if stored > before:
                before, until = stored, time.monotonic() + 20
            time.sleep(0.1)


def _compare(plant: Plant, where: str, sent: dict[str, int]) -> dict[str, int]:
    """Count what is missing, what is there twice, and what differs from one batch."""
    lost = doubled = differs = 0
    with open_store(where) as store:
        assert not refusals(store), refusals(store)[:3]
        known = {row.machine: row for row in fleet(store)}
        for name, count in sent.items():
            batch = plant.model.predict(plant.items[name][:count])
            stored = verdicts(store, name) if name in known else []
            times = Counter(verdict.time for verdict in stored)
            expected = [item.time for item in plant.items[name][:count]]
            lost += sum(time not in times for time in expected)
            doubled += sum(times.values()) - len(times) + len(set(times) - set(expected))
            by_time = {verdict.time: verdict.as_json() for verdict in stored}
            differs += sum(
                isinstance(one, Refusal) or by_time.get(one.time) != one.as_json() for one in batch
            )
        with read_transaction(store.engine) as connection:
            for table in ("levels", "spectra", "pending"):
                rows = connection.exec_driver_sql(f"SELECT machine, time_us FROM {table}").all()
                doubled += len(rows) - len(set(rows))
    return {"lost": lost, "doubled": doubled, "differs": differs}


# --- how fast it is stored -------------------------------------------------------------------

RIG_4X20 = Rig(
    rate_hz=20_000.0, seconds=1.0, gains=(1.0, 0.8, 0.7, 0.5), channels=("a", "b", "c", "d")
)
MACHINES = 200
BLOCKS, PER_BLOCK = 15, 40
WARM_UP = 20
ALARMED = 300
YEAR = 52_560
"""Snapshots of a machine that is measured every ten minutes."""


def stored(say: Say) -> None:
    """Features, scores and alarms committed: machines per core, latency, memory, a year (2 min).

    4 x 20,000 samples at 20 kHz, one thread, everything in `Journal.ingest`; SQLite, and PostgreSQL
    beside it where a server can be started. Times are wall-clock: writing waits for the disk.
    """
    with tempfile.TemporaryDirectory() as name, threadpool_limits(1), postgres(name) as server:
        folder = Path(name)
        plant = make_plant(folder / "truth", ["m"], 60, RIG_4X20, "pca")
        measurements = [load_measurement(item) for item in plant.items["m"]]
        fleet_model = _cloned(plant.model, max(MACHINES, ALARMED))
        urls = {"": str(folder / "machines.db")} | ({"_postgres": server} if server else {})
        _memory(say, fleet_model, measurements, folder)  # first, while nothing was freed yet
        _throughput(say, fleet_model, measurements, urls)
        _latency(say, fleet_model, measurements, urls)
        _year(say, plant.model, measurements, urls)


def _cloned(model: MachinesModel, count: int) -> MachinesModel:
    """Return a model of many machines that were all learned like the one of `model`."""
    (one,) = model.machines.values()
    names = [f"m{number:03d}" for number in range(count)]
    return dataclasses.replace(
        model, machines={name: dataclasses.replace(one, name=name) for name in names}
    )


def _again(measurement: Measurement, machine: str, seconds: float) -> Measurement:
    return dataclasses.replace(measurement, machine=machine, time=seconds)


def _throughput(
    say: Say, model: MachinesModel, measurements: Sequence[Measurement], urls: dict[str, str]
) -> None:
    """Print machines per core with waveforms off and on; the ways take turns in blocks."""
    ways: list[tuple[str, Callable[[Measurement], object]]] = []
    with ExitStack() as stack:
        for suffix, url in urls.items():
            for waveforms in (False, True):
                where = url if suffix else f"{url}.{waveforms}"
                store = stack.enter_context(open_store(where))
                ingest = Journal(store, model, keep_waveforms=waveforms).ingest
                ways.append((f"{'_waveforms' if waveforms else ''}{suffix}", ingest))
        wall, processor = _blocks([ingest for _, ingest in ways], model, measurements)
    for (name, _), seconds, cpu in zip(ways, wall, processor, strict=True):
        reason = (
            f"one snapshot of 1 s and 4 x 20,000 samples a machine and second; wall-clock, median "
            f"of {BLOCKS} alternating blocks of {PER_BLOCK} over {MACHINES} machines; processor "
            f"time of the journal alone: {1 / np.median(cpu):.0f} machines"
        )
        value = plain(float(1 / np.median(seconds)), "machines", BLOCKS, "higher", reason)
        say(f"machines_per_core_stored{name}", value)


def _blocks(
    ingests: Sequence[Callable[[Measurement], object]],
    model: MachinesModel,
    measurements: Sequence[Measurement],
) -> tuple[Floats, Floats]:
    """Return wall-clock and processor seconds per snapshot, each of shape (way, block)."""
    names = list(model.machines)[:MACHINES]
    start = measurements[-1].time
    count = 0
    wall = np.zeros((len(ingests), BLOCKS))
    processor = np.zeros_like(wall)
    for block in range(-1, BLOCKS):
        size = WARM_UP if block < 0 else PER_BLOCK
        order = [
            _again(measurements[(count + k) % len(measurements)], names[(count + k) % MACHINES],
                   start + count + k + 1.0)
            for k in range(size)
        ]  # fmt: skip
        count += size
        for way, ingest in enumerate(ingests):
            began, used = time.perf_counter(), time.process_time()
            for measurement in order:
                ingest(measurement)
            if block >= 0:
                wall[way, block] = (time.perf_counter() - began) / size
                processor[way, block] = (time.process_time() - used) / size
    return wall, processor


def _latency(
    say: Say, model: MachinesModel, measurements: Sequence[Measurement], urls: dict[str, str]
) -> None:
    """From a snapshot handed in to its alarm committed and seen by a query of somebody else."""
    healthy, faulty = measurements[0], measurements[-1]
    loud = {key: dataclasses.replace(c, samples=c.samples * np.float32(3))
            for key, c in faulty.channels.items()}  # fmt: skip
    faulty = dataclasses.replace(faulty, channels=loud)
    for suffix, url in urls.items():
        where = url if suffix else f"{url}.alarms"
        with open_store(where) as store, open_store(where) as reader:
            journal = Journal(store, model)
            maintenance = Maintenance(store=store, waveforms=True, note=print)  # as in a watch
            maintenance.start()
            times = np.array([
                _alarm_times(journal, reader, name, healthy, faulty)
                for name in list(model.machines)[:ALARMED]
            ])  # fmt: skip
            maintenance.stop()
        p99, processor = (1000 * np.quantile(times, 0.99, axis=0)).tolist()
        reason = (
            f"first alarms of {len(times)} machines, 4 x 20,000 samples, waveforms kept; median "
            f"{1000 * np.median(times[:, 0]):.1f} ms; processor time alone: p99 {processor:.1f} ms"
        )
        say(f"alarm_ms_p99{suffix}", plain(p99, "ms", len(times), "lower", reason))


def _alarm_times(
    journal: Any, reader: Any, name: str, healthy: Measurement, faulty: Measurement
) -> tuple[float, float]:
    """Wall-clock and processor seconds until the alarm of a machine that breaks at once is seen."""
    start = healthy.time + 1e6
    for number in range(10):
        samples = {
            key: dataclasses.replace(c, samples=np.roll(c.samples, number))
            for key, c in (faulty if number else healthy).channels.items()
        }
        measurement = dataclasses.replace(
            faulty, machine=name, time=start + 600 * number, channels=samples
        )
        began, used = time.perf_counter(), time.process_time()
        result = journal.ingest(measurement)
        kinds = {event.kind for event in result.verdict.events} & {"alert", "danger"}
        if kinds:
            records = events(reader, name, since=measurement.time)
            elapsed = time.perf_counter() - began, time.process_time() - used
            assert kinds <= {record.event.kind for record in records}
            return elapsed
    raise AssertionError(f"{name} broke and no alarm was raised")


def _memory(
    say: Say, model: MachinesModel, measurements: Sequence[Measurement], folder: Path
) -> None:
    """Memory per machine: what a session stores, and what the process grows by."""
    start = measurements[-1].time + 1e7
    with open_store(folder / "memory.db") as store:
        journal = Journal(store, model, keep_waveforms=False)
        names = list(model.machines)[:MACHINES]
        for number in range(10):  # what is needed once, whatever the number of machines
            journal.ingest(_again(measurements[number], names[0], start + number))
        gc.collect()
        before = _resident_mb()
        for name in names[1:]:
            for number in range(10):
                journal.ingest(_again(measurements[number], name, start + number))
        gc.collect()
        grown = (_resident_mb() - before) / (len(names) - 1)
        with read_transaction(store.engine) as connection:
            sizes = connection.exec_driver_sql("SELECT length(memory) FROM machines").all()
    largest = max(size for (size,) in sizes) / 2**20
    say("state_mb", plain(
        max(grown, largest), "MB", len(names), "lower",
        f"growth of the process per machine over {len(names)}, each with its session and engine; "
        f"as stored {1000 * largest:.1f} kB",
    ))  # fmt: skip


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _year(
    say: Say, model: MachinesModel, measurements: Sequence[Measurement], urls: dict[str, str]
) -> None:
    """Query all trended features of one machine over a year, among the years of three others.

    The rows are written as the journal writes them, in order of time, machine by machine.
    """
    year = _cloned(model, 4)
    for suffix, url in urls.items():
        with open_store(url if suffix else f"{url}.year") as store:
            _fill_year(store, year, measurements)
            (name, *_) = year.machines
            elapsed = []
            for _ in range(9):
                began = time.perf_counter()
                times, rows, names = features(store, name, since=YEAR_START)
                elapsed.append(time.perf_counter() - began)
        assert len(times) == YEAR and rows.shape == (YEAR, len(names)), rows.shape
        reason = f"{YEAR} snapshots of {len(names)} features; median of 9, cold {elapsed[0]:.2f} s"
        value = plain(float(1000 * np.median(elapsed)), "ms", YEAR, "lower", reason)
        say(f"year_query_ms{suffix}", value)


YEAR_START = 2e9


def _fill_year(store: Any, model: MachinesModel, measurements: Sequence[Measurement]) -> None:
    journal = Journal(store, model, keep_waveforms=False)
    for name in model.machines:
        journal.ingest(_again(measurements[0], name, YEAR_START - 600))
    rng = np.random.default_rng(0)
    with write_transaction(store.engine) as connection:
        for table in (LEVELS, SPECTRA):
            query = table.select().where(table.c.time_us == round((YEAR_START - 600) * 1e6))
            rows = [dict(row) for row in connection.execute(query).mappings()]
            shapes = [np.frombuffer(row["row"], np.float32) for row in rows]
            for first in range(0, YEAR, 2000):
                connection.execute(table.insert(), [
                    {
                        **row, "time_us": round((YEAR_START + 600 * k) * 1e6),
                        "row": (shape + rng.standard_normal(1).astype(np.float32)).tobytes(),
                    }
                    for k in range(first, min(first + 2000, YEAR))
                    for row, shape in zip(rows, shapes, strict=True)
                ])  # fmt: skip


@contextmanager
def postgres(parent: str) -> Iterator[str]:
    """Start a cluster of our own on a socket; yield its URL, empty where that is not possible."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs or (os.getuid() == 0 and not _has_user("postgres")):
        print("PostgreSQL is left out: it is not installed", file=sys.stderr)
        yield ""
        return
    binaries, folder = programs[-1].parent, Path(parent) / "postgres"
    folder.mkdir()
    user = {"user": "postgres"} if os.getuid() == 0 else {}
    if user:
        Path(parent).chmod(0o711)
        shutil.chown(folder, "postgres")
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **user}
    data = str(folder / "data")
    run = [str(binaries / "initdb"), "-D", data, "-A", "trust", "-U", "postgres", "--no-sync"]
    subprocess.run(run, check=True, **quiet)
    server = subprocess.Popen(
        [str(binaries / "postgres"), "-D", data, "-k", str(folder), "-c", "listen_addresses="],
        **quiet,
    )
    try:
        ask = [str(binaries / "pg_isready"), "-h", str(folder)]
        until = time.monotonic() + 30
        while subprocess.run(ask, **quiet).returncode and time.monotonic() < until:
            time.sleep(0.1)
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
