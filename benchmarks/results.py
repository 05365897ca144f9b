"""Published numbers: ``docs/results/APP.json``, one flat object, always merged.

A number is published with the commit whose code made it. Changes that are not committed have none:
their numbers are printed only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lineside.core.contract import Better, Estimate
from lineside.core.errors import UserError
from lineside.core.run.files import finite, write_json

Say = Callable[[str, Estimate], None]
"""Publishes one number under its name."""

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"


def publish(
    app: str, name: str, value: Estimate, *, seeds: Sequence[int], command: str, commit: str
) -> None:
    """Merge one number into ``docs/results/APP.json`` and refresh the tables."""
    from benchmarks import tables

    path = RESULTS / f"{app}.json"
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known[name] = {
        **finite(value.as_json()),
        "seeds": list(seeds),
        "command": command,
        "commit": commit,
    }
    write_json(path, dict(sorted(known.items())))
    tables.refresh()


def print_number(name: str, value: Estimate) -> None:
    """Print one number with its interval."""
    low = "-" if value.low is None else f"{value.low:.3f}"
    high = "-" if value.high is None else f"{value.high:.3f}"
    print(f"{name:<44} {value.value:.4f} [{low}, {high}] {value.unit} n={value.n}", flush=True)


def sayer(app: str, result: str, seeds: Sequence[int]) -> Say:
    """Return a function that publishes numbers of one result of one application."""
    command = f"python -m benchmarks.{app} --only {result}"
    code = commit()  # of the code that runs: the checkout may move on meanwhile
    if not code:
        print("not published: src or benchmarks have changes; commit them first", file=sys.stderr)

    def say(name: str, value: Estimate) -> None:
        print_number(name, value)
        if code:
            publish(app, name, value, seeds=seeds, command=command, commit=code)

    return say


def run_results(
    app: str,
    results: Mapping[str, Callable[[Say], None]],
    names: Sequence[str] | None,
    seeds: Callable[[str], Sequence[int]],
    options: Sequence[str] = (),
) -> int:
    """Make the named results of one application, all if there are no names; return the exit code.

    Several results run each in a process of its own, so that one never touches another's times.

    Args:
        app: The application, or ``core``.
        results: Functions by name of the result.
        names: Which to make.
        seeds: The seeds of a result, stored beside its numbers.
        options: Further words of the command line for each process.
    """
    chosen = list(names or results)
    if len(chosen) > 1:
        run = [sys.executable, "-m", f"benchmarks.{app}", *options, "--only"]
        return max(subprocess.run([*run, name]).returncode for name in chosen)
    try:
        results[chosen[0]](sayer(app, chosen[0], seeds(chosen[0])))
    except UserError as error:
        print(f"skipped {chosen[0]}: {error}", file=sys.stderr)
        return 2
    return 0


def run_command(
    app: str,
    results: Mapping[str, Callable[[Say], None]],
    seeds: Mapping[str, Sequence[int]],
    description: str,
) -> int:
    """Answer ``--list`` and ``--only NAME`` on the command line; return the exit code.

    Args:
        app: The application, or ``core``.
        results: Functions by name of the result.
        seeds: The seeds of a result; one seed, 0, where nothing is said.
        description: What ``--help`` says.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--only", action="append", choices=results, default=None)
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.list:
        print_results(results)
        return 0
    return run_results(app, results, options.only, lambda name: seeds.get(name, (0,)))


def print_results(results: Mapping[str, Callable[[Say], None]]) -> None:
    """Print each result with the first line of what it says about itself."""
    for name, function in results.items():
        print(f"{name:<18} {(function.__doc__ or '').splitlines()[0]}")


def plain(
    value: float, unit: str, n: int, better: Better = "higher", reason: str = "one measurement"
) -> Estimate:
    """Return a number that has no interval, with the reason."""
    return Estimate(value=value, unit=unit, n=n, better=better, reason=reason)


def commit(root: Path = ROOT) -> str:
    """Return the short id of the checked-out commit; empty if the code differs from it."""
    run = ["git", "-C", str(root)]
    # tables in the READMEs of src are made from the numbers
    code = ["--", "src", "benchmarks", "constraints.txt", ":(exclude)*README.md"]
    try:
        head = subprocess.run(
            [*run, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            [*run, "status", "--porcelain", *code], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return "" if changed.stdout.strip() else head.stdout.strip()
