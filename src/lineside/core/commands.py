"""The verbs that every application has, built from its Config; torch-free until a verb runs.

This module does without postponed annotations, since the annotations of the verbs are built from
the Config that `build` is given.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from lineside.core.contract import Application, Check, Estimate, Refusal, Result
from lineside.core.errors import UserError

FINDING, BAD_INPUT = 1, 2
MARKS = {
    "ok": "ok     ",
    "info": "info   ",
    "warn": "WARN   ",
    "fail": "FAIL   ",
    "unknown": "unknown",
}


def build(name: str, config_type: Any, help_text: str) -> App:
    """Return the command group of an application with the common verbs.

    Args:
        name: Name of the application, e.g. ``"parts"``.
        config_type: Its Config; every field becomes a flag, its docstring the flag's help.
        help_text: One line for ``--help``.
    """
    group = App(name=name, help=help_text)
    flags = Annotated[config_type, Parameter(name="*")]
    for make in (_train_verb, _demo_verb, _audit_verb, _evaluate_verb):
        group.command(make(name, flags, config_type()))
    return group


def application(name: str) -> Application:
    """Return the record of an application; its module is imported only now, since it is heavy."""
    found: Application = importlib.import_module(f"lineside.{name}.application").APPLICATION
    return found


def _train_verb(name: str, flags: Any, default: Any) -> Callable[..., int]:
    def train(data: Path, /, *, out: Path = Path("run"), config: flags = default) -> int:
        """Turn data into a model, a report and an operating point.

        Parameters
        ----------
        data: Path
            A folder of data, or a CSV table.
        out: Path
            The run folder; an unfinished run of the same command is taken up.
        """
        return run_training(name, data, out, config)

    return train


def _demo_verb(name: str, flags: Any, default: Any) -> Callable[..., int]:
    def demo(folder: Path = Path("demo"), /, *, out: Path = Path("run"), config: flags = default) -> int:  # fmt: skip  # noqa: E501
        """Make a small honest data set, train on it and write the report.

        Parameters
        ----------
        folder: Path
            Where the data are made; kept if they are there already.
        out: Path
            The run folder.
        """
        data = folder if folder.exists() else application(name).demo(folder, config.seed)
        return run_training(name, data, out, config)

    return demo


def _audit_verb(name: str, flags: Any, default: Any) -> Callable[..., int]:
    def audit(data: Path, /, *, config: flags = default) -> int:
        """Look for what spoils a data set: duplicates, leaks, doubtful labels, bad items.

        Parameters
        ----------
        data: Path
            A folder of data, or a CSV table.
        """
        return run_audit(name, data, config)

    return audit


def _evaluate_verb(name: str, flags: Any, default: Any) -> Callable[..., int]:
    def evaluate(data: Path, /, *, model: Path = Path("run"), config: flags = default) -> int:
        """Judge labelled data that the model has never seen.

        Parameters
        ----------
        data: Path
            A folder of data, or a CSV table.
        model: Path
            A run, or a model folder in it.
        """
        return run_evaluation(name, data, model, config)

    return evaluate


def run_training(name: str, data: Path, out: Path, config: Any) -> int:
    """Train, print the leaderboard and the operating point, and return the exit code."""
    from lineside.core.run.folder import Stopped
    from lineside.core.run.progress import Progress
    from lineside.core.workflow import train

    if not data.exists():  # before anything is said
        raise UserError(f"{data} does not exist", "check the path of the data")
    try:
        study = train(application(name), data, out, config, Progress())
    except Stopped:
        print(f"stopped; the same command takes {out} up again", file=sys.stderr)
        return 130
    for line in study.application.summary(study):
        print(line)
    print(f"model   {out / 'models' / study.chosen}")
    print(f"report  {(out / 'report.html').resolve()}")
    print_refusals(study.refusals)
    return BAD_INPUT if study.refusals else 0


def run_audit(name: str, data: Path, config: Any) -> int:
    """Print one line per check; exit code 1 if one failed or warns, 2 for unreadable items."""
    from lineside.core.workflow import read

    found = application(name)
    items, refusals = read(found, data, config)
    checks: Sequence[Check] = found.audit([*items, *refusals], config)
    for check in checks:
        print(f"{MARKS[check.status]} {check.name}: {check.evidence}")
        if check.hint and check.status not in ("ok", "info"):
            print(f"        {check.hint}")
    print_refusals(refusals)
    if refusals:
        return BAD_INPUT
    return FINDING if any(check.status in ("warn", "fail") for check in checks) else 0


def run_evaluation(name: str, data: Path, model: Path, config: Any) -> int:
    """Print every metric with its interval; exit code 1 if the model breaks its own promise."""
    from lineside.core.run.progress import Progress
    from lineside.core.statistics import OperatingPoint, check_guarantee, unit_scores
    from lineside.core.workflow import evaluate

    found = evaluate(application(name), data, model, config, Progress())
    for metric, estimate in found.estimates.items():
        print(f"{metric:<36} {format_estimate(estimate)}")
    block = found.model.operating_block()
    if not block:
        raise UserError(f"{model} has no operating point", "finish its run or recalibrate it")
    if "point" not in block:  # its promise is not a threshold on groups
        print_refusals(found.refusals)
        return BAD_INPUT if found.refusals else 0
    point = OperatingPoint.from_json(block["point"])
    kept, line = check_guarantee(point, unit_scores(found.outcomes, point.rule))
    print(line)
    if point.suspended:
        print(f"note: the certificate is suspended: {point.suspended}", file=sys.stderr)
    if found.note:
        print(f"note: {found.note}", file=sys.stderr)
    print_refusals(found.refusals)
    if found.refusals:
        return BAD_INPUT
    return 0 if kept else FINDING


def print_results(results: Sequence[Result | Refusal], *, as_json: bool) -> int:
    """Print one line per result and return the exit code.

    Args:
        results: What a model's ``predict`` gave.
        as_json: One JSON object per line on standard output instead of a table.
    """
    import json

    from lineside.core.run.files import finite

    refusals = [result for result in results if isinstance(result, Refusal)]
    for result in results:
        if as_json:
            print(json.dumps(finite(result.as_json())))
        elif not isinstance(result, Refusal):
            print(result.as_line())
    if not as_json:
        print_refusals(refusals)
    if refusals:
        return BAD_INPUT
    return FINDING if any(not isinstance(r, Refusal) and r.finding for r in results) else 0


def print_refusals(refusals: Sequence[Refusal]) -> None:
    """Print one line per item that could not be judged."""
    for refusal in refusals:
        hint = f" - {refusal.hint}" if refusal.hint else ""
        named = "" if refusal.item in refusal.message else f"{refusal.item}: "
        print(f"error: {named}{refusal.message}{hint}", file=sys.stderr)


def format_estimate(estimate: Estimate) -> str:
    """Return e.g. ``0.941 [0.902, 0.973] (34)``: value, interval, number of units."""
    if estimate.value != estimate.value:
        return f"not defined ({estimate.reason})" if estimate.reason else "not defined"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f} (no interval: {estimate.reason})"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}] (n = {estimate.n})"
