"""Golden template: per pixel, z = |image - mean| / std over registered good images.

The classical method for printed boards and labels, where every part has the same position. Images
are registered by phase correlation. Where they do not align, `aligned` is False and images are
still compared with the resized template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lineside.parts.models.classical.descriptors import (
    CELL_PX,
    DARK,
    Array,
    cell_max,
    grey_of,
    grid_of,
)
from lineside.parts.models.classical.position_statistics import (
    TOP_CELLS,
    ScoreScale,
    require_good,
    score_scales_of,
    top_mean,
)
from lineside.parts.models.classical.registration import Shift, align, phase_shift, resize
from lineside.parts.models.detector import Image, Log, Prediction, TrainingImage

SIDE_PX = 256
"""Longer side of the template at most."""
SMOOTH_PX = 1.0
CONTRAST_PX = 20.0
MATCHING_PEAK = 8.0
"""Correlation peak, in standard deviations, above which an image matches the template."""
MAX_SHIFT = 0.15
"""A shift beyond this share of a side is a mismatch, not a displacement."""


@dataclass(frozen=True, kw_only=True)
class GoldenTemplate:
    """A fitted detector.

    Attributes:
        mean: Mean image of local contrast, shape (height, width) of the template.
        std: Its standard deviation at every pixel.
        aligned: True if most good images match the template; else the score is a rough one.
        scale: Scale of the image score.
    """

    mean: Array
    std: Array
    aligned: bool
    scale: ScoreScale

    def predict(self, image: Image) -> Prediction:
        """Score one image in robust standard deviations; the map has the same unit."""
        cells, shift = _compare(image, self.mean, self.std, self.aligned)
        offset_px = 0.0 if shift is None else shift.length_px
        return self.scale.predict(
            cells, image, {"aligned": float(self.aligned), "offset_px": offset_px}
        )


def _contrast(image: Image, shape: tuple[int, ...]) -> Array:
    """Resize and return local contrast: log grey less its surroundings, slightly smoothed."""
    grey = resize(grey_of(image), shape[0], shape[1])
    logs = np.log(np.maximum(grey, 0) + np.float32(DARK))
    smooth = ndimage.gaussian_filter(logs, SMOOTH_PX, mode="reflect")
    # A wide Gaussian by three boxes: a tenth of the time.
    around = logs
    for _ in range(3):
        around = ndimage.uniform_filter(around, round(CONTRAST_PX * 1.9) | 1, mode="reflect")
    return smooth - around


def _compare(image: Image, mean: Array, std: Array, aligned: bool) -> tuple[Array, Shift | None]:
    """Return |contrast - mean| / std by cell in the frame of the image, and its shift.

    The shift is None if the image does not match the template.
    """
    contrast = _contrast(image, mean.shape)
    shift = phase_shift(mean, contrast) if aligned else None
    if shift is not None and shift.peak > MATCHING_PEAK:
        back = Shift(down_px=-shift.down_px, right_px=-shift.right_px, peak=shift.peak)
        mean, std = align(mean, back), align(std, back)
    else:
        shift = None
    grid = grid_of(mean.shape[0], mean.shape[1], CELL_PX)
    return cell_max(np.abs(contrast - mean) / std, grid), shift


def fit_golden_template(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    *,
    rng: np.random.Generator,
    log: Log = lambda row: None,
) -> GoldenTemplate:
    """Register the good images of `train` to their mean, twice, and measure how they vary.

    Raises:
        UserError: If `train` has no good image.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> images = [TrainingImage.from_array(rng.random((64, 48, 1), np.float32)) for _ in "1234"]
        >>> detector = fit_golden_template(images, [], rng=rng)
        >>> detector.mean.shape, detector.aligned
        ((64, 48), True)
    """
    good = require_good(train)
    shape = _template_shape(good, rng)
    mean, _, _ = _register(good, shape, None)
    _, _, share = _register(good, shape, mean)
    aligned = share >= 0.5
    if aligned:
        mean, _, share = _register(good, shape, mean)
    mean, std, share = _register(good, shape, mean if aligned else None)
    # A pixel is at least half as uncertain as is usual, or rare speckles would decide.
    std = np.maximum(std, 0.5 * np.median(std) + 1e-3).astype(np.float32)
    log({"event": "template", "aligned": aligned, "matching_share": share, "shape": list(shape)})

    def raw(image: Image) -> list[float]:
        return [top_mean(_compare(image, mean, std, aligned)[0], TOP_CELLS)]

    (scale,) = score_scales_of(raw, train, validation, rng)
    return GoldenTemplate(mean=mean, std=std, aligned=aligned, scale=scale)


def _template_shape(good: Sequence[TrainingImage], rng: np.random.Generator) -> tuple[int, int]:
    """Return the median size of some good images, at most `SIDE_PX` on the longer side."""
    chosen = rng.permutation(len(good))[:25]
    sizes = np.median([good[int(i)].image().shape[:2] for i in chosen], axis=0)
    sizes = sizes * min(1.0, SIDE_PX / sizes.max())
    return int(max(sizes[0], 8)), int(max(sizes[1], 8))


def _register(
    good: Sequence[TrainingImage], shape: tuple[int, int], template: Array | None
) -> tuple[Array, Array, float]:
    """Return mean, standard deviation and share of matching images after registration."""
    total, square = np.zeros(shape), np.zeros(shape)
    matching = 0
    for example in good:
        contrast = _contrast(example.image(), shape)
        if template is not None:
            shift = phase_shift(template, contrast)
            near = max(abs(shift.down_px) / shape[0], abs(shift.right_px) / shape[1]) < MAX_SHIFT
            if near and shift.peak > MATCHING_PEAK:
                matching += 1
                contrast = align(contrast, shift)
        total += contrast
        square += contrast.astype(np.float64) ** 2
    mean = total / len(good)
    std = np.sqrt(np.maximum(square / len(good) - mean**2, 0))
    return mean.astype(np.float32), std.astype(np.float32), matching / len(good)
