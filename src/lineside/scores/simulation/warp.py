"""Where a scanner or a camera puts the points of a page: curl, rotation, scale, perspective.

With u, v relative to the middle of the page, v' = v + A sin(2 pi u / L + phase), and then a
homography: (x, y) = s R(angle) (u, v') / (1 + k . (u, v')). Both directions have a closed form, so
that the truth moves exactly as the ink does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lineside.scores.engraving.page import Box, Page, Points, Symbol

STEP = 2.0  # staff spaces between two points of a line that is bent


@dataclass(frozen=True, kw_only=True)
class Warp:
    """A map of the points of a page.

    Attributes:
        width, height: Size of the image in pixels; it stays.
        angle: Rotation in degrees, clockwise on the screen.
        scale: Size of the result relative to the page.
        tilt: Relative change of scale per pixel to the right and per pixel down.
        curl_px: Amplitude A of the curl.
        curl_length_px: Wavelength L of the curl.
        phase: Of the curl, in radians.
    """

    width: int
    height: int
    angle: float = 0.0
    scale: float = 1.0
    tilt: tuple[float, float] = (0.0, 0.0)
    curl_px: float = 0.0
    curl_length_px: float = 1.0
    phase: float = 0.0

    @property
    def is_identity(self) -> bool:
        """Whether every point stays where it is."""
        return (self.angle, self.scale, *self.tilt, self.curl_px) == (0.0, 1.0, 0.0, 0.0, 0.0)

    def move(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return where points of the page, shape (..., 2) as (x, y), lie in the result."""
        u, v = self._centred(np.asarray(points, dtype=np.float64))
        return self._project(u, v + self._curl(u), self._homography())

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the page, shape (height, width), as it lies in the result.

        Beyond its edges the page goes on as it is at the edge, so that crops keep their staves.
        """
        if self.is_identity:
            return image
        rows, columns = np.indices(image.shape, dtype=np.float32)
        grid = np.stack([columns + 0.5, rows + 0.5], axis=-1)  # centres of pixels
        u, v = self._centred(grid)
        source = self._project(u, v, np.linalg.inv(self._homography()).astype(np.float32))
        across, down = source[..., 0], source[..., 1]
        down = down - self._curl(across - np.float32(self.width / 2))
        place = np.stack([down, across]) - np.float32(0.5)
        return ndimage.map_coordinates(image, place, order=1, mode="nearest")

    def page(self, page: Page) -> Page:
        """Return the truth of a page, moved, without what has its middle outside of the image."""
        if self.is_identity:
            return page
        moved = (self._symbol(symbol, page.interline_px) for symbol in page.symbols)
        inside = tuple(symbol for symbol in moved if self._is_inside(symbol.box))
        owners = {symbol.owner for symbol in inside}
        return replace(
            page,
            interline_px=page.interline_px * self.scale,
            symbols=inside,
            notes=tuple(note for note in page.notes if note.id in owners),
        )

    def _symbol(self, symbol: Symbol, interline_px: float) -> Symbol:
        outline = symbol.points or _corners(symbol.box)
        moved = self.move(_refined(outline, STEP * interline_px if self.curl_px else np.inf))
        old, new = np.array(outline), moved
        left, top, right, bottom = symbol.box
        # what the box holds beyond its points: half of the pen
        before = (old.min(axis=0) - (left, top)) * self.scale
        after = ((right, bottom) - old.max(axis=0)) * self.scale
        (x0, y0), (x1, y1) = new.min(axis=0) - before, new.max(axis=0) + after
        return replace(
            symbol,
            box=(float(x0), float(y0), float(x1), float(y1)),
            points=tuple((float(x), float(y)) for x, y in moved) if symbol.points else (),
            thickness=symbol.thickness * self.scale,
        )

    def _is_inside(self, box: Box) -> bool:
        left, top, right, bottom = box
        return 0 <= left + right < 2 * self.width and 0 <= top + bottom < 2 * self.height

    def _centred(
        self, points: NDArray[np.floating]
    ) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        return points[..., 0] - self.width / 2, points[..., 1] - self.height / 2

    def _curl(self, u: NDArray[np.floating]) -> NDArray[np.floating]:
        turn = 2 * np.pi / self.curl_length_px
        return self.curl_px * np.sin(u * turn + self.phase) if self.curl_px else np.zeros_like(u)

    def _homography(self) -> NDArray[np.float64]:
        cosine, sine = np.cos(np.radians(self.angle)), np.sin(np.radians(self.angle))
        return np.array([
            [self.scale * cosine, -self.scale * sine, 0.0],
            [self.scale * sine, self.scale * cosine, 0.0],
            [self.tilt[0], self.tilt[1], 1.0],
        ])  # fmt: skip

    def _project(
        self, u: NDArray[np.floating], v: NDArray[np.floating], matrix: NDArray[np.floating]
    ) -> NDArray[np.floating]:
        """Apply a homography around the middle of the page; return (..., 2) pixels."""
        x, y, depth = (row[0] * u + row[1] * v + row[2] for row in matrix)
        return np.stack([x / depth + self.width / 2, y / depth + self.height / 2], axis=-1)


def _corners(box: Box) -> Points:
    left, top, right, bottom = box
    return ((left, top), (right, top), (right, bottom), (left, bottom), (left, top))


def _refined(points: Points, step: float) -> NDArray[np.float64]:
    """Return the points, shape (n, 2), and more between any that lie further apart than `step`."""
    course = np.array(points, dtype=np.float64)
    gaps = np.hypot(*np.diff(course, axis=0).T)
    parts = np.maximum(1, np.ceil(gaps / step)).astype(int)
    pieces = [
        np.linspace(a, b, n, endpoint=False)
        for a, b, n in zip(course[:-1], course[1:], parts, strict=True)
    ]
    return np.concatenate([*pieces, course[-1:]])
