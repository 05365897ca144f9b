"""A simulated data set of catheter close-ups: pictures, masks, a table, and a source note."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from lineside.core.errors import UserError
from lineside.core.run.files import disk_errors
from lineside.parts.data.items import GOOD
from lineside.parts.models.detector import Mask
from lineside.parts.simulation.defects import KIND_SHARES, draw_areas
from lineside.parts.simulation.part import Part, make_part
from lineside.parts.simulation.raters import MISLABELLED_SHARE, PartLabels, simulate_labels
from lineside.parts.simulation.scene import make_lamps

VERSION = 1
"""Increased whenever the same seed gives other pictures."""
COLUMNS = (
    "path", "label", "part", "mask", "rater_1", "rater_2", "batch", "section", "exposure", "truth",
)  # fmt: skip
BATCHES = 4
SMALLEST_PX = 96
FALSE_MARK_PX = 7.0


def demo(
    folder: Path,
    seed: int,
    *,
    good_parts: int = 60,
    faulty_parts: int = 36,
    exposures: int = 3,
    size_px: int = 256,
    advance: Callable[[int], None] = lambda done: None,
) -> Path:
    """Make a data set of simulated catheter close-ups; the same seed gives the same bytes.

    It holds ``images/``, ``masks/``, ``parts.csv`` and ``SOURCE.txt``. In the table ``label`` is
    the label on record, wrong for 3 % of the parts; ``truth`` is what was simulated. The column
    ``truth``, like ``batch``, ``section`` and ``exposure``, is read as a slice: reported apart,
    never trained on.

    The default of 36 faulty parts is small on purpose: a fifth of them, about 7, calibrate, and
    29 would be needed to guarantee a recall of 0.9 with 95 % confidence (59 for 0.95). Give
    ``faulty_parts=170`` for the first guarantee, 330 for the second.

    Args:
        folder: Where to write; it must not exist, or be empty.
        seed: Seed of everything.
        good_parts: Number of good parts.
        faulty_parts: Number of faulty parts.
        exposures: Photographs per part, from dark to bright, each slightly shifted.
        size_px: Side of a typical picture; sides vary, a fifth of the parts is elongated.
        advance: Called with the number of parts that are done.

    Returns:
        The folder.

    Raises:
        UserError: if the folder is not empty, or a number is out of range.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty", "choose another folder")
    plan = _Plan(seed, good_parts, faulty_parts, exposures, size_px)
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        working = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            _write(working, plan, advance)
            working.chmod(0o755)
            if folder.exists():
                folder.rmdir()
            os.replace(working, folder)  # a folder that exists is a complete one
        except BaseException:
            shutil.rmtree(working, ignore_errors=True)
            raise
    return folder


@dataclass(frozen=True)
class _Plan:
    """The numbers of a data set, see `demo`."""

    seed: int
    good_parts: int
    faulty_parts: int
    exposures: int
    size_px: int

    def __post_init__(self) -> None:
        good, faulty = self.good_parts, self.faulty_parts
        if good < 0 or faulty < 0 or good + faulty < 1:
            raise UserError(
                f"{good} good and {faulty} faulty parts cannot be made", "give at least one"
            )
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}", "it is a whole number from 0 on")
        if self.exposures < 1:
            raise UserError(
                f"exposures is {self.exposures}", "one photograph per part is the least"
            )
        if self.size_px < SMALLEST_PX:
            raise UserError(f"size_px is {self.size_px}", f"{SMALLEST_PX} is the least")


