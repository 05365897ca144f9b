"""What the chapter of learned features costs beside the fits of one application."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from lineside.core.contract import Application, Split
from lineside.core.report.figures import EVENT
from lineside.core.run.folder import Run


def looking_and_fit(
    application: Application, split: Split, config: Any
) -> dict[str, tuple[float, float]]:
    """Fit every method of a configuration as a run does.

    Returns:
        By method the seconds of looking at the fit and drawing, and of the fit.

    Raises:
        AssertionError: if a method did not show what it learned.
    """
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        run = Run.begin(Path(folder) / "run", {}, config.seed)
        for method in application.methods(config):
            start = time.perf_counter() - run.shared_seconds
            method.fit(split, config, run)
            seconds = time.perf_counter() - run.shared_seconds - start
            (row,) = (
                r for r in run.rows() if (r.get("event"), r["method"]) == (EVENT, method.name)
            )
            assert "failure" not in row, row
            found[method.name] = (float(row["seconds"]), seconds)
        run.close("finished")
    return found
