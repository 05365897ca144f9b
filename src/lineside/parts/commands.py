"""The verbs of ``lineside parts`` beside the common ones; torch-free until a verb runs."""

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from lineside.core.commands import build, print_results
from lineside.parts.config import Config

app = build("parts", Config, "Is this part faulty, and where? Quality control from images.")
RUN = Path("run")


@app.command
def predict(
    *files: Path,
    model: Path = RUN,
    json: bool = False,
    overlay: Path | None = None,
    part_pattern: str = "",
) -> int:
    """Judge images: one line each; exit code 1 on a finding, 2 if a file cannot be read.

    Parameters
    ----------
    files: Path
        Images, folders of images, or a CSV table with the columns path and part.
    model: Path
        A run, or a model folder in it.
    json: bool
        One JSON object per line.
    overlay: Path
        A folder for pictures with anomaly map and contours.
    part_pattern: str
        Regular expression whose first group is the part in a file name.
    """
    from lineside.parts.serving import judge, write_overlays

    fitted, sources, results = judge(files, model, part_pattern)
    if not json:
        print(f"{'verdict':<7} {'score':>8} {'limit':>8}  item")
    code = print_results(results, as_json=json)
    if overlay is not None:
        written = write_overlays(fitted, sources, results, overlay)
        print(f"{written} overlays in {overlay}", file=sys.stderr)
    if fitted.suspended:
        print(f"note: the certificate is suspended: {fitted.suspended}", file=sys.stderr)
    return code


@app.command
def explain(file: Path, /, *, model: Path = RUN, out: Path = Path("explanation.html")) -> int:
    """Say in a sentence and pictures what the model saw in one image.

    Parameters
    ----------
    file: Path
        An image.
    model: Path
        A run, or a model folder in it.
    out: Path
        The page that is written.
    """
    from lineside.parts.serving import explain_to_page

    print(explain_to_page(file, model, out))
    print(f"page    {out.resolve()}")
    return 0


@app.command
def watch(
    folder: Path,
    /,
    *,
    model: Path = RUN,
    trail: Path = Path("audit-trail.jsonl"),
    interval_seconds: float = 1.0,
    once: bool = False,
    part_pattern: str = "",
) -> int:
    """Judge pictures as they arrive in a folder; nothing is moved, every verdict is kept.

    Parameters
    ----------
    folder: Path
        The folder that the camera writes to.
    model: Path
        A run, or a model folder in it.
    trail: Path
        The audit trail (JSON lines) that is appended to; a restarted watch takes it up.
    interval_seconds: float
        Pause between two looks.
    once: bool
        Stop when every picture that is there now is judged; exit code 1 on a finding.
    part_pattern: str
        Regular expression whose first group is the part in a file name.
    """
    from lineside.parts.watch import watch_folder

    def say(row: dict[str, Any]) -> None:
        note = f"  suspended: {row['suspended']}" if row.get("suspended") else ""
        score = f"{row['part_score']:8.3f}" if "part_score" in row else " " * 8
        print(f"{row['verdict']:<10} {score}  {row['file']}{note}", flush=True)

    findings = watch_folder(
        folder, model, trail, interval_seconds=interval_seconds, once=once, say=say,
        part_pattern=part_pattern,
    )  # fmt: skip
    return 1 if findings else 0


@app.command
def feedback(
    *,
    model: Path = RUN,
    missed: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)] = (),
    false_reject: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)] = (),
    kind: str = "defect",
) -> int:
    """Teach missed defects and false rejects: makes a child model without full retraining.

    The child's certificate is suspended until `recalibrate` has seen fresh labelled parts.

    Parameters
    ----------
    model: Path
        A run, or a model folder in it.
    missed: Path
        Images of faulty parts that were accepted.
    false_reject: Path
        Images of good parts that were rejected.
    kind: str
        What the missed defect is called.
    """
    from lineside.parts.feedback import teach

    for line in teach(model, missed, false_reject, kind):
        print(line)
    return 0


@app.command
def recalibrate(data: Path, /, *, model: Path = RUN, config: Annotated[Config, Parameter(name="*")] = Config()) -> int:  # fmt: skip  # noqa: E501
    """Set the operating point anew on labelled parts that the model was not fitted on.

    Parameters
    ----------
    data: Path
        A folder of images, or a CSV table.
    model: Path
        A run, or a model folder in it.
    """
    from lineside.parts.feedback import recalibrate_on

    for line in recalibrate_on(model, data, config):
        print(line)
    return 0
