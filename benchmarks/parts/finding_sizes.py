"""How far the printed size of a finding is from the area of the mask: tiles and catheters.

The threshold of the contours is set as in a training: on parts that the detector was not fitted
on, and that are not measured (tiles: the other half of the parts of the test fold).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from benchmarks.checkpoints import checkpoint_folder
from benchmarks.parts import sets
from benchmarks.parts import tiles as tile
from benchmarks.parts.remembered_features import remember_backbone
from benchmarks.results import Say, plain
from lineside.core.contract import Outcome
from lineside.core.run.files import write_json
from lineside.core.run.folder import rng_of
from lineside.core.statistics.operating_points import operating_point
from lineside.core.statistics.units import unit_scores
from lineside.parts.config import Config
from lineside.parts.data.grouping import split
from lineside.parts.data.images import training_image
from lineside.parts.explain.findings import findings
from lineside.parts.explain.overlays import fine_map
from lineside.parts.methods import METHODS
from lineside.parts.metrics import EIGHT_NEIGHBOURS
from lineside.parts.models.detector import Prediction, TrainingImage
from lineside.parts.outcomes import map_scale

STORE = checkpoint_folder("parts/finding_sizes", __file__)
FOLDS = ((0, 0), (0, 1))
"""Split and fold of the tiles."""
RECALL = 0.95

Sizes = list[list[Any]]
"""Per finding on a mask: kind, pixels of the mask, printed pixels (None: not printed), region."""


def finding_sizes(say: Say) -> None:
    """Publish the ratio of printed sizes to masks, and how many findings have a size."""
    tiles = [size for seed, fold in FOLDS for size in tile_sizes(seed, fold)]
    demo = demo_sizes()
    for name, sizes in (("", [*tiles, *demo]), ("_tile", tiles), ("_demo", demo)):
        ratios = [printed / mask for _, mask, printed, _ in sizes if printed]
        say(f"finding_area_ratio{name}", plain(float(np.median(ratios)), "ratio", len(ratios)))
        within = float(np.mean([0.5 <= ratio <= 2 for ratio in ratios]))
        say(f"finding_area_within_2{name}", plain(within, "fraction", len(ratios)))
        share = len(ratios) / len(sizes)
        say(f"finding_size_printed{name}", plain(share, "fraction", len(sizes)))
        region = float(np.median([region / mask for _, mask, _, region in sizes]))
        say(f"finding_region_ratio{name}", plain(region, "ratio", len(sizes), "lower"))


def tile_sizes(seed: int, fold: int) -> Sizes:
    """Return the sizes of findings in the test images of one fold, each half by the other one."""
    path = STORE / f"tile-{seed}-{fold}.json"
    if not path.exists():
        remember_backbone()
        pictures = tile.examples()
        train, test = ([pictures[i] for i in index] for index in tile.folds(seed)[fold])
        fit = METHODS["detector"].fit
        detector = fit(train, [], rng=rng_of(seed, f"detector {fold}"), log=lambda row: None)
        predictions = [detector.predict(example.image()) for example in test]
        order = sorted({(example.label, example.part) for example in test})
        half = {part: place % 2 for place, (_, part) in enumerate(order)}
        sizes: Sizes = []
        for side in (0, 1):
            mine = [i for i, example in enumerate(test) if half[example.part] == side]
            other = [i for i, example in enumerate(test) if half[example.part] != side]
            threshold = contour([test[i] for i in other], [predictions[i] for i in other])
            sizes += measured([test[i] for i in mine], [predictions[i] for i in mine], threshold)
        write_json(path, sizes)
    stored: Sizes = json.loads(path.read_text(encoding="utf-8"))
    return stored


def demo_sizes() -> Sizes:
    """Return the sizes of findings in the test images of the self-made catheters."""
    path = STORE / "demo.json"
    if not path.exists():
        parted = split(sets.demo_items(), Config())
        roles = (parted.train, parted.validation, parted.calibration, parted.test)
        train, validation, calibration, test = ([training_image(i) for i in r] for r in roles)
        fit = METHODS["detector"].fit
        detector = fit(train, validation, rng=rng_of(0, "detector"), log=lambda row: None)
        threshold = contour(calibration, [detector.predict(e.image()) for e in calibration])
        write_json(path, measured(test, [detector.predict(e.image()) for e in test], threshold))
    stored: Sizes = json.loads(path.read_text(encoding="utf-8"))
    return stored


def contour(examples: Sequence[TrainingImage], predictions: Sequence[Prediction]) -> float:
    """Return the threshold of the contours, from parts that it was not fitted on."""
    outcomes = [
        Outcome(
            item=example.id, groups=(example.part,), unit=example.part,
            value={
                "score": prediction.score, "label": float(example.faulty),
                "peak": float(prediction.map.max()), "middle": float(np.median(prediction.map)),
            },
        )
        for example, prediction in zip(examples, predictions, strict=True)
    ]  # fmt: skip
    point = operating_point(unit_scores(outcomes), recall=RECALL)
    good = [outcome for outcome in outcomes if not outcome.value["label"]]
    return map_scale(good, outcomes, point.threshold).threshold


def measured(
    examples: Sequence[TrainingImage], predictions: Sequence[Prediction], threshold: float
) -> Sizes:
    """Return the sizes of the findings whose region touches a mask."""
    sizes: Sizes = []
    for example, prediction in zip(examples, predictions, strict=True):
        mask = example.mask() if example.faulty else None
        if mask is None or not mask.any():
            continue
        image = example.image()
        evidence = fine_map(prediction.map, (mask.shape[0], mask.shape[1]), threshold)
        regions, _ = ndimage.label(evidence >= threshold, structure=EIGHT_NEIGHBOURS)
        faults, _ = ndimage.label(mask, structure=EIGHT_NEIGHBOURS)
        for found in findings(prediction.map, image, threshold):
            left, top, right, bottom = found.box
            window = regions[top:bottom, left:right]
            numbers, counts = np.unique(window[window > 0], return_counts=True)
            region = regions == numbers[counts == found.region_px][0]
            touched = np.unique(faults[region & mask])
            if len(touched):
                area = int(np.isin(faults, touched).sum())
                sizes.append([example.label, area, found.area_px, found.region_px])
    return sizes
