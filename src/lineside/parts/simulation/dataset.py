"""A simulated data set of catheter close-ups: pictures, masks, a table, and a source note."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from scipy import ndimage

from lineside.core.errors import UserError
from lineside.core.run.files import disk_errors
from lineside.parts.data.items import GOOD
from lineside.parts.models.detector import Mask
from lineside.parts.simulation.defects import KIND_SHARES, add_defect, draw_areas
from lineside.parts.simulation.scene import (
    SECTIONS,
    Colour,
    Lamps,
    blurred,
    make_lamps,
    make_scene,
    photograph,
    radiance,
)

MARGIN_PX = 14
"""What the canvas is larger than a crop on every side."""
SHIFT_PX = 6
GROWTH_PX = 3
MOST_CUT_PX = MARGIN_PX + SHIFT_PX + GROWTH_PX
GAINS = (0.55, 1.7)
ELONGATED_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class Part:
    """One simulated part, without its photographs.

    Attributes:
        truth: ``"good"`` or the kind of defect.
        section: Section of the catheter.
        visibility: Contrast of the defect times the root of its area in pixels, 0 on a good part.
        masks: The defect in each photograph, shape (height, width); all False on a good part.
        highlights: (row, column) of the brightest highlight in each photograph.
    """

    truth: str
    section: str
    visibility: float
    masks: tuple[Mask, ...]
    highlights: tuple[tuple[int, int], ...]


def make_part(
    rng: np.random.Generator, lamps: Lamps, truth: str, area: float, exposures: int, size_px: int
) -> tuple[Part, list[NDArray[np.uint8]]]:
    """Make one part and photograph it, from dark to bright.

    Args:
        rng: Draws everything about the part.
        lamps: Lighting of its batch.
        truth: ``"good"`` or a kind of defect.
        area: Area of the defect as a share of the picture.
        exposures: Number of photographs.
        size_px: Side of a typical picture.

    Returns:
        The part, and its photographs, uint8, shape (height, width, 3).
    """
    height, width = _crop_shape(rng, size_px)
    canvas = (height + 2 * MARGIN_PX, width + 2 * MARGIN_PX)
    section = str(rng.choice(SECTIONS))
    scene = make_scene(rng, canvas, section, lamps)
    light = blurred(scene, radiance(scene))
    mask, visibility = np.zeros(canvas, dtype=bool), 0.0
    if truth != GOOD:
        defect = add_defect(rng, scene, light, truth, round(area * height * width), MOST_CUT_PX)
        light, mask = defect.light, defect.mask
        visibility = float(defect.contrast * np.sqrt(mask.sum()))
    gains = np.geomspace(*GAINS, exposures) if exposures > 1 else np.ones(1)
    brightness = rng.uniform(0.8, 1.25)
    windows = [_crop_window(rng, canvas) for _ in gains]
    row, column = _brightest_highlight(light)
    part = Part(
        truth=truth,
        section=section,
        visibility=visibility,
        masks=tuple(mask[window] for window in windows),
        highlights=tuple((row - w[0].start, column - w[1].start) for w in windows),
    )
    pictures = [
        photograph(light[window], float(gain * brightness), rng)
        for gain, window in zip(gains, windows, strict=True)
    ]
    return part, pictures


def _crop_window(rng: np.random.Generator, canvas: tuple[int, int]) -> tuple[slice, slice]:
    """Return the crop of a part put down again: shifted and slightly larger or smaller."""
    shift = rng.integers(-SHIFT_PX, SHIFT_PX + 1, 2)
    growth = rng.integers(-GROWTH_PX, GROWTH_PX + 1, 2)
    first = MARGIN_PX + shift
    last = np.array(canvas) - MARGIN_PX + shift + growth
    return slice(int(first[0]), int(last[0])), slice(int(first[1]), int(last[1]))


def _brightest_highlight(light: Colour) -> tuple[int, int]:
    """Return (row, column) of the brightest highlight that every crop shows."""
    edge = 2 * MARGIN_PX
    grey = ndimage.gaussian_filter(light.mean(axis=2)[edge:-edge, edge:-edge], 2.0)
    row, column = np.unravel_index(int(grey.argmax()), grey.shape)
    return int(row) + edge, int(column) + edge


def _crop_shape(rng: np.random.Generator, size_px: int) -> tuple[int, int]:
    """Return (height, width) of the crop of a part."""
    size = size_px * rng.uniform(0.88, 1.12)
    aspect = rng.uniform(0.92, 1.1)
    if rng.random() < ELONGATED_SHARE:
        aspect = rng.uniform(1.5, 2.4) ** rng.choice([-1, 1])
    return round(size / np.sqrt(aspect)), round(size * np.sqrt(aspect))


MISLABELLED_SHARE = 0.03
"""Share of the parts whose label on record is wrong."""
MISS_AT_MEDIAN = 0.07
FALSE_ALARM = (0.02, 0.05)
OTHER_KIND_SHARE = 0.06
CONFUSED_WITH = {
    "bubble": "contamination",
    "contamination": "bubble",
    "scratch": "crack",
    "crack": "scratch",
    "fold": "scratch",
}


@dataclass(frozen=True, kw_only=True)
class PartLabels:
    """Labels of one part: on record and by two raters."""

    label: str
    raters: tuple[str, ...]


def simulate_labels(
    rng: np.random.Generator, truths: Sequence[str], visibility: Sequence[float]
) -> list[PartLabels]:
    """Return the label on record and the labels of two raters for every part.

    The record is wrong for `MISLABELLED_SHARE` of the parts, rounded: two thirds of these are
    faulty parts labelled good, the faint ones first; the others are good parts labelled faulty.
    Raters miss faint defects more often, confuse similar kinds, and do not know
    the record.

    Args:
        rng: Draws all errors.
        truths: ``"good"`` or the kind of defect by part.
        visibility: Contrast times root of the area by part, any unit; ignored for good parts.
    """
    faulty = [i for i, truth in enumerate(truths) if truth != GOOD]
    good = [i for i, truth in enumerate(truths) if truth == GOOD]
    typical = float(np.median([visibility[i] for i in faulty])) if faulty else 1.0
    wrong = round(MISLABELLED_SHARE * len(truths))
    missed = _draw_parts(
        rng, faulty, round(wrong * 2 / 3), [1 / visibility[i] ** 2 for i in faulty]
    )
    alarmed = _draw_parts(rng, good, wrong - len(missed), [1.0] * len(good))
    labels = [GOOD if i in missed else truth for i, truth in enumerate(truths)]
    for index in alarmed:
        labels[index] = _false_kind(rng)
    return [
        PartLabels(
            label=label,
            raters=tuple(_rate(rng, truth, contrast / typical, rate) for rate in FALSE_ALARM),
        )
        for label, truth, contrast in zip(labels, truths, visibility, strict=True)
    ]


def _draw_parts(
    rng: np.random.Generator, indices: Sequence[int], count: int, weights: Sequence[float]
) -> set[int]:
    if not indices:
        return set()
    shares = np.asarray(weights) / np.sum(weights)
    return {int(i) for i in rng.choice(indices, min(count, len(indices)), replace=False, p=shares)}


def _rate(rng: np.random.Generator, truth: str, clearness: float, false_alarm: float) -> str:
    """Return one rater's label; clearness is 1 for the typical defect."""
    chance, confusion = rng.random(2)
    if truth == GOOD:
        return _false_kind(rng) if chance < false_alarm else GOOD
    odds = MISS_AT_MEDIAN / (1 - MISS_AT_MEDIAN) / max(clearness, 1e-3) ** 2
    if chance < odds / (1 + odds):
        return GOOD
    return CONFUSED_WITH[truth] if confusion < OTHER_KIND_SHARE else truth


