"""Image quality: does the camera still send pictures like those of the training?

`fit_health` sets limits of sharpness, brightness, saturation, size, scale and pose from good
pictures; `HealthReference.check` compares each new one. A picture that cannot be measured is a
finding too.
For the scores of good parts see `drift`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lineside.core.errors import UserError
from lineside.parts.models.classical.descriptors import grey_of
from lineside.parts.models.classical.registration import phase_shift, resize
from lineside.parts.models.detector import Image

TEMPLATE_PX = 96
"""Side of the square on which the pose is measured."""
SATURATED = 250 / 255
SIDES: Mapping[str, Literal["both", "above"]] = {
    "sharpness": "both",
    "brightness": "both",
    "saturated_share": "above",
    "log_width": "both",
    "log_height": "both",
    "log_extent": "both",
    "offset_px": "above",
}
FLOORS = {
    "sharpness": 0.05, "brightness": 0.01, "saturated_share": 0.002, "offset_px": 0.5,
    "log_extent": 0.03,
}  # fmt: skip
"""Smallest standard deviation of a measure: identical reference pictures would give 0."""
SAME_EXTENT = 0.1
"""Deviation of `log_extent` above which the parts themselves differ in size."""
SIZE_MARGIN = (0.05, 0.2)
"""How far outside their range sizes are usual: as far as it is wide, within these logarithms."""
BORDER_PX = 3
"""Ring of the square picture that is taken for the background."""
BORDER_DEVIATIONS = 5.0
LEAST_EXTENT = 0.2
"""A part that takes a smaller share of the side is not measured."""
NO_PART = 0.05
"""Added to the extent: pictures without a part have a logarithm too."""
MATCHING_PEAK = 8.0
LIMIT = 5.0
"""Robust deviations beyond which a picture is unhealthy."""


@dataclass(frozen=True, kw_only=True)
class HealthReference:
    """Quality of the reference pictures.

    Attributes:
        center: Median of each measure.
        deviation: Robust standard deviation of each measure.
        limit: Deviations beyond which a picture is unhealthy.
        template: Mean picture for the pose, 96 x 96, 0..1; None if the pose varies.
        count: Number of calibration pictures.
    """

    center: Mapping[str, float]
    deviation: Mapping[str, float]
    limit: float
    template: NDArray[np.float32] | None
    count: int

    def check(self, image: Image) -> tuple[str, ...]:
        """Return one sentence for each measure outside the limit; none means healthy.

        A picture that cannot be measured is a finding, not an error.
        """
        if image.ndim != 3 or image.size == 0 or not np.isfinite(image).all():
            return ("the picture has no pixels or values that are not numbers",)
        measures = measure(grey_of(image), self.template)
        deviations = {
            name: (measures[name] - middle) / self.deviation[name]
            for name, middle in self.center.items()
        }
        return tuple(
            _sentence(name, measures[name], self.center[name], value)
            for name, value in deviations.items()
            if (abs(value) if SIDES[name] == "both" else value) > self.limit
        )


def _sentence(name: str, value: float, middle: float, deviations: float) -> str:
    if name == "log_extent":
        return (
            f"the part fills {np.exp(value) - NO_PART:.0%} of the picture's side, usually "
            f"{np.exp(middle) - NO_PART:.0%}: another scale than in training"
        )
    if name.startswith("log_"):
        return (
            f"the {name.removeprefix('log_')} of {np.exp(value):.0f} px is "
            f"{np.exp(value - middle):.2f} times the usual {np.exp(middle):.0f} px: another size "
            "than in training"
        )
    title = name.removesuffix("_px").replace("_", " ")
    unit = " px" if name.endswith("_px") else ""
    where = "above" if deviations > 0 else "below"
    return (
        f"{title} {value:.3g}{unit} is {abs(deviations):.1f} deviations {where} "
        f"the usual {middle:.3g}{unit}"
    )


def _square(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    return resize(grey, TEMPLATE_PX, TEMPLATE_PX)


def measure(grey: NDArray[np.float32], template: NDArray[np.float32] | None) -> dict[str, float]:
    """Return sharpness (log10 of the variance of the Laplacian), brightness, saturation, pose.

    Size and scale are logarithms: of width and height in px, and of `extent`.
    """
    square = _square(grey)
    measures = {
        # one unit is a factor of ten
        "sharpness": float(np.log10(np.var(ndimage.laplace(grey, mode="reflect")) + 1e-8)),
        "brightness": float(grey.mean()),
        "saturated_share": float((grey >= SATURATED).mean()),
        "log_width": float(np.log(grey.shape[1])),
        "log_height": float(np.log(grey.shape[0])),
        "log_extent": float(np.log(extent(square) + NO_PART)),
    }
    if template is not None:
        shift = phase_shift(template, square)
        down = shift.down_px * grey.shape[0] / TEMPLATE_PX
        right = shift.right_px * grey.shape[1] / TEMPLATE_PX
        measures["offset_px"] = float(np.hypot(down, right))
        measures["pose_match"] = shift.peak
    return measures


def extent(square: NDArray[np.float32]) -> float:
    """Return the root of the share of a square picture that the part takes, 0..1.

    The part is what differs from the median of the border by more than half of what the most
    different tenth of the picture does, so that neither exposure nor a small defect has an
    influence, and by more than `BORDER_DEVIATIONS` of the border.
    """
    border = np.ones(square.shape, dtype=bool)
    border[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = False
    difference = np.abs(square - np.median(square[border]))
    noise = max(1.4826 * float(np.median(difference[border])), 1 / 255)
    threshold = max(0.5 * float(np.quantile(difference, 0.9)), BORDER_DEVIATIONS * noise)
    return float(np.sqrt((difference > threshold).mean()))


def fit_health(images: Iterable[Image]) -> HealthReference:
    """Set the limits of image quality; pictures are read once and not kept.

    The deviation of a measure is the larger of 1.4826 x the median absolute deviation and the
    central 90 % range / 3.29: the second covers pictures of several exposures. The pose is
    checked only if most pictures match their common mean, the scale only if the parts take about
    the same share of them. A size is unusual outside of the range of sizes and a margin.

    Args:
        images: Calibration pictures of good parts, at least 5.

    Raises:
        UserError: If there are fewer than 5 measurable pictures.
    """
    greys = [
        (measure(grey_of(image), None), _square(grey_of(image)), image.shape[:2])
        for image in images
        if image.size and np.isfinite(image).all()
    ]
    if len(greys) < 5:
        raise UserError(
            f"{len(greys)} pictures are too few for limits of image quality", "give 5 or more"
        )
    columns = {name: np.array([row[0][name] for row in greys]) for name in greys[0][0]}
    log_extent = columns["log_extent"]
    too_small = np.median(log_extent) < np.log(LEAST_EXTENT + NO_PART)
    if too_small or _spread(log_extent, 0.0) > SAME_EXTENT:
        del columns["log_extent"]
    template = np.mean([row[1] for row in greys], axis=0).astype(np.float32)
    offsets = _offsets(template, [(row[1], row[2]) for row in greys])
    if offsets is not None:
        columns["offset_px"] = offsets
        # rounded to the grey levels of a picture
        rounded = (np.round(template * 255) / np.float32(255)).astype(np.float32)
    sizes = {name: _middle_and_reach(columns.pop(name)) for name in ("log_width", "log_height")}
    center = {name: float(np.median(values)) for name, values in columns.items()}
    deviation = {name: _spread(values, FLOORS[name]) for name, values in columns.items()}
    return HealthReference(
        center=center | {name: middle for name, (middle, _) in sizes.items()},
        deviation=deviation | {name: reach / LIMIT for name, (_, reach) in sizes.items()},
        limit=LIMIT,
        template=None if offsets is None else rounded,
        count=len(greys),
    )


def _middle_and_reach(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the middle of the range of sizes, and how far from it one is still usual."""
    width = float(np.ptp(values))
    return float(values.min()) + width / 2, width / 2 + float(np.clip(width, *SIZE_MARGIN))


def _spread(values: NDArray[np.float64], floor: float) -> float:
    mad = 1.4826 * np.median(np.abs(values - np.median(values)))
    low, high = np.quantile(values, [0.05, 0.95])
    return float(max(mad, (high - low) / 3.29, floor))


def _offsets(
    template: NDArray[np.float32], squares: Sequence[tuple[NDArray[np.float32], tuple[int, int]]]
) -> NDArray[np.float64] | None:
    """Offsets of pictures from the mean of the *others*; None if most do not match it."""
    total, offsets, peaks = len(squares), [], []
    for square, (height, width) in squares:
        others = ((template * total - square) / (total - 1)).astype(np.float32)
        shift = phase_shift(others, square)
        offsets.append(
            np.hypot(shift.down_px * height / TEMPLATE_PX, shift.right_px * width / TEMPLATE_PX)
        )
        peaks.append(shift.peak)
    matched = np.median(peaks) > MATCHING_PEAK and np.median(offsets) < 0.1 * TEMPLATE_PX
    return np.array(offsets) if matched else None
