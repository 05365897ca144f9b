"""The symbols of a page that MuseScore 3 drew, read from its SVG.

Every element is a path or polyline with the kind of the element as its class (``Note``, ``Stem``,
``Hook``); `glyph_shapes` names the glyphs. Nothing is grouped: systems and bars come from the
places of bars that MuseScore writes beside the page, staves from the staff lines. Text (lyrics,
tempo, fingering) is no symbol.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np

from lineside.scores.engraving.glyph_shapes import (
    CODES,
    LEDGER_RESTS,
    Outline,
    Shapes,
    full_size,
    read_outlines,
    recognise,
)
from lineside.scores.engraving.page import Box, Symbol
from lineside.scores.engraving.svg_symbols import SVG, WAVES
from lineside.scores.engraving.vocabulary import DOTS, GLYPHS, glyph_class

SPACE = 25.0  # of the calibration score, in pixels of MuseScore's SVG
LINE_CLASSES = {
    "StaffLines": "staffLine", "LedgerLine": "ledgerLine", "Stem": "stem", "Beam": "beam",
    "BarLine": "barLine", "SlurSegment": "slur", "TieSegment": "tie",
    "HairpinSegment": "hairpin", "Tuplet": "tupletBracket", "VoltaSegment": "voltaBracket",
    "OttavaSegment": "ottavaLine", "PedalSegment": "pedalLine", "Tremolo": "tremolo",
    "TrillSegment": "trillLine", "GlissandoSegment": "glissando", "Rest": "multiRest",
    "Bracket": "bracket",
}  # fmt: skip
"""Class of what is drawn with a pen in an element of MuseScore."""
FILLED = frozenset({"Beam", "SlurSegment", "TieSegment", "Tremolo"})
"""Elements whose paths are outlines of lines, not glyphs."""
GLYPHS_OF = {
    "Note": ("notehead",), "Hook": ("flag",), "Rest": ("rest",), "Accidental": ("accidental",),
    "KeySig": ("accidental",), "Clef": ("gClef", "fClef", "cClef", "unpitched"),
    "TimeSig": ("timeSig",), "NoteDot": DOTS, "BarLine": DOTS,
    "Dynamic": ("dynamic",), "Tuplet": ("tuplet",), "Fermata": ("fermata",),
    "Articulation": ("artic", "ornament", "strings"), "Ornament": ("ornament",),
    "Breath": ("breath", "caesura"), "TrillSegment": ("ornamentTrill",),
    "OttavaSegment": ("ottava", "octave"), "PedalSegment": ("keyboardPedal",),
    "Marker": ("segno", "coda"), "RepeatMeasure": ("repeat1Bar",), "Bracket": ("bracket",),
    "Symbol": ("",),
}  # fmt: skip
"""Beginnings of the classes that an element's glyphs may have; others hold text."""
DOT_OF = {"NoteDot": "augmentationDot", "BarLine": "repeatDot"}
WITH_TEXT = frozenset({"OttavaSegment", "PedalSegment", "TrillSegment", "Marker", "Dynamic"})
"""Elements whose paths may be words: one without any known glyph holds no glyphs."""
JOINED = frozenset({
    "arpeggiato", "trillLine", "hairpin", "tupletBracket", "voltaBracket", "ottavaLine",
    "pedalLine",
})  # fmt: skip
"""Lines that MuseScore draws in pieces, one after the other."""
STAFF_GAP = 1.6  # in staff spaces; lines farther apart belong to two staves


@dataclass(frozen=True)
class Bar:
    """Where a bar lies: its number in the piece, and its box, in all staves, in pixels."""

    number: int
    box: Box


@dataclass(frozen=True)
class Staff:
    """Its system, number in the system, and the heights of its lines."""

    system: int
    number: int
    lines: tuple[float, ...]


def page_symbols(
    svg: str, shapes: Shapes, bars: Sequence[Bar], interline_px: float
) -> tuple[tuple[int, int], list[Symbol], int]:
    """Return the size of the page in pixels, the symbols on it, and how many glyphs are unknown.

    Args:
        svg: A page as MuseScore drew it.
        shapes: Of the glyphs of its music font.
        bars: On this page.
        interline_px: Staff space of the image that will be made of it.
    """
    root = ElementTree.fromstring(svg)
    width, height = (float(value) for value in root.attrib["viewBox"].split()[2:])
    drawn = [(e.get("class", ""), e) for e in root if e.get("class")]
    lines = [read_outlines(element)[0] for name, element in drawn if name == "StaffLines"]
    space = _space(lines)
    systems = sorted({(bar.box[1], bar.box[3]) for bar in bars})
    staves = _staves(lines, systems, space)
    found: list[Symbol] = []
    unknown = 0
    ties: set[str] = set()
    for name, element in drawn:
        if name == "TieSegment":  # drawn twice
            if element.attrib["d"] in ties:
                continue
            ties.add(element.attrib["d"])
        symbols = list(_symbols(name, element, shapes, space))
        unknown += sum(not symbol.name for symbol in symbols)
        for symbol in symbols:
            if found and _one_line(found[-1], symbol):
                found[-1] = _join(found[-1], symbol)
            elif symbol.name:
                found.append(symbol)
    factor = interline_px / space
    placed = [_placed(s, systems, staves, bars).scaled(factor) for s in _whole_lines(found)]
    return (round(width * factor), round(height * factor)), placed, unknown


