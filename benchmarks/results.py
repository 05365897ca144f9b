"""Published numbers: ``docs/results/APP.json``, one flat object, always merged."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lineside.core.contract import Better, Estimate
from lineside.core.files import finite, write_json

Say = Callable[[str, Estimate], None]
"""Publishes one number under its name."""

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"


def publish(app: str, name: str, value: Estimate, *, seeds: Sequence[int], command: str) -> None:
    """Merge one number into ``docs/results/APP.json`` and print it."""
    path = RESULTS / f"{app}.json"
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known[name] = {
        **finite(value.as_json()),
        "seeds": list(seeds),
        "command": command,
        "commit": commit(),
    }
    write_json(path, dict(sorted(known.items())))
    low = "-" if value.low is None else f"{value.low:.3f}"
    high = "-" if value.high is None else f"{value.high:.3f}"
    print(f"{name:<44} {value.value:.4f} [{low}, {high}] {value.unit} n={value.n}", flush=True)


def sayer(app: str, result: str, seeds: Sequence[int]) -> Say:
    """Return a function that publishes numbers of one result of one application."""
    command = f"python -m benchmarks.{app} --only {result}"

    def say(name: str, value: Estimate) -> None:
        publish(app, name, value, seeds=seeds, command=command)

    return say


def plain(
    value: float, unit: str, n: int, better: Better = "higher", reason: str = "one measurement"
) -> Estimate:
    """Return a number that has no interval, with the reason."""
    return Estimate(value=value, unit=unit, n=n, better=better, reason=reason)


def commit() -> str:
    """Return the short id of the checked-out commit, with ``+`` if the tree has changes."""
    try:
        run = ["git", "-C", str(ROOT)]
        head = subprocess.run(
            [*run, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            [*run, "status", "--porcelain", "--", "src"], capture_output=True, text=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+" if changed else "")
