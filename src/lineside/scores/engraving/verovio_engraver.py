"""Engrave a score with verovio: page images, and the truth of every page."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import resvg_py
import verovio
from numpy.typing import NDArray
from PIL import Image

from lineside.core.errors import UserError
from lineside.scores.engraving.page import Note, Page
from lineside.scores.engraving.svg_symbols import page_symbols

FONTS = ("Leipzig", "Bravura", "Leland", "Petaluma")
"""Music fonts that training pages use."""
UNSEEN_FONT = "Gootville"
"""The music font that no training page uses: it tests what a detector does on another font."""
TEXT_FAMILY = "STIXGeneral"  # as wide as Times, which verovio assumes; comes with matplotlib
TEXT_FONTS = [
    str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{TEXT_FAMILY}{style}.ttf")
    for style in ("", "Bol", "Italic", "BolIta")
]
SIDES = ("Left", "Right", "Top", "Bottom")
XML_ID = "{http://www.w3.org/XML/1998/namespace}id"
MEI = "{http://www.music-encoding.org/ns/mei}"
SUFFIXES = (".mxl", ".musicxml", ".xml", ".mei", ".abc", ".krn")
ALTERATIONS = {"s": "#", "ss": "##", "x": "##", "f": "b", "ff": "bb", "n": ""}


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a piece is engraved; `options` are verovio's own.

    Attributes:
        font: Music font.
        options: Further options, e.g. ``{"spacingStaff": 10}``.
    """

    font: str = "Leipzig"
    options: Mapping[str, Any] = field(default_factory=dict)


def random_style(rng: np.random.Generator, fonts: tuple[str, ...] = FONTS) -> Style:
    """Draw a font, page size, spacing and line widths as printed editions vary."""
    text = rng.uniform(4.0, 5.2)
    options = {
        "pageWidth": int(rng.integers(1700, 2500)),
        "pageHeight": int(rng.integers(2400, 3200)),
        **{f"pageMargin{side}": int(rng.integers(40, 160)) for side in SIDES},
        "justifyVertically": bool(rng.random() < 0.6),
        "spacingLinear": float(rng.uniform(0.18, 0.32)),
        "spacingNonLinear": float(rng.uniform(0.5, 0.68)),
        "spacingStaff": int(rng.integers(8, 17)),
        "spacingSystem": int(rng.integers(4, 17)),
        "staffLineWidth": float(rng.uniform(0.12, 0.24)),
        "stemWidth": float(rng.uniform(0.15, 0.32)),
        "barLineWidth": float(rng.uniform(0.22, 0.45)),
        "ledgerLineThickness": float(rng.uniform(0.2, 0.34)),
        "slurCurveFactor": float(rng.uniform(0.7, 1.6)),
        "slurMidpointThickness": float(rng.uniform(0.4, 0.8)),
        "tieMidpointThickness": float(rng.uniform(0.35, 0.7)),
        "hairpinSize": float(rng.uniform(2.2, 3.6)),
        "hairpinThickness": float(rng.uniform(0.15, 0.3)),
        "tupletBracketThickness": float(rng.uniform(0.15, 0.3)),
        "beamMaxSlope": int(rng.integers(4, 16)),
        "graceFactor": float(rng.uniform(0.65, 0.8)),
        "lyricSize": text,
        "mnumInterval": int(rng.choice([0, 0, 1, 5])),
        "useBraceGlyph": bool(rng.random() < 0.3),
        "octaveAlternativeSymbols": bool(rng.random() < 0.5),
        "multiRestStyle": str(rng.choice(["auto", "block", "symbols"])),
        "beamFrenchStyle": bool(rng.random() < 0.1),
        "systemDivider": str(rng.choice(["none", "auto"])),
        "measureMinWidth": int(rng.integers(10, 20)),
    }  # fmt: skip
    return Style(font=str(rng.choice(fonts)), options=options)


def engrave(
    score: Path, style: Style, interline_px: float = 10.5
) -> Iterator[tuple[NDArray[np.uint8], Page]]:
    """Yield the image and the truth of each page of a piece.

    Args:
        score: MusicXML (also compressed), MEI, ABC or Humdrum.
        style: Font and layout.
        interline_px: Staff space of the images.

    Raises:
        UserError: if verovio cannot read the score.
    """
    toolkit = _toolkit(style)
    loaded = toolkit.loadFile(str(score)) and toolkit.getPageCount()
    bars, staves, notes = _music(toolkit) if loaded else ({}, {}, [])
    if not bars:
        raise UserError(
            f"{score.name} is no score that can be read", f"readable are {' '.join(SUFFIXES)}"
        )
    for number in range(1, toolkit.getPageCount() + 1):
        svg = toolkit.renderToSVG(number)
        size, symbols = page_symbols(svg, style.font, interline_px, bars, staves)
        owners = {symbol.owner for symbol in symbols}
        yield (
            rasterise(svg, size),
            Page(
                width=size[0], height=size[1], interline_px=interline_px, song=score.stem,
                engraver=f"verovio {style.font}", number=number, symbols=tuple(symbols),
                notes=tuple(note for note in notes if note.id in owners),
            ),
        )  # fmt: skip


