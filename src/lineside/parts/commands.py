"""The verbs of ``lineside parts`` in addition to the common ones; torch-free until one runs."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from lineside.core.commands import (
    BAD_INPUT,
    FINDING,
    build,
    print_refusals,
    run_prediction,
    verify_trail,
)
from lineside.core.errors import UserError, printable
from lineside.parts.config import Config

app = build(
    "parts",
    Config,
    "Is this part faulty, and where? Quality control from images.",
    without=("predict", "explain"),
)
RUN = Path("run")


@app.command
def predict(
    *files: Path,
    model: Path = RUN,
    json: bool = False,
    overlay: Path | None = None,
    zoom: Path | None = None,
    part_pattern: str = "",
    workers: int = 1,
    cluster: str = "",
    journal: Path | None = None,
) -> int:
    """Inspect images, one line each; exit code 1 on a finding, 2 if a file cannot be read.

    Parameters
    ----------
    files: Path
        Images, folders of images, or a CSV table with the columns path and part.
    model: Path
        A run, or a model folder in it.
    json: bool
        One JSON object per line.
    overlay: Path
        A folder for images with anomaly map and contours.
    zoom: Path
        A folder for pages that zoom in on the strongest evidence, crop by crop; with a patch CNN
        in the run each crop has its guided backprop and Grad-CAM. Adds `zoom` to the JSON.
    part_pattern: str
        Regular expression whose first group is the part in a file name.
    workers: int
        Number of worker processes on this computer.
    cluster: str
        Address of a Dask scheduler instead, e.g. tcp://10.0.0.1:8786 (docs/scale.md).
    journal: Path
        A file of finished items; a repeated command skips them.
    """
    from functools import partial

    from lineside.parts.explain.drawings import predict_and_draw

    draw = None
    if overlay is not None or zoom is not None:
        draw = partial(predict_and_draw, overlay=overlay, zoom=zoom)
    return run_prediction(
        "parts", files, model, as_json=json, config=Config(part_pattern=part_pattern),
        predict=draw, workers=workers, cluster=cluster, journal=journal,
    )  # fmt: skip


@app.command
def explain(file: Path, /, *, model: Path = RUN, out: Path = Path("explanation.html")) -> int:
    """Explain the verdict on one image in a sentence and figures.

    Parameters
    ----------
    file: Path
        An image.
    model: Path
        A run, or a model folder in it.
    out: Path
        The page that is written.
    """
    from lineside.parts.explain.drawings import explain_to_page

    print(printable(explain_to_page(file, model, out)))
    print(printable(f"page    {out.resolve()}"))
    return 0


@app.command
def watch(
    folder: Path | None = None,
    /,
    *,
    model: Path = RUN,
    trail: Path = Path("audit-trail.jsonl"),
    interval_seconds: float = 1.0,
    patience_seconds: float = 60.0,
    once: bool = False,
    verify: bool = False,
    part_pattern: str = "",
) -> int:
    """Inspect images as they arrive in a folder; nothing is moved, every verdict is recorded.

    The model is loaded once: restart the watch after a recalibration.

    Parameters
    ----------
    folder: Path
        The folder that the camera writes to.
    model: Path
        A run, or a model folder in it.
    trail: Path
        The audit trail (JSON lines); a restarted watch appends to it. The number and hash of its
        last line are kept in TRAIL.head.
    interval_seconds: float
        Pause between two scans; a file is inspected when it has not changed in between.
    patience_seconds: float
        Time after which a file that cannot be read and does not change is reported.
    once: bool
        Inspect the images that are there, then stop; exit code 1 on a finding, 2 if a file cannot
        be read.
    verify: bool
        Only check that no line of the audit trail was changed, removed, inserted or moved; exit
        code 1 if one was.
    part_pattern: str
        Regular expression whose first group is the part in a file name.
    """
    if verify:
        return verify_trail(trail)
    if folder is None:
        raise UserError("no folder is given", "e.g. lineside parts watch FOLDER")
    from lineside.parts.monitoring.watch import watch_folder

    findings, unreadable = watch_folder(
        folder, model, trail, interval_seconds=interval_seconds,
        patience_seconds=patience_seconds, once=once, say=_say, part_pattern=part_pattern,
    )  # fmt: skip
    return BAD_INPUT if unreadable else FINDING if findings else 0


def _say(row: Mapping[str, Any]) -> None:
    """Print one line per verdict on standard output, events on standard error."""
    if "event" in row:
        facts = ", ".join(f"{k} {v}" for k, v in row.items() if k != "event" and v != "")
        print(printable(f"{row['event']}: {facts}"), file=sys.stderr, flush=True)
        return
    note = f"  suspended: {row['suspended']}" if row.get("suspended") else ""
    score = f"{row['part_score']:8.3f}" if "part_score" in row else " " * 8
    print(printable(f"{row['verdict']:<10} {score}  {row['file']}{note}"), flush=True)


@app.command
def feedback(
    *,
    model: Path = RUN,
    missed: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)] = (),
    false_reject: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)] = (),
    kind: str = "defect",
    part_pattern: str = "",
) -> int:
    """Update a model from missed defects and false rejects, without full retraining.

    The certificate of the derived model is suspended until `recalibrate` is run on fresh parts.

    Parameters
    ----------
    model: Path
        A run, or a model folder in it.
    missed: Path
        Images of faulty parts that were accepted.
    false_reject: Path
        Images of good parts that were rejected.
    kind: str
        Kind of the missed defects.
    part_pattern: str
        Regular expression whose first group is the part in a file name.
    """
    from lineside.parts.monitoring.feedback import update_model

    for line in update_model(model, missed, false_reject, kind, part_pattern):
        print(printable(line))
    return 0


@app.command
def recalibrate(
    data: Path,
    /,
    *,
    model: Path = RUN,
    max_escape: float | None = None,
    confidence: float | None = None,
    review_budget: float | None = None,
    part_pattern: str = "",
) -> int:
    """Set the operating point again on labelled parts that the model was not fitted on.

    Settings that are not given stay as they were when the model was trained.

    Parameters
    ----------
    data: Path
        A folder of images, or a CSV table.
    model: Path
        A run, or a model folder in it.
    max_escape: float
        Guarantee: at most this share of the faulty parts escapes.
    confidence: float
        Confidence of the guarantee.
    review_budget: float
        Largest share of good parts that a person reviews.
    part_pattern: str
        Regular expression whose first group is the part in a file name.
    """
    from lineside.parts.monitoring.feedback import recalibrate_on

    settings = {
        "max_escape": max_escape,
        "confidence": confidence,
        "review_budget": review_budget,
        "part_pattern": part_pattern or None,
    }
    changes = {key: value for key, value in settings.items() if value is not None}
    lines, refusals = recalibrate_on(model, data, changes)
    for line in lines:
        print(printable(line))
    print_refusals(refusals)
    return BAD_INPUT if refusals else 0
