"""What good parts look like, learned from good images alone.

Four views of an image are compared with those of good images, and their evidence is averaged:

* ``near`` and ``far``: the last wide block of the frozen trunk on the picture squashed to 256 and
  192 px, one Gaussian per place (`gaussian`; Defard et al. 2021). Two scales see more than one.
* ``whole``: mean and spread of the next block over the picture, one Gaussian.
* ``lines``: the strongest lines, spots and edges at full resolution per region (`contrast`),
  relative to the rest of the same picture: thin cracks that the squashed views lose.

Every view's score is freed of what picture size alone explains (more pixels have larger maxima)
and brought to the scale of good images that it was not fitted on: inner folds by part. So the
score has mean 0 and standard deviation 1 over good parts that were not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lineside.core.errors import UserError
from lineside.core.run.cache import FeatureCache
from lineside.core.training.checkpoint import under
from lineside.parts.models.detector import Image, Prediction, TrainingImage, good_of
from lineside.parts.models.feature_head.description import (
    Description,
    describe,
    description_of,
    extractor,
    stacked,
)
from lineside.parts.models.feature_head.deviations import (
    Deviations,
    Evidence,
    Normal,
    accepted,
    evidence_of,
    fit_normals,
    load_normal,
    none_like,
)
from lineside.parts.models.size_regression import SizeScale, fit_size_scale, load_size_scale

__all__ = ["Description", "Goodness", "describe", "fit_good_only", "fit_goodness", "load_goodness"]

VIEWS = ("near", "far", "whole", "lines")
MAP_CELLS = 32
"""Rows and columns of the map, whatever the picture's size."""
MAP_WEIGHTS = {"near": 0.25, "far": 0.25, "lines": 0.5}
"""In the map the trunk's two scales count as one view; the whole has no place."""
INNER_FOLDS = 5
MOST_IMAGES = 4000
MOST_TAUGHT = 64
"""The newest so many accepted images are remembered."""