def rasterise(svg: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw a page.

    Args:
        svg: The drawing.
        size: (width, height) in pixels.

    Returns:
        Grey image, shape (height, width), 0 black.
    """
    width, height = size
    png = resvg_py.svg_to_bytes(
        svg_string=svg, width=width, height=height, background="white", skip_system_fonts=True,
        font_files=TEXT_FONTS,
        serif_family=TEXT_FAMILY, font_family=TEXT_FAMILY,
    )  # fmt: skip
    with Image.open(io.BytesIO(bytes(png))) as image:
        return np.asarray(image.convert("L"))


def _toolkit(style: Style) -> Any:
    toolkit = _shared_toolkit()
    toolkit.resetOptions()
    toolkit.setOptions({
        "scale": 100, "font": style.font, "footer": "none", "header": "auto", "breaks": "auto",
        "dynamSingleGlyphs": True, "smuflTextFont": "none", "xmlIdSeed": 1, **style.options,
    })  # fmt: skip
    return toolkit


@cache
def _shared_toolkit() -> Any:
    verovio.enableLog(verovio.LOG_OFF)
    return verovio.toolkit()


def _music(toolkit: Any) -> tuple[dict[str, int], dict[str, int], list[Note]]:
    """Return what the page images do not say.

    Returns:
        The number of each bar by the id of its measure; the staff of each element that verovio
        draws outside its staff (slurs, fermatas, dynamics); what notes and rests mean.
    """
    root = ElementTree.fromstring(toolkit.getMEI())
    onsets = _onsets(toolkit)
    bars: dict[str, int] = {}
    staves: dict[str, int] = {}
    notes: list[Note] = []
    for number, measure in enumerate(root.iter(f"{MEI}measure")):
        bars[measure.attrib[XML_ID]] = number
        begin = onsets.get(measure.attrib[XML_ID], 0.0)
        names: dict[str, int] = {}
        for index, staff in enumerate(measure.findall(f"{MEI}staff")):
            names[staff.get("n", "")] = index
            staves |= {element.get(XML_ID, ""): index for element in staff.iter()}
            for layer, voice in enumerate(staff.iter(f"{MEI}layer")):
                notes += _voice(voice, layer, begin, onsets, Fraction(1), "")
        for event in measure:
            start = event.get("startid", "").removeprefix("#")
            named = event.get("staff", "").split(" ")[0]
            staves.setdefault(event.get(XML_ID, ""), names.get(named, staves.get(start, -1)))
    return bars, staves, notes


def _onsets(toolkit: Any) -> dict[str, float]:
    """Return the quarter notes from the beginning of the piece of every note, rest and measure."""
    events = toolkit.renderToTimemap({"includeMeasures": True, "includeRests": True})
    if isinstance(events, str):
        events = json.loads(events)
    found: dict[str, float] = {}
    for event in events:
        ids = (*event.get("on", ()), *event.get("restsOn", ()), event.get("measureOn", ""))
        for own in ids:
            found.setdefault(own, float(event["qstamp"]))
    return found


def _voice(
    parent: ElementTree.Element, layer: int, begin: float, onsets: Mapping[str, float],
    ratio: Fraction, chord: str,
) -> Iterator[Note]:  # fmt: skip
    """Yield the notes and rests of a voice; `ratio` is that of the tuplets around it."""
    for element in parent:
        name, own = element.tag.removeprefix(MEI), element.get(XML_ID, "")
        if name == "tuplet":
            inner = ratio * Fraction(int(element.get("numbase", 2)), int(element.get("num", 3)))
            yield from _voice(element, layer, begin, onsets, inner, "")
        elif name == "chord":
            for note in element.iter(f"{MEI}note"):
                for key in ("dur", "dots", "grace"):
                    if key in element.attrib:
                        note.attrib.setdefault(key, element.attrib[key])
            yield from _voice(element, layer, begin, onsets, ratio, own)
        elif name in ("note", "rest", "mRest"):
            grace = "grace" in element.attrib
            length = _length(element) * ratio if not grace and name != "mRest" else Fraction(0)
            yield Note(
                id=own,
                pitch=_pitch(element) if name == "note" else "",
                onset=onsets.get(own, onsets.get(chord, begin)) - begin,
                duration=float(length),
                kind="grace" if grace else "note" if name == "note" else "rest",
                chord=chord,
                layer=layer,
            )
        else:
            yield from _voice(element, layer, begin, onsets, ratio, chord)


def _length(element: ElementTree.Element) -> Fraction:
    """Return the written length in quarter notes, with dots."""
    written = element.get("dur", "4")
    length = {"breve": Fraction(8), "long": Fraction(16)}.get(written) or Fraction(4, int(written))
    return length * (2 - Fraction(1, 2 ** int(element.get("dots", 0))))


def _pitch(element: ElementTree.Element) -> str:
    accid = element.find(f"{MEI}accid")
    marks = [element.get("accid.ges"), element.get("accid")]
    if accid is not None:
        marks += [accid.get("accid"), accid.get("accid.ges")]
    mark = next((mark for mark in marks if mark), "n")
    letter = element.get("pname", "").upper()
    return f"{letter}{ALTERATIONS.get(mark, '')}{element.get('oct', '')}"
