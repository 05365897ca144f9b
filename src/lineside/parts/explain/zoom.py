"""Adaptive zoom: from the whole picture down to the crop that holds a defect.

Beam search in a quadtree over the picture (Stadelmann et al., talk of 2020): a window is split into
four overlapping ones, and the best are followed until a window is as small as the crops that a
patch network was trained on. Crops are never rescaled, since the size of a defect decides between
good and bad. A window is scored from evidence at native size (the tiles of a patch network, the
cells of the map of other methods), so the zoom cannot contradict the verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lineside.parts.metrics import EIGHT_NEIGHBOURS, Map
from lineside.parts.models.detector import Image

Scalar = TypeVar("Scalar", bound=np.generic)

Box = tuple[int, int, int, int]
"""Left, top, right, bottom."""

OVERLAP = 0.25
"""Share of a window that its neighbour covers too."""
BEAM = 3
"""Paths followed at once: a part may have more than one defect."""
TOP_CELLS = 2
"""A window's score is the mean of its this many strongest cells."""


class Window(NamedTuple):
    """A rectangle of a picture in pixels, right and bottom exclusive.

    Attributes:
        left: First column.
        top: First row.
        right: Column after the last.
        bottom: Row after the last.
        score: Mean of its strongest cells, in the unit of the map.
    """

    left: int
    top: int
    right: int
    bottom: int
    score: float

    @property
    def box(self) -> Box:
        """The rectangle alone."""
        return self[:4]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    def of(self, pixels: NDArray[Scalar]) -> NDArray[Scalar]:
        """Return this part of an array (height, width, ...)."""
        return pixels[self.top : self.bottom, self.left : self.right]


