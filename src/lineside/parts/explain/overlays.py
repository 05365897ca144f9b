"""Overlays: anomaly maps over images, sheets of thumbnails.

Pure functions from arrays to arrays. A picture to show is uint8 RGB, shape (height, width, 3).
A map covers its picture exactly, see `Prediction.map`, and is drawn bilinear between cell centres
on a scale that the caller passes in: one for all pictures of a model, never one per picture, which
would paint good parts red.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from scipy import ndimage

from lineside.core.contract import Figure
from lineside.parts.calibration import MapScale
from lineside.parts.metrics import EIGHT_NEIGHBOURS, Map, to_pixels
from lineside.parts.models.detector import Image, Mask

Rgb = NDArray[np.uint8]
"""A picture to show, shape (height, width, 3)."""

DISPLAY_PX = 512
"""Longest side of what is drawn; larger photographs are reduced."""
CONTOUR = (255, 255, 255)
HALO = (0, 0, 0)
MASK_OUTLINE = (0, 205, 255)
LARGEST_ALPHA = 0.75
PAPER, INK = (250, 250, 248), (40, 40, 44)


def overlay(
    image: Image | Rgb,
    cells: Map,
    scale: MapScale,
    mask: Mask | None = None,
    *,
    longest_px: int = DISPLAY_PX,
) -> Rgb:
    """Return a picture with its anomaly map, contours at the threshold and the labelled mask.

    Args:
        image: The picture, shape (height, width[, 1 or 3]), float 0..1 or uint8.
        cells: The map, shape (rows, columns).
        scale: What is transparent, what gets a white contour, and what the strongest colour; the
            same for all pictures of a model.
        mask: The labelled defect, shape (height, width), outlined in blue.
        longest_px: Larger pictures are reduced to this.
    """
    shown = thumbnail(image, longest_px)
    evidence = fine_map(cells, (shown.shape[0], shown.shape[1]), scale.threshold)
    strength = np.clip(np.nan_to_num((evidence - scale.low) / scale.span), 0, 1)
    shown = _blend(shown, heat_colours()[_colour_index(strength)], LARGEST_ALPHA * strength)
    if mask is not None:
        region = _reduce_by_maximum(np.asarray(mask, dtype=bool), shown.shape[:2])
        shown[_outline(region, 1)] = MASK_OUTLINE
    region = evidence >= scale.threshold
    shown[_outline(region, 2)] = HALO
    shown[_outline(region, 1)] = CONTOUR
    return shown


def signed_map(
    values: NDArray[np.floating[Any]],
    image: Image | Rgb | None = None,
    *,
    scale: float | None = None,
    longest_px: int = DISPLAY_PX,
) -> Rgb:
    """Return a map of signed values: orange raises the score, blue lowers it.

    Args:
        values: Shape (rows, columns), e.g. a gradient.
        image: The picture behind it, shown pale; plain grey without it.
        scale: Absolute value of the full colour; the 99.5 % quantile if not given.
        longest_px: Larger pictures are reduced to this.
    """
    whole = np.nan_to_num(np.asarray(values, dtype=np.float32))
    shape = (whole.shape[0], whole.shape[1])
    ground = thumbnail(
        np.full((*shape, 1), 0.93, np.float32) if image is None else image, longest_px
    )
    if image is not None:
        grey = ground.mean(axis=2, keepdims=True)
        ground = np.broadcast_to(grey * 0.55 + 255 * 0.35, ground.shape).astype(np.uint8)
    limit = float(np.quantile(np.abs(whole), 0.995)) if scale is None else scale
    shown = (ground.shape[0], ground.shape[1])
    positive = fine_map(np.maximum(whole, 0), shown) / max(limit, 1e-12)
    negative = fine_map(np.maximum(-whole, 0), shown) / max(limit, 1e-12)
    net = np.clip(positive - negative, -1, 1)
    colours = np.where(net[..., None] > 0, srgb(0.62, 0.21, 45), srgb(0.5, 0.19, 260))
    return _blend(ground, colours, np.abs(net))


def colour_bar(scale: MapScale, *, width_px: int = 320) -> Rgb:
    """Return the legend of `overlay`: colours of the scale with a mark at the threshold."""
    height, edge = 44, 24
    sheet = Pillow.new("RGB", (width_px, height), PAPER)
    inner = width_px - 2 * edge
    strength = np.linspace(0, 1, inner, dtype=np.float32)
    ground = np.full((16, inner, 3), 128, dtype=np.uint8)
    bar = _blend(
        ground,
        np.broadcast_to(heat_colours()[_colour_index(strength)], ground.shape),
        np.broadcast_to(LARGEST_ALPHA * strength, ground.shape[:2]),
    )
    sheet.paste(Pillow.fromarray(bar), (edge, 4))
    draw = ImageDraw.Draw(sheet)
    for value, name in ((scale.low, ""), (scale.threshold, "contour "), (scale.high, "")):
        place = edge + np.clip((value - scale.low) / scale.span, 0, 1) * (inner - 1)
        draw.line([(place, 2), (place, 23)], fill=INK, width=1)
        draw.text((place, 27), f"{name}{value:.3g}", fill=INK, font=font(11), anchor="ma")
    return np.asarray(sheet)


def thumbnail(image: Image | Rgb | Mask, longest_px: int = 160) -> Rgb:
    """Return a picture as RGB whose longest side is at most `longest_px`; never enlarged."""
    pixels = as_rgb(image)
    height, width = pixels.shape[:2]
    share = longest_px / max(height, width)
    if share >= 1:
        return pixels
    size = (max(round(width * share), 1), max(round(height * share), 1))
    return np.array(Pillow.fromarray(pixels).resize(size, Pillow.Resampling.BOX))


def enlarge(values: NDArray[Any], side_px: int) -> NDArray[Any]:
    """Repeat the pixels of a small square as often as fits into a side."""
    times = max(1, side_px // values.shape[0])
    return values.repeat(times, axis=0).repeat(times, axis=1)


def side_by_side(pictures: Sequence[Rgb], *, gap_px: int = 6) -> Rgb:
    """Return pictures in one row, unscaled, centred vertically on light paper."""
    height = max(picture.shape[0] for picture in pictures)
    width = sum(picture.shape[1] for picture in pictures) + gap_px * (len(pictures) - 1)
    sheet = np.full((height, width, 3), PAPER, dtype=np.uint8)
    left = 0
    for picture in pictures:
        top = (height - picture.shape[0]) // 2
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = as_rgb(picture)
        left += picture.shape[1] + gap_px
    return sheet


def contact_sheet(
    pictures: Sequence[Image | Rgb],
    captions: Sequence[str] = (),
    *,
    columns: int = 6,
    cell_px: int = 144,
    gap_px: int = 8,
) -> Rgb:
    """Return thumbnails in rows, each in a square cell, with a line of text below where given.

    Raises:
        ValueError: if there is no picture, or not one caption per picture.
    """
    if not len(pictures) or (captions and len(captions) != len(pictures)):
        raise ValueError(f"{len(pictures)} pictures with {len(captions)} captions")
    columns = min(columns, len(pictures))
    step = (cell_px + gap_px, cell_px + gap_px + (16 if captions else 0))
    rows = -(-len(pictures) // columns)
    sheet = Pillow.new("RGB", (columns * step[0] + gap_px, rows * step[1] + gap_px), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, picture in enumerate(pictures):
        small = Pillow.fromarray(thumbnail(picture, cell_px))
        left = gap_px + index % columns * step[0]
        top = gap_px + index // columns * step[1]
        off = ((cell_px - small.width) // 2, (cell_px - small.height) // 2)
        sheet.paste(small, (left + off[0], top + off[1]))
        if captions:
            place = (left + cell_px / 2, top + cell_px + 2)
            text = _shorten(draw, captions[index], cell_px)
            draw.text(place, text, fill=INK, font=font(11), anchor="ma")
    return np.array(sheet)


def sheet_figure(
    title: str,
    caption: str,
    pictures: Sequence[Image | Rgb],
    captions: Sequence[str] = (),
    *,
    columns: int,
    cell_px: int,
    jpeg: bool = True,
    wide: bool = False,
) -> Figure:
    """Return a `contact_sheet` as a figure, as JPEG (photographs) or PNG (maps, few colours)."""
    sheet = contact_sheet(pictures, captions, columns=columns, cell_px=cell_px)
    image, mime = (encode_jpeg(sheet), "image/jpeg") if jpeg else (encode_png(sheet), "image/png")
    return Figure(title=title, image=image, mime=mime, caption=caption, wide=wide)


def encode_png(picture: Image | Rgb | Mask) -> bytes:
    """Return a picture as PNG: lossless, for maps and masks with few colours."""
    return _encode(picture, format="PNG", optimize=True)


def encode_jpeg(picture: Image | Rgb, quality: int = 85) -> bytes:
    """Return a picture as JPEG: a tenth of the bytes of PNG for photographs."""
    return _encode(picture, format="JPEG", quality=quality, optimize=True)


def as_rgb(image: Image | Rgb | Mask) -> Rgb:
    """Return uint8 RGB of grey or colour; floating-point values 0..1 are clipped and rounded.

    Raises:
        ValueError: for another shape or type.
    """
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise ValueError(f"need shape (height, width[, 1 or 3]), got {np.shape(image)}")
    if pixels.dtype == bool or np.issubdtype(pixels.dtype, np.floating):
        pixels = (np.clip(pixels.astype(np.float32), 0, 1) * 255 + 0.5).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ValueError(f"need float, bool or uint8, got {pixels.dtype}")
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def fine_map(cells: Map, shape: tuple[int, int], threshold: float = math.inf) -> Map:
    """Return a map at pixel resolution that keeps every cell at or above the threshold.

    Bilinear values stay below a lone peak, whose middle may lie between pixels; and a grid finer
    than the pixels would be skipped in part. The nearest pixel takes the peak's own value.
    """
    grid = np.asarray(cells, dtype=np.float32)
    coarse = _reduce_by_maximum(grid, (min(shape[0], grid.shape[0]), min(shape[1], grid.shape[1])))
    fine = to_pixels(coarse, shape)
    rows, columns = np.nonzero(grid >= threshold)
    y = ((rows + 0.5) * shape[0] / grid.shape[0]).astype(np.intp)
    x = ((columns + 0.5) * shape[1] / grid.shape[1]).astype(np.intp)
    np.maximum.at(fine, (y, x), grid[rows, columns])
    return fine


def _reduce_by_maximum(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an array reduced to (rows, columns) by the maximum, so that small regions survive."""
    for axis, size in enumerate(shape[:2]):
        if size != values.shape[axis]:
            starts = np.arange(size) * values.shape[axis] // size
            values = np.maximum.reduceat(values, starts, axis=axis)
    return values


