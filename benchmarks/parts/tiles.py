"""Magnetic tiles (Huang et al., development data): folds by part, outcomes kept per fold.

Protocol: the images in the order of ``groups_derived.csv``; five folds stratified by kind and
grouped by part; three different splits (seeds 0, 1, 2); a number is the mean over the folds of a
split, averaged over the splits (`cross_validation`).
"""

from __future__ import annotations

import csv
import json
import time
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from benchmarks.checkpoints import checkpoint_folder
from benchmarks.parts.cross_validation import Fold
from benchmarks.parts.pixel_counts import aupro
from benchmarks.parts.remembered_features import CACHED_METHODS, remember_backbone
from lineside.core.errors import UserError
from lineside.core.run.files import write_json
from lineside.core.run.folder import rng_of
from lineside.parts.data.images import training_image
from lineside.parts.data.items import GOOD, PartImage
from lineside.parts.methods import METHODS
from lineside.parts.models.detector import KNOWN_TERM, NORMAL_TERM, TrainingImage

TILES = Path(__file__).resolve().parents[3] / "shared" / "data" / "parts" / "magnetic_tile"
STORE = checkpoint_folder("parts/tiles", __file__)
SEEDS = (0, 1, 2)
FOLDS = 5
KINDS = ("blowhole", "break", "crack", "fray", "uneven")


@cache
def items() -> tuple[PartImage, ...]:
    """Return the tiles as items.

    Raises:
        UserError: if the development data are absent.
    """
    table = TILES / "groups_derived.csv"
    if not table.exists():
        raise UserError(f"{TILES} is absent", "this benchmark needs the magnetic-tile images")
    found = []
    with table.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            kind = row["class"].removeprefix("MT_").lower()
            path = TILES / row["file"]
            found.append(
                PartImage(
                    id=row["file"],
                    path=path,
                    label=GOOD if kind == "free" else kind,
                    part=row["part"],
                    mask=None if kind == "free" else path.with_suffix(".png"),
                    slices={"exposure": row["exposure"], "piece": row["piece"]},
                )
            )
    return tuple(found)


@cache
def examples() -> tuple[TrainingImage, ...]:
    """Return the tiles as examples that decode on demand."""
    return tuple(training_image(item) for item in items())


@cache
def folds(seed: int) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...]:
    """Return (train, test) indices of the five folds of a split."""
    kinds = [item.label for item in items()]
    groups = [item.part for item in items()]
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    return tuple(splitter.split(np.zeros(len(kinds)), kinds, groups))


def fold_outcome(
    method: str, seed: int, fold: int, *, regime: str, without: str = "", maps: bool = False
) -> Fold:
    """Fit a method on one fold and read its test images, or take the stored result.

    Args:
        method: Name in `lineside.parts.methods.METHODS`.
        seed: Split.
        fold: Fold of the split.
        regime: ``"good"`` (only good images are shown) or ``"labelled"``.
        without: A kind of defect that is left out of training (and is the only one tested).
        maps: Also compute AUPRO@30, which needs all maps.
    """
    name = f"{method}-{regime}{'-without-' + without if without else ''}-{seed}-{fold}"
    path = STORE / "tile" / f"{name}.json"
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        return Fold(
            scores=np.array(stored["scores"]), labels=np.array(stored["labels"]),
            parts=tuple(stored["parts"]), kinds=tuple(stored["kinds"]),
            good_only=np.array(stored["good_only"], float),
            aupro30=float("nan") if stored["aupro30"] is None else stored["aupro30"],
            fit_seconds=stored["fit_seconds"] or float("nan"), read_ms=tuple(stored["read_ms"]),
        )  # fmt: skip
    found = _compute(method, seed, fold, regime, without, maps)
    write_json(path, {
        "scores": found.scores.tolist(), "labels": found.labels.tolist(),
        "parts": list(found.parts), "kinds": list(found.kinds),
        "good_only": found.good_only.tolist(), "aupro30": found.aupro30,
        "fit_seconds": found.fit_seconds, "read_ms": list(found.read_ms),
    })  # fmt: skip
    return found


def _compute(method: str, seed: int, fold: int, regime: str, without: str, maps: bool) -> Fold:
    timed = method not in CACHED_METHODS
    if not timed:
        remember_backbone()
    train_index, test_index = folds(seed)[fold]
    pictures = examples()
    train = [pictures[i] for i in train_index if _shown(pictures[i], regime, without)]
    test = [pictures[i] for i in test_index if not without or pictures[i].label in (GOOD, without)]
    rng = rng_of(seed, f"{method} {fold}")
    start = time.perf_counter()
    detector = METHODS[method].fit(train, [], rng=rng, log=lambda row: None)
    fit_seconds = time.perf_counter() - start
    scores, good_only, milliseconds, anomaly_maps = [], [], [], []
    for example in test:
        start = time.perf_counter()
        prediction = detector.predict(example.image())
        milliseconds.append(1000 * (time.perf_counter() - start))
        scores.append(prediction.score)
        if KNOWN_TERM in prediction.contributions:
            good_only.append(prediction.contributions[NORMAL_TERM])
        if maps:
            anomaly_maps.append(prediction.map)
    overlap = aupro(anomaly_maps, [_mask(example) for example in test]) if maps else float("nan")
    return Fold(
        scores=np.array(scores, float), labels=np.array([int(e.faulty) for e in test]),
        parts=tuple(e.part for e in test), kinds=tuple(e.label for e in test),
        good_only=np.array(good_only, float), aupro30=overlap,
        fit_seconds=fit_seconds if timed else float("nan"),
        read_ms=tuple(milliseconds) if timed else (),
    )  # fmt: skip


def _shown(example: TrainingImage, regime: str, without: str) -> bool:
    if not example.faulty:
        return True
    return regime == "labelled" and example.label != without


def _mask(example: TrainingImage) -> NDArray[np.bool_]:
    mask = example.mask() if example.faulty else None
    return np.zeros(example.image().shape[:2], bool) if mask is None else mask
