"""Names for glyphs that are drawn as bare outlines, as in MuseScore's SVG.

MuseScore names the kind of element that a path belongs to, but not the glyph. So it is asked to
draw a calibration score first, with one known glyph on every page, and outlines are then told by
their commands and the place of their points. Shapes are compared without their size: a small twin
(grace note, cue) is the same shape, smaller.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from lineside.scores.engraving.svg_symbols import WAVES
from lineside.scores.engraving.vocabulary import GLYPHS

TOLERANCE = 0.04  # between points of equal shapes, in heights of the glyph; others differ by 0.1
LEDGER_RESTS = {"E4F4": "E4E3", "E4F5": "E4E4"}  # rests outside the staff bring their ledger line
OTHERS = ("E08C", "E08E", "E88A")  # plus and slash of time signatures, colon of tuplets
OLD_NAMES = {  # before SMuFL 1.4, or missing in verovio's table
    "E56C": "ornamentMordent", "E56D": "ornamentMordentInverted",
    "E4F4": "restWholeLegerLine", "E4F5": "restHalfLegerLine",
}  # fmt: skip
CODES = (
    *(code for codes in GLYPHS.values() for code in codes.split()),
    *sorted(WAVES), *LEDGER_RESTS, *OTHERS,
)  # fmt: skip
CALIBRATED = frozenset({"Symbol", "Dynamic", "Tuplet"})
TUPLET_DIGITS = {**{f"E88{n}": n for n in range(2, 10)}, "E880": 10, "E881": 11}
TUPLET_PART = {"E880": slice(1, None), "E881": slice(1)}  # of the outlines of 10 and 11
TRANSFORM = re.compile(r"matrix\(([^)]*)\)")
POINTS_OF = {"M": 1, "L": 1, "C": 3}


@dataclass(frozen=True, eq=False)
class Outline:
    """A part of a path that is drawn without lifting the pen.

    Attributes:
        commands: One letter each: M, L or C.
        points: Shape (points, 2); control points of curves too.
    """

    commands: str
    points: NDArray[np.float64]

    def course(self, samples: int = 9) -> NDArray[np.float64]:
        """Return points on the ink, curves sampled, shape (points, 2)."""
        found = [self.points[:1]]
        steps = np.linspace(0, 1, samples)[1:, None]
        at = 1
        for command in self.commands[1:]:
            if command == "C":
                a, (b, c, d) = self.points[at - 1], self.points[at : at + 3]
                rest = 1 - steps
                found.append(
                    rest**3 * a + 3 * rest**2 * steps * b + 3 * rest * steps**2 * c + steps**3 * d
                )
            else:
                found.append(self.points[at : at + 1])
            at += POINTS_OF[command]
        return np.concatenate(found)


@dataclass(frozen=True, eq=False)
class Shape:
    """A glyph as it was calibrated: its SMuFL code, its points in heights, its height in pixels."""

    code: str
    points: NDArray[np.float64]
    height: float


@dataclass(frozen=True, eq=False)
class Found:
    """A glyph of a path: its SMuFL code (empty: unknown), scale and outlines."""

    code: str
    scale: float
    outlines: Sequence[Outline]


Shapes = Mapping[tuple[str, ...], Sequence[Shape]]
"""Shapes by the commands of their outlines."""


def calibration_score(style: str) -> str:
    """Return a score in MuseScore's format with one glyph of `CODES` on each page.

    It is there twice: as a symbol, drawn with the music font, and as text of a dynamic, drawn with
    the music's text font, whose outlines differ. A digit of tuplets is there as the number of a
    tuplet too, which has a third font.

    Args:
        style: Elements of its style, XML.
    """
    names = _glyph_names()
    bars = "".join(
        "<Measure><LayoutBreak><subtype>page</subtype></LayoutBreak><voice><Dynamic>"
        f"<subtype>other-dynamics</subtype><text><sym>{names[code]}</sym></text></Dynamic>"
        f"<Symbol><name>{names[code]}</name></Symbol>{_rests(code)}</voice></Measure>"
        for code in CODES
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><museScore version="3.01"><Score>'
        '<LayerTag id="0" tag="default"></LayerTag><currentLayer>0</currentLayer>'
        f"<Division>480</Division><Style>{style}</Style>"
        '<Part><Staff id="1"><StaffType group="pitched"><name>stdNormal</name></StaffType></Staff>'
        "<trackName>-</trackName><Instrument><Channel/></Instrument></Part>"
        f'<Staff id="1">{bars}</Staff></Score></museScore>'
    )


def read_shapes(pages: Sequence[str]) -> Shapes:
    """Return the shapes of the glyphs of `CODES` from the SVG of the calibration score."""
    found: dict[tuple[str, ...], list[Shape]] = defaultdict(list)
    for code, page in zip(CODES, pages, strict=False):  # the program may add an empty page
        for element in ElementTree.fromstring(page).iter():
            if element.get("class") in CALIBRATED and "d" in element.attrib:
                outlines = read_outlines(element)
                if element.get("class") == "Tuplet":
                    outlines = outlines[TUPLET_PART.get(code, slice(None))]
                points, height = _normal(outlines)
                key = tuple(outline.commands for outline in outlines)
                found[key].append(Shape(code, points, height))
    return found


def recognise(outlines: Sequence[Outline], shapes: Shapes, codes: Collection[str]) -> list[Found]:
    """Return the glyphs of a path, which may hold several (the letters of a dynamic).

    Args:
        outlines: Of the path.
        shapes: Of the font.
        codes: SMuFL codes that are possible here; they decide between equal shapes.
    """
    longest = max(map(len, shapes), default=0)
    found: list[Found] = []
    at = 0
    while at < len(outlines):
        for count in range(min(longest, len(outlines) - at), 0, -1):
            part = outlines[at : at + count]
            shape = _nearest(part, shapes, codes)
            if shape:
                found.append(Found(shape.code, _normal(part)[1] / shape.height, part))
                break
        else:
            count = 1
            found.append(Found("", 1.0, outlines[at : at + 1]))
        at += count
    return found


def full_size(code: str, shapes: Shapes) -> tuple[float, float]:
    """Return the width and height of a glyph of the music font as it was calibrated, in pixels."""
    found = [shape for group in shapes.values() for shape in group if shape.code == code]
    largest = max(found, key=lambda shape: shape.height)  # the text font is smaller
    return float(largest.points[:, 0].max()) * largest.height, largest.height


def read_outlines(element: ElementTree.Element) -> list[Outline]:
    """Return the outlines of a path or polyline of an SVG in page coordinates."""
    if "points" in element.attrib:
        points = _numbers(element.attrib["points"]).reshape(-1, 2)
        found = [("M" + "L" * (len(points) - 1), points)]
    else:
        found = []
        for text in element.get("d", "").split("M")[1:]:
            commands, numbers = "", []
            for command, values in re.findall(r"([MLC])([^MLCZ]*)", f"M{text}"):
                points = _numbers(values).reshape(-1, 2)
                commands += command * (len(points) // POINTS_OF[command])
                numbers.append(points)
            found.append((commands, np.concatenate(numbers)))
    matrix = TRANSFORM.search(element.get("transform", ""))
    if matrix:
        a, b, c, d, x, y = _numbers(matrix.group(1))
        turn, shift = np.array([[a, b], [c, d]]), np.array([x, y])
        found = [(commands, points @ turn + shift) for commands, points in found]
    return [Outline(commands, points) for commands, points in found]


def _nearest(part: Sequence[Outline], shapes: Shapes, codes: Collection[str]) -> Shape | None:
    known = shapes.get(tuple(outline.commands for outline in part), ())
    if not known:
        return None
    points, _ = _normal(part)
    best: tuple[float, Shape | None] = (TOLERANCE, None)
    for shape in known:
        if shape.code in codes:
            distance = float(np.abs(points - shape.points).max())
            best = min(best, (distance, shape), key=lambda pair: pair[0])
    return best[1]


def _normal(outlines: Sequence[Outline]) -> tuple[NDArray[np.float64], float]:
    """Return the points from their top left corner in heights, and the height."""
    points = np.concatenate([outline.points for outline in outlines])
    low = points.min(axis=0)
    height = float(np.ptp(points[:, 1])) or 1.0
    return (points - low) / height, height


def _numbers(text: str) -> NDArray[np.float64]:
    return np.array(re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", text), dtype=float)


def _rests(code: str) -> str:
    """Return a bar of rests, in a tuplet with its digit for the code of one."""
    if code not in TUPLET_DIGITS:
        return "<Rest><durationType>measure</durationType><duration>4/4</duration></Rest>"
    count = TUPLET_DIGITS[code]
    tuplet = (
        f"<Tuplet><normalNotes>16</normalNotes><actualNotes>{count}</actualNotes>"
        "<baseNote>16th</baseNote><Number><style>Tuplet</style></Number></Tuplet>"
    )
    return f"{tuplet}{'<Rest><durationType>16th</durationType></Rest>' * count}<endTuplet/>"


def _glyph_names() -> dict[str, str]:
    """Return the SMuFL names of glyphs by code, as MuseScore 3 knows them."""
    table = files("verovio").joinpath("data", "Bravura.xml")
    glyphs = ElementTree.fromstring(table.read_bytes())
    names = {glyph.attrib["c"]: glyph.attrib["n"] for glyph in glyphs}
    return {**{code: names.get(code, "") for code in CODES}, **OLD_NAMES}