def _symbols(
    element_name: str, element: ElementTree.Element, shapes: Shapes, space: float
) -> Iterator[Symbol]:
    """Yield the symbols of an element; one without a name is a glyph of unknown shape."""
    pen = float(element.get("stroke-width", 0.0))
    outlines = read_outlines(element)
    if element.tag == f"{SVG}polyline" or element_name in FILLED:
        name = LINE_CLASSES.get(element_name, "")
        cap = pen / 2 if element.get("stroke-linecap") in ("square", "round") else 0.0
        for outline in outlines if name else ():
            yield _line(name, outline, pen, cap, element_name in FILLED)
        return
    if element_name == "Arpeggio":  # waves, turned by a quarter
        yield Symbol(name="arpeggiato", box=_box(outlines, 0.0))
    if element_name not in GLYPHS_OF:
        return
    glyphs = recognise(outlines, shapes, _codes(element_name))
    if element_name in WITH_TEXT and not any(glyph.code for glyph in glyphs):
        return
    for glyph in glyphs:
        box = _box(glyph.outlines, 0.0)
        name = ""
        if glyph.code in WAVES:
            name = "trillLine"
        elif glyph.code in LEDGER_RESTS:
            yield from _ledger_rest(glyph.code, glyph.scale, box, shapes)
        elif glyph.code:
            name = glyph_class(glyph.code, element_name == "KeySig", glyph.scale * SPACE / space)
            name = DOT_OF.get(element_name, name)
        elif element_name == "Bracket":
            name = "brace"
        if name or not glyph.code:
            yield Symbol(name=name, box=box)


def _ledger_rest(code: str, scale: float, box: Box, shapes: Shapes) -> Iterator[Symbol]:
    """Yield a rest outside the staff and the ledger line it hangs from or stands on."""
    left, top, right, bottom = box
    rest = LEDGER_RESTS[code]
    width, height = (scale * value for value in full_size(rest, shapes))
    begin = (left + right - width) / 2
    hangs = glyph_class(rest, False, 1.0) == "restWhole"
    low, line = (bottom - height, bottom - height) if hangs else (top, top + height)
    pen = 2 * ((line - top) if hangs else (bottom - line))
    yield Symbol(name=glyph_class(rest, False, 1.0), box=(begin, low, begin + width, low + height))
    yield Symbol(
        name="ledgerLine", box=(left, line - pen / 2, right, line + pen / 2),
        points=((left, line), (right, line)), thickness=pen,
    )  # fmt: skip


@cache
def _codes(element_name: str) -> frozenset[str]:
    """Return the SMuFL codes of the glyphs that an element may hold."""
    begins = GLYPHS_OF[element_name]
    found = {
        code for name, codes in GLYPHS.items() if name.startswith(begins) for code in codes.split()
    }
    if element_name == "TrillSegment":
        found |= WAVES
    if element_name == "Rest":
        found |= set(LEDGER_RESTS)
    return frozenset(found | (set(CODES) - _vocabulary()))


@cache
def _vocabulary() -> frozenset[str]:
    others = {*WAVES, *LEDGER_RESTS}
    return frozenset(code for codes in GLYPHS.values() for code in codes.split()) | others


def _line(name: str, outline: Outline, pen: float, cap: float, filled: bool) -> Symbol:
    course = outline.course()
    points = tuple((float(x), float(y)) for x, y in course)
    if filled:
        return Symbol(name=name, box=_box([outline], pen / 2), points=points)
    left, top, right, bottom = _box([outline], 0.0)
    across = cap if top == bottom else pen / 2
    down = cap if left == right else pen / 2
    box = (left - across, top - down, right + across, bottom + down)
    return Symbol(name=name, box=box, points=points, thickness=pen)


def _box(outlines: Sequence[Outline], margin: float) -> Box:
    points = np.concatenate([outline.course() for outline in outlines])
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return float(left - margin), float(top - margin), float(right + margin), float(bottom + margin)


