"""Golden template: registered good pictures give a mean picture and how much each place varies.

The classical method for printed boards and labels, where every part lies alike. Where pictures do
not align it says so (`aligned=False`) and still compares with the resized template.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from lineside.core.errors import UserError
from lineside.parts.models.classical.descriptors import DARK, Array, cell_max, grey_of, grid_of
from lineside.parts.models.classical.gaussian import scale_examples
from lineside.parts.models.classical.position_statistics import Standard, standard_of, top_mean
from lineside.parts.models.classical.registration import Shift, aligned_to, phase_shift, resized
from lineside.parts.models.detector import Image, Prediction, TrainingImage, good_of

SIDE_PX = 256
"""Longer side of the template at most."""
CELL_PX = 8
SMOOTH_PX = 1.0
CONTRAST_PX = 20.0
TOP_CELLS = 5
MATCHING_PEAK = 8.0
FARTHEST = 0.15
"""A shift beyond this share of a side is a mismatch, not a displacement."""


@dataclass(frozen=True, kw_only=True)
class GoldenTemplate:
    """A fitted detector.

    Attributes:
        mean: Mean picture of local contrast, shape (height, width) of the template.
        deviation: Its standard deviation at every pixel.
        aligned: True if most good pictures match the template; else the score is a rough one.
        standard: Turns the largest deviation into the score.
    """

    mean: Array
    deviation: Array
    aligned: bool
    standard: Standard

    def predict(self, image: Image) -> Prediction:
        """Score one picture in robust deviations; the map has the same unit."""
        picture = _contrast(image, self.mean.shape)
        shift = _usable(phase_shift(self.mean, picture)) if self.aligned else None
        deviations = _deviations(self.mean, self.deviation, picture, shift)
        grid = grid_of(self.mean.shape[0], self.mean.shape[1], CELL_PX)
        cells = cell_max(deviations, grid)
        height, width = image.shape[:2]
        expected = self.standard.expected(height, width)
        return Prediction(
            score=self.standard.score(top_mean(cells, TOP_CELLS), height, width),
            map=((cells - expected) / self.standard.scale).astype(np.float32),
            contributions={
                "aligned": float(self.aligned),
                "offset_px": 0.0 if shift is None else shift.length_px,
            },
        )

    def spec(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"aligned": self.aligned, "standard": self.standard.spec()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the arrays."""
        return {
            "mean": torch.from_numpy(self.mean),
            "deviation": torch.from_numpy(self.deviation),
        }


def load_golden_template(spec: dict[str, Any], tensors: dict[str, torch.Tensor]) -> GoldenTemplate:
    """Return the detector that `spec` and `tensors` were made of."""
    return GoldenTemplate(
        mean=tensors["mean"].numpy(),
        deviation=tensors["deviation"].numpy(),
        aligned=bool(spec["aligned"]),
        standard=Standard.of(spec["standard"]),
    )


def _contrast(image: Image, shape: tuple[int, ...]) -> Array:
    """Resize and return local contrast: log grey less its surroundings, slightly smoothed."""
    grey = resized(grey_of(image), shape[0], shape[1])
    logs = np.log(np.maximum(grey, 0) + np.float32(DARK))
    smooth = ndimage.gaussian_filter(logs, SMOOTH_PX, mode="reflect")
    # A wide Gaussian by three boxes: a tenth of the time.
    around = logs
    for _ in range(3):
        around = ndimage.uniform_filter(around, round(CONTRAST_PX * 1.9) | 1, mode="reflect")
    return smooth - around


def _usable(shift: Shift) -> Shift | None:
    """Return the shift, or None if the picture does not match the template."""
    return shift if shift.peak > MATCHING_PEAK else None


def _deviations(mean: Array, deviation: Array, picture: Array, shift: Shift | None) -> Array:
    """Return |picture - mean| / deviation in the frame of the picture."""
    if shift is not None:
        back = Shift(down_px=-shift.down_px, right_px=-shift.right_px, peak=shift.peak)
        mean, deviation = aligned_to(mean, back), aligned_to(deviation, back)
    return np.abs(picture - mean) / deviation


def fit_golden_template(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    *,
    rng: np.random.Generator,
    log: Callable[[dict[str, Any]], None],
) -> GoldenTemplate:
    """Register the good pictures of `train` to their mean, twice, and measure how they vary.

    Raises:
        UserError: If `train` has no good picture.
    """
    good = good_of(train)
    if not good:
        raise UserError("there is no good picture to learn from", "label some pictures as good")
    shape = _template_shape(good, rng)
    mean, _, _ = _registered(good, shape, None)
    _, _, share = _registered(good, shape, mean)
    aligned = share >= 0.5
    if aligned:
        mean, _, share = _registered(good, shape, mean)
    mean, spread, share = _registered(good, shape, mean if aligned else None)
    # A place is at least half as uncertain as is usual, or rare speckles would decide.
    deviation = np.maximum(spread, 0.5 * np.median(spread) + 1e-3).astype(np.float32)
    log({"event": "template", "aligned": aligned, "matching_share": share, "shape": list(shape)})

    def raw(image: Image) -> float:
        picture = _contrast(image, shape)
        shift = _usable(phase_shift(mean, picture)) if aligned else None
        deviations = _deviations(mean, deviation, picture, shift)
        return top_mean(cell_max(deviations, grid_of(*shape, CELL_PX)), TOP_CELLS)

    images = [example.image for example in scale_examples(train, validation)]
    standard = standard_of(raw, images, rng)
    return GoldenTemplate(mean=mean, deviation=deviation, aligned=aligned, standard=standard)


def _template_shape(good: Sequence[TrainingImage], rng: np.random.Generator) -> tuple[int, int]:
    """Return the median size of some good pictures, at most `SIDE_PX` on the longer side."""
    chosen = rng.permutation(len(good))[:25]
    sizes = np.median([good[int(i)].image().shape[:2] for i in chosen], axis=0)
    sizes = sizes * min(1.0, SIDE_PX / sizes.max())
    return int(max(sizes[0], 8)), int(max(sizes[1], 8))


def _registered(
    good: Sequence[TrainingImage], shape: tuple[int, int], template: Array | None
) -> tuple[Array, Array, float]:
    """Return mean, deviation and share of matching pictures after registration to a template."""
    total, square = np.zeros(shape), np.zeros(shape)
    matching = 0
    for example in good:
        picture = _contrast(example.image(), shape)
        if template is not None:
            shift = phase_shift(template, picture)
            near = max(abs(shift.down_px) / shape[0], abs(shift.right_px) / shape[1]) < FARTHEST
            if near and shift.peak > MATCHING_PEAK:
                matching += 1
                picture = aligned_to(picture, shift)
        total += picture
        square += picture.astype(np.float64) ** 2
    mean = total / len(good)
    spread = np.sqrt(np.maximum(square / len(good) - mean**2, 0))
    return mean.astype(np.float32), spread.astype(np.float32), matching / len(good)
