"""Judging and explaining files for the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.core.report import write_explanation
from lineside.core.run.model_store import load_model
from lineside.machines.alarms.verdict import Verdict
from lineside.machines.application import APPLICATION
from lineside.machines.data import find_snapshots
from lineside.machines.data.items import Snapshot
from lineside.machines.training.learning_record import consent_notes


def judge(files: Sequence[Path], model: Path) -> list[Verdict | Refusal]:
    """Judge all snapshots of files and folders, those of each machine in order of time.

    Raises:
        UserError: no file is given, or the model is of another application.
    """
    if not files:
        raise UserError("no file is given", "lineside machines predict FILES --model RUN")
    fitted = load_model(model, APPLICATION)
    for note in consent_notes(fitted):
        print(f"note: {note}", file=sys.stderr)
    snapshots: list[Snapshot] = []
    refusals: list[Verdict | Refusal] = []
    for path in files:
        if not path.exists():
            refusals.append(
                Refusal(item=str(path), message="does not exist", hint="check the path")
            )
            continue
        for item in find_snapshots(path):
            if isinstance(item, Refusal):
                refusals.append(item)
            else:
                snapshots.append(item)
    return [*fitted.predict(snapshots), *refusals]


def explain_to_page(path: Path, model: Path, out: Path) -> str:
    """Write the explanation of the newest snapshot of a path as a page; return its sentence.

    Raises:
        UserError: if there is no readable snapshot, or the model is of another application.
    """
    fitted = load_model(model, APPLICATION)
    items = find_snapshots(path)
    snapshots = [item for item in items if isinstance(item, Snapshot)]
    if not snapshots:
        refusal = next(item for item in items if isinstance(item, Refusal))
        raise UserError(f"{path} has no readable snapshot: {refusal.message}", refusal.hint)
    explanation = fitted.explain(max(snapshots, key=lambda snapshot: snapshot.time))
    return write_explanation(
        out, explanation.item, f"model {fitted.identity}", explanation,
        "The newest of the given snapshots.",
    )  # fmt: skip