def _outline(region: Mask, width_px: int) -> Mask:
    """Return the pixels round a region, up to a width."""
    grown: Mask = ndimage.binary_dilation(region, EIGHT_NEIGHBOURS, iterations=width_px)
    return grown & ~region


def _blend(ground: Rgb, colours: NDArray[Any], alpha: NDArray[Any]) -> Rgb:
    share = alpha[..., None]
    mixed: NDArray[Any] = ground * (1 - share) + colours * share + 0.5
    return mixed.astype(np.uint8)


def _colour_index(strength: NDArray[Any]) -> NDArray[np.intp]:
    return (strength * 255 + 0.5).astype(np.intp)


def _encode(picture: Image | Rgb | Mask, **options: Any) -> bytes:
    pixels = as_rgb(picture)
    grey = (pixels[..., :1] == pixels).all()
    stream = io.BytesIO()
    Pillow.fromarray(pixels[..., 0] if grey else pixels).save(stream, **options)
    return stream.getvalue()


def _shorten(draw: ImageDraw.ImageDraw, text: str, width_px: int) -> str:
    """Return a text cut to a width, with an ellipsis."""
    if draw.textlength(text, font=font(11)) <= width_px:
        return text
    while text and draw.textlength(f"{text}…", font=font(11)) > width_px:
        text = text[:-1]
    return f"{text}…"


@cache
def font(size_px: int) -> Any:
    """Return the font of drawn text."""
    return ImageFont.load_default(size_px)


@cache
def heat_colours() -> NDArray[np.float32]:
    """Return 256 colours from dim violet over red to light yellow, values 0..255, shape (256, 3).

    Lightness rises evenly in Oklab, so equal steps of evidence look equal, also in grey print.
    """
    share = np.linspace(0, 1, 256)
    chroma = 0.13 + 0.09 * np.sin(np.pi * np.clip(share, 0, 1)) - 0.02 * share
    return srgb(0.32 + 0.6 * share, chroma, 305 + 160 * share)


def srgb(lightness: Any, chroma: Any, hue_degrees: Any) -> NDArray[np.float32]:
    """Return sRGB 0..255 of Oklab cylinder coordinates (Ottosson 2020), clipped to the gamut."""
    hue = np.radians(hue_degrees)
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ],
        axis=-1,
    ).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (255 * encoded).astype(np.float32)
