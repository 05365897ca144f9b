"""The verbs that every application has, built from its Config; torch-free until a verb runs.

This module does without postponed annotations, since the annotations of the verbs are built from
the Config that `build` is given.
"""

import contextlib
import importlib
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from lineside.core.contract import Application, Check, Refusal, Result
from lineside.core.errors import UserError, printable

if TYPE_CHECKING:
    from lineside.core.parallel import Executor

FINDING, BAD_INPUT = 1, 2
MARKS = {
    "ok": "ok     ",
    "info": "info   ",
    "warn": "WARN   ",
    "fail": "FAIL   ",
    "unknown": "unknown",
}


def build(name: str, config_type: Any, help_text: str, without: Collection[str] = ()) -> App:
    """Return the command group of an application with the common verbs.

    Args:
        name: Name of the application, e.g. ``"parts"``.
        config_type: Its Config; every field becomes a flag, its docstring the flag's help.
        help_text: One line for ``--help``.
        without: Verbs that the application defines itself, since it adds options to them.
    """
    group = App(name=name, help=help_text, help_epilogue="")  # that of lineside says it once
    flags = Annotated[config_type, Parameter(name="*")]
    make = (_train_verb, _demo_verb, _audit_verb, _evaluate_verb, _predict_verb, _explain_verb)
    for verb in (build_verb(name, flags, config_type()) for build_verb in make):
        if verb.__name__ not in without:
            group.command(verb)
    return group


def application(name: str) -> Application:
    """Return the record of an application; its module is imported only now, since it is heavy."""
    found: Application = importlib.import_module(f"lineside.{name}.application").APPLICATION
    return found


def _train_verb(name: str, flags: Any, default: Any) -> Callable[..., int]:
    def train(
        data: Path,
        /,
        *,
        out: Path = Path("run"),
        workers: int = 1,
        cluster: str = "",
        config: flags = default,
    ) -> int:
        """Turn data into a model, a report and an operating point.

        Parameters
        ----------
        data: Path
            A folder of data, or a CSV table.
        out: Path
            The run folder; an unfinished run of the same command is resumed.
        workers: int
            Number of worker processes on this computer.
        cluster: str
            Address of a Dask scheduler instead, e.g. tcp://10.0.0.1:8786 (docs/scale.md).
        """
        return run_training(name, data, out, config, workers=workers, cluster=cluster)

    return train


def _demo_verb(name: str, flags: Any, default: Any) -> Callable[..., int]:
    def demo(folder: Path = Path("demo"), /, *, out: Path = Path("run"), config: flags = default) -> int:  # fmt: skip  # noqa: E501
        """Simulate a small data set, train on it and write the report.

        Parameters
        ----------
        folder: Path
            Where the data are written; existing data are used.
        out: Path
            The run folder.
        """
        data = folder if folder.exists() else application(name).demo(folder, config.seed)
        return run_training(name, data, out, config)

    return demo


def _audit_verb(name: str, flags: Any, default: Any) -> Callable[..., int]:
    def audit(data: Path, /, *, config: flags = default) -> int:
        """Check a data set for duplicates, leaks, doubtful labels and unreadable items.

        Parameters
        ----------
        data: Path
            A folder of data, or a CSV table.
        """
        return run_audit(name, data, config)

    return audit


def _evaluate_verb(name: str, flags: Any, default: Any) -> Callable[..., int]:
    def evaluate(
        data: Path,
        /,
        *,
        model: Path = Path("run"),
        workers: int = 1,
        cluster: str = "",
        config: flags = default,
    ) -> int:
        """Measure a model on labelled data that it was not trained on.

        Parameters
        ----------
        data: Path
            A folder of data, or a CSV table.
        model: Path
            A run, or a model folder in it.
        workers: int
            Number of worker processes on this computer.
        cluster: str
            Address of a Dask scheduler instead, e.g. tcp://10.0.0.1:8786 (docs/scale.md).
        """
        return run_evaluation(name, data, model, config, workers=workers, cluster=cluster)

    return evaluate


