"""The symbols of a page that verovio drew, read from its SVG.

verovio groups what it draws by musical element: ``<g class="note" id=...>``. A glyph is a ``use``
of a SMuFL code point; its box comes from the font's table. Lines are paths, polygons, polylines
and rectangles in absolute coordinates. Text (lyrics, tempo, fingering) is no symbol.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from xml.etree import ElementTree

from lineside.scores.engraving.page import Box, Points, Symbol
from lineside.scores.engraving.vocabulary import glyph_class

UNITS_PER_SPACE = 180.0  # of the drawing, at verovio's default unit
FULL_SCALE = 0.72  # of glyphs at that unit: a font has 250 units to a staff space
FALLBACK_FONT = "Leipzig"
CURVE_POINTS = 9  # samples of a Bezier curve
SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")

LINE_CLASSES = {
    "staff": "staffLine", "ledgerLines": "ledgerLine", "stem": "stem", "beam": "beam",
    "beamSpan": "beam", "barLine": "barLine", "system": "barLine", "slur": "slur",
    "phrase": "slur", "tie": "tie", "lv": "tie", "hairpin": "hairpin",
    "tupletBracket": "tupletBracket", "voltaBracket": "voltaBracket", "octave": "ottavaLine",
    "pedal": "pedalLine", "fTrem": "tremolo", "bTrem": "tremolo", "gliss": "glissando",
    "multiRest": "multiRest",
}  # fmt: skip
"""Class of what is drawn with a pen in an element of verovio."""
JOINED = {"arpeg": "arpeggiato", "trill": "trillLine"}
"""Elements whose repeated glyphs (waves) are one line."""
WAVES = frozenset({"EAA9", "EAAA", "E59D", "E59E", "EAA4"})
STROKES = frozenset({"E220", "E221", "E222", "E223", "E224"})  # of a tremolo, across the stem
HEADS = frozenset({"note", "notehead", "chord"})
HEAD_PARENTHESES = {"E26A": "noteheadParenthesisLeft", "E26B": "noteheadParenthesisRight"}
"""verovio puts heads into the parentheses of accidentals."""
OWNERS = frozenset({
    "note", "chord", "rest", "mRest", "multiRest", "beam", "slur", "tie", "tuplet", "clef",
    "keySig", "meterSig", "barLine", "artic", "accid", "dynam", "hairpin", "fermata", "octave",
    "pedal", "trill", "turn", "mordent", "arpeg", "fTrem", "bTrem", "beamSpan", "breath",
    "repeatMark", "gliss", "ending", "phrase", "lv", "mRpt",
})  # fmt: skip
SKIPPED = frozenset({"syl", "dir", "dynam", "verse", "harm", "tempo", "fing", "mNum", "pgHead"})
"""Elements whose rectangles and lines are extenders of text."""


@dataclass(frozen=True)
class Place:
    """Where the walk is: the element, its owner, system, staff and bar."""

    element: str = ""
    owner: str = ""
    system: int = -1
    staff: int = -1
    bar: int = -1
    shift: tuple[float, float] = (0.0, 0.0)
    pivot: tuple[float, float] | None = None  # glyphs are turned to the left about it


@dataclass
class Walk:
    """State of one walk over a page."""

    font: str
    bars: Mapping[str, int]
    homes: Mapping[str, int]
    space: float
    system: int = -1
    staves: dict[str, int] = field(default_factory=dict)


def page_symbols(
    svg: str,
    font: str,
    interline_px: float,
    bars: Mapping[str, int],
    staves: Mapping[str, int],
    unit: float = 9.0,
) -> tuple[tuple[int, int], list[Symbol]]:
    """Return the size of the page in pixels and the symbols on it.

    Args:
        svg: A page as verovio drew it at scale 100.
        font: Its music font.
        interline_px: Staff space of the image that will be made of it.
        bars: Number of each bar in the piece, by the id of its measure.
        staves: Number of the staff of each element, by its id.
        unit: verovio's option of this name, half a staff space.

    Returns:
        (width, height), and symbols in image coordinates.
    """
    root = ElementTree.fromstring(svg)
    drawing = root.find(f"{SVG}svg")
    assert drawing is not None
    width, height = (float(value) for value in drawing.attrib["viewBox"].split()[2:])
    space = UNITS_PER_SPACE * unit / 9.0
    factor = interline_px / space
    walk = Walk(font, bars, staves, space)
    found = [symbol.scaled(factor) for symbol in _joined(_walk(drawing, Place(), walk))]
    return (round(width * factor), round(height * factor)), found


def _walk(parent: ElementTree.Element, place: Place, walk: Walk) -> Iterator[Symbol]:
    for element in parent:
        tag = element.tag.removeprefix(SVG)
        if tag == "g":
            name = element.get("class", "").split(" ")[0]
            anchor = "Milestone" in element.get("class", "") and name != "ending"
            if name == "bounding-box" or anchor:
                continue
            yield from _walk(element, _entered(element, name, place, walk), walk)
        elif tag == "use":
            yield from _glyph(element, place, walk)
        elif tag in ("path", "polygon", "polyline", "rect", "ellipse"):
            yield from _drawn(element, tag, place)


def _entered(element: ElementTree.Element, name: str, place: Place, walk: Walk) -> Place:
    """Return the place inside a group."""
    own = element.get("id", "")
    transform = element.get("transform", "")
    if transform.startswith("rotate(-90"):  # an arpeggio is a row of waves, turned
        x, y = _numbers(transform)[1:3]
        place = replace(place, pivot=(x + place.shift[0], y + place.shift[1]))
    elif transform:
        x, y = _numbers(transform)[:2]
        place = replace(place, shift=(place.shift[0] + x, place.shift[1] + y))
    if name == "system":
        walk.system += 1
        place = replace(place, system=walk.system)
    elif name == "measure":
        walk.staves = {}
        place = replace(place, bar=walk.bars.get(own, -1))
    elif name == "staff":
        place = replace(place, staff=walk.staves.setdefault(own, len(walk.staves)))
    if name in OWNERS:
        staff = place.staff if place.staff >= 0 else walk.homes.get(own, -1)
        place = replace(place, owner=own, staff=staff)
    return replace(place, element=name or place.element)


def _glyph(element: ElementTree.Element, place: Place, walk: Walk) -> Iterator[Symbol]:
    code = element.attrib[HREF][1:5]
    numbers = _numbers(element.attrib["transform"])
    x, y = numbers[0] + place.shift[0], numbers[1] + place.shift[1]
    across = numbers[2] if len(numbers) > 2 else 1.0
    down = numbers[3] if len(numbers) > 3 else across
    table = glyph_boxes(walk.font)
    outline = table.get(code) or glyph_boxes(FALLBACK_FONT).get(code)
    if outline is None:
        return
    left, low, width, height = outline  # y upwards
    right, high = left + width, low + height
    box = (x + left * across, y - high * down, x + right * across, y - low * down)
    if place.pivot is not None:
        box = _turned(box, place.pivot)
    if code in WAVES:
        name = JOINED.get(place.element, "")
    elif code in STROKES:
        name = "tremolo"
    elif code in HEAD_PARENTHESES and place.element in HEADS:
        name = HEAD_PARENTHESES[code]
    else:
        full = FULL_SCALE * walk.space / UNITS_PER_SPACE
        name = glyph_class(code, place.element in ("keyAccid", "keySig"), down / full)
    if name:
        yield _symbol(name, box, place)


def _drawn(element: ElementTree.Element, tag: str, place: Place) -> Iterator[Symbol]:
    if place.element in SKIPPED:
        return
    shift = place.shift
    if tag == "ellipse":
        if place.element == "dots":
            x, y, across, down = (float(element.attrib[key]) for key in ("cx", "cy", "rx", "ry"))
            box = (x - across, y - down, x + across, y + down)
            yield _symbol("augmentationDot", _moved(box, shift), place)
        return
    thickness = float(element.get("stroke-width", 0.0))
    if tag == "rect":
        x, y, wide, high = (float(element.attrib[key]) for key in ("x", "y", "width", "height"))
        right, bottom = x + wide, y + high
        points = [(x, y), (right, y), (right, bottom), (x, bottom)]
    elif tag == "path":
        points = _path_points(element.attrib["d"])
    else:
        values = _numbers(element.attrib["points"])
        points = list(zip(values[::2], values[1::2], strict=True))
    if (tag == "path" and len(points) > 2) or tag in ("rect", "polygon"):
        margin, thickness = thickness / 2, 0.0  # a filled outline
    else:
        margin = thickness / 2
    name = LINE_CLASSES.get(place.element, "")
    if place.element == "grpSym":
        name = "bracket" if tag == "rect" else "brace"
    if not name or not points:
        return
    if name == "stem" and points[0][0] != points[-1][0]:
        return  # the slash of a grace note
    moved = tuple((x + shift[0], y + shift[1]) for x, y in points)
    yield _symbol(name, _around(moved, margin, name), place, points=moved, thickness=thickness)


def _symbol(
    name: str, box: Box, place: Place, points: Points = (), thickness: float = 0.0
) -> Symbol:
    return Symbol(
        name=name, box=box, points=points, thickness=thickness, owner=place.owner,
        system=place.system, staff=place.staff, bar=place.bar,
    )  # fmt: skip


def _around(points: Sequence[tuple[float, float]], margin: float, name: str) -> Box:
    """Return the box of a course; the pen widens a straight line across only."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
    across = 0.0 if top == bottom and name in ("staffLine", "ledgerLine") else margin
    down = 0.0 if left == right else margin
    return left - across, top - down, right + across, bottom + down


