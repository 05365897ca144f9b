"""Benchmarks of the shared core: recorder, explanations, information plane, worker processes.

Run: ``python -m benchmarks.core --list``, ``python -m benchmarks.core --only NAME``, or all:
``python -m benchmarks.core``. Numbers go to ``docs/results/core.json``. Development images lie
outside the project; a benchmark whose data are absent says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from benchmarks.core import (
    adversarial,
    coverage,
    damage,
    explanations,
    fuzz,
    house,
    information,
    recorder_rules,
    recording,
    scale,
)
from benchmarks.parts import anogan, zoom
from benchmarks.results import Say, run_command

RESULTS: dict[str, Callable[[Say], None]] = {
    "planted_faults": recording.planted_faults,
    "one_sided": recording.one_sided,
    "recorder_cost": recording.recorder_cost,
    "recorder_cost_small": recording.recorder_cost_small,
    "late_deaths": recorder_rules.late_deaths,
    "other_scales": recorder_rules.other_scales,
    "units": recorder_rules.units,
    "captum": explanations.captum_parity,
    "sanity": explanations.sanity_cascade,
    "information": information.information_plane,
    "zoom": zoom.zoom_results,
    "adversarial": adversarial.adversarial,
    "fanogan": anogan.fanogan,
    "coverage": coverage.coverage,
    "damage": damage.damage,
    "house": house.house,
    "fuzz": fuzz.fuzz,
    "scale": scale.scale,
}

SEEDS = {
    "planted_faults": recording.SEEDS,
    "one_sided": recording.RARE_SEEDS,
    "late_deaths": recorder_rules.LATE_SEEDS,
    "other_scales": recorder_rules.SCALE_SEEDS,
    "units": recorder_rules.UNIT_SEEDS,
    "sanity": (0, 1, 2),
    "information": tuple(range(5)),
    "adversarial": tuple(range(5)),
}
"""Seeds (or folds) behind a result; one seed, 0, where nothing is said."""


if __name__ == "__main__":
    sys.exit(run_command("core", RESULTS, SEEDS, __doc__ or ""))
