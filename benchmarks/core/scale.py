"""Many processes: how much faster, the same results, nothing lost with a killed worker.

``parts predict`` on 200 images of the simulated demo with the default method, one thread in every
process. Run on a machine that does nothing else; the load before and after is printed.
Rehearse with ``python -m benchmarks.core.scale`` (24 images, one round, nothing published).
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.checkpoints import checkpoint_folder
from benchmarks.results import Say, plain
from lineside.core import parallel
from lineside.core.contract import Estimate

STORE = checkpoint_folder("core/scale", __file__, "src/lineside/parts/application.py")
IMAGES = 200
ROUNDS = 3
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
ENVIRONMENT = {**os.environ, **ONE_THREAD}
TASKS = 2000


def scale(say: Say) -> None:
    """Two worker processes against one, identical results, and a worker killed in the middle."""
    measure(say, IMAGES, ROUNDS)


def measure(say: Say, images: int, rounds: int) -> None:
    """Publish the numbers for a number of images and rounds."""
    files = _images()[:images]
    print(_conditions())
    seconds: dict[int, list[float]] = {1: [], 2: []}
    texts: dict[str, str] = {}
    for number in range(rounds):  # alternate, so that a slow minute hits both
        for workers in (1, 2) if number % 2 == 0 else (2, 1):
            start = time.perf_counter()
            texts[f"--workers {workers}"] = _predict(files, "--workers", str(workers))
            seconds[workers].append(time.perf_counter() - start)
            print(f"--workers {workers}: {seconds[workers][-1]:.1f} s", flush=True)
    one, two = statistics.median(seconds[1]), statistics.median(seconds[2])
    ratios = [a / b for a, b in zip(seconds[1], seconds[2], strict=True)]
    reason = (
        f"median of {rounds} rounds in turn, {one:.1f} s and {two:.1f} s with start-up, ratios "
        f"{', '.join(f'{ratio:.2f}' for ratio in ratios)}; {_conditions()}"
    )
    say("scale_ratio_two_workers", plain(one / two, "ratio", images, reason=reason))
    say("scale_seconds_per_image", plain(one / images, "s", images, "lower"))
    with _cluster() as address:
        texts["--cluster"] = _predict(files, "--cluster", address)
    same = len(set(texts.values())) == 1
    reason = f"output of {', '.join(texts)} compared byte by byte"
    say("scale_identical", plain(float(same), "yes/no", images, reason=reason))
    lost = _lost(files, texts["--workers 1"])
    reason = "lines that are missing or differ after SIGKILL of one of two workers half-way"
    say("scale_worker_killed_lost", plain(float(lost), "images", images, "lower", reason))
    for name, value in _costs_of_a_task().items():
        say(name, value)
    print(_conditions())


def _images() -> list[Path]:
    """Make the demo and its model once; return its images."""
    data, run = STORE / "demo", STORE / "run"
    status = run / "status.json"
    if not status.exists() or json.loads(status.read_text())["state"] != "finished":
        command = ["parts", "demo", str(data), "--out", str(run), "--methods", "detector"]
        _lineside(*command, "--no-robustness", "--no-insight", codes=(0,))
    return sorted((data / "images").glob("*.png"))


def _lineside(*words: str, codes: tuple[int, ...] = (0, 1)) -> str:
    command = [sys.executable, "-m", "lineside", *words]
    done = subprocess.run(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert done.returncode in codes, done.returncode
    return done.stdout


def _words(files: list[Path], *flags: str) -> list[str]:
    return ["parts", "predict", *map(str, files), "--model", str(STORE / "run"), "--json", *flags]


def _predict(files: list[Path], *flags: str) -> str:
    return _lineside(*_words(files, *flags))


def _lost(files: list[Path], expected: str) -> int:
    """Kill one of two workers in the middle; return how many lines are missing or differ."""
    command = [sys.executable, "-m", "lineside", *_words(files, "--workers", "2")]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    half = 0.5 + 0.03 * len(files)  # CPU seconds of a worker: the model, then half of its images
    killed = None  # workers are children of the fork server, grandchildren of the process
    while process.poll() is None and killed is None:
        time.sleep(0.1)
        with contextlib.suppress(psutil.NoSuchProcess):
            busy = [
                child
                for child in psutil.Process(process.pid).children(recursive=True)
                if child.ppid() != process.pid and child.cpu_times().user > half
            ]
            for killed in busy[:1]:
                killed.kill()
    text, _ = process.communicate()
    assert killed is not None, "the run ended before a worker was killed"
    assert process.returncode in (0, 1), process.returncode
    return len(set(expected.splitlines()) ^ set(text.splitlines()))


@contextlib.contextmanager
def _cluster() -> Iterator[str]:
    """Start a scheduler and two workers by hand, as docs/scale.md says."""
    file = STORE / "scheduler.json"
    file.unlink(missing_ok=True)
    options = {"env": ENVIRONMENT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "dask"]
    here = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]
    processes = [
        subprocess.Popen([*dask, "scheduler", *here, "--port", "0"], **options),
        subprocess.Popen([*dask, "worker", *here, "--nworkers", "2", "--nthreads", "1"], **options),
    ]
    try:
        while not file.exists() or not file.read_text():
            time.sleep(0.1)
        yield json.loads(file.read_text())["address"]
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def _costs_of_a_task() -> dict[str, Estimate]:
    """CPU time of client and scheduler for one task of one item, and bytes over the network."""
    paths = [f"/data/line/2026-11-30/camera/part_{number:09d}.png" for number in range(TASKS)]
    parallel.LARGEST_BATCH = 1
    with parallel.open_executor(workers=2) as executor:
        list(parallel.map_items(len, paths[:20], executor))
        moved, start = _loopback_bytes(), time.process_time()
        list(parallel.map_items(len, paths, executor))
        cpu_ms = 1000 * (time.process_time() - start) / TASKS
        moved = _loopback_bytes() - moved
    reason = "CPU of client and scheduler in one process, TLS included, one item per task"
    return {
        "scale_cpu_ms_per_task": plain(cpu_ms, "ms", TASKS, "lower", reason),
        "scale_bytes_per_task": plain(
            moved / TASKS, "bytes", TASKS, "lower", "both directions, a path in, a number out"
        ),
    }


def _loopback_bytes() -> int:
    return int(psutil.net_io_counters(pernic=True)["lo"].bytes_sent)


def _conditions() -> str:
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores, load {load:.1f}, one thread per process"


if __name__ == "__main__":
    measure(lambda name, value: print(f"{name:<28} {value.value:.3f} ({value.reason})"), 24, 1)