def _path_points(path: str) -> list[tuple[float, float]]:
    """Return points of a path of absolute M, L and C commands; curves are sampled."""
    found: list[tuple[float, float]] = []
    for command, text in re.findall(r"([MLCZz])([^MLCZz]*)", path):
        values = _numbers(text)
        points = list(zip(values[::2], values[1::2], strict=True))
        if command == "C":
            for i in range(0, len(points) - 2, 3):
                found += _curve(found[-1], *points[i : i + 3])
        else:
            found += points
    return found


def _curve(
    a: tuple[float, float], b: tuple[float, float], c: tuple[float, float], d: tuple[float, float]
) -> Iterator[tuple[float, float]]:
    """Yield points of a cubic Bezier curve without the first."""
    for i in range(1, CURVE_POINTS):
        t = i / (CURVE_POINTS - 1)
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
        yield (
            sum(w * p[0] for w, p in zip(weights, (a, b, c, d), strict=True)),
            sum(w * p[1] for w, p in zip(weights, (a, b, c, d), strict=True)),
        )


def _joined(symbols: Iterator[Symbol]) -> list[Symbol]:
    """Join the waves of an arpeggio or trill, the halves of a brace, the pieces of a staff line."""
    found: dict[object, Symbol] = {}
    for number, symbol in enumerate(symbols):
        key: object = number
        if symbol.name in ("arpeggiato", "trillLine"):
            key = (symbol.name, symbol.owner, symbol.system)
        elif symbol.name == "brace":
            near = [
                other for other, one in found.items()
                if one.name == "brace" and one.system == symbol.system and _touch(one, symbol)
            ]  # fmt: skip
            key = near[0] if near else number
        elif symbol.name == "staffLine":
            key = ("staffLine", symbol.system, symbol.staff, symbol.points[0][1])
        if key in found:
            one = found[key]
            box = _union(one.box, symbol.box)
            points: Points = ()  # two halves have no outline: the box stands for it
            if symbol.name == "staffLine":
                points = ((box[0], one.points[0][1]), (box[2], one.points[0][1]))
            found[key] = replace(one, box=box, points=points, bar=min(one.bar, symbol.bar))
        else:
            found[key] = symbol
    return [replace(one, bar=-1) if one.name == "staffLine" else one for one in found.values()]


def _touch(a: Symbol, b: Symbol) -> bool:
    return a.box[1] <= b.box[3] + 1 and b.box[1] <= a.box[3] + 1


def _union(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _moved(box: Box, shift: tuple[float, float]) -> Box:
    return box[0] + shift[0], box[1] + shift[1], box[2] + shift[0], box[3] + shift[1]


def _turned(box: Box, pivot: tuple[float, float]) -> Box:
    """Return a box turned by a quarter to the left about a point."""
    x, y = pivot
    return x + box[1] - y, y - (box[2] - x), x + box[3] - y, y - (box[0] - x)


def _numbers(text: str) -> list[float]:
    return [float(value) for value in NUMBER.findall(text)]


@cache
def glyph_boxes(font: str) -> Mapping[str, tuple[float, float, float, float]]:
    """Return left, bottom, width and height of each glyph of a font, 250 units to a staff space."""
    table = files("verovio").joinpath("data", f"{font}.xml")
    root = ElementTree.fromstring(table.read_bytes())
    scale = 1000.0 / float(root.attrib["units-per-em"])
    return {
        glyph.attrib["c"]: tuple(scale * float(glyph.attrib[key]) for key in "xywh")  # type: ignore[misc]
        for glyph in root
    }
