"""Adaptive zoom: from the whole picture down to the crop that holds a defect.

Beam search in a quadtree over the picture (Stadelmann et al., talk of 2020): a window is split into
four overlapping ones, and the best are followed until a window is as small as the crops that a
patch network was trained on. Crops are never rescaled, since the size of a defect decides between
good and bad. A window is scored from evidence at native size (the tiles of a patch network, the
cells of the map of other methods), so the zoom cannot contradict the verdict. `zoom_sheet` shows
the windows with the responses of the patch network in each.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw
from scipy import ndimage

from lineside.core.explain.sanity_checks import randomise_weights, rank_agreement
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
    font,
    overlay,
    side_by_side,
    signed_map,
    thumbnail,
)
from lineside.parts.metrics import EIGHT_NEIGHBOURS, Map
from lineside.parts.models.crops import convert_channels, pad, tile_corners
from lineside.parts.models.detector import Detector, Image, Prediction
from lineside.parts.models.patch_cnn.patch_cnn import PatchCNN, cam_map, guided_map

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
        """The last window, centred on the strongest response as far as the picture allows."""
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


LARGEST_PX = 1_000_000
"""A patch network is not run on windows of more pixels."""
SMOOTHING = 16
"""The strongest response is sought after smoothing by a crop's side over this."""
CELL_PX = 144
COLOURS = ((232, 93, 4), (0, 128, 200), (150, 60, 190))
"""One per path: orange, blue, violet; told apart by the colour-blind as well."""
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


@dataclass(frozen=True, kw_only=True)
class WindowResponse:
    """Output of a patch network for one window at native size.

    Attributes:
        probability: Sigmoid of the logit. The network averages over a window, so that a small
            defect counts little in a large one.
        guided: Guided backpropagation, shape (height, width), signed, summed over channels.
        cam: Grad-CAM brought to the window's size, shape (height, width), not negative. Both are
            multiplied by the window's area over the trained crop's, so that they compare.
    """

    probability: float
    guided: NDArray[np.float32]
    cam: NDArray[np.float32]


def evidence_of_tiles(cnn: PatchCNN, image: Image, prediction: Prediction) -> Evidence:
    """Return the logits of a patch network's tiles, with its correction for the picture's size.

    The strongest two of the whole picture have the mean that is the score.

    Args:
        cnn: The network.
        image: The whole picture.
        prediction: Score and tile logits of the network.
    """
    assert prediction.tile_logits is not None
    logits = prediction.tile_logits.astype(np.float64)
    whole, (above, before) = pad(convert_channels(image, cnn.channels), cnn.crop_px)
    corners = tile_corners(whole.shape, cnn.crop_px)
    tops, lefts = (sorted({corner[axis] for corner in corners}) for axis in (0, 1))
    size = cnn.tile_slope * math.log(len(corners))
    return Evidence(
        values=logits.reshape(len(tops), len(lefts)) - size,
        y=np.array(tops) + cnn.crop_px / 2 - above,
        x=np.array(lefts) + cnn.crop_px / 2 - before,
        shape=(image.shape[0], image.shape[1]),
    )


def centre_on_response(cnn: PatchCNN, image: Image, path: ZoomPath) -> ZoomPath:
    """Return a path whose final crop lies round the network's strongest response in it.

    The response is smoothed guided backprop; its maximum becomes the peak. The crop stays where
    it is if the network's output would be lower after the move, and keeps its tiles' score.
    """
    response = window_response(cnn, image, path.final)
    peak = _strongest(response, path.final, cnn.crop_px)
    shape = (image.shape[0], image.shape[1])
    moved = Window(*centre_box(path.final.box, peak, shape), score=path.final.score)
    again = window_response(cnn, image, moved)
    if again.probability < response.probability:
        return dataclasses.replace(path, peak=peak)
    peak = _strongest(again, moved, cnn.crop_px)
    return ZoomPath(windows=(*path.windows[:-1], moved), peak=peak)


def agreement_with_random(cnn: PatchCNN, image: Image, window: Window) -> tuple[float, float]:
    """Return rank correlations of guided backprop and Grad-CAM with those of random weights.

    Near 1: the map would look the same without any training (Adebayo et al. 2018, section 3).

    Args:
        cnn: The network.
        image: The whole picture.
        window: A final window.
    """
    twin = dataclasses.replace(cnn, network=randomise_weights(cnn.network))
    own, other = (window_response(network, image, window) for network in (cnn, twin))
    guided, cam = (
        rank_agreement(torch.from_numpy(np.abs(a))[None], torch.from_numpy(np.abs(b))[None])
        for a, b in ((own.guided, other.guided), (own.cam, other.cam))
    )
    return guided, cam


