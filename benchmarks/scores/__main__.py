"""Published numbers of `scores`. Run: ``python -m benchmarks.scores --only NAME``; ``--list``."""

from __future__ import annotations

import sys
from collections.abc import Callable

from benchmarks.results import Say, run_command
from benchmarks.scores import detection, imslp, speed

RESULTS: dict[str, Callable[[Say], None]] = {
    "clean": detection.clean,
    "degraded": detection.degraded,
    "second_family": detection.second_family,
    "font": detection.font,
    "musescore": detection.musescore,
    "imslp": imslp.imslp,
    "staff_space": speed.staff_spaces,
    "page_maker": speed.page_maker,
    "page_seconds": speed.page_seconds,
}

if __name__ == "__main__":
    sys.exit(run_command("scores", RESULTS, {}, __doc__ or ""))
