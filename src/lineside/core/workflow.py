"""The one workflow: read, audit, split, fit every method, calibrate, outcomes, report.

Applications say what their items, methods and metrics are; this module is the only place that
runs them in order. Every step leaves its result in the run folder, so that a killed run goes on
after the last finished method.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
import textwrap
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lineside.core.contract import (
    Application,
    Check,
    Estimate,
    Method,
    Metric,
    Outcome,
    Refusal,
    Split,
)
from lineside.core.errors import UserError, collected_notes
from lineside.core.parallel import Executor, WorkerError
from lineside.core.run import model_store, tables
from lineside.core.run.files import canonical, sha256
from lineside.core.run.folder import Run, Stopped
from lineside.core.run.progress import Progress
from lineside.core.statistics.estimates import estimate, paired_difference
from lineside.core.stored_model import outcomes_of, stored_model
from lineside.core.study import MethodFailure, MethodStudy, Study
from lineside.core.training import torchrun

LONGEST_REASON = 300
"""Characters of the reason why a method failed."""


def train(
    application: Application,
    data: Path,
    out: Path,
    config: Any,
    progress: Progress,
    executor: Executor | None = None,
) -> Study:
    """Run the whole workflow and write the report.

    Args:
        application: What to train.
        data: The data folder or table.
        out: The run folder; an unfinished run of the same job is resumed.
        config: The application's Config.
        progress: Where to say what is being done.
        executor: Where to judge, and where methods may fit; in this process by default.

    Raises:
        UserError: for data that cannot be used; no run folder is made then.
        Stopped: after Ctrl-C or a file ``stop``; the same command resumes.
    """
    progress.say(f"reading {data}")
    with collected_notes() as notes:
        items, refusals = read(application, data, config)
    progress.say(f"auditing {len(items)} items")
    checks = [
        *application.audit([*items, *refusals], config),
        *(Check(name="noted while reading", status="info", evidence=note) for note in notes),
    ]
    split = application.split(items, config)
    hashes = tables.hash_sources(item for _, item in split.rows())
    run = Run.begin(out, _job(application.name, data, config, split, hashes), config.seed)
    run.executor = executor
    try:
        for note in run.notes:
            progress.say(note)
        with run.interruptible():
            tables.write_split(run.folder / "split.csv", split, hashes)
            methods = application.methods(config)
            study = Study(
                application=application, run=run, data=data, config=config, split=split,
                checks=checks, methods=(), chosen=methods[0].name, refusals=refusals,
            )  # fmt: skip
            study = _compare(_study_methods(study, methods, progress), progress)
            _refuse_without_chosen(study)
            _publish(study, progress)
    except (Stopped, KeyboardInterrupt):
        torchrun.announce("")
        run.close("stopped")
        raise Stopped from None
    except BaseException as error:
        with contextlib.suppress(UserError):  # the disk may be full: the first error is told
            tables.write_text(run.folder / "log", "".join(traceback.format_exception(error)))
            run.close("failed", error=str(error))
        raise
    torchrun.announce("")
    run.close("finished", model=study.chosen, step="done")
    return study


def join(application: Application, data: Path, config: Any) -> None:
    """Share the trainings of process 0, which runs `train`; see `training.torchrun`.

    The same items, split and random streams lead to the same networks and batches. Whatever else a
    fit writes goes to a folder that is removed.
    """
    items, _ = read(application, data, config)
    split = application.split(items, config)
    methods = {method.name: method for method in application.methods(config)}
    with tempfile.TemporaryDirectory() as folder:
        run = Run.begin(Path(folder) / "run", {}, config.seed)
        with run.interruptible():
            while name := torchrun.next_method():
                with contextlib.suppress(Stopped, UserError):  # process 0 says so
                    methods[name].fit(split, config, run)
        run.close("finished")


def read(application: Application, data: Path, config: Any) -> tuple[list[Any], list[Refusal]]:
    """Return the items that can be used, and one refusal for each that cannot."""
    found = application.read(data, config)
    refusals = [entry for entry in found if isinstance(entry, Refusal)]
    return [entry for entry in found if not isinstance(entry, Refusal)], refusals


def _job(
    name: str, data: Path, config: Any, split: Split, hashes: Mapping[Path, str]
) -> dict[str, Any]:
    content = [[role, repr(item), hashes[item.source.path]] for role, item in split.rows()]
    return {
        "application": name,
        "data": str(data.resolve()),
        "data_sha256": sha256(canonical(content)),
        "config": dataclasses.asdict(config),
    }


def _study_methods(study: Study, methods: Sequence[Method], progress: Progress) -> Study:
    """Study every method; one that fails is a row with its reason, and the others go on.

    Raises:
        Exception: that of the method that predicts, if no method can be used: then it is the data.
        UserError: if the disk, or the connection to workers, fails under a method.
    """
    studies: list[MethodStudy] = []
    failures: list[MethodFailure] = []
    errors: dict[str, Exception] = {}
    for method in methods:
        try:
            studies.append(_study(study, method, progress))
        except Stopped:
            raise
        except Exception as error:
            if isinstance(error, OSError) or isinstance(error.__cause__, OSError | WorkerError):
                raise
            errors[method.name] = error
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            reason = textwrap.shorten(f"{kind}{error}", LONGEST_REASON, placeholder=" ...")
            failures.append(
                MethodFailure(name=method.name, kind=method.kind, reason=reason, help=method.help)
            )
            progress.say(f"{method.name} failed: {reason}; the run goes on")
            trace = "".join(traceback.format_exception(error))
            study.run.log({"event": "failed", "method": method.name, "traceback": trace})
    if not studies:
        raise errors[study.chosen]
    return dataclasses.replace(study, methods=studies, failures=failures)


def _refuse_without_chosen(study: Study) -> None:
    """Say which method to choose if the one that predicts failed: none is taken in its place.

    Raises:
        UserError: in that case; the models of the other methods stay in the run folder.
    """
    failed = next((f for f in study.failures if f.name == study.chosen), None)
    if failed is None:
        return
    from lineside.core.report.chapters import rank

    primary = study.application.metrics[0]
    best = rank(study)[0]
    raise UserError(
        f"{failed.name}, the method that predicts, failed: {failed.reason}",
        f"nothing predicts in its place; {', '.join(m.name for m in study.methods)} worked and "
        f"are kept: take --model {study.run.folder / 'models' / best.name} ({primary.name} "
        f"{best.estimates[primary.name].value:.3f}), or train again with another first method",
    )


def _study(study: Study, method: Method, progress: Progress) -> MethodStudy:
    """Fit, calibrate and try one method, or take it from the run folder if it is there."""
    application, config, run = study.application, study.config, study.run
    run.check_stop()
    folder = run.folder / "models" / method.name
    fitted = _fitted(study, method, progress)
    model, seconds = fitted or _fit(study, method, progress)
    path = run.folder / "outcomes.csv"
    stored = _stored_outcomes(run, path, progress)
    # outcomes of another model of this name are those of a fit that was lost
    known = stored.get(method.name) if fitted else None

    def judged(role: str) -> list[Outcome]:
        return known[role] if known else _outcomes(study, method.name, model, role, progress)

    outcomes: dict[str, list[Outcome]] = {"calibration": []}
    if application.calibrate is not None:
        outcomes["calibration"] = judged("calibration")
        model = application.calibrate(model, outcomes["calibration"], config)
        model_store.save_calibration(folder, model.calibration_block())
    model = model_store.load_model(folder, application)
    outcomes["test"] = judged("test")
    if not known:
        tables.write_outcomes(path, {**stored, method.name: outcomes})
        digest = tables.outcomes_hash(method.name, outcomes)
        run.log({"event": "judged", "method": method.name, "outcomes": digest})
    return MethodStudy(
        name=method.name, kind=method.kind, model=model, fit_seconds=seconds, outcomes=outcomes,
        help=method.help,
    )  # fmt: skip


def _fit(study: Study, method: Method, progress: Progress) -> tuple[Any, float]:
    """Fit a method and store it; return the model and the seconds of the fit."""
    run, name = study.run, method.name
    progress.say(f"fitting {name} ({method.help})")
    run.status("running", step=f"fitting {name}")
    if method.several_processes:
        torchrun.announce(name)
    with run.fitting(name) as fit_seconds:
        model = method.fit(study.split, study.config, run)
        seconds = fit_seconds()
    folder = run.folder / "models" / name
    identity = model_store.save_model(folder, study.application.name, model)
    row = {"event": "fitted", "method": name, "seconds": seconds, "model": identity}
    run.log({**row, "figures": _figures_hash(run, name)})
    return model, seconds


def _figures_hash(run: Run, method: str) -> str:
    from lineside.core.report.figures import figures_hash

    return figures_hash(run.folder, method)


def _fitted(study: Study, method: Method, progress: Progress) -> tuple[Any, float] | None:
    """Return model and seconds of a fit before a stop, None if it is not there as it was."""
    run, name = study.run, method.name
    folder = run.folder / "models" / name
    row = run.last("fitted", name)
    if row is None:
        return None
    try:
        model = model_store.load_model(folder, study.application)
        if model.identity != row["model"]:
            raise UserError(f"{folder} is not the model that was fitted")
        if _figures_hash(run, name) != row["figures"]:
            # they are drawn at the end of a fit that trains, not of one that is at its end
            shutil.rmtree(run.folder / "checkpoint" / name, ignore_errors=True)
            raise UserError(f"the figures of {name} are not those that were drawn")
    except UserError as error:
        progress.say(f"{error.message}: {name} is fitted again")
        return None
    return model, float(row["seconds"])


def _stored_outcomes(
    run: Run, path: Path, progress: Progress
) -> dict[str, dict[str, list[Outcome]]]:
    """Return the outcomes of before a stop, without methods whose outcomes were changed since."""
    stored: dict[str, dict[str, list[Outcome]]] = {}
    try:
        stored = tables.read_outcomes(path) if path.exists() else {}
    except UserError as error:
        progress.say(f"{error.message}: its methods are judged again")
    whole = {}
    for name, by_role in stored.items():
        row = run.last("judged", name)
        if row is not None and row["outcomes"] == tables.outcomes_hash(name, by_role):
            whole[name] = by_role
        else:
            progress.say(f"the outcomes of {name} in {path} were changed: it is judged again")
    return whole


def _outcomes(
    study: Study, method: str, model: Any, role: str, progress: Progress
) -> list[Outcome]:
    """Judge all items of a role at once: it is the application that groups them."""
    run, items = study.run, study.split.role(role)
    folder = run.folder / "models" / method
    judged = _judged(study.application, model, folder, items, run.executor)
    outcomes = []
    for outcome in progress.track(judged, f"{method}: {role}", len(items)):
        run.check_stop()
        outcomes.append(outcome)
        run.beat(step=f"{method}: {role}")
    return outcomes


def _judged(
    application: Application,
    model: Any,
    folder: Path,
    items: Sequence[Any],
    executor: Executor | None,
) -> Iterable[Outcome]:
    """Return outcomes, from workers if there are any; those load the model from its folder."""
    if executor is None or executor.client is None or not application.independent_groups:
        return application.outcomes(model, items)
    return outcomes_of(stored_model(application.name, folder), items, executor)


def _compare(study: Study, progress: Progress) -> Study:
    """Add test estimates with intervals over groups, and paired differences to the chosen one."""
    progress.say("comparing the methods on the test items")
    best = next((m.outcomes["test"] for m in study.methods if m.name == study.chosen), None)
    metrics: Sequence[Metric] = study.application.metrics
    primary = metrics[0]
    compared = []
    for method in study.methods:
        test = method.outcomes["test"]
        estimates = {
            m.name: estimate(test, m, study.run.rng(f"interval {m.name}")) for m in metrics
        }
        differences = {}
        if best is not None and method.name != study.chosen:
            rng = study.run.rng("paired")
            differences[primary.name] = paired_difference(test, best, primary, rng)
        compared.append(dataclasses.replace(method, estimates=estimates, differences=differences))
    return dataclasses.replace(study, methods=compared)


def _publish(study: Study, progress: Progress) -> None:
    from lineside.core.report import write_report
    from lineside.core.report.model_card import model_card

    progress.say("writing the report")
    study.run.status("running", step="writing the report")
    for method in study.methods:
        folder = study.run.folder / "models" / method.name
        tables.write_text(folder / "MODEL_CARD.md", model_card(study, method))
    write_report(study)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model did on labelled data that it has never seen."""

    model: Any
    outcomes: Sequence[Outcome]
    estimates: Mapping[str, Estimate]
    refusals: Sequence[Refusal]
    notes: Sequence[str] = ()


