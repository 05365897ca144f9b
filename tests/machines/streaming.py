"""What the tests of the streams share: a learned fleet, a watch in a thread, senders."""

import json
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import numpy as np
from benchmarks.machines.senders import write_file

from lineside.core.contract import Refusal
from lineside.core.database import read_transaction
from lineside.machines.config import Config
from lineside.machines.data import find_snapshots
from lineside.machines.data.dataset import split
from lineside.machines.data.measurement import Measurement
from lineside.machines.model import MachinesModel
from lineside.machines.outcomes import calibrate, outcomes
from lineside.machines.simulation.demo import save_history
from lineside.machines.simulation.rig import Rig
from lineside.machines.simulation.scenarios import Scenario, simulate_history
from lineside.machines.store.queries import verdicts
from lineside.machines.streams.console import ConsoleReporter
from lineside.machines.streams.watch import Options, StopRequest, watch
from lineside.machines.training.fitting import fit_machine

__all__ = ["write_file"]
NAMES = ("pump", "fan")
SCENARIO = {
    "rig": Rig(seconds=0.05), "days": 16.0, "interval_hours": 2.0, "onset_day": 10.0,
    "growth_days": 6.0, "run_in": 0.0,
}  # fmt: skip
FAST = Options(interval_seconds=0.05, patience_seconds=0.3)


def learn_fleet(folder):
    """A model of two machines, and the snapshots that it was not learned from."""
    for seed, name in enumerate(NAMES):
        save_history(
            simulate_history(Scenario(name=name, **SCENARIO), np.random.default_rng(seed)),
            folder / name,
        )
    items = [s for s in find_snapshots(folder) if not isinstance(s, Refusal)]
    config = Config(methods=("trend",), learn=84)
    parts = split(items, config)
    learned = {
        name: fit_machine(
            [s for s in parts.train if s.machine == name], "trend",
            rng=np.random.default_rng(0), log=lambda row: None, stop=lambda: False,
        )
        for name in NAMES
    }  # fmt: skip
    model = MachinesModel(method="trend", machines=learned)
    judged = [
        outcome for name in learned
        for outcome in outcomes(model, [s for s in parts.calibration if s.machine == name])
    ]  # fmt: skip
    return calibrate(model, judged, config), sorted(parts.test, key=lambda s: s.time)


def batch_of(trained):
    """Verdicts of one batch, by machine."""
    verdicts = trained[0].predict(trained[1])
    return {name: [plain(v) for v in verdicts if v.machine == name] for name in NAMES}


class Captured:
    """The lines that a console would have printed."""

    def __init__(self, **options):
        self.results, self.notes = [], []
        self.console = ConsoleReporter(
            print_result=self.results.append, note=self.notes.append, **options
        )


@contextmanager
def watch_in_thread(model, store, folders=(), options=FAST, captured=None, **sources):
    """A watch in another thread, as the thread that a program gives it."""
    stop_request, captured = StopRequest(), captured or Captured()
    box: dict[str, object] = {}
    started = threading.Event()

    def ready(loop):
        box["loop"] = loop
        started.set()

    def run():
        try:
            box["code"] = watch(
                folders, model, store, options=options, console=captured.console,
                stop_request=stop_request, on_ready=ready, **sources,
            )  # fmt: skip
        except BaseException as error:
            box["error"] = error
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(20)
    try:
        if "error" in box:
            raise box["error"]
        yield box["loop"]
    finally:
        stop_request.stop()
        thread.join(20)
    assert not thread.is_alive()
    if "error" in box:
        raise box["error"]


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.01)


def stored_verdicts(store, name):
    return [plain(v) for v in verdicts(store, name)]


def plain(verdict):
    return verdict.as_json()


def count_judged(store):
    with read_transaction(store.engine) as connection:
        query = "SELECT count(*) FROM snapshots WHERE status='judged'"
        return connection.exec_driver_sql(query).scalar_one()


def post(port, body, path="/snapshots"):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        return answer.read().decode()


def rename_machine(measurement):
    return Measurement(machine="stranger", time=measurement.time, channels=measurement.channels)
