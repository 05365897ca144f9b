"""What is normal here: statistics by position in the picture, and scores by size of the picture.

Light falls off towards the border of a part and its edges carry structure of their own, so a value
is judged against good pictures at a similar place: the distance to the nearest border in cells and,
inside, the third of the picture. It needs no registration and suits pictures of any size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lineside.parts.models.classical.descriptors import Array

BANDS = 9
"""Places along an axis: cell 0, 1, 2-3 from the start; three thirds; 2-3, 1, 0 from the end."""
PLACES = BANDS * BANDS
PRIOR_CELLS = 50.0
"""Weight, in cells, of the statistics of the whole picture in those of a place."""


def bands_of(count: int) -> NDArray[np.int64]:
    """Return the band (0..8) of every cell along an axis of `count` cells."""
    index = np.arange(count)
    from_end = count - 1 - index
    near = np.minimum(index, from_end)
    rank = np.array([0, 1, 2, 2])[np.minimum(near, 3)]
    border = np.where(index <= from_end, rank, BANDS - 1 - rank)
    return np.where(near <= 3, border, 3 + index * 3 // count)


def places_of(grid: tuple[int, int]) -> NDArray[np.int64]:
    """Return the place (0..80) of every cell, shape (rows, columns)."""
    return bands_of(grid[0])[:, None] * BANDS + bands_of(grid[1])[None, :]


@dataclass(frozen=True, kw_only=True)
class Normal:
    """Mean and standard deviation of features by place, each of shape (81, feature)."""

    mean: Array
    deviation: Array

    def z(self, features: Array) -> Array:
        """Standardise features of shape (rows, columns, feature)."""
        places = places_of((features.shape[0], features.shape[1]))
        return (features - self.mean[places]) / self.deviation[places]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the arrays as tensors."""
        return {
            "normal_mean": torch.from_numpy(self.mean),
            "normal_deviation": torch.from_numpy(self.deviation),
        }

    @classmethod
    def of(cls, tensors: dict[str, torch.Tensor]) -> Normal:
        """Return the inverse of `tensors`."""
        return cls(
            mean=tensors["normal_mean"].numpy(), deviation=tensors["normal_deviation"].numpy()
        )


class NormalFit:
    """Gathers features of good pictures one by one; `done` returns the statistics."""

    def __init__(self) -> None:
        self._count = np.zeros(PLACES)
        self._sums: NDArray[np.float64] = np.zeros((0, 0, 0))

    def add(self, features: Array) -> None:
        """Add the features of one good picture, shape (rows, columns, feature)."""
        size = features.shape[2]
        if not self._sums.size:
            self._sums = np.zeros((2, PLACES, size))
        places = places_of((features.shape[0], features.shape[1])).ravel()
        flat = features.reshape(-1, size).astype(np.float64)
        member = np.zeros((PLACES, len(places)))
        member[places, np.arange(len(places))] = 1
        self._count += member.sum(axis=1)
        self._sums[0] += member @ flat
        self._sums[1] += member @ flat**2

    def done(self) -> Normal:
        """Return mean and deviation by place, drawn towards those of the whole picture."""
        total = self._sums.sum(axis=1, keepdims=True) / self._count.sum()
        weight = (self._count + PRIOR_CELLS)[:, None]
        mean, square = (self._sums + PRIOR_CELLS * total) / weight
        spread = np.sqrt(np.maximum(square - mean**2, 1e-6))
        return Normal(mean=mean.astype(np.float32), deviation=spread.astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class Standard:
    """Turns a raw image score into robust deviations from good pictures of its size.

    A larger picture has more places to look odd, so its largest value is larger. The score expected
    of a good picture is linear in log height and log width, within the sizes that were seen.

    Attributes:
        weights: Offset and slopes of log height and log width.
        low: Smallest log height and log width of a good picture seen.
        high: Largest ones.
        scale: Robust standard deviation of the rest.
    """

    weights: tuple[float, float, float]
    low: tuple[float, float]
    high: tuple[float, float]
    scale: float

    def expected(self, height: int, width: int) -> float:
        """Return the raw score of a typical good picture of this size."""
        size = np.clip(np.log([height, width]), self.low, self.high)
        return float(self.weights[0] + size @ np.array(self.weights[1:]))

    def score(self, raw: float, height: int, width: int) -> float:
        """Return the score in robust deviations."""
        return (raw - self.expected(height, width)) / self.scale

    def spec(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "weights": list(self.weights),
            "low": list(self.low),
            "high": list(self.high),
            "scale": self.scale,
        }

    @classmethod
    def of(cls, spec: dict[str, Any]) -> Standard:
        """Return the inverse of `spec`."""
        lists = {key: tuple(spec[key]) for key in ("weights", "low", "high")}
        return cls(scale=float(spec["scale"]), **lists)


def fit_standard(raw: Sequence[float], sizes: Sequence[tuple[int, int]]) -> Standard:
    """Fit the expected score of good pictures by (height, width).

    Slopes need sizes that differ by more than a few percent, and 20 pictures; otherwise they are 0.
    """
    scores, logs = np.asarray(raw, dtype=np.float64), np.log(np.asarray(sizes, dtype=np.float64))
    weights = np.array([np.median(scores), 0.0, 0.0])
    varies = logs.std(axis=0) > 0.03
    if varies.any() and len(scores) >= 20:
        columns = np.column_stack([np.ones(len(scores)), logs[:, varies]])
        solved = np.linalg.lstsq(columns, scores, rcond=None)[0]
        weights[0] = solved[0]
        weights[1:][varies] = solved[1:]
    rest = scores - weights[0] - logs @ weights[1:]
    mad = 1.4826 * np.median(np.abs(rest - np.median(rest)))
    return Standard(
        weights=(float(weights[0]), float(weights[1]), float(weights[2])),
        low=(float(logs[:, 0].min()), float(logs[:, 1].min())),
        high=(float(logs[:, 0].max()), float(logs[:, 1].max())),
        scale=float(max(mad, 0.1 * rest.std(), 1e-6)),
    )


def standard_of(
    raw_score: Callable[[NDArray[np.float32]], float],
    images: Sequence[Callable[[], NDArray[np.float32]]],
    rng: np.random.Generator,
    most: int = 200,
) -> Standard:
    """Score at most `most` of the given good pictures and fit their `Standard`."""
    chosen = np.sort(rng.permutation(len(images))[:most])
    raw, sizes = [], []
    for index in chosen:
        image = images[int(index)]()
        raw.append(raw_score(image))
        sizes.append((image.shape[0], image.shape[1]))
    return fit_standard(raw, sizes)


def top_mean(values: NDArray[np.float32], count: int) -> float:
    """Return the mean of the `count` largest values: less fickle than a bare maximum."""
    flat = values.ravel()
    count = min(count, flat.size)
    return float(np.partition(flat, -count)[-count:].mean())
