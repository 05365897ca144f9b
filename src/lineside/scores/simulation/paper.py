"""What lies on a page beside its print: paper, stains, stamps, pencil. All lengths in staff spaces.

Every function returns darkness, 0 (nothing) to 1, of shape (height, width).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Darkness = NDArray[np.float32]

DIGITS = (  # strokes of 1 to 5 in a square, as a pencil writes fingerings
    (((0.3, 0.25), (0.55, 0.0), (0.5, 1.0)),),
    (((0.2, 0.25), (0.45, 0.0), (0.8, 0.2), (0.6, 0.55), (0.15, 1.0), (0.85, 0.95)),),
    (((0.2, 0.1), (0.6, 0.0), (0.75, 0.25), (0.4, 0.45), (0.8, 0.65), (0.6, 1.0), (0.15, 0.9)),),
    (((0.5, 0.0), (0.1, 0.6), (0.85, 0.6)), ((0.65, 0.3), (0.6, 1.0))),
    (((0.3, 0.0), (0.25, 0.4), (0.7, 0.45), (0.75, 0.8), (0.45, 1.0), (0.15, 0.9)),
     ((0.3, 0.0), (0.8, 0.0))),
)  # fmt: skip


def smooth_field(
    shape: tuple[int, int], cell_px: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return noise of mean 0 and std about 1 whose blobs are `cell_px` wide."""
    if cell_px <= 1:
        return rng.standard_normal(shape, dtype=np.float32)
    height, width = shape
    rows, columns = int(np.ceil(height / cell_px)) + 3, int(np.ceil(width / cell_px)) + 3
    coarse = Image.fromarray(rng.standard_normal((rows, columns), dtype=np.float32))
    left, top = rng.uniform(1, 2, size=2)  # blobs keep their size, whatever the size of the image
    window = (left, top, left + width / cell_px, top + height / cell_px)
    fine = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC, box=window))
    return fine * np.float32(1.35)  # interpolation takes that much of the std


def paper(shape: tuple[int, int], interline_px: float, rng: np.random.Generator) -> Darkness:
    """Old paper: tone, clouds, grain, a darker side, foxing (brown spots) and tide lines."""
    height, width = shape
    side = rng.normal(0, 0.25, size=2)
    across = np.linspace(-0.5, 0.5, width, dtype=np.float32)
    down = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    clouds = smooth_field(shape, 30 * interline_px, rng)
    tone = 0.45 + side[0] * across + side[1] * down + 0.12 * clouds
    tone += 0.08 * smooth_field(shape, 3 * interline_px, rng)
    tone += 0.05 * smooth_field(shape, max(1.0, 0.15 * interline_px), rng)
    if rng.random() < 0.3:
        tone += np.clip(smooth_field(shape, 1.2 * interline_px, rng) - 2.5 + clouds, 0, 1)
    if rng.random() < 0.2:  # a tide line is a contour of the way that the water went
        tone += 0.35 * np.exp(-(((clouds - 0.6) / 0.05) ** 2)) + 0.1 * (clouds > 0.6)
    return np.clip(tone, 0, 1)


def pencil(
    shape: tuple[int, int], interline_px: float, marks: int, rng: np.random.Generator
) -> Darkness:
    """Fingerings, slurs, ticks and circles by hand, at random places."""
    height, width = shape
    drawing = Image.new("L", (2 * width, 2 * height))  # pixels halved, for smooth edges
    pen = ImageDraw.Draw(drawing)
    for _ in range(marks):
        place = rng.uniform((0, 0), (width, height))
        for stroke in _mark(rng):
            points = 2 * (place + interline_px * stroke)
            thick = max(1, round(2 * interline_px * rng.uniform(0.08, 0.18)))
            pen.line([tuple(p) for p in points], int(rng.integers(110, 240)), thick, "curve")
    grain = 1 - 0.25 * np.abs(smooth_field(shape, 1.0, rng)) if marks else np.float32(1)
    return np.clip(np.asarray(drawing.reduce(2), dtype=np.float32) / 255 * grain, 0, 1)


def _mark(rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Return the strokes of one mark, each (n, 2) in staff spaces."""
    kind = rng.choice(["digit", "digit", "curve", "circle", "tick"])
    if kind == "digit":
        size = rng.uniform(1.0, 1.8)
        lean = np.array([[1.0, 0.0], [rng.normal(-0.15, 0.15), 1.0]])
        strokes = DIGITS[int(rng.integers(len(DIGITS)))]
        return [
            size * (np.array(s) * (0.6, 1) + rng.normal(0, 0.04, (len(s), 2))) @ lean
            for s in strokes
        ]
    if kind == "tick":
        return [np.cumsum(rng.normal((0.3, 0.0), 0.7, (3, 2)), axis=0)]
    turn = np.linspace(0, 1, 16)
    if kind == "circle":
        angle = rng.uniform(0, 2 * np.pi) + turn * 2 * np.pi * rng.uniform(0.9, 1.1)
        return [np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(0.8, 3.0, 2)]
    length, height = rng.uniform(2, 9), rng.normal(0, 1.2)
    return [np.stack([turn * length, 4 * height * turn * (1 - turn) + rng.normal() * turn], 1)]


def stamp(shape: tuple[int, int], interline_px: float, rng: np.random.Generator) -> Darkness:
    """The stamp of a library: two rings with lettering that nobody can read, worn and turned."""
    height, width = shape
    radius = interline_px * rng.uniform(2.0, 7.0)
    over = 3  # pixels per pixel, for smooth edges
    size = int(2 * radius) + 4
    tile = Image.new("L", (size * over, size * over))
    pen = ImageDraw.Draw(tile)
    middle, pixel = size * over / 2, radius * over
    flat = rng.uniform(0.7, 1.0) if rng.random() < 0.5 else 1.0
    thick = max(1, round(0.035 * pixel))
    for share in (1.0, rng.uniform(0.62, 0.75)):
        r = pixel * share
        box = (middle - r, middle - r * flat, middle + r, middle + r * flat)
        pen.ellipse(box, outline=255, width=thick)
    for angle in np.arange(0, 2 * np.pi, rng.uniform(0.17, 0.25)):
        if rng.random() < 0.85:  # letters stand round the ring, three strokes each
            place = np.array([np.cos(angle), np.sin(angle) * flat]) * pixel * 0.85
            _letter(pen, middle + place, 0.08 * pixel, angle, thick, rng)
    for row in (-0.22, 0.05, 0.32):
        for x in np.arange(-0.42, 0.42, 0.13):
            _letter(
                pen, middle + pixel * np.array([x, row * flat]), 0.07 * pixel, np.pi / 2, thick, rng
            )
    turned = tile.rotate(rng.uniform(-30, 30), Image.Resampling.BILINEAR).reduce(over)
    result = Image.new("L", (width, height))
    x, y = rng.uniform(0, (width, height)) - size / 2
    result.paste(turned, (int(x), int(y)))
    worn = np.clip(0.9 + 0.35 * smooth_field(shape, 0.5 * interline_px, rng), 0, 1)
    return np.asarray(result, dtype=np.float32) / 255 * worn


def _letter(
    pen: ImageDraw.ImageDraw, middle: NDArray[np.float64], size: float, angle: float, thick: int,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Draw three connected strokes that look like a letter whose top points along `angle`."""
    turn = angle + np.pi / 2
    rotate = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    corners = rng.choice([-0.6, 0.0, 0.6], (4, 2)) * (1, 1.6)
    pen.line([tuple(p) for p in middle + size * corners @ rotate], 255, thick)
