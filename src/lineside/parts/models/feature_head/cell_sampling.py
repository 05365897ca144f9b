"""Which cells of a training image the head learns from, and how much each counts.

Images with a mask give positive and negative cells; images that are only known to be defective
are bags (multiple-instance learning, Andrews et al. 2003): their positives are the cells that the
good-only model finds most suspicious, and after a warm-up those that the head itself does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lineside.parts.models.detector import Mask

UNKNOWN = -1.0
"""Overlap of a cell of a defective image without a mask."""
COVERED = 0.3
"""A cell is positive if the mask covers more than this share of it."""
BAND_CELLS = 2
"""Only this outer band of a large mask is positive: the inside of a wide region looks normal."""
BAG_CELLS = 8
"""So many cells of a defective image without a mask are taken to be the defect."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The training cells of one image.

    Attributes:
        inputs: Features, shape (cell, feature), float16.
        target: 1 defect, 0 good, `UNKNOWN` for the cells of a bag; shape (cell,).
        suspicion: Order in which a bag's cells are believed first, higher first; shape (cell,).
        kind: ``"good"`` or the kind of defect.
        fold: Inner fold of the image's part.
    """

    inputs: NDArray[np.float16]
    target: NDArray[np.float32]
    suspicion: NDArray[np.float32]
    kind: str
    fold: int


def overlap_of(mask: Mask, rows: int, columns: int, cell_px: int = 8) -> NDArray[np.float32]:
    """Return the share of each cell that the mask covers, shape (rows, columns)."""
    canvas = np.zeros((rows * cell_px, columns * cell_px), np.float32)
    canvas[: mask.shape[0], : mask.shape[1]] = mask
    shares: NDArray[np.float32] = canvas.reshape(rows, cell_px, columns, cell_px).mean((1, 3))
    return shares


def positive_cells(overlap: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which cells show the defect: covered cells, of wide regions only the outer band."""
    found = overlap > COVERED
    if not found.any():
        found = (overlap > 0) & (overlap >= overlap.max())
    inside = ndimage.binary_erosion(found, iterations=BAND_CELLS, border_value=1)
    band: NDArray[np.bool_] = found & ~inside
    return band if band.any() else found


def choose_cells(
    overlap: NDArray[np.float32] | None,
    suspicion: NDArray[np.float32],
    faulty: bool,
    rng: np.random.Generator,
    *,
    positives: int = 60,
    negatives: int = 40,
    goods: int = 100,
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Choose the cells of an image to learn from.

    Args:
        overlap: `overlap_of` the mask, or None if there is no (or an empty) mask.
        suspicion: The good-only map on the cells' grid, shape (rows, columns).
        faulty: Whether the image is labelled with a defect.
        rng: Chooses among many cells.
        positives: At most so many positive cells of an image (or cells of a bag).
        negatives: At most so many cells of a defective image that the mask does not touch.
        goods: At most so many cells of a good image.

    Returns:
        Flat indices of cells and their targets.
    """
    if not faulty:
        chosen = rng.permutation(suspicion.size)[:goods]
        return chosen, np.zeros(len(chosen), np.float32)
    if overlap is None or not overlap.any():
        chosen = np.argsort(-suspicion, axis=None, kind="stable")[:positives]
        return chosen, np.full(len(chosen), UNKNOWN, np.float32)
    positive = rng.permutation(np.flatnonzero(positive_cells(overlap)))[:positives]
    negative = rng.permutation(np.flatnonzero(overlap == 0))[:negatives]
    target = np.repeat(np.array([1, 0], np.float32), [len(positive), len(negative)])
    return np.concatenate([positive, negative]), target


def image_weights(
    target: NDArray[np.float32], suspicion: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return cell weights: k positives of an image count 1 / sqrt(k) each, negatives 1.

    Of a bag only the `BAG_CELLS` most suspicious cells count at first, as positives.
    """
    weight = np.ones(len(target), np.float32)
    positive = target == 1
    weight[positive] = 1 / np.sqrt(max(1, positive.sum()))
    unknown = np.flatnonzero(target == UNKNOWN)
    if len(unknown):
        weight[unknown] = 0
        first = unknown[np.argsort(-suspicion[unknown], kind="stable")[:BAG_CELLS]]
        weight[first] = 1 / np.sqrt(len(first))
    return weight