def evaluate(
    application: Application,
    data: Path,
    model_path: Path,
    config: Any,
    progress: Progress,
    executor: Executor | None = None,
) -> Evaluation:
    """Judge labelled data that a model has never seen.

    Args:
        application: What reads the data.
        data: Labelled data.
        model_path: A run, or a model folder in it.
        config: The application's Config.
        progress: Shows how far it is.
        executor: Where to judge, if groups are independent; in this process by default.

    Raises:
        UserError: if items are among those that the model was fitted or calibrated on, or if it
            was never calibrated.
    """
    model = model_store.load_model(model_path, application)
    if application.calibrate is not None and not model.calibration_block():
        raise UserError(f"{model_path} was never calibrated", "finish its run or recalibrate it")
    config = application.config_for(model, config)
    items, refusals = read(application, data, config)
    tables.refuse_known(items, model_store.model_folder(model_path))
    judged = _judged(application, model, model_store.model_folder(model_path), items, executor)
    outcomes = list(progress.track(judged, "judging", len(items)))
    familiar = tables.familiar(items, model_store.model_folder(model_path))
    rng = np.random.default_rng(config.seed)
    estimates = {metric.name: estimate(outcomes, metric, rng) for metric in application.metrics}
    return Evaluation(
        model=model,
        outcomes=outcomes,
        estimates=estimates,
        refusals=refusals,
        notes=[*application.notes(model, ()), *([familiar] if familiar else [])],
    )