@dataclass(frozen=True, kw_only=True)
class ZoomPath:
    """A path down the tree.

    Attributes:
        windows: The whole picture first, the final crop last.
        peak: (x, y) of the strongest response at its end, in pixels of the picture.
    """

    windows: tuple[Window, ...]
    peak: tuple[float, float]

    @property
    def final(self) -> Window:
        """The last window, centre_box on the strongest response as far as the picture allows."""
        return self.windows[-1]

    def as_json(self) -> dict[str, float]:
        """Return the final window and the strongest place in it as plain JSON values."""
        x, y = self.peak
        return {**self.final._asdict(), "x": x, "y": y}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Evidence for a defect on a grid over a picture, at native size.

    Attributes:
        values: Shape (rows, columns), higher is more faulty.
        y: Pixel row of each row of the grid, ascending.
        x: Pixel column of each column of the grid, ascending.
        shape: Height and width of the picture.
    """

    values: NDArray[np.float64]
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    shape: tuple[int, int]


def evidence_of_map(cells: Map, image: Image) -> Evidence:
    """Return the cells of a map that covers a picture exactly, at their middles."""
    height, width = image.shape[:2]
    rows, columns = cells.shape
    return Evidence(
        values=np.nan_to_num(np.asarray(cells, dtype=np.float64), neginf=-1e30),
        y=(np.arange(rows) + 0.5) * height / rows,
        x=(np.arange(columns) + 0.5) * width / columns,
        shape=(height, width),
    )


def zoom(
    evidence: Evidence, *, least_px: int, background: float, beam: int = BEAM
) -> list[ZoomPath]:
    """Return paths to the strongest places of a picture, strongest first.

    Windows are chosen greedily. What a chosen one covers, and the region that its strongest cell
    belongs to as far as one window beyond it, no longer counts for the others: two paths never
    lead to one defect. A window without a cell that reaches the background is not followed.

    Args:
        evidence: On a grid over the picture.
        least_px: Side of the final windows; smaller only where the picture is.
        background: Evidence that good pictures stay below.
        beam: Largest number of paths.

    Returns:
        Nothing if nothing in the picture reaches the background, else one or more.
    """
    grid = _Grid(evidence)
    height, width = evidence.shape
    pending: list[tuple[Box, tuple[Window, ...]]] = [((0, 0, width, height), ())]
    paths: list[ZoomPath] = []
    while pending:
        paths = _choose_windows(grid, pending, least_px, background, beam)
        pending = [
            (box, path.windows) for path in paths for box in _children(path.final.box, least_px)
        ]
    return sorted(paths, key=lambda path: -path.final.score)


class _Grid:
    """Evidence, and which of its cells still count."""

    def __init__(self, evidence: Evidence) -> None:
        self.values, self.shape = evidence.values, evidence.shape
        self.y, self.x = evidence.y, evidence.x
        self.free = np.ones(self.values.shape, dtype=bool)

    def window(self, box: Box) -> tuple[slice, slice]:
        """The cells whose middles lie in a rectangle, or the nearest one on a coarser grid."""
        left, top, right, bottom = box
        return _cell_range(self.y, top, bottom), _cell_range(self.x, left, right)

    def score(self, box: Box, *, left_over: bool = False) -> float:
        """Mean of the strongest cells; with `left_over`, of those that still count."""
        where = self.window(box)
        values = self.values[where][self.free[where]] if left_over else self.values[where].ravel()
        if not values.size:
            return -math.inf
        return float(np.sort(values)[-TOP_CELLS:].mean())

    def peak(self, box: Box) -> tuple[float, tuple[float, float]]:
        """Strongest cell that still counts and the pixel (x, y) in the middle of its plateau."""
        where = self.window(box)
        values = np.where(self.free[where], self.values[where], -math.inf)
        top = float(values.max(initial=-math.inf))
        if top == -math.inf:
            return top, (0.0, 0.0)
        named, _ = ndimage.label(values == top, EIGHT_NEIGHBOURS)
        first = named[np.unravel_index(int(values.argmax()), values.shape)]
        rows, columns = np.nonzero(named == first)
        row, column = rows.mean() + where[0].start, columns.mean() + where[1].start
        x = np.interp(column, np.arange(len(self.x)), self.x)
        y = np.interp(row, np.arange(len(self.y)), self.y)
        return top, (float(x), float(y))

    def claim(self, box: Box, background: float) -> None:
        """Take a window's cells, and its strongest cell's region up to one window further."""
        left, top, right, bottom = box
        height, width = bottom - top, right - left
        inner = self.window(box)
        values = np.where(self.free[inner], self.values[inner], -math.inf)
        row, column = np.unravel_index(int(values.argmax()), values.shape)
        outer = self.window((left - width, top - height, right + width, bottom + height))
        named, _ = ndimage.label(self.values[outer] >= background, EIGHT_NEIGHBOURS)
        region = named[
            row + inner[0].start - outer[0].start, column + inner[1].start - outer[1].start
        ]
        if region:
            self.free[outer] &= named != region
        self.free[inner] = False


def _cell_range(middles: NDArray[np.float64], low: int, high: int) -> slice:
    first, last = np.searchsorted(middles, (low, high)).tolist()
    if first < last:
        return slice(first, last)
    nearest = int(np.abs(middles - (low + high) / 2).argmin())
    return slice(nearest, nearest + 1)


def _choose_windows(
    grid: _Grid,
    pending: Sequence[tuple[Box, tuple[Window, ...]]],
    least_px: int,
    background: float,
    beam: int,
) -> list[ZoomPath]:
    """Choose up to `beam` windows of one level, each by what the better ones leave over."""
    grid.free[:] = True
    chosen: list[ZoomPath] = []
    while len(chosen) < beam:
        open_ = [entry for entry in pending if grid.peak(entry[0])[0] >= background]
        if not open_:
            break
        box, before = max(open_, key=lambda entry: grid.score(entry[0], left_over=True))
        _, peak = grid.peak(box)
        if before and not _children(box, least_px):
            box = centre_box(box, peak, grid.shape)
        window = Window(*box, score=grid.score(box))
        chosen.append(ZoomPath(windows=(*before, window), peak=peak))
        grid.claim(box, background)
    return chosen


def _children(box: Box, least_px: int) -> list[Box]:
    """Two windows along each side that is split: not the far shorter one, not below the least."""
    left, top, right, bottom = box
    height, width = bottom - top, right - left
    rows = _halve(top, height, least_px) if 2 * height > width else [(top, bottom)]
    columns = _halve(left, width, least_px) if 2 * width > height else [(left, right)]
    boxes = [(first, upper, last, lower) for upper, lower in rows for first, last in columns]
    return [] if boxes == [box] else boxes


def _halve(start: int, length: int, least_px: int) -> list[tuple[int, int]]:
    if length <= least_px:
        return [(start, start + length)]
    part = max(least_px, math.ceil(length / (2 - OVERLAP)))
    return [(start, start + part), (start + length - part, start + length)]


def centre_box(box: Box, peak: tuple[float, float], shape: tuple[int, int]) -> Box:
    """Return a rectangle of the same size round a point (x, y), inside the picture."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    x = min(max(round(peak[0] - width / 2), 0), shape[1] - width)
    y = min(max(round(peak[1] - height / 2), 0), shape[0] - height)
    return x, y, x + width, y + height
