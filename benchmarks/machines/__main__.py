"""Benchmarks of `machines`: public run-to-failure data, simulated fleets, engine, streams, store.

Run: ``python -m benchmarks.machines --list``, ``... --only NAME``, or all: ``... machines``.
Numbers go to ``docs/results/machines.json``. Development data lie outside the project; a benchmark
whose data are absent says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from benchmarks.machines import (
    bands,
    engine,
    figure,
    history_hash,
    learned,
    nab,
    onsets,
    poison,
    prognosis,
    simulated,
    speed,
    stream,
    tiers,
    worth,
)
from benchmarks.results import Say, run_command

RESULTS: dict[str, Callable[[Say], None]] = {
    "ims2": onsets.ims2,
    "ims1": onsets.ims1,
    "femto": onsets.femto,
    "skab": onsets.skab,
    "figure": figure.figure,
    "bands": bands.bands,
    "nab": nab.nab,
    "tiers": tiers.tiers,
    "engine": engine.engine,
    "diagnosis": engine.diagnosis,
    "speed": speed.speed,
    "years": simulated.years,
    "prognosis": prognosis.forecasts,
    "worth": worth.worth,
    "slow_fault": poison.slow_fault,
    "kill": stream.kill,
    "stored": stream.stored,
    "history_hash": history_hash.history_hash,
    "learned_share": learned.learned_share,
}
FIVE = tuple(range(5))
SEEDS = {
    "ims2": FIVE,
    "figure": FIVE,
    "bands": FIVE,
    "nab": FIVE,
    "speed": speed.SPEED_SEEDS,
    "years": simulated.YEARS_SEEDS,
    "prognosis": prognosis.SEEDS,
    "worth": worth.SEEDS,
    "slow_fault": poison.SEEDS,
}
"""Seeds behind a result; one seed, 0, where nothing is said."""


if __name__ == "__main__":
    sys.exit(run_command("machines", RESULTS, SEEDS, __doc__ or ""))
