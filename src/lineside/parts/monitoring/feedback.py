"""Feedback: missed defects and false rejects update a model without a full retraining.

The derived model names its parent, and its certificate is suspended: a guarantee about the old
scores does not hold for the new ones. `recalibrate_on` makes a new one on fresh parts.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.core.run.files import read_json
from lineside.core.run.folder import rng_of
from lineside.core.run.model_store import load_model, model_folder, save_calibration, save_model
from lineside.core.run.status import choose_model, run_file
from lineside.core.run.tables import (
    FITTED_ROLES,
    familiar,
    read_used,
    refuse_known,
    used_items,
    used_text,
)
from lineside.parts.application import APPLICATION
from lineside.parts.config import Config
from lineside.parts.data.dataset import read_items
from lineside.parts.data.images import digest, training_image
from lineside.parts.data.items import GOOD, PartImage
from lineside.parts.data.sources import find_files, unlabelled
from lineside.parts.model import PartsModel, as_stored
from lineside.parts.outcomes import calibrate, outcomes

REASON = "updated by feedback; recalibrate on fresh labelled parts"


def update_model(
    model: Path,
    missed: Sequence[Path],
    false_rejects: Sequence[Path],
    kind: str = "defect",
    part_pattern: str = "",
) -> list[str]:
    """Derive a model from misclassified images; return what changed, line by line.

    Args:
        model: A run or a model folder.
        missed: Images of faulty parts that were accepted (the image label is enough), or folders.
        false_rejects: Images of good parts that were rejected, or folders.
        kind: What the missed defect is called.
        part_pattern: Finds the part in a file name; the model's own pattern if empty.

    Raises:
        UserError: if no image is given, one cannot be read, or the method cannot be updated.
    """
    if not missed and not false_rejects:
        raise UserError("nothing to learn from", "give --missed FILES or --false-reject FILES")
    folder = model_folder(model)
    loaded: PartsModel = load_model(folder, APPLICATION)
    parent = loaded.with_pattern(part_pattern)
    if not hasattr(parent.detector, "update"):
        raise UserError(
            f"{parent.method} cannot be updated by feedback", "train with the detector method"
        )
    items = _items(missed, kind, parent) + _items(false_rejects, GOOD, parent)
    _check_apart(items)
    examples = [training_image(item, parent.ignored) for item in items]
    before = [parent.predict_image(example.image()).score for example in examples]
    detector: Any = parent.detector
    learned = detector.update(examples, rng=rng_of(0, parent.identity))
    derived = dataclasses.replace(loaded, detector=as_stored(learned)).suspend(REASON)
    after = [derived.predict_image(example.image()).score for example in examples]
    home, identity = _save(folder, parent, derived, items)
    lines = [
        f"{item.id}: score {old:.3f} ({parent.decide([old])[1]}) -> "
        f"{new:.3f} ({derived.decide([new])[1]})"
        for item, old, new in zip(items, before, after, strict=True)
    ]
    lines.append(f"derived model {identity} from {parent.identity} in {home}")
    lines.append(f"certificate suspended: {REASON}")
    return lines


def recalibrate_on(
    model: Path, data: Path, changes: Mapping[str, Any]
) -> tuple[list[str], list[Refusal]]:
    """Set a stored model's operating point on labelled parts that it was not fitted on.

    Args:
        model: A run or a model folder.
        data: Labelled pictures, as for a training.
        changes: Settings that differ from those of the training.

    Returns:
        Lines that say what holds now, and the pictures that could not be read.

    Raises:
        UserError: if some of the images were used to fit or update the model.
    """
    folder = model_folder(model)
    fitted: PartsModel = load_model(folder, APPLICATION)
    config = _config(folder, fitted, changes)
    entries = read_items(data, config)
    items = [entry for entry in entries if isinstance(entry, PartImage)]
    refuse_known(items, folder, FITTED_ROLES)
    calibrated = calibrate(fitted, list(outcomes(fitted, items)), config)
    feedback = [row for row in read_used(folder) if row.role != "calibration"]
    used = used_text([*feedback, *used_items(items, "calibration")])
    save_calibration(folder, calibrated.calibration_block(), {"used.csv": used})
    lines = [f"{folder}: {calibrated.certificate}"]
    if note := familiar(items, folder):
        lines.append(f"note: {note}")
    return lines, [entry for entry in entries if isinstance(entry, Refusal)]


def _config(folder: Path, model: PartsModel, changes: Mapping[str, Any]) -> Config:
    """Return the settings of the model's run, with the changes; views combine as before."""
    described = run_file(folder.parent.parent, "config.json")
    stored = read_json(described).get("config", {}) if described is not None else {}
    known = {field.name for field in dataclasses.fields(Config)}
    known -= {"methods", "ignore"}  # the model has its own
    of_run = {key: value for key, value in stored.items() if key in known}
    settings = {"view_rule": model.settings.view_rule, "part_pattern": model.settings.part_pattern}
    return Config(**{**of_run, **settings, **changes})


def _items(paths: Sequence[Path], label: str, model: PartsModel) -> list[PartImage]:
    found = (unlabelled(path, model.settings.part_pattern) for path in find_files(paths))
    return [dataclasses.replace(item, label=label) for item in found]


def _check_apart(items: Sequence[PartImage]) -> None:
    """Refuse a picture that is given both as missed and as false reject."""
    labels: dict[str, str] = {}
    for item in items:
        if labels.setdefault(digest(item.path), item.label) != item.label:
            raise UserError(f"{item.path} is given as missed and as false reject", "give it once")


def _save(
    folder: Path, parent: PartsModel, derived: PartsModel, items: Sequence[PartImage]
) -> tuple[Path, str]:
    """Write the derived model beside its parent, with all feedback since the training."""
    stem = folder.name.split("-taught")[0]
    homes = (folder.parent / f"{stem}-taught{number}" for number in itertools.count(1))
    home = next(home for home in homes if not home.exists())
    used = [*read_used(folder), *used_items(items, "taught")]
    identity = save_model(
        home,
        "parts",
        derived,
        parent=parent.identity,
        card=_card(parent, items),
        beside={"used.csv": used_text(used)},
    )
    choose_model(home.parent.parent, home.name)
    return home, identity


def _card(parent: PartsModel, items: Sequence[PartImage]) -> str:
    images = "\n".join(f"* {item.id} as {item.label}" for item in items)
    return (
        f"# parts: {parent.method}, updated by feedback\n\nDerived from model {parent.identity}; "
        f"its id is in model.json. Feedback images:\n\n{images}\n\n"
        f"Certificate suspended: {REASON}.\n"
    )