Log = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Goodness:
    """The fitted model of good images; immutable.

    Attributes:
        normal: Models of the four views.
        sizes: Scale of the log distances of near, far and whole.
        peaks: Scale of the largest deviation of each line response.
        constants: (mean, standard deviation) over held-out good images of: the mean squared peak
            (``lines``), the mean of the views (``score``), the local evidence of three views
            (``near map``, ``far map``, ``lines map``) and the hottest cell of a map (``map``).
        held_out: Sorted scores of the good training images by models that never saw their part.
        taught: Deviations of good images that were falsely rejected, or None.
    """

    normal: Normal
    sizes: SizeScale
    peaks: SizeScale
    constants: Mapping[str, tuple[float, float]]
    held_out: Tensor
    taught: Deviations | None = None

    @torch.inference_mode()
    def judge(self, description: Description) -> tuple[float, NDArray[np.float32]]:
        """Return score and map (32, 32) of an image; see `read`."""
        score, local, _ = self._judge(description)
        return score, local

    def predict(self, image: Image) -> Prediction:
        """Judge one image of any size.

        Returns:
            The score in standard deviations above unseen good images; a map on which the hottest
            cell of unseen good images has mean 0 and standard deviation 1 too; and each view's
            own standardised score as parts.
        """
        score, local, views = self._judge(describe(image))
        return Prediction(score=score, map=local, contributions=views)

    def tail(self, score: float) -> float:
        """Return the share of unseen good images that score at least this high, never zero.

        It is the conformal p-value (1 + rank) / (1 + n) of Vovk et al. 2005 over the inner folds.
        """
        at_least = len(self.held_out) - int(torch.searchsorted(self.held_out, score))
        return (1 + at_least) / (1 + len(self.held_out))

    def update(self, descriptions: Sequence[Description]) -> Goodness:
        """Return a child that accepts what these good images show where they show it.

        A place whose features are closer to those of an accepted image than to the mean of the
        good ones is judged by the distance to the accepted image; everything else is unchanged.
        """
        if not descriptions:
            return self
        new = self.normal.deviations(stacked(descriptions))
        old = self.taught or none_like(new)
        both = {
            f.name: torch.cat([getattr(old, f.name), getattr(new, f.name).half()])[-MOST_TAUGHT:]
            for f in fields(Deviations)
        }
        return replace(self, taught=Deviations(**both))

    @torch.inference_mode()
    def _judge(
        self, description: Description
    ) -> tuple[float, NDArray[np.float32], dict[str, float]]:
        stack = stacked([description])
        away = self.normal.deviations(stack)
        if self.taught is not None:
            away = accepted(away, self.taught)
        evidence = evidence_of(away)
        views = _views(evidence, stack.size.float(), self.sizes, self.peaks, self.constants)
        score = _standard(views.mean(1), self.constants["score"])
        local = _standard(_local(evidence, self.constants), self.constants["map"])
        return (
            float(score),
            local[0].numpy().astype(np.float32),
            dict(zip(VIEWS, views[0].tolist(), strict=True)),
        )

    def spec(self) -> dict[str, Any]:
        """Return everything but tensors."""
        return {
            "constants": {name: list(pair) for name, pair in self.constants.items()},
            "extractor": extractor(),
            "taught": 0 if self.taught is None else len(self.taught.near),
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays."""
        found = {"held_out": self.held_out}
        for prefix, part in (("normal", self.normal), ("sizes", self.sizes), ("peaks", self.peaks)):
            found |= {f"{prefix}.{key}": value for key, value in part.tensors().items()}
        if self.taught is not None:
            found |= {f"taught.{f.name}": getattr(self.taught, f.name) for f in fields(Deviations)}
        return found


def load_goodness(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Goodness:
    """Rebuild from `Goodness.spec` and `Goodness.tensors`.

    Raises:
        UserError: If the installed trunk or this version describes images differently.
    """
    if spec["extractor"] != extractor():
        raise UserError(
            "the model of good parts was fitted on other image features than these",
            "install the versions named in the model card, or train again",
        )
    taught = under(tensors, "taught.")
    return Goodness(
        normal=load_normal(under(tensors, "normal.")),
        sizes=load_size_scale(under(tensors, "sizes.")),
        peaks=load_size_scale(under(tensors, "peaks.")),
        constants={name: (pair[0], pair[1]) for name, pair in spec["constants"].items()},
        held_out=tensors["held_out"],
        taught=Deviations(**taught) if taught else None,
    )


@torch.inference_mode()
def fit_goodness(
    descriptions: Sequence[Description],
    parts: Sequence[str] | None = None,
    *,
    inner_folds: int = INNER_FOLDS,
) -> Goodness:
    """Fit on good images; deterministic.

    Args:
        descriptions: Of good images only.
        parts: The physical part of each, so that no inner fold judges a part by itself. Without
            it every image counts as a part of its own: several views of one part then make the
            constants, and so the weights of the views, too favourable.
        inner_folds: At most so many inner folds.

    Raises:
        UserError: With fewer than two images.
    """
    if len(descriptions) < 2:
        raise UserError(
            f"only {len(descriptions)} good image(s) to learn from", "give two or more good images"
        )
    stack = stacked(descriptions)
    fold = _folds(parts or [str(i) for i in range(len(descriptions))], inner_folds)
    normal, held = fit_normals(stack, fold)
    size = stack.size.float()
    sizes = fit_size_scale(held.scores, size)
    peaks = fit_size_scale(held.peaks, size)
    constants = {
        "near map": _mean_and_spread(held.near),
        "far map": _mean_and_spread(held.far),
        "lines map": _mean_and_spread(held.lines),
        "lines": _mean_and_spread(_raised(held, size, peaks)),
    }
    total = _views(held, size, sizes, peaks, constants).mean(1)
    constants["score"] = _mean_and_spread(total)
    constants["map"] = _mean_and_spread(_local(held, constants).amax((1, 2)))
    held_out = _standard(total, constants["score"]).sort().values
    return Goodness(normal=normal, sizes=sizes, peaks=peaks, constants=constants, held_out=held_out)


def fit_good_only(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    *,
    rng: np.random.Generator,
    log: Log,
    most_images: int = MOST_IMAGES,
) -> Goodness:
    """Fit on the good images among labelled examples; defects are ignored.

    Args:
        train: Labelled examples.
        validation: More of them, used alike: constants come from inner folds.
        rng: Chooses images if there are more than `most_images`.
        log: Receives progress.
        most_images: Bounds memory: 0.1 MB per image.
    """
    goods = good_of([*train, *validation])
    if len(goods) > most_images:
        goods = [goods[i] for i in sorted(rng.permutation(len(goods))[:most_images])]
    cache = FeatureCache()
    descriptions = []
    for number, example in enumerate(goods, 1):
        descriptions.append(_cached(example, cache))
        if number % 50 == 0 or number == len(goods):
            log({"stage": "features of good images", "done": number, "of": len(goods)})
    return fit_goodness(descriptions, [example.part for example in goods])


def _cached(example: TrainingImage, cache: FeatureCache) -> Description:
    """Return an example's description, from the disk if it is there."""
    arrays = cache.fetch(example.digest, extractor(), lambda: describe(example.image()).arrays())
    return description_of(arrays)


def _folds(parts: Sequence[str], most: int) -> Tensor:
    """Deal parts out to folds, largest first to the smallest fold; one part: by image."""
    names = list(dict.fromkeys(parts))
    if len(names) == 1:
        return torch.arange(len(parts)) % min(most, len(parts))
    sizes = dict.fromkeys(names, 0)
    for part in parts:
        sizes[part] += 1
    held = [0] * min(most, len(names))
    fold = {}
    for name in sorted(names, key=lambda n: -sizes[n]):
        fold[name] = held.index(min(held))
        held[fold[name]] += sizes[name]
    return torch.tensor([fold[part] for part in parts])


def _raised(evidence: Evidence, size: Tensor, peaks: SizeScale) -> Tensor:
    """Return the mean squared positive peak of an image, (image,): many weak or one strong."""
    return peaks.standardised(evidence.peaks, size).relu().square().mean(1)


def _views(
    evidence: Evidence,
    size: Tensor,
    sizes: SizeScale,
    peaks: SizeScale,
    constants: Mapping[str, tuple[float, float]],
) -> Tensor:
    """Return the standardised score of each view, (image, 4)."""
    lines = _standard(_raised(evidence, size, peaks), constants["lines"])
    return torch.cat([sizes.standardised(evidence.scores, size), lines[:, None]], 1)


def _local(evidence: Evidence, constants: Mapping[str, tuple[float, float]]) -> Tensor:
    """Return the weighted mean of standardised maps on the common grid, (image, 32, 32)."""
    total = torch.zeros(len(evidence.near), MAP_CELLS, MAP_CELLS)
    for name, weight in MAP_WEIGHTS.items():
        values = _standard(getattr(evidence, name), constants[f"{name} map"])[:, None]
        size = (MAP_CELLS, MAP_CELLS)
        total += weight * F.interpolate(values, size, mode="bilinear", align_corners=False)[:, 0]
    return total


def _standard(values: Tensor, constants: tuple[float, float]) -> Tensor:
    return (values - constants[0]) / constants[1]


def _mean_and_spread(values: Tensor) -> tuple[float, float]:
    return float(values.mean()), max(float(values.std(unbiased=False)), 1e-6)
