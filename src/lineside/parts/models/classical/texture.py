"""LBP and HOG on overlapping patches with a linear model: the classical control of patch networks.

With labelled defects: a class-balanced logistic regression per patch on LBP, HOG and multi-scale
filters, added to the excess over good pictures, since a linear model alone misses kinds of defect
it was not shown. Without: the excess of LBP and HOG over good pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.linear_model import LogisticRegression

from lineside.core.errors import UserError
from lineside.parts.models.classical.descriptors import Array, cell_mean, grey_of, texture_features
from lineside.parts.models.classical.filters import CELL_PX, NAMES, filter_features
from lineside.parts.models.classical.gaussian import scale_examples
from lineside.parts.models.classical.position_statistics import (
    Normal,
    NormalFit,
    Standard,
    fit_standard,
    places_of,
    top_mean,
)
from lineside.parts.models.detector import Image, Mask, Prediction, TrainingImage, good_of

TOP_CELLS = 5
FILTERS = len(NAMES)
POSITIVE_CELLS = 60
"""Patches taken from a defect at most."""
GOOD_CELLS = 100
OTHER_CELLS = 40
"""Patches far from the defect in the same picture."""
COVERED = 0.3
"""Share of a cell under the mask that makes it a defect."""
CANDIDATES = 40
PICKS = 5
ROUNDS = 3
SCALE_IMAGES = 100


@dataclass(frozen=True, kw_only=True)
class TexturePatches:
    """A fitted detector.

    Attributes:
        normal: Mean and deviation of every feature by place.
        weights: Of the positive and the negative part of each feature; None without labels.
        novelty: Scale of the excess over good pictures.
        linear: Scale of the linear model; None without labels.
    """

    normal: Normal
    weights: Array | None
    novelty: Standard
    linear: Standard | None

    def predict(self, image: Image) -> Prediction:
        """Score one picture in robust deviations; the parts are the two summands."""
        excess, evidence = _maps(self.normal, self.weights, image)
        height, width = image.shape[:2]
        total, parts = np.zeros_like(excess), {}
        for name, values, standard in (
            ("novelty", excess, self.novelty),
            ("linear", evidence, self.linear),
        ):
            if values is None or standard is None:
                continue
            parts[name] = standard.score(top_mean(values, TOP_CELLS), height, width)
            total += (values - standard.expected(height, width)) / standard.scale
        return Prediction(
            score=float(sum(parts.values())), map=total.astype(np.float32), contributions=parts
        )

    def spec(self) -> dict[str, Any]:
        """Return plain JSON values."""
        linear = None if self.linear is None else self.linear.spec()
        return {"novelty": self.novelty.spec(), "linear": linear}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the arrays."""
        arrays = self.normal.tensors()
        if self.weights is not None:
            arrays["weights"] = torch.from_numpy(self.weights)
        return arrays


def load_texture_patches(spec: dict[str, Any], tensors: dict[str, torch.Tensor]) -> TexturePatches:
    """Return the detector that `spec` and `tensors` were made of."""
    return TexturePatches(
        normal=Normal.of(tensors),
        weights=tensors["weights"].numpy() if "weights" in tensors else None,
        novelty=Standard.of(spec["novelty"]),
        linear=None if spec["linear"] is None else Standard.of(spec["linear"]),
    )


def fit_texture_patches(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    *,
    rng: np.random.Generator,
    log: Callable[[dict[str, Any]], None],
    penalty: float = 0.003,
) -> TexturePatches:
    """Fit on good and, where there are any, defect pictures; a mask is used if it is known.

    With an image label only, the patches that stand out most from good pictures are the first
    guess, and the linear model picks again three times (multiple instances).

    Args:
        train: Pictures to learn from.
        validation: Its good pictures set the scale of the scores if there are at least 20.
        rng: Draws the patches.
        log: Receives progress.
        penalty: scikit-learn's inverse strength `C` of the ridge penalty.

    Raises:
        UserError: If `train` has no good picture.
    """
    if not good_of(train):
        raise UserError("there is no good picture to learn from", "label some pictures as good")
    normal, samples = _gather(train, rng)
    weights = None
    if any(example.faulty for example in train):
        bags = [
            _candidates(normal, example.image())
            for example in train
            if example.faulty and not _marked(example)
        ]
        weights = _weights(normal, samples, bags, penalty)
        log({"event": "linear model", "patches": len(samples.label), "unmarked": len(bags)})
    novelty, linear = _standards(normal, weights, scale_examples(train, validation), rng)
    return TexturePatches(normal=normal, weights=weights, novelty=novelty, linear=linear)


def _features(image: Image) -> Array:
    grey = grey_of(image)
    return np.concatenate([filter_features(grey), texture_features(grey, CELL_PX)], axis=-1)


def _maps(normal: Normal, weights: Array | None, image: Image) -> tuple[Array, Array | None]:
    """Return the excess over good pictures and the linear evidence of every cell."""
    z = normal.z(_features(image))
    if weights is None:
        return z[..., FILTERS:].max(axis=-1), None
    return z[..., :FILTERS].max(axis=-1), _halves(z) @ weights


