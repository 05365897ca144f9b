"""Benchmarks of the shared core: recorder, explanations, adversarial trace, information plane.

Run: ``python -m benchmarks.core --list``, ``python -m benchmarks.core --only NAME``, or all:
``python -m benchmarks.core``. Numbers go to ``docs/results/core.json``. Development images lie
outside the project; a benchmark whose data are absent says so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from benchmarks import adversarial, anogan, explanations, information, recording, zoom
from benchmarks.results import Say, print_results, run_results

RESULTS: dict[str, Callable[[Say], None]] = {
    "planted_faults": recording.planted_faults,
    "recorder_cost": recording.recorder_cost,
    "captum": explanations.captum_parity,
    "sanity": explanations.sanity_cascade,
    "information": information.information_plane,
    "zoom": zoom.zoom_results,
    "adversarial": adversarial.adversarial,
    "fanogan": anogan.fanogan,
}

SEEDS = {
    "planted_faults": tuple(range(100, 120)),
    "sanity": (0, 1, 2),
    "information": tuple(range(5)),
    "adversarial": tuple(range(5)),
}
"""Seeds (or folds) behind a result; one seed, 0, where nothing is said."""


def main() -> int:
    """Run the named results, or all of them in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=RESULTS, default=None)
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.list:
        print_results(RESULTS)
        return 0
    return run_results("core", RESULTS, options.only, lambda name: SEEDS.get(name, (0,)))


if __name__ == "__main__":
    sys.exit(main())