def _one_line(before: Symbol, symbol: Symbol) -> bool:
    """Say whether two pieces that follow each other are one line: they touch, or span the same."""
    if symbol.name != before.name or symbol.name not in JOINED:
        return False
    a, b = before.box, symbol.box
    if symbol.name == "hairpin":
        return len(before.points) == 2 and abs(a[0] - b[0]) < 1 and abs(a[2] - b[2]) < 1
    near = 2.0 + before.thickness
    return (
        a[0] <= b[2] + near and b[0] <= a[2] + near and a[1] <= b[3] + near and b[1] <= a[3] + near
    )


def _join(before: Symbol, symbol: Symbol) -> Symbol:
    a, b = before.box, symbol.box
    box = (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
    first, second = before.points, symbol.points
    if symbol.name == "hairpin" and first and second:  # both arms meet in the tip, in the middle
        left, right = abs(first[0][1] - second[0][1]), abs(first[-1][1] - second[-1][1])
        first, second = (first, second[::-1]) if left > right else (first[::-1], second)
    elif first and second and first[0] in (second[0], second[-1]):
        first = first[::-1]
    if first and second and second[-1] == first[-1]:
        second = second[::-1]
    if first and second and second[0] == first[-1]:
        second = second[1:]
    return replace(before, box=box, points=first + second)


def _whole_lines(symbols: Sequence[Symbol]) -> list[Symbol]:
    """Join the pieces of a staff line."""
    found: dict[object, Symbol] = {}
    for number, symbol in enumerate(symbols):
        key: object = number
        if symbol.name == "staffLine":
            key = ("staffLine", round(symbol.points[0][1], 1))
        if key in found:
            one = _join(found[key], symbol)
            height = one.points[0][1]
            symbol = replace(one, points=((one.box[0], height), (one.box[2], height)))
        found[key] = symbol
    return list(found.values())


def _space(lines: Sequence[Outline]) -> float:
    """Return the staff space of the page, in pixels: the most frequent distance of its lines."""
    heights = sorted({round(float(line.points[0, 1]), 2) for line in lines})
    gaps = [round(b - a, 1) for a, b in pairwise(heights)]
    return max(set(gaps), key=gaps.count) if gaps else SPACE


def _staves(
    lines: Sequence[Outline], systems: Sequence[tuple[float, float]], space: float
) -> list[Staff]:
    found = []
    heights = sorted({round(float(line.points[0, 1]), 1) for line in lines})
    for system, (top, bottom) in enumerate(systems):
        inside = [y for y in heights if top - space < y < bottom + space]
        breaks = [i for i in range(1, len(inside)) if inside[i] - inside[i - 1] > STAFF_GAP * space]
        for number, (a, b) in enumerate(zip([0, *breaks], [*breaks, len(inside)], strict=True)):
            if b > a:
                found.append(Staff(system, number, tuple(inside[a:b])))
    return found


def _placed(
    symbol: Symbol,
    systems: Sequence[tuple[float, float]],
    staves: Sequence[Staff],
    bars: Sequence[Bar],
) -> Symbol:
    """Return a symbol with its system, staff and bar; its place tells half from whole rests."""
    left, top, right, bottom = symbol.box
    x, y = (left + right) / 2, (top + bottom) / 2
    if not systems or not staves:
        return symbol
    staff = min(staves, key=lambda s: max(s.lines[0] - y, y - s.lines[-1], 0.0))
    system = staff.system
    number, bar = staff.number, -1
    if symbol.name in ("brace", "bracket", "bracketTop", "bracketBottom"):
        number = -1
    elif symbol.name == "staffLine":
        pass
    else:
        row = [one for one in bars if (one.box[1], one.box[3]) == systems[system]]
        bar = next((one.number for one in row if one.box[0] <= x < one.box[2]), -1)
    if symbol.name == "barLine" and bottom - top > 2 * (staff.lines[-1] - staff.lines[0] or 1e9):
        number = -1
    name = symbol.name
    if name in ("restWhole", "restHalf") and len(staff.lines) > 1:
        name = _hanging_or_standing(top, bottom, staff)
    return replace(symbol, name=name, system=system, staff=number, bar=bar)


def _hanging_or_standing(top: float, bottom: float, staff: Staff) -> str:
    """A whole rest hangs from a line, a half rest of the same shape stands on one."""
    gap = (staff.lines[-1] - staff.lines[0]) / (len(staff.lines) - 1)
    above, below = ((value - staff.lines[0]) / gap for value in (top, bottom))
    hangs, stands = abs(above - round(above)), abs(below - round(below))
    return "restWhole" if hangs < stands else "restHalf"