def _halves(z: Array) -> Array:
    """Positive and negative parts apart: too much and too little are different evidence."""
    return np.concatenate([np.maximum(z, 0), np.minimum(z, 0)], axis=-1)


def _marked(example: TrainingImage) -> bool:
    mask = example.mask()
    return mask is not None and bool(mask.any())


@dataclass(frozen=True, kw_only=True)
class _Samples:
    """Patches drawn from training pictures: raw features, place, label and weight."""

    features: Array
    place: NDArray[np.int64]
    label: NDArray[np.bool_]
    weight: NDArray[np.float64]


def _gather(train: Sequence[TrainingImage], rng: np.random.Generator) -> tuple[Normal, _Samples]:
    """Read every picture once: statistics of the good ones and patches of all marked ones."""
    labelled = any(example.faulty for example in train)
    fit = NormalFit()
    rows: list[tuple[Array, NDArray[np.int64], NDArray[np.bool_], NDArray[np.float64]]] = []
    for example in train:
        if example.faulty and not _marked(example):
            continue
        features = _features(example.image())
        if not example.faulty:
            fit.add(features)
        if labelled:
            defect, clean = _drawn(features.shape[:2], example.mask(), example.faulty, rng)
            index = np.concatenate([defect, clean])
            label = np.arange(len(index)) < len(defect)
            # A large defect must not drown the small ones.
            weight = np.where(label, 1 / np.sqrt(max(len(defect), 1)), 1.0)
            flat = features.reshape(-1, features.shape[2])
            rows.append((flat[index], places_of(features.shape[:2]).ravel()[index], label, weight))
    if not rows:
        nothing = np.zeros(0, np.int64), np.zeros(0, np.bool_), np.zeros(0, np.float64)
        rows = [(np.zeros((0, 0), np.float32), *nothing)]
    columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
    names = ("features", "place", "label", "weight")
    return fit.done(), _Samples(**dict(zip(names, columns, strict=True)))


def _drawn(
    grid: tuple[int, ...], mask: Mask | None, faulty: bool, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw flat numbers of defect cells and of clean cells of one picture."""
    if not faulty or mask is None:
        none = np.zeros(0, dtype=np.int64)
        return none, rng.permutation(grid[0] * grid[1])[:GOOD_CELLS]
    cover = cell_mean(mask.astype(np.float32), (grid[0], grid[1]))
    defect = cover >= min(COVERED, float(cover.max()))
    # The inside of a large area often looks like any other surface: its rim is the evidence.
    rim = defect & ~ndimage.binary_erosion(defect, iterations=2)
    far = ndimage.maximum_filter(cover, 5) == 0
    chosen = [
        rng.permutation(np.flatnonzero(cells))[:most]
        for cells, most in ((rim, POSITIVE_CELLS), (far, OTHER_CELLS))
    ]
    return chosen[0], chosen[1]


def _candidates(normal: Normal, image: Image) -> Array:
    """Return the standardised features of the cells that stand out most, strongest first."""
    z = normal.z(_features(image)).reshape(-1, normal.mean.shape[1])
    return z[np.argsort(-z[:, :FILTERS].max(axis=1))[:CANDIDATES]]


def _weights(normal: Normal, samples: _Samples, bags: list[Array], penalty: float) -> Array:
    """Fit the logistic regression; patches of unmarked defect pictures are picked again by it."""
    z = (samples.features - normal.mean[samples.place]) / normal.deviation[samples.place]
    inputs, weights = _halves(z), np.zeros(0, dtype=np.float32)
    for _ in range(ROUNDS if bags else 1):
        picked = [_picked(bag, weights) for bag in bags]
        rows = np.concatenate([inputs, *picked])
        label = np.concatenate([samples.label, *(np.ones(len(p), bool) for p in picked)])
        share = [np.full(len(p), 1 / np.sqrt(len(p))) for p in picked]
        weight = np.concatenate([samples.weight, *share])
        weight[label] *= weight[~label].sum() / weight[label].sum()
        model = LogisticRegression(C=penalty, max_iter=100, tol=1e-3)
        model.fit(rows, label, sample_weight=weight)
        weights = model.coef_[0].astype(np.float32)
    return weights


def _picked(bag: Array, weights: Array) -> Array:
    """Return the strongest cells of a bag: by the model, in the first round by novelty."""
    halves = _halves(bag)
    return halves[:PICKS] if not weights.size else halves[np.argsort(-(halves @ weights))[:PICKS]]


def _standards(
    normal: Normal,
    weights: Array | None,
    good: Sequence[TrainingImage],
    rng: np.random.Generator,
) -> tuple[Standard, Standard | None]:
    """Score good pictures and return the scales of novelty and linear evidence."""
    raw: list[list[float]] = []
    sizes: list[tuple[int, int]] = []
    for index in np.sort(rng.permutation(len(good))[:SCALE_IMAGES]):
        image = good[int(index)].image()
        maps = _maps(normal, weights, image)
        raw.append([top_mean(values, TOP_CELLS) for values in maps if values is not None])
        sizes.append((image.shape[0], image.shape[1]))
    columns = [fit_standard(column, sizes) for column in np.transpose(raw)]
    return columns[0], columns[1] if len(columns) > 1 else None
