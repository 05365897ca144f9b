"""What a zoom shows: the responses of the patch network in each window, and the page of crops."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

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
from lineside.parts.explain.zoom import Evidence, Window, ZoomPath, centre_box, evidence_of_map
from lineside.parts.metrics import Map
from lineside.parts.models.crops import convert_channels, pad, tile_corners
from lineside.parts.models.detector import Detector, Image, Prediction
from lineside.parts.models.patch_cnn.patch_cnn import PatchCNN, cam_map, guided_map

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

    Near 1: the map would response the same without any training (Adebayo et al. 2018, section 3).

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
