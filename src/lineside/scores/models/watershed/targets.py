"""What the Deep Watershed Detector is trained to predict, drawn from the symbols of a page.

Tuggener, Elezi, Schmidhuber and Stadelmann, "Deep Watershed Detector for Music Object Recognition",
ISMIR 2018, section 3: an energy map with a cone at the centre of each symbol, and maps of class and
box around the centres. Differences: cones as large as the symbol allows instead of one radius, half
the resolution of the image, and masks for lines, whose boxes say little.

Notation: a cell is a square of `STRIDE` pixels; maps have the shape (rows, columns) in cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lineside.scores.engraving.page import Symbol
from lineside.scores.engraving.vocabulary import DOTS, NAMES
from lineside.scores.models.unet import STRIDE

LEVELS = 10  # of the energy, level 0 is the background
RADIUS_CELLS = (2.0, 4.0)  # smallest and largest cone
FLAT_CELLS = 0.7072  # around its centre a cone is flat
MERGED = {**dict.fromkeys(DOTS, "dot"), **dict.fromkeys(("restWhole", "restHalf"), "restBlock")}
"""Symbols of one shape, which their surroundings tell apart: see `kinds`."""
CLASSES = tuple(dict.fromkeys(MERGED.get(name, name) for name in NAMES))
"""What the network tells apart, by number."""
MASKS = (
    "staffLine", "ledgerLine", "stem", "beam", "barLine", "curve", "hairpin", "bracketLine", "wave",
    "brace", "tremolo",
)  # fmt: skip
"""Masks of lines, by number."""
MASK_OF = {
    **{name: name for name in ("staffLine", "ledgerLine", "stem", "beam", "barLine", "hairpin")},
    "slur": "curve", "tie": "curve", "tupletBracket": "bracketLine", "voltaBracket": "bracketLine",
    "ottavaLine": "bracketLine", "pedalLine": "bracketLine", "arpeggiato": "wave",
    "trillLine": "wave", "glissando": "wave", "brace": "brace", "bracket": "brace",
    "tremolo": "tremolo", "multiRest": "beam",
}  # fmt: skip
NUMBER = {name: number for number, name in enumerate(CLASSES)}


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Glyphs of a crop.

    Attributes:
        centres: (x, y) in pixels of the crop, shape (glyph, 2).
        sizes: (width, height) of the boxes in pixels.
        classes: Numbers in `CLASSES`.
    """

    centres: NDArray[np.floating]
    sizes: NDArray[np.floating]
    classes: NDArray[np.int64]


class Drawing:
    """The symbols of a page as arrays, to draw the targets of many crops of it.

    Attributes:
        boxes: Of the glyphs, shape (glyph, 4).
        classes: Of the glyphs, numbers in `CLASSES`.
    """

    def __init__(self, symbols: Sequence[Symbol]) -> None:
        glyphs = [s for s in symbols if s.name not in MASK_OF and class_of(s.name) in NUMBER]
        self.boxes = np.array([s.box for s in glyphs], np.float32).reshape(-1, 4)
        self.classes = np.array([NUMBER[class_of(s.name)] for s in glyphs], np.int64)
        self._lines = [s for s in symbols if s.name in MASK_OF]
        self._line_boxes = np.array([s.box for s in self._lines], np.float32).reshape(-1, 4)

    def glyphs(self, transform: NDArray[np.float64], shape: tuple[int, int]) -> Placed:
        """Return the glyphs whose centre lies in a crop.

        Args:
            transform: Shape (2, 3): takes (x, y, 1) of the page to (x, y) of the crop.
            shape: (height, width) of the crop in pixels.
        """
        middles = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2
        centres = middles @ transform[:, :2].T + transform[:, 2]
        inside = ((centres > 0) & (centres < shape[::-1])).all(axis=1)
        sizes = (self.boxes[:, 2:] - self.boxes[:, :2]) * scale_of(transform)
        return Placed(centres=centres[inside], sizes=sizes[inside], classes=self.classes[inside])

    def masks(self, transform: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.uint8]:
        """Draw the lines of a crop, shape (mask, rows, columns), 0 or 1; arguments as above."""
        rows, columns = (side // STRIDE for side in shape)
        # Which lines can touch the crop: those whose transformed corners surround a part of it.
        corners = self._line_boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
        moved = corners @ transform[:, :2].T + transform[:, 2]
        near = (moved.max(axis=1) > 0).all(axis=1) & (moved.min(axis=1) < shape[::-1]).all(axis=1)
        images = {name: Image.new("L", (columns, rows)) for name in MASKS}
        for index in np.flatnonzero(near):
            line = self._lines[index]
            pen = ImageDraw.Draw(images[MASK_OF[line.name]])
            points = line.points
            if not points:  # glyphs in a row, e.g. the waves of an arpeggio
                left, top, right, bottom = line.box
                points = ((left, top), (right, top), (right, bottom), (left, bottom))
            # PIL's pixel (0, 0) is centred at the origin, a cell half a cell to its right.
            course = (np.array(points) @ transform[:, :2].T + transform[:, 2]) / STRIDE - 0.5
            flat = [tuple(point) for point in course.tolist()]
            if line.thickness and len(flat) > 1:
                width = line.thickness * scale_of(transform) / STRIDE
                pen.line(flat, 1, width=max(1, round(width)))
            else:
                pen.polygon(flat, 1, outline=1)
        return np.stack([np.asarray(images[name]) for name in MASKS])


def class_of(name: str) -> str:
    """Return the class that the network knows a symbol by."""
    return MERGED.get(name, name)


def scale_of(transform: NDArray[np.float64]) -> float:
    """Return by how much a transform of shape (2, 3) enlarges lengths."""
    return float(np.sqrt(abs(np.linalg.det(transform[:, :2]))))


def cones(
    centres: NDArray[np.floating], sizes: NDArray[np.floating], cells: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """Return energy levels and the owner of each cell that has energy.

    A cone falls from 1 to 0 over its radius, half the shorter side of the box within
    `RADIUS_CELLS`; overlapping cones take the maximum (section 3.1). It begins to fall half a
    cell's diagonal from the centre, so that wherever in a cell that lies, a cell has energy 1.
    Level n holds energies up to n / (LEVELS - 1).

    Args:
        centres: (x, y) in cells, shape (symbol, 2).
        sizes: (width, height) in cells.
        cells: (rows, columns).
    """
    rows, columns = cells
    energy = np.zeros(cells, np.float32)
    owner = np.full(cells, -1, np.int16)
    radii = np.clip(sizes.min(axis=1) / 2, *RADIUS_CELLS)
    for index, ((x, y), radius) in enumerate(zip(centres, radii, strict=True)):
        reach = radius + FLAT_CELLS
        left, right = max(0, int(x - reach)), min(columns, int(x + reach) + 1)
        top, bottom = max(0, int(y - reach)), min(rows, int(y + reach) + 1)
        if left >= right or top >= bottom:
            continue
        across = np.arange(left, right) + 0.5 - x
        down = np.arange(top, bottom)[:, None] + 0.5 - y
        cone = 1.0 - np.maximum(np.sqrt(across**2 + down**2) - FLAT_CELLS, 0.0) / radius
        window = (slice(top, bottom), slice(left, right))
        higher = cone > energy[window]
        energy[window][higher] = cone[higher]
        owner[window][higher] = index
    return np.ceil(energy * (LEVELS - 1)).astype(np.uint8), owner
