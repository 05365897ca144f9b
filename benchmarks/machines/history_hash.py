"""What it takes to hash a history: one file is read once, however many snapshots it holds."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.results import Say, plain
from lineside.core.contract import Split
from lineside.core.run.tables import hash_sources, write_split
from lineside.machines.data.items import Snapshot

SNAPSHOTS = 400
MEGABYTES = 20
REPETITIONS = 7


def history_hash(say: Say) -> None:
    """Seconds to hash and list 400 snapshots of one file of 20 MB: median of seven."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.npz"
        path.write_bytes(np.random.default_rng(0).bytes(MEGABYTES * 2**20))
        items = tuple(
            Snapshot(id=f"pump@{i}", machine="pump", time=float(i), path=path, index=i)
            for i in range(SNAPSHOTS)
        )
        split = Split(train=items[:200], test=items[200:], unit="time within group")
        seconds = []
        for _ in range(REPETITIONS):
            start = time.perf_counter()
            write_split(Path(folder) / "split.csv", split, hash_sources(items))
            seconds.append(time.perf_counter() - start)
    say("history_hash_seconds", plain(float(np.median(seconds)), "s", REPETITIONS, "lower"))