def _write(folder: Path, plan: _Plan, advance: Callable[[int], None]) -> None:
    rng = np.random.default_rng([plan.seed, VERSION])
    lamps = [make_lamps(rng) for _ in range(BATCHES)]
    truths = [GOOD] * plan.good_parts + _kinds(plan.faulty_parts)
    areas = np.concatenate([np.zeros(plan.good_parts), draw_areas(rng, plan.faulty_parts)])
    order = rng.permutation(len(truths))
    truths, areas = [truths[i] for i in order], areas[order]
    made: list[_Made] = []
    for index, (truth, area) in enumerate(zip(truths, areas, strict=True)):
        part_rng = np.random.default_rng([plan.seed, VERSION, index])
        light = lamps[index % BATCHES]
        part = make_part(part_rng, light, truth, area, plan.exposures, plan.size_px)
        made.append(_save_part(folder, index, part))
        advance(index + 1)
    labels_by_part = simulate_labels(rng, truths, [one.visibility for one in made])
    with (folder / "parts.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for index, (one, labels) in enumerate(zip(made, labels_by_part, strict=True)):
            _fit_masks(folder, index, one, labels.label)
            writer.writerows(_rows(index, one, labels))
    (folder / "SOURCE.txt").write_text(_source(plan), encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What is kept of a part when its pictures are saved."""

    truth: str
    section: str
    visibility: float
    highlights: tuple[tuple[int, int], ...]
    shapes: tuple[tuple[int, int], ...]


def _save_part(folder: Path, index: int, part: Part) -> _Made:
    for number, shot in enumerate(part.shots, start=1):
        _save(folder / "images" / _name(index, number), shot.picture)
        if part.truth != GOOD:
            _save(folder / "masks" / _name(index, number), shot.mask)
    return _Made(
        truth=part.truth,
        section=part.section,
        visibility=part.visibility,
        highlights=tuple(shot.highlight for shot in part.shots),
        shapes=tuple((shot.mask.shape[0], shot.mask.shape[1]) for shot in part.shots),
    )


def _fit_masks(folder: Path, index: int, made: _Made, label: str) -> None:
    """Make the masks fit the label on record: none on a good part, a false one on a false alarm."""
    places = zip(made.highlights, made.shapes, strict=True)
    for number, ((row, column), shape) in enumerate(places, start=1):
        path = folder / "masks" / _name(index, number)
        if label == GOOD:
            path.unlink(missing_ok=True)
        elif made.truth == GOOD:
            y, x = np.indices(shape)
            _save(path, np.hypot(y - row, x - column) <= FALSE_MARK_PX)


def _kinds(count: int) -> list[str]:
    """Return the kinds of some faulty parts, in their shares (largest remainder)."""
    exact = {kind: share * count for kind, share in KIND_SHARES.items()}
    whole = {kind: int(value) for kind, value in exact.items()}
    by_rest = sorted(exact, key=lambda kind: whole[kind] - exact[kind])
    for kind in by_rest[: count - sum(whole.values())]:
        whole[kind] += 1
    return [kind for kind, number in whole.items() for _ in range(number)]


def _rows(index: int, made: _Made, labels: PartLabels) -> list[dict[str, str]]:
    """Return the rows of one part."""
    rows = []
    for number in range(1, len(made.shapes) + 1):
        name = _name(index, number)
        rows.append({
            "path": f"images/{name}",
            "label": labels.label,
            "part": _part_name(index),
            "mask": "" if labels.label == GOOD else f"masks/{name}",
            "rater_1": labels.raters[0],
            "rater_2": labels.raters[1],
            "batch": f"B{index % BATCHES + 1}",
            "section": made.section,
            "exposure": str(number),
            "truth": made.truth,
        })  # fmt: skip
    return rows


def _save(path: Path, values: NDArray[np.uint8] | Mask) -> None:
    path.parent.mkdir(exist_ok=True)
    pixels = values.astype(np.uint8) * 255 if values.dtype == bool else values
    Pillow.fromarray(pixels).save(path, compress_level=4)


def _part_name(index: int) -> str:
    return f"p{index + 1:04d}"


def _name(index: int, number: int) -> str:
    return f"{_part_name(index)}_e{number}.png"


def _source(plan: _Plan) -> str:
    size_px = plan.size_px
    return f"""\
SIMULATED DATA - these are not photographs of real parts.

Made by lineside.parts.simulation, version {VERSION}, seed {plan.seed}: {plan.good_parts} good and
{plan.faulty_parts} faulty parts, {plan.exposures} exposures each, pictures of about {size_px} px.

It resembles close-ups of balloon catheters under a dark-field ring light. Numbers measured on it
say that the software works; they say nothing about any real production.

parts.csv
  path, mask   picture, and mask of the defect (255 inside) where the label is a kind of defect
  label        label on record: wrong for {MISLABELLED_SHARE:.0%} of the parts, mostly missed ones
  part         the physical piece; all its exposures show the same defect
  rater_1/_2   what two people say of the part, without seeing the record
  batch        lighting set-up; section: balloon, cone or shaft; exposure: 1 dark ... bright
  truth        what was simulated: for checking only, never to train on
"""
