"""One picture of a zoom: nested rectangles, then the crops on every way down with their maps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from lineside.parts.calibration import MapScale
from lineside.parts.explain.overlays import (
    CONTOUR,
    DISPLAY_PX,
    HALO,
    INK,
    PAPER,
    Rgb,
    as_rgb,
    contact_sheet,
    overlay,
    side_by_side,
    signed_map,
    thumbnail,
)
from lineside.parts.explain.zoom import Trail, Window
from lineside.parts.explain.zoom_passes import Look, agreement_with_random, look_at
from lineside.parts.metrics import Map
from lineside.parts.models.detector import Image
from lineside.parts.models.patch_cnn.patch_cnn import PatchCNN

CELL_PX = 144
COLOURS = ((232, 93, 4), (0, 128, 200), (150, 60, 190))
"""One per way: orange, blue, violet; told apart by the colour-blind as well."""
GAP_PX = 10
MARK_PX = 12
NOTE = (
    "map: on the scale of all pictures. score: mean of the window's two strongest cells of the "
    "map; of a patch CNN's own verdict, of its tiles. Marks at the edges: the strongest place."
)
CNN_NOTES = (
    "output: of the patch CNN on the whole window, over which it averages. "
    "Maps of one kind share a scale within this picture; orange speaks for a defect.",
    "Rank correlation with random weights in the first final crop: guided backprop {:.2f}, "
    "Grad-CAM {:.2f}; the nearer to 1, the less a map says about what was learned.",
)


def zoom_sheet(
    image: Image,
    cells: Map,
    trails: Sequence[Trail],
    *,
    scale: MapScale,
    heading: str,
    cnn: PatchCNN | None = None,
) -> Rgb:
    """Return the picture with its map and nested windows, then a strip for every way down.

    Args:
        image: The picture.
        cells: Its anomaly map.
        trails: Ways down, strongest first; may be none.
        scale: The scale of all maps of the model.
        heading: A line above.
        cnn: A patch network that explains every window, or None.
    """
    shown = overlay(
        image, cells, scale.threshold, scale.high, scale_min=scale.low, longest_px=max(image.shape)
    )
    blocks = [
        _text(heading, 15),
        side_by_side([_nested(image, trails), _nested(shown, trails)], gap_px=GAP_PX),
    ]
    looks = [[look_at(cnn, image, w) if cnn else None for w in t.windows] for t in trails]
    limits = _limits([look for way in looks for look in way if look is not None])
    for number, (trail, way) in enumerate(zip(trails, looks, strict=True)):
        left, top = trail.final.left, trail.final.top
        high, wide = trail.final.size
        words = f"{number + 1}: rows {top} to {top + high}, columns {left} to {left + wide}"
        blocks.append(_text(words, 13, COLOURS[number % len(COLOURS)]))
        blocks.append(_strip(image, shown, trail, way, limits))
    if trails:
        blocks.append(_text(NOTE, 11))
    if trails and cnn is not None:
        guided, cam = agreement_with_random(cnn, image, trails[0].final)
        blocks += [_text(line.format(guided, cam), 11) for line in CNN_NOTES]
    return _stacked(blocks)


def _strip(
    image: Image,
    shown: Rgb,
    trail: Trail,
    looks: Sequence[Look | None],
    limits: tuple[float, float],
) -> Rgb:
    """The crops of one way in a row, below them map, guided backprop and Grad-CAM."""
    windows = trail.windows
    tiles: list[Rgb] = [_filled(as_rgb(window.of(image))) for window in windows]
    tiles[-1] = _marked(tiles[-1], trail)
    words = [f"{w.size[1]} x {w.size[0]} px" for w in windows]
    tiles += [_filled(window.of(shown)) for window in windows]
    words += [f"map, score {w.score:.2f}" for w in windows]
    if any(looks):
        guided = [(look.guided if look else None) for look in looks]
        cams = [(look.cam if look else None) for look in looks]
        tiles += [_signed(values, limits[0]) for values in guided]
        words += [f"guided, output {k.probability:.2f}" if k else "too large" for k in looks]
        tiles += [_signed(values, limits[1]) for values in cams]
        words += ["Grad-CAM" if k else "too large" for k in looks]
    return contact_sheet(tiles, words, columns=len(windows), cell_px=CELL_PX)


def _marked(picture: Rgb, trail: Trail) -> Rgb:
    """The final crop with marks at its edges in the row and column of the peak."""
    left, top = trail.final.left, trail.final.top
    share = picture.shape[1] / trail.final.size[1]
    x, y = (trail.peak[0] - left) * share, (trail.peak[1] - top) * share
    sheet = Pillow.fromarray(picture)
    draw = ImageDraw.Draw(sheet)
    for ends in (((x, 0), (x, MARK_PX)), ((0, y), (MARK_PX, y))):
        draw.line(ends, fill=HALO, width=4)
        draw.line(ends, fill=CONTOUR, width=2)
    return np.array(sheet)


def _limits(looks: Sequence[Look]) -> tuple[float, float]:
    """The ends of the two colour scales: one for all windows of a picture, so that they compare."""
    guided = [float(np.quantile(np.abs(look.guided), 0.995)) for look in looks]
    cams = [float(look.cam.max()) for look in looks]
    return max(guided, default=1.0), max(cams, default=1.0)


def _signed(values: NDArray[np.float32] | None, limit: float) -> Rgb:
    if values is None:
        return np.full((CELL_PX, CELL_PX, 3), PAPER, dtype=np.uint8)
    return _filled(signed_map(values, scale=limit))


def _nested(picture: Image | Rgb, trails: Sequence[Trail]) -> Rgb:
    """A picture about as large as shown, with the windows of each way in its colour."""
    times = max(1, DISPLAY_PX // max(picture.shape[:2]))
    pixels = as_rgb(picture).repeat(times, axis=0).repeat(times, axis=1)
    sheet = Pillow.fromarray(thumbnail(pixels, DISPLAY_PX))
    share = sheet.width / picture.shape[1]
    draw = ImageDraw.Draw(sheet)
    for number, trail in enumerate(trails):
        for depth, window in enumerate(trail.windows[1:] or trail.windows, start=1):
            last = depth >= len(trail.windows) - 1
            colour = COLOURS[number % len(COLOURS)]
            draw.rectangle(_scaled(window, share), outline=colour, width=3 if last else 1)
    return np.array(sheet)


def _scaled(window: Window, share: float) -> tuple[float, float, float, float]:
    left, top = window.left * share, window.top * share
    return left, top, max(window.right * share - 1, left), max(window.bottom * share - 1, top)


def _filled(pixels: Rgb) -> Rgb:
    """Enlarge a small crop by repeating pixels, or reduce a large one, so that it fills a cell."""
    height, width = pixels.shape[:2]
    share = CELL_PX / max(height, width)
    size = (max(round(width * share), 1), max(round(height * share), 1))
    how = Pillow.Resampling.NEAREST if share > 1 else Pillow.Resampling.BOX
    return np.array(Pillow.fromarray(np.ascontiguousarray(pixels)).resize(size, how))


def _text(words: str, size_px: int, colour: tuple[int, int, int] = INK) -> Rgb:
    font = _font(size_px)
    sheet = Pillow.new("RGB", (int(font.getlength(words)) + 4, size_px + 6), PAPER)
    ImageDraw.Draw(sheet).text((0, 2), words, fill=colour, font=font)
    return np.array(sheet)


def _stacked(blocks: Sequence[Rgb]) -> Rgb:
    """Blocks below each other, flush left, on light paper with a margin."""
    width = max(block.shape[1] for block in blocks) + 2 * GAP_PX
    height = sum(block.shape[0] + GAP_PX for block in blocks) + GAP_PX
    sheet = np.full((height, width, 3), PAPER, dtype=np.uint8)
    top = GAP_PX
    for block in blocks:
        sheet[top : top + block.shape[0], GAP_PX : GAP_PX + block.shape[1]] = block
        top += block.shape[0] + GAP_PX
    return sheet


@cache
def _font(size_px: int) -> Any:
    return ImageFont.load_default(size_px)