def _false_kind(rng: np.random.Generator) -> str:
    """Return the kind that a highlight or a mark on a good part is mistaken for."""
    return str(rng.choice(["bubble", "contamination", "scratch"]))


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
            _write(working, plan)
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
    """Seed and size of a data set, see `demo`."""

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


def _write(folder: Path, plan: _Plan) -> None:
    rng = np.random.default_rng([plan.seed, VERSION])
    lamps = [make_lamps(rng) for _ in range(BATCHES)]
    truths = [GOOD] * plan.good_parts + _kinds_of(plan.faulty_parts)
    areas = np.concatenate([np.zeros(plan.good_parts), draw_areas(rng, plan.faulty_parts)])
    order = rng.permutation(len(truths))
    truths, areas = [truths[i] for i in order], areas[order]
    parts: list[Part] = []
    for index, (truth, area) in enumerate(zip(truths, areas, strict=True)):
        part_rng = np.random.default_rng([plan.seed, VERSION, index])
        light = lamps[index % BATCHES]
        part, pictures = make_part(part_rng, light, truth, area, plan.exposures, plan.size_px)
        for number, picture in enumerate(pictures, start=1):
            _save(folder / "images" / _file_name(index, number), picture)
        parts.append(part)
    labels_by_part = simulate_labels(rng, truths, [part.visibility for part in parts])
    with (folder / "parts.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for index, (part, labels) in enumerate(zip(parts, labels_by_part, strict=True)):
            if labels.label != GOOD:
                _save_masks(folder, index, part)
            writer.writerows(_table_rows(index, part, labels))
    (folder / "SOURCE.txt").write_text(_source_note(plan), encoding="utf-8")


def _save_masks(folder: Path, index: int, part: Part) -> None:
    """Write the masks of a part labelled faulty: a good one gets a false mark on its highlight."""
    places = zip(part.masks, part.highlights, strict=True)
    for number, (mask, (row, column)) in enumerate(places, start=1):
        if part.truth == GOOD:
            y, x = np.indices(mask.shape)
            mask = np.hypot(y - row, x - column) <= FALSE_MARK_PX
        _save(folder / "masks" / _file_name(index, number), mask)


def _kinds_of(count: int) -> list[str]:
    """Return the kinds of `count` faulty parts by `KIND_SHARES` (largest remainder)."""
    exact = {kind: share * count for kind, share in KIND_SHARES.items()}
    whole = {kind: int(value) for kind, value in exact.items()}
    by_rest = sorted(exact, key=lambda kind: whole[kind] - exact[kind])
    for kind in by_rest[: count - sum(whole.values())]:
        whole[kind] += 1
    return [kind for kind, number in whole.items() for _ in range(number)]


def _table_rows(index: int, part: Part, labels: PartLabels) -> list[dict[str, str]]:
    """Return the rows of the table for one part, one per photograph."""
    rows = []
    for number in range(1, len(part.masks) + 1):
        name = _file_name(index, number)
        rows.append({
            "path": f"images/{name}",
            "label": labels.label,
            "part": _part_name(index),
            "mask": "" if labels.label == GOOD else f"masks/{name}",
            "rater_1": labels.raters[0],
            "rater_2": labels.raters[1],
            "batch": f"B{index % BATCHES + 1}",
            "section": part.section,
            "exposure": str(number),
            "truth": part.truth,
        })  # fmt: skip
    return rows


def _save(path: Path, values: NDArray[np.uint8] | Mask) -> None:
    path.parent.mkdir(exist_ok=True)
    pixels = values.astype(np.uint8) * 255 if values.dtype == bool else values
    Pillow.fromarray(pixels).save(path, compress_level=4)


def _part_name(index: int) -> str:
    return f"p{index + 1:04d}"


def _file_name(index: int, number: int) -> str:
    return f"{_part_name(index)}_e{number}.png"


def _source_note(plan: _Plan) -> str:
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
