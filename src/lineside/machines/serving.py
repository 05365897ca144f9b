"""Judging files for the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.core.report import write_explanation
from lineside.machines.alarms.verdict import Verdict
from lineside.machines.data import find_snapshots
from lineside.machines.data.items import Snapshot
from lineside.machines.training.derived_models import model_of
from lineside.machines.training.learning_record import notes


def judge(files: Sequence[Path], model: Path) -> list[Verdict | Refusal]:
    """Judge all snapshots of files and folders, each machine's in order of time.

    Raises:
        UserError: no file is given, or the model is of another application.
    """
    if not files:
        raise UserError("no file is given", "lineside machines predict FILES --model RUN")
    fitted = model_of(model)
    for line in notes(fitted):
        print(f"note: {line}", file=sys.stderr)
    items: list[Snapshot] = []
    refusals: list[Verdict | Refusal] = []
    for path in files:
        if not path.exists():
            refusals.append(
                Refusal(item=str(path), message="does not exist", hint="check the path")
            )
            continue
        for found in find_snapshots(path):
            if isinstance(found, Refusal):
                refusals.append(found)
            else:
                items.append(found)
    return [*fitted.predict(items), *refusals]


def explain_to_page(path: Path, model: Path, out: Path) -> str:
    """Write the explanation of the newest snapshot of a path as a page; return its sentence.

    Raises:
        UserError: if there is no readable snapshot, or the model is of another application.
    """
    fitted = model_of(model)
    found = find_snapshots(path)
    items = [one for one in found if isinstance(one, Snapshot)]
    if not items:
        why = next(one for one in found if isinstance(one, Refusal))
        raise UserError(f"{path} holds no readable snapshot: {why.message}", why.hint)
    told = fitted.explain(max(items, key=lambda item: item.time))
    return write_explanation(
        out, told.item, f"model {fitted.identity}", told, "The newest snapshot that was given."
    )