def _strongest(response: WindowResponse, window: Window, crop_px: int) -> tuple[float, float]:
    strength = ndimage.gaussian_filter(np.abs(response.guided), crop_px / SMOOTHING)
    row, column = np.unravel_index(int(strength.argmax()), strength.shape)
    return window.left + float(column) + 0.5, window.top + float(row) + 0.5


def refine_peak(detector: Detector, image: Image, path: ZoomPath) -> ZoomPath:
    """Return a path with the peak of a detector's map of the final crop alone.

    On crops the default detector points more exactly than on the whole picture. The window keeps
    its score: a crop's own is on no calibrated scale.
    """
    window = path.final
    local = evidence_of_map(detector.predict(window.of(image)).map, window.of(image))
    row, column = np.unravel_index(int(local.values.argmax()), local.values.shape)
    peak = (window.left + float(local.x[column]), window.top + float(local.y[row]))
    return dataclasses.replace(path, peak=peak)


def window_response(cnn: PatchCNN, image: Image, window: Window) -> WindowResponse:
    """Run a patch network on a window at native size, with guided backprop and Grad-CAM.

    Args:
        cnn: The network.
        image: The whole picture.
        window: Where; mirrored outwards if it is smaller than the trained crop.
    """
    height, width = window.size
    crop, (above, before) = pad(convert_channels(window.of(image), cnn.channels), cnn.crop_px)
    x = cnn.standardise(crop.transpose(2, 0, 1)[None])
    with torch.inference_mode():
        logit = float(cnn.network(x)[0])
    share = crop.shape[0] * crop.shape[1] / cnn.crop_px**2
    inside = (slice(above, above + height), slice(before, before + width))
    return WindowResponse(
        probability=1.0 / (1.0 + math.exp(-logit)) if logit > -700 else 0.0,
        guided=share * guided_map(cnn.network, x)[0].numpy()[inside],
        cam=share * cam_map(cnn.network, x)[0].numpy()[inside],
    )


def zoom_sheet(
    image: Image,
    cells: Map,
    paths: Sequence[ZoomPath],
    *,
    scale: MapScale,
    heading: str,
    cnn: PatchCNN | None = None,
) -> Rgb:
    """Return the picture with its map and nested windows, then a strip for every path.

    Args:
        image: The picture.
        cells: Its anomaly map.
        paths: Strongest first; may be none.
        scale: The scale of all maps of the model.
        heading: A line above.
        cnn: A patch network that explains every window, or None.
    """
    shown = overlay(image, cells, scale, longest_px=max(image.shape))
    blocks = [
        _text(heading, 15),
        side_by_side([_draw_windows(image, paths), _draw_windows(shown, paths)], gap_px=GAP_PX),
    ]
    responses = [
        [
            window_response(cnn, image, w) if cnn and math.prod(w.size) <= LARGEST_PX else None
            for w in path.windows
        ]
        for path in paths
    ]
    limits = _limits([response for row in responses for response in row if response is not None])
    for number, (path, row) in enumerate(zip(paths, responses, strict=True)):
        left, top = path.final.left, path.final.top
        height, width = path.final.size
        words = f"{number + 1}: rows {top} to {top + height}, columns {left} to {left + width}"
        blocks.append(_text(words, 13, COLOURS[number % len(COLOURS)]))
        blocks.append(_strip(image, shown, path, row, limits))
    if paths:
        blocks.append(_text(NOTE, 11))
    if paths and cnn is not None:
        guided, cam = agreement_with_random(cnn, image, paths[0].final)
        blocks += [_text(line.format(guided, cam), 11) for line in CNN_NOTES]
    return _stack(blocks)


