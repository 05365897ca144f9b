"""Single glyphs as pictures: rare symbols that no piece at hand contains, to paste into pages.

Their outlines are those of verovio's music fonts, 250 units to a staff space.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from lineside.scores.engraving.svg_symbols import glyph_boxes
from lineside.scores.engraving.verovio_engraver import rasterise
from lineside.scores.engraving.vocabulary import GLYPHS, KEY_CLASSES, SMALL

UNITS = 250.0  # of a font to a staff space
SMALL_SIZES = (0.66, 0.8)
MARGIN = 2  # pixels of paper around a glyph


@dataclass(frozen=True, kw_only=True)
class Glyph:
    """A glyph drawn alone.

    Attributes:
        name: Its class.
        image: Grey picture, 0 black.
        box: Left, top, right, bottom of the ink in the picture.
    """

    name: str
    image: NDArray[np.uint8]
    box: tuple[float, float, float, float]


@cache
def glyphs(font: str, interline_px: float) -> Mapping[str, tuple[Glyph, ...]]:
    """Draw every glyph of the vocabulary that a font has, by class; small twins in two sizes."""
    found: dict[str, list[Glyph]] = {}
    for name, codes in GLYPHS.items():
        for code in codes.split():
            for twin, size in _twins(name):
                glyph = _draw(font, code, twin, interline_px * size)
                if glyph is not None:
                    found.setdefault(twin, []).append(glyph)
    return {name: tuple(drawn) for name, drawn in found.items()}


def _twins(name: str) -> list[tuple[str, float]]:
    small = [(f"{name}Small", size) for size in SMALL_SIZES] if name in SMALL else []
    key = [(KEY_CLASSES[name], 1.0)] if name in KEY_CLASSES else []
    return [(name, 1.0), *key, *small]


def _draw(font: str, code: str, name: str, interline_px: float) -> Glyph | None:
    outline = glyph_boxes(font).get(code)
    source = files("verovio").joinpath("data", font, f"{code}.xml")
    if outline is None or not source.is_file():
        return None
    (path,) = re.findall(r' d="([^"]*)"', source.read_text(encoding="utf-8")) or [""]
    scale = interline_px / UNITS
    left, low, wide, high = (value * scale for value in outline)
    width, height = int(np.ceil(wide)) + 2 * MARGIN, int(np.ceil(high)) + 2 * MARGIN
    x, y = MARGIN - left, MARGIN + low + high  # where the glyph's origin comes to lie
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">'
        f'<path transform="translate({x},{y}) scale({scale},{-scale})" d="{path}"/></svg>'
    )
    box = (float(MARGIN), float(MARGIN), MARGIN + wide, MARGIN + high)
    return Glyph(name=name, image=rasterise(svg, (width, height)), box=box)
