"""Maps in process, on two real worker processes, and on a cluster at an address."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.core.parallel import (
    BATCHES_PER_THREAD,
    LARGEST_BATCH,
    Executor,
    map_items,
    open_executor,
)
from lineside.core.run.journal import Journal
from lineside.core.stored_model import StoredModel

pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def workers():
    with open_executor(workers=2) as executor:
        yield executor


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """A scheduler and a worker, started as docs/scale.md says; (process, address)."""
    file = tmp_path_factory.mktemp("cluster") / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    dask = [sys.executable, "-m", "dask"]
    here = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]
    started = subprocess.Popen([*dask, "scheduler", *here, "--port", "0"], **quiet)
    worker = subprocess.Popen([*dask, "worker", *here, "--nthreads", "1"], **quiet)
    while not file.exists() or not file.read_text():
        assert started.poll() is None
        time.sleep(0.05)
    yield started, json.loads(file.read_text())["address"]
    for process in (worker, started):
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture(scope="module")
def cluster(scheduler):
    with open_executor(cluster=scheduler[1]) as executor:
        yield executor


def square(number):
    return number * number


def refuse_odd(number):
    if number % 2:
        raise UserError(f"{number} is odd", "give even numbers")
    return number // 2


def die_at(culprit, number):
    if number == culprit:
        time.sleep(1.0)
        os._exit(1)
    return number


def slow_pid(number):
    time.sleep(0.02)
    return number, os.getpid()


def wait_then(number):
    time.sleep(0.05 * (number % 3 == 0))  # later items are done earlier
    return number


def fail(number):
    raise ZeroDivisionError(f"a bug at {number}")


def count_call(log, number):
    with Path(log).open("a") as stream:
        stream.write(f"{number}\n")
    return {"value": number / 3}


def hash_of(number):
    return f"content {number}"


def size_of(name):
    return Path(name).stat().st_size


def threads(number):
    import torch

    return torch.get_num_threads()


def test_results_are_the_same_and_in_order(workers, cluster):
    numbers = list(range(300))
    expected = [square(number) for number in numbers]
    for executor in (Executor(), workers, cluster):
        assert list(map_items(square, numbers, executor)) == expected


def test_order_is_kept_where_later_items_are_done_earlier(workers):
    assert list(map_items(wait_then, range(40), workers)) == list(range(40))


def test_a_user_error_is_a_refusal_and_the_rest_is_done(workers, cluster):
    expected = list(map_items(refuse_odd, range(6)))
    assert expected[1] == Refusal(item="1", message="1 is odd", hint="give even numbers")
    assert expected[4] == 2
    for executor in (workers, cluster):
        assert list(map_items(refuse_odd, range(6), executor)) == expected


def test_a_bug_ends_the_map(workers):
    for executor in (Executor(), workers):
        with pytest.raises(ZeroDivisionError, match="a bug at"):
            list(map_items(fail, range(3), executor))


def test_only_items_in_flight_are_held(workers):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            yield taken
            taken += 1

    results = map_items(square, endless(), workers)
    first = [next(results) for _ in range(2000)]
    assert first == [number * number for number in range(2000)]
    results.close()
    assert taken <= 2000 + 2 * BATCHES_PER_THREAD * LARGEST_BATCH + LARGEST_BATCH


def test_nothing_is_lost_with_a_worker_that_is_killed(workers):
    results = []
    for number, pid in map_items(slow_pid, range(200), workers):
        results.append(number)
        if number == 60:
            os.kill(pid, signal.SIGKILL)
    assert results == list(range(200))
    workers.client().wait_for_workers(2, timeout=60)  # the killed one is replaced


def test_an_item_that_kills_its_worker_is_one_refusal(workers):
    results = list(map_items(functools.partial(die_at, 5), range(12), workers))
    assert [r for i, r in enumerate(results) if i != 5] == [i for i in range(12) if i != 5]
    assert isinstance(results[5], Refusal)
    assert results[5].item == "5"
    assert "killed" in results[5].message


@pytest.mark.parametrize("where", ["in process", "workers"])
def test_a_repeated_run_does_only_what_is_missing(tmp_path, workers, where):
    executor = Executor() if where == "in process" else workers
    log, path = tmp_path / "calls", tmp_path / "journal.jsonl"
    work = functools.partial(count_call, log)
    journal = Journal(path=path, content_hash=hash_of)
    started = map_items(work, range(30), executor, journal=journal)
    head = [next(started) for _ in range(10)]
    started.close()  # as by Ctrl-C
    lines = path.read_text().splitlines(keepends=True)
    assert 10 <= len(lines) <= 30
    path.write_text("".join(lines[:10]) + lines[0][:17])  # as by kill -9 in the middle of a line
    log = tmp_path / "calls again"
    work = functools.partial(count_call, log)
    again = list(map_items(work, range(30), executor, journal=journal))
    assert again == [{"value": number / 3} for number in range(30)]
    assert again[:10] == head
    known = {json.loads(line)["item"] for line in lines[:10]}
    done = log.read_text().split()
    assert sorted(done, key=int) == [str(n) for n in range(30) if str(n) not in known]


def test_changed_content_is_done_again(tmp_path):
    path = tmp_path / "journal.jsonl"
    list(map_items(square, range(4), journal=Journal(path=path, content_hash=hash_of)))
    other = Journal(path=path, content_hash=lambda number: hash_of(number + (number == 2)))
    assert list(map_items(lambda n: -n, range(4), journal=other)) == [0, 1, -2, 9]
    assert list(map_items(lambda n: 7, range(4), journal=other)) == [0, 1, -2, 9]


def test_refused_items_are_tried_again(tmp_path):
    journal = Journal(path=tmp_path / "journal.jsonl", content_hash=hash_of)
    assert isinstance(next(map_items(refuse_odd, [1], journal=journal)), Refusal)
    assert list(map_items(square, [1], journal=journal)) == [1]


def test_relative_paths_mean_the_same_on_workers(workers, cluster, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("four")
    monkeypatch.chdir(tmp_path)
    for executor in (workers, cluster):
        assert list(map_items(size_of, ["file"], executor)) == [4]


def test_workers_use_one_thread_each(workers):
    assert set(map_items(threads, range(4), workers)) == {1}


def test_local_workers_listen_on_this_computer_only_and_encrypted(workers):
    address = workers.client().scheduler.address
    assert address.startswith("tls://127.0.0.1:")
    assert all(worker.startswith("tls://127.0.0.1:") for worker in workers.client().nthreads())


def test_a_model_that_a_worker_does_not_see_ends_the_map(workers, tmp_path):
    with pytest.raises(UserError, match="cannot load the model"):
        list(map_items(functools.partial(load_nothing, tmp_path), range(3), workers))


def load_nothing(folder, number):
    return StoredModel(application="parts", folder=folder, identity="", calibration="").predict([])


def test_without_dask_one_worker_runs_and_more_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with open_executor(workers=1) as executor:
        assert list(map_items(square, [3], executor)) == [9]
    for asked in ({"workers": 2}, {"cluster": "tcp://127.0.0.1:1"}):
        with pytest.raises(UserError, match=r"lineside\[cluster\]"), open_executor(**asked):
            pass


def test_errors_of_the_address(monkeypatch):
    monkeypatch.setattr("lineside.core.parallel.CONNECT_SECONDS", 1)
    for asked, message in (
        ({"cluster": "tcp://127.0.0.1:1"}, "no Dask scheduler answers"),
        ({"cluster": "nonsense"}, "no Dask scheduler answers"),
        ({"workers": 0}, "--workers 0"),
    ):
        with pytest.raises(UserError, match=message), open_executor(**asked):
            pass


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
from test_parallel import slow_pid
from lineside.core.parallel import map_items, open_executor
if __name__ == "__main__":
    with open_executor(workers=2) as executor:
        for number, pid in map_items(slow_pid, range({count}), executor):
            print(number, flush=True)
"""


def start(count, **options):
    code = SCRIPT.format(folder=str(Path(__file__).parent), count=count)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        **options,
    )  # fmt: skip


def test_a_finished_map_leaves_nothing_on_standard_error():
    out, err = start(20).communicate(timeout=60)
    assert out.split() == [str(number) for number in range(20)]
    assert err == ""


def test_ctrl_c_ends_workers_too():
    process = start(100_000, start_new_session=True)
    assert process.stdout.readline() == "0\n"
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate(timeout=120)
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert err.count("Traceback") == 1  # of the main process: the command line prints none
    deadline = time.monotonic() + 10
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < deadline, workers
        time.sleep(0.05)


def alive(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_lost_scheduler_is_one_line(scheduler, cluster):  # the last test of the cluster
    with pytest.raises(UserError, match="connection to the Dask scheduler was lost"):
        for number, _ in map_items(slow_pid, range(100_000), cluster):
            if number == 20:
                scheduler[0].kill()
