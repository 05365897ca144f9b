"""Teaching a model: a missed defect or a false reject makes a child, not a full retraining.

The child keeps its parent's id, and its certificate is suspended: what changes scores voids a
promise that was made about the old scores. `recalibrate_on` makes a new one on fresh parts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lineside.core.artefact import load_model, model_folder, save_model, save_operating
from lineside.core.contract import UserError
from lineside.core.files import read_json, write_json
from lineside.core.ledger import refuse_known, write_text
from lineside.core.run import rng_of
from lineside.parts.config import Config
from lineside.parts.images import load_example
from lineside.parts.items import GOOD, PartImage
from lineside.parts.judging import calibrate, outcomes
from lineside.parts.model import PartsModel, part_of
from lineside.parts.reading import read_items

REASON = "taught by feedback; recalibrate on fresh labelled parts"


def teach(
    model: Path, missed: Sequence[Path], false_rejects: Sequence[Path], kind: str
) -> list[str]:
    """Make a child model from wrongly judged images and return what changed, in lines.

    Args:
        model: A run or a model folder.
        missed: Images of faulty parts that were accepted (the image label is enough).
        false_rejects: Images of good parts that were rejected.
        kind: What the missed defect is called.

    Raises:
        UserError: if no image is given, one cannot be read, or the method cannot be taught.
    """
    if not missed and not false_rejects:
        raise UserError("nothing to learn from", "give --missed FILES or --false-reject FILES")
    folder = model_folder(model)
    parent: PartsModel = load_model(folder)
    items = [_item(path, kind, parent) for path in missed]
    items += [_item(path, GOOD, parent) for path in false_rejects]
    examples = [load_example(item) for item in items]
    if not hasattr(parent.detector, "teach"):
        raise UserError(f"{parent.method} cannot be taught", "train with the detector method")
    before = [parent.read(example.image()).score for example in examples]
    detector: Any = parent.detector
    child = dataclasses.replace(
        parent, detector=detector.teach(examples, rng=rng_of(0, parent.identity))
    ).suspend(REASON)
    home = _next_folder(folder)
    identity = save_model(home, "parts", child, parent=parent.identity)
    write_text(home / "MODEL_CARD.md", _card(parent, items, identity))
    _choose(home)
    lines = []
    for item, example, old in zip(items, examples, before, strict=True):
        new = child.read(example.image()).score
        _, was = parent.decide([old])
        _, now = child.decide([new])
        lines.append(f"{item.path}: score {old:.3f} ({was}) -> {new:.3f} ({now})")
    lines.append(f"child model {identity} of {parent.identity} in {home}")
    lines.append(f"certificate suspended: {REASON}")
    return lines


def recalibrate_on(model: Path, data: Path, config: Config) -> list[str]:
    """Set a stored model's operating point on labelled parts that it was not fitted on.

    Raises:
        UserError: if some of the images were used to make the model.
    """
    folder = model_folder(model)
    fitted: PartsModel = load_model(folder)
    items = [entry for entry in read_items(data, config) if isinstance(entry, PartImage)]
    refuse_known(items, folder)
    calibrated = calibrate(fitted, outcomes(fitted, items), config)
    save_operating(folder, calibrated.operating_block())
    return [f"{folder}: {calibrated.operating.point.message}" if calibrated.operating else ""]


def _item(path: Path, label: str, model: PartsModel) -> PartImage:
    part = part_of(path, model.settings.part_pattern)
    return PartImage(id=str(path), path=path, label=label, part=part)


def _next_folder(folder: Path) -> Path:
    stem = folder.name.split("-taught")[0]
    taken = len(list(folder.parent.glob(f"{stem}-taught*")))
    return folder.parent / f"{stem}-taught{taken + 1}"


def _choose(home: Path) -> None:
    """Make a model the one that its run predicts with."""
    status = home.parent.parent / "status.json"
    if status.exists():
        write_json(status, {**read_json(status), "model": home.name})


def _card(parent: PartsModel, items: Sequence[PartImage], identity: str) -> str:
    taught = "\n".join(f"* {item.path} as {item.label}" for item in items)
    return (
        f"# Model {identity}\n\nTaught by feedback from model {parent.identity}.\n\n{taught}\n\n"
        f"Certificate suspended: {REASON}.\n"
    )