def _strip(
    image: Image,
    shown: Rgb,
    path: ZoomPath,
    responses: Sequence[WindowResponse | None],
    limits: tuple[float, float],
) -> Rgb:
    """The crops of one path in a row, below them map, guided backprop and Grad-CAM."""
    windows = path.windows
    tiles: list[Rgb] = [_fit_cell(as_rgb(window.of(image))) for window in windows]
    tiles[-1] = _mark_peak(tiles[-1], path)
    words = [f"{w.size[1]} x {w.size[0]} px" for w in windows]
    tiles += [_fit_cell(window.of(shown)) for window in windows]
    words += [f"map, score {w.score:.2f}" for w in windows]
    if any(responses):
        tiles += [_signed(k.guided if k else None, limits[0]) for k in responses]
        words += [f"guided, output {k.probability:.2f}" if k else "too large" for k in responses]
        tiles += [_signed(k.cam if k else None, limits[1]) for k in responses]
        words += ["Grad-CAM" if k else "too large" for k in responses]
    return contact_sheet(tiles, words, columns=len(windows), cell_px=CELL_PX)


def _mark_peak(picture: Rgb, path: ZoomPath) -> Rgb:
    """The final crop with marks at its edges in the row and column of the peak."""
    left, top = path.final.left, path.final.top
    share = picture.shape[1] / path.final.size[1]
    x, y = (path.peak[0] - left) * share, (path.peak[1] - top) * share
    sheet = Pillow.fromarray(picture)
    draw = ImageDraw.Draw(sheet)
    for ends in (((x, 0), (x, MARK_PX)), ((0, y), (MARK_PX, y))):
        draw.line(ends, fill=HALO, width=4)
        draw.line(ends, fill=CONTOUR, width=2)
    return np.array(sheet)


def _limits(responses: Sequence[WindowResponse]) -> tuple[float, float]:
    """The ends of the two colour scales: one for all windows of a picture, so that they compare."""
    guided = [float(np.quantile(np.abs(response.guided), 0.995)) for response in responses]
    cams = [float(response.cam.max()) for response in responses]
    return max(guided, default=1.0), max(cams, default=1.0)


def _signed(values: NDArray[np.float32] | None, limit: float) -> Rgb:
    if values is None:
        return np.full((CELL_PX, CELL_PX, 3), PAPER, dtype=np.uint8)
    return _fit_cell(signed_map(values, scale=limit))


def _draw_windows(picture: Image | Rgb, paths: Sequence[ZoomPath]) -> Rgb:
    """A picture about as large as shown, with the windows of each path in its colour."""
    times = max(1, DISPLAY_PX // max(picture.shape[:2]))
    pixels = as_rgb(picture).repeat(times, axis=0).repeat(times, axis=1)
    sheet = Pillow.fromarray(thumbnail(pixels, DISPLAY_PX))
    share = sheet.width / picture.shape[1]
    draw = ImageDraw.Draw(sheet)
    for number, path in enumerate(paths):
        for depth, window in enumerate(path.windows[1:] or path.windows, start=1):
            last = depth >= len(path.windows) - 1
            colour = COLOURS[number % len(COLOURS)]
            draw.rectangle(_scaled(window, share), outline=colour, width=3 if last else 1)
    return np.array(sheet)


def _scaled(window: Window, share: float) -> tuple[float, float, float, float]:
    left, top = window.left * share, window.top * share
    return left, top, max(window.right * share - 1, left), max(window.bottom * share - 1, top)


def _fit_cell(pixels: Rgb) -> Rgb:
    """Enlarge a small crop by repeating pixels, or reduce a large one, so that it fills a cell."""
    height, width = pixels.shape[:2]
    share = CELL_PX / max(height, width)
    size = (max(round(width * share), 1), max(round(height * share), 1))
    how = Pillow.Resampling.NEAREST if share > 1 else Pillow.Resampling.BOX
    return np.array(Pillow.fromarray(np.ascontiguousarray(pixels)).resize(size, how))


def _text(words: str, size_px: int, colour: tuple[int, int, int] = INK) -> Rgb:
    text_font = font(size_px)
    sheet = Pillow.new("RGB", (int(text_font.getlength(words)) + 4, size_px + 6), PAPER)
    ImageDraw.Draw(sheet).text((0, 2), words, fill=colour, font=text_font)
    return np.array(sheet)


def _stack(blocks: Sequence[Rgb]) -> Rgb:
    """Blocks below each other, flush left, on light paper with a margin."""
    width = max(block.shape[1] for block in blocks) + 2 * GAP_PX
    height = sum(block.shape[0] + GAP_PX for block in blocks) + GAP_PX
    sheet = np.full((height, width, 3), PAPER, dtype=np.uint8)
    top = GAP_PX
    for block in blocks:
        sheet[top : top + block.shape[0], GAP_PX : GAP_PX + block.shape[1]] = block
        top += block.shape[0] + GAP_PX
    return sheet
