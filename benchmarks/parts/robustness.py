"""Robustness on the tiles: exposure shift, and the graded suite on cross-validated models."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

import numpy as np

from benchmarks.checkpoints import checkpoint_folder
from benchmarks.parts import tiles as tile
from benchmarks.results import Say, plain
from lineside.core.run.files import write_json
from lineside.core.run.folder import rng_of
from lineside.core.statistics.ranking import auroc
from lineside.parts.methods import METHODS
from lineside.parts.models.detector import Image
from lineside.parts.simulation.degradations import SEVERITIES, SUITE, degrade

STORE = checkpoint_folder("parts/robustness", __file__)
COMPARED = ("detector", "memory", "texture")
EARLY = ("1", "2", "3")
IMAGES = 60


def robustness(say: Say) -> None:
    """Train on exposures 1-3, test on 4-6 of other parts; then all grades of the suite."""
    for method in COMPARED:
        shift = _stored(f"shift-{method}", lambda m=method: _exposure_shift(m))
        for name, value in shift.items():
            say(f"robust_{method}_{name}", plain(value, "fraction", tile.FOLDS))
    for method in COMPARED:
        graded = _stored(f"graded-{method}", lambda m=method: _graded(m))
        for name, value in graded.items():
            say(f"robust_{method}_{name}", plain(value, "fraction", IMAGES))


def _stored(name: str, make: object) -> dict[str, float]:
    path = STORE / f"{name}.json"
    if not path.exists():
        write_json(path, make())  # type: ignore[operator]
        print(f"  {name}", file=sys.stderr, flush=True)
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _fitted(method: str, fold: int, exposures: tuple[str, ...] | None) -> tuple[object, list[int]]:
    train_index, test_index = tile.folds(0)[fold]
    items, pictures = tile.items(), tile.examples()
    shown = [
        pictures[i]
        for i in train_index
        if not exposures or items[i].slices["exposure"] in exposures
    ]
    rng = rng_of(0, f"robust {method} {fold}")
    detector = METHODS[method].fit(shown, [], rng=rng, log=lambda row: None)
    return detector, list(test_index)


def _exposure_shift(method: str) -> dict[str, float]:
    """Return AUROC on later exposures: trained on early ones, and trained on all."""
    shifted, same = [], []
    items, pictures = tile.items(), tile.examples()
    for fold in range(tile.FOLDS):
        for exposures, results in ((EARLY, shifted), (None, same)):
            detector, test = _fitted(method, fold, exposures)
            late = [i for i in test if items[i].slices["exposure"] not in (*EARLY, "0")]
            scores = [detector.predict(pictures[i].image()).score for i in late]  # type: ignore[attr-defined]
            results.append(auroc(scores, [float(pictures[i].faulty) for i in late]))
    return {
        "exposure_shift_auroc": float(np.mean(shifted)),
        "exposure_same_auroc": float(np.mean(same)),
    }


def _graded(method: str) -> dict[str, float]:
    """Return AUROC by degradation and grade, on the same images of fold 0 throughout."""
    detector, test = _fitted(method, 0, None)
    pictures = tile.examples()
    rng = rng_of(0, "robust images")
    chosen = []
    for faulty in (False, True):
        pool = [i for i in test if pictures[i].faulty == faulty]
        chosen += [
            pool[i] for i in rng.choice(len(pool), min(len(pool), IMAGES // 2), replace=False)
        ]
    labels = [float(pictures[i].faulty) for i in chosen]

    def score(images: Iterable[Image]) -> float:
        return auroc([detector.predict(image).score for image in images], labels)  # type: ignore[attr-defined]

    found = {"clean_auroc": score(pictures[i].image() for i in chosen)}
    for degradation in SUITE:
        for grade in SEVERITIES:
            worse = (degrade(pictures[i], degradation, grade) for i in chosen)
            found[f"{degradation.name}_{grade}_auroc"] = score(worse)
    return found
