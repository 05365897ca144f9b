"""Benchmarks of `machines`: onsets on public run-to-failure data, signal engine, diagnosis.

Run: ``python -m benchmarks.machines --list``, ``... --only NAME``, or all: ``... machines``.
Numbers go to ``docs/results/machines.json``. Development data lie outside the project; a benchmark
whose data are absent says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from benchmarks import machines_engine, machines_onsets
from benchmarks.results import Say, run_command

RESULTS: dict[str, Callable[[Say], None]] = {
    "ims2": machines_onsets.ims2,
    "ims1": machines_onsets.ims1,
    "femto": machines_onsets.femto,
    "skab": machines_onsets.skab,
    "engine": machines_engine.engine,
    "diagnosis": machines_engine.diagnosis,
}
SEEDS = {"ims2": tuple(range(5))}
"""Seeds behind a result; one seed, 0, where nothing is said."""


if __name__ == "__main__":
    sys.exit(run_command("machines", RESULTS, SEEDS, __doc__ or ""))