def _predict_verb(name: str, flags: Any, default: Any) -> Callable[..., int]:
    def predict(
        *files: Path,
        model: Path = Path("run"),
        json: bool = False,
        workers: int = 1,
        cluster: str = "",
        journal: Path | None = None,
    ) -> int:
        """Predict from files, one line each; exit code 1 on a finding, 2 if a file is unreadable.

        Parameters
        ----------
        files: Path
            Files, or folders of files.
        model: Path
            A run, or a model folder in it.
        json: bool
            One JSON object per line.
        workers: int
            Number of worker processes on this computer.
        cluster: str
            Address of a Dask scheduler instead, e.g. tcp://10.0.0.1:8786 (docs/scale.md).
        journal: Path
            A file of finished items; a repeated command skips them.
        """
        return run_prediction(
            name, files, model, as_json=json, workers=workers, cluster=cluster, journal=journal
        )

    return predict


def _explain_verb(name: str, flags: Any, default: Any) -> Callable[..., int]:
    def explain(
        file: Path, /, *, model: Path = Path("run"), out: Path = Path("explanation.html")
    ) -> int:
        """Explain one result in a sentence and figures; of a history the newest item.

        Parameters
        ----------
        file: Path
            A file, or a folder of one history.
        model: Path
            A run, or a model folder in it.
        out: Path
            The page that is written.
        """
        return run_explanation(name, file, model, out)

    return explain


def run_training(
    name: str, data: Path, out: Path, config: Any, *, workers: int = 1, cluster: str = ""
) -> int:
    """Train, print the summary and where model and report are, and return the exit code."""
    from lineside.core.run.folder import Stopped
    from lineside.core.run.progress import Progress
    from lineside.core.training.torchrun import process_index
    from lineside.core.workflow import join, train

    if process_index() > 0:
        with contextlib.suppress(UserError):  # process 0 reports it
            join(application(name), data, config)
        return 0
    if not data.exists():  # before anything is printed
        raise UserError(f"{data} does not exist", "check the path of the data")
    try:
        with _open_executor(name, workers, cluster) as executor:
            study = train(application(name), data, out, config, Progress(), executor)
    except Stopped:
        print(f"stopped; the same command resumes {out}", file=sys.stderr)
        return 130
    for line in study.application.summary(study):
        print(printable(line))
    print(printable(f"model   {out / 'models' / study.chosen}"))
    print(printable(f"report  {(out / 'report.html').resolve()}"))
    for failure in study.failures:
        print(printable(f"note: {failure.name} failed: {failure.reason}"), file=sys.stderr)
    print_refusals(study.refusals)
    return BAD_INPUT if study.refusals else 0


def run_audit(name: str, data: Path, config: Any) -> int:
    """Print one line per check; exit code 1 if one failed or warns, 2 for unreadable items."""
    from lineside.core.workflow import read

    found = application(name)
    items, refusals = read(found, data, config)
    checks: Sequence[Check] = found.audit([*items, *refusals], config)
    for check in checks:
        print(printable(f"{MARKS[check.status]} {check.name}: {check.evidence}"))
        if check.hint and check.status not in ("ok", "info"):
            print(f"        {check.hint}")
    print_refusals(refusals)
    if refusals:
        return BAD_INPUT
    return FINDING if any(check.status in ("warn", "fail") for check in checks) else 0


def run_evaluation(
    name: str, data: Path, model: Path, config: Any, *, workers: int = 1, cluster: str = ""
) -> int:
    """Print every metric with its interval; exit code 1 if the model breaks its guarantee."""
    from lineside.core.run.progress import Progress

    with _open_executor(name, workers, cluster) as executor:
        from lineside.core.workflow import evaluate  # while workers start

        found = evaluate(application(name), data, model, config, Progress(), executor)
    for metric, estimate in found.estimates.items():
        print(f"{metric:<36} {estimate.text()}")
    check = application(name).check_guarantee(found.model, found.outcomes)
    if check is not None:
        print(check.text)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    print_refusals(found.refusals)
    if found.refusals:
        return BAD_INPUT
    return FINDING if check is not None and not check.kept else 0


