"""A page and what is on it: the truth that the page maker writes and that a detector must find.

Coordinates are pixels of the page image, x to the right and y down; pixel (0, 0) covers the
square from (0, 0) to (1, 1). A page is a grey PNG, its truth a gzipped JSON file beside it.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lineside.core.run.files import replace_file

TABLE = "pages.csv"
"""Beside pages: one row per page, see `page_maker`."""
Box = tuple[float, float, float, float]
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Symbol:
    """A symbol on a page.

    Attributes:
        name: Its class, see `vocabulary`.
        box: Left, top, right, bottom of its ink.
        points: Of a line its course; of a filled shape its outline, closed.
        thickness: Width of the pen along `points`; 0 where they are an outline.
        owner: Id of the musical element it belongs to: note, chord, rest, beam, slur ...
        system: Number of the system on the page, from 0; -1 where it belongs to none.
        staff: Number of the staff in its system, from 0; -1 where it belongs to none.
        bar: Number of the bar in the piece, from 0; -1 where it belongs to none.
    """

    name: str
    box: Box
    points: Points = ()
    thickness: float = 0.0
    owner: str = ""
    system: int = -1
    staff: int = -1
    bar: int = -1

    def scaled(self, factor: float) -> Symbol:
        """Return the symbol on a page that is `factor` times as large."""
        left, top, right, bottom = self.box
        return dataclasses.replace(
            self,
            box=(left * factor, top * factor, right * factor, bottom * factor),
            points=tuple((x * factor, y * factor) for x, y in self.points),
            thickness=self.thickness * factor,
        )


@dataclass(frozen=True, kw_only=True)
class Note:
    """What a notehead or rest means.

    Attributes:
        id: Of the element; a symbol's `owner`.
        pitch: Sounding name with octave, e.g. ``"F#4"``; empty for a rest.
        onset: In quarter notes from the beginning of its bar.
        duration: Written duration in quarter notes with dots and tuplets; 0 for grace notes.
        kind: ``"note"``, ``"rest"`` or ``"grace"``.
        chord: Id of its chord; empty if it stands alone.
        layer: Number of the voice in its staff, from 0.
    """

    id: str
    pitch: str
    onset: float
    duration: float
    kind: str
    chord: str = ""
    layer: int = 0


@dataclass(frozen=True, kw_only=True)
class Page:
    """The truth of one page.

    Attributes:
        width, height: Size of the image in pixels.
        interline_px: Distance between two neighbouring staff lines (staff space).
        song: Name of the piece; pages of one song never lie on two sides of a split.
        engraver: Program and music font.
        number: Number of the page in the piece, from 1.
        symbols: What is drawn.
        notes: What it means.
        unknown: Number of glyphs that were drawn but could not be named; they are no symbols.
    """

    width: int
    height: int
    interline_px: float
    song: str
    engraver: str
    number: int
    symbols: tuple[Symbol, ...]
    notes: tuple[Note, ...] = ()
    unknown: int = 0


def truth_of(image: Path) -> Path:
    """Return the file beside a page image that says what is on it."""
    return image.with_name(f"{image.stem}.json.gz")


def write_page(path: Path, page: Page) -> None:
    """Write the truth of a page; `path` ends in .json.gz. The same page gives the same bytes."""
    text = json.dumps(_plain(page), separators=(",", ":"))
    replace_file(path, gzip.compress(text.encode(), 6, mtime=0))


def read_page(path: Path) -> Page:
    """Read what `write_page` wrote."""
    row = json.loads(gzip.decompress(path.read_bytes()))
    symbols = tuple(
        Symbol(
            **{
                **symbol,
                "box": tuple(symbol["box"]),
                "points": tuple(map(tuple, symbol.get("points", ()))),
            }
        )
        for symbol in row.pop("symbols")
    )
    notes = tuple(Note(**note) for note in row.pop("notes"))
    return Page(symbols=symbols, notes=notes, **row)


def _plain(record: Any) -> dict[str, Any]:
    """Return a record as JSON without its defaults."""
    digits = 17 if isinstance(record, Note) else 2  # hundredths of a pixel will do
    found = {}
    for part in dataclasses.fields(record):
        value = getattr(record, part.name)
        if part.default is dataclasses.MISSING or value != part.default:
            found[part.name] = _rounded(value, digits)
    return found


def _rounded(value: Any, digits: int) -> Any:
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, tuple):
        return [_rounded(part, digits) for part in value]
    return _plain(value) if dataclasses.is_dataclass(value) else value
