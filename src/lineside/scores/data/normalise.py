"""Bring a page to the scale and the upright position that a detector was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter

from lineside.core.errors import UserError
from lineside.scores.data.staff_space import staff_space

STRIPS = 32  # of columns, whose profiles are shifted against each other
LARGEST_SKEW_DEGREES = 4.0
SKEW_STEPS = (0.2, 0.02)  # degrees: coarse, then around the best
SAME_SCALE, SAME_ANGLE = 0.01, 0.1  # nearer than this (share, degrees) a page is left as it is


@dataclass(frozen=True, kw_only=True)
class NormalisedPage:
    """A page at working scale.

    Attributes:
        grey: Shape (height, width), 0 black.
        transform: Shape (2, 3): takes (x, y, 1) of the original page to (x, y) of `grey`.
        interline_px: Staff space of the original page.
        skew_degrees: By how much it was turned.
    """

    grey: NDArray[np.uint8]
    transform: NDArray[np.float64]
    interline_px: float
    skew_degrees: float

    def back(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Take points (x, y) of `grey`, shape (point, 2), to the original page."""
        inverse = np.linalg.inv(self.transform[:, :2])
        return (points - self.transform[:, 2]) @ inverse.T


def normalise(grey: NDArray[np.uint8], interline_px: float) -> NormalisedPage:
    """Turn and scale a page.

    Args:
        grey: The page, shape (height, width), 0 black.
        interline_px: Staff space that it shall have.

    Raises:
        UserError: if there are no staff lines.
    """
    found = staff_space(grey)
    if found is None:
        raise UserError(
            "no staff lines are found on this page",
            "is it music? a staff space of at least 6 pixels is needed: scan at 300 dpi",
        )
    scale = interline_px / found
    angle = skew_degrees(grey, found)
    if abs(scale - 1.0) < SAME_SCALE and abs(angle) < SAME_ANGLE:
        identity = np.eye(2, 3)
        return NormalisedPage(grey=grey, transform=identity, interline_px=found, skew_degrees=0.0)
    turn = np.deg2rad(-angle)
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    height, width = grey.shape
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]]) @ matrix.T
    offset = -corners.min(axis=0)
    across, down = np.ceil(corners.max(axis=0) + offset).astype(int)
    transform = np.column_stack([matrix, offset])
    # Smoothed before it is reduced, or thin lines between the sampled pixels would be lost.
    smooth = gaussian_filter(grey, 0.45 * np.sqrt(1 / scale**2 - 1)) if scale < 1 else grey
    return NormalisedPage(
        grey=warp(smooth, transform, (down, across)), transform=transform, interline_px=found,
        skew_degrees=angle,
    )  # fmt: skip


def warp(
    grey: NDArray[np.uint8], transform: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return the part of a page that a transform takes to an image; beyond it paper is white.

    Args:
        grey: Page, shape (height, width).
        transform: Shape (2, 3): takes (x, y, 1) of the page to (x, y) of the image.
        shape: (height, width) of the image.
    """
    inverse = np.linalg.inv(transform[:, :2])
    # Pixel (i, j) is centred at (j + 0.5, i + 0.5); affine_transform counts (row, column).
    offset = inverse @ (0.5 - transform[:, 2]) - 0.5
    return affine_transform(
        grey, inverse[::-1, ::-1], offset[::-1], output_shape=shape, order=1, cval=255
    )


def skew_degrees(grey: NDArray[np.uint8], interline_px: float) -> float:
    """Return by how much staff lines fall to the right, in degrees (negative: they rise).

    Upright staff lines give the row profile its highest peaks: the profiles of strips of columns
    are shifted as each angle asks for, and the angle whose sum varies most is taken.

    Args:
        grey: Page, shape (height, width).
        interline_px: Its staff space.
    """
    width = grey.shape[1]
    edges = np.linspace(0, width, min(STRIPS, width) + 1).astype(int)
    strips = np.stack([255.0 - grey[:, a:b].mean(axis=1) for a, b in pairwise(edges)])
    strips -= gaussian_filter(strips, (0, interline_px))  # text and stems have no lines
    middles = (edges[:-1] + edges[1:]) / 2 - width / 2
    best = 0.0
    reach = LARGEST_SKEW_DEGREES
    for step in SKEW_STEPS:
        angles = best + np.arange(-reach, reach + step / 2, step)
        best = float(angles[int(np.argmax([_sharpness(strips, middles, a) for a in angles]))])
        reach = step
    return best


def _sharpness(strips: NDArray[np.floating], middles: NDArray[np.floating], angle: float) -> float:
    """Return the variance of the sum of strips that are shifted upwards by an angle."""
    rows = np.arange(strips.shape[1])
    shifts = np.tan(np.deg2rad(angle)) * middles
    moved = sum(
        np.interp(rows + shift, rows, strip) for strip, shift in zip(strips, shifts, strict=True)
    )
    return float(np.var(moved))