def run_prediction(
    name: str,
    files: Sequence[Path],
    model: Path,
    *,
    as_json: bool,
    config: Any = None,
    predict: Callable[..., Sequence[Any]] | None = None,
    workers: int = 1,
    cluster: str = "",
    journal: Path | None = None,
) -> int:
    """Print one line per item of files, and return the exit code.

    Args:
        name: Name of the application.
        files: Files and folders.
        model: A run, or a model folder in it.
        as_json: One JSON object per line.
        config: Settings to read files with, the model's own where they are not given.
        predict: What an application does besides predicting, given predictor, items and progress;
            `Predictor.predict_items` if None.
        workers: Number of worker processes.
        cluster: Address of a Dask scheduler instead.
        journal: File of finished items.
    """
    from lineside.core.run.progress import Progress

    if predict is not None and (workers > 1 or cluster or journal):
        raise UserError(
            "overlays and zooms are drawn in one process",
            "leave out --workers, --cluster and --journal, or --overlay and --zoom",
        )
    with _open_executor(name, workers, cluster) as executor:
        from lineside.core.predictor import load_predictor  # while workers start
        from lineside.core.stored_model import JournalledResult

        predictor = load_predictor(model, application(name), config)
        items, progress = predictor.items(files), Progress(quiet=as_json)
        if predict is not None:
            results = predict(predictor, items, progress)
        else:
            results = predictor.predict_items(items, progress, executor, journal)
    if predictor.application.columns and not as_json:
        print(predictor.application.columns)
    code = print_results(results, as_json=as_json)
    fresh = [result for result in results if not isinstance(result, JournalledResult)]
    for note in predictor.application.notes(predictor.model, fresh):
        print(f"note: {note}", file=sys.stderr)
    return code


def run_explanation(name: str, file: Path, model: Path, out: Path) -> int:
    """Write the page that explains the result of a file, and print its sentence."""
    from lineside.core.predictor import load_predictor
    from lineside.core.report import write_explanation

    predictor = load_predictor(model, application(name))
    explanation = predictor.explain(file)
    kicker = f"model {predictor.model.identity}"
    print(printable(write_explanation(out, explanation.item, kicker, explanation, "")))
    print(printable(f"page    {out.resolve()}"))
    return 0


def verify_trail(trail: Path) -> int:
    """Print what was changed in a trail, one line each; exit code 1 if anything was."""
    from lineside.core.run.trail import check_trail

    if not trail.exists():
        raise UserError(f"{trail} does not exist", "give it with --trail")
    found = check_trail(trail)
    for fault in found.faults:
        print(f"{trail}: {fault}")
    if found.faults:
        return FINDING
    if found.before:
        print(f"{trail}: the first {found.before} lines were written without a hash")
    print(f"{trail}: {found.head.rows} rows are as they were written, the last {found.head.last}")
    return 0


def _open_executor(name: str, workers: int, cluster: str) -> AbstractContextManager["Executor"]:
    """Start worker processes while this one imports the application and reads the model."""
    from lineside.core.parallel import open_executor

    module = f"lineside.{name}.application"
    return open_executor(workers=workers, cluster=cluster, preload=[module])


def print_results(results: Sequence[Result | Refusal], *, as_json: bool) -> int:
    """Print one line per result and return the exit code.

    Args:
        results: What a model's ``predict`` returned.
        as_json: One JSON object per line on standard output instead of a table.
    """
    import json

    from lineside.core.run.files import finite

    refusals = [result for result in results if isinstance(result, Refusal)]
    for result in results:
        if as_json:
            print(json.dumps(finite(result.as_json())))
        elif not isinstance(result, Refusal):
            print(printable(result.as_line()))
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
        print(printable(f"error: {named}{refusal.message}{hint}"), file=sys.stderr)
