"""Engrave a score with MuseScore 3: page images, and the truth of every page.

A second engraver beside verovio, with its own spacing, slurs, beams and fonts. It is a program that
may be missing. `Page.notes` is empty: MuseScore's drawing does not say which note a head is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from lineside.core.errors import UserError
from lineside.scores.engraving.glyph_shapes import Shapes, calibration_score, read_shapes
from lineside.scores.engraving.musescore_svg import Bar, page_symbols
from lineside.scores.engraving.page import Page
from lineside.scores.engraving.verovio_engraver import Style, rasterise

MUSESCORE_FONTS = ("Emmentaler", "Bravura", "Gonville", "MuseJazz")
"""Music fonts of MuseScore 3; the first is what it takes when nothing is said."""
TEXT_FONTS = {"Emmentaler": "MScore", "Gonville": "Gootville"}  # others as the music font
PROGRAMS = ("musescore3", "mscore3")
SUFFIXES = (".mxl", ".musicxml", ".xml", ".mscx", ".mscz")
TIME_LIMIT_S = 120.0  # a song takes one second
MPOS_PER_PIXEL = 10.0  # of the file of bars


def engrave_with_musescore(
    score: Path, interline_px: float = 10.5, style: Style | None = None
) -> Iterator[tuple[NDArray[np.uint8], Page]]:
    """Yield the image and the truth of each page of a piece.

    Args:
        score: MusicXML (also compressed) or MuseScore's own format.
        interline_px: Staff space of the images.
        style: Font, and options as in MuseScore's style files, e.g. ``{"minSystemDistance": 9}``.

    Raises:
        UserError: if MuseScore is not installed, or cannot read the score in time.
    """
    style = style or Style(font=MUSESCORE_FONTS[0])
    if score.suffix.lower() not in SUFFIXES:
        raise UserError(f"MuseScore cannot read {score.name}", f"readable are {' '.join(SUFFIXES)}")
    shapes = _shapes(style.font)
    pages, bars = _drawn(score, _style_elements(style))
    for number, svg in enumerate(pages, 1):
        size, symbols, unknown = page_symbols(svg, shapes, bars[number - 1], interline_px)
        yield (
            rasterise(svg, size),
            Page(
                width=size[0], height=size[1], interline_px=interline_px, song=score.stem,
                engraver=f"musescore {style.font}", number=number, symbols=tuple(symbols),
                unknown=unknown,
            ),
        )  # fmt: skip


def find_musescore() -> str:
    """Return the path of the program.

    Raises:
        UserError: if it is not installed.
    """
    for name in PROGRAMS:
        found = shutil.which(name)
        if found:
            return found
    raise UserError("MuseScore 3 is not installed", "install it, e.g. apt-get install musescore3")


@cache
def _shapes(font: str) -> Shapes:
    """Let MuseScore draw every glyph that it shall be read from later."""
    if font not in MUSESCORE_FONTS:
        raise UserError(
            f"MuseScore has no music font {font!r}", f"take {', '.join(MUSESCORE_FONTS)}"
        )
    with tempfile.TemporaryDirectory(prefix="lineside-") as folder:
        path = Path(folder) / "glyphs.mscx"
        path.write_text(calibration_score(_style_elements(Style(font=font))), encoding="utf-8")
        return read_shapes(_drawn(path, "")[0])


def _drawn(score: Path, style: str) -> tuple[list[str], Mapping[int, list[Bar]]]:
    """Return the SVG of every page, and the bars of each by its index."""
    with tempfile.TemporaryDirectory(prefix="lineside-") as name:
        folder = Path(name)
        source = folder / f"score{score.suffix.lower()}"
        source.write_bytes(score.read_bytes())
        if style:  # it belongs into a score of MuseScore's own: style files do not reach MusicXML
            _run(folder, source.name, ["styled.mscx"])
            source = folder / "styled.mscx"
            if not source.exists():
                raise _no_score(score)
            text = source.read_text(encoding="utf-8")
            source.write_text(text.replace("</Style>", f"{style}</Style>", 1), encoding="utf-8")
        _run(folder, source.name, ["page.svg", "page.mpos"])
        drawn = sorted(folder.glob("page*.svg"), key=lambda path: (len(path.name), path.name))
        if not drawn:
            raise _no_score(score)
        pages = [path.read_text(encoding="utf-8") for path in drawn]
        return pages, _bars((folder / "page.mpos").read_text(encoding="utf-8"))


def _no_score(score: Path) -> UserError:
    return UserError(
        f"{score.name} is no score that MuseScore can read", f"readable are {' '.join(SUFFIXES)}"
    )


def _run(folder: Path, source: str, made: list[str]) -> None:
    """Convert a score in a folder; settings of this run lie in it, so that runs do not meet."""
    (folder / "job.json").write_text(json.dumps([{"in": source, "out": made}]))
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700, exist_ok=True)
    environment = {
        **os.environ,
        "QT_QPA_PLATFORM": "offscreen",
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(runtime),
        **{f"XDG_{kind}_HOME": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "CACHE")},
    }
    command = [find_musescore(), "--job", "job.json"]
    try:
        subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=TIME_LIMIT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UserError(
            f"MuseScore was not done after {TIME_LIMIT_S:.0f} s", "leave this score out"
        ) from None


def _bars(text: str) -> Mapping[int, list[Bar]]:
    found: dict[int, list[Bar]] = defaultdict(list)
    for number, element in enumerate(ElementTree.fromstring(text).iter("element")):
        x, y, width, height = (
            float(element.attrib[key]) / MPOS_PER_PIXEL for key in ("x", "y", "sx", "sy")
        )
        bar = Bar(number, (x, y, x + width, y + height))
        found[int(element.attrib["page"])].append(bar)
    return found


def _style_elements(style: Style) -> str:
    """Return a style as XML; empty where it is what MuseScore does anyway."""
    options: dict[str, Any] = dict(style.options)
    if style.font != MUSESCORE_FONTS[0]:
        text_font = TEXT_FONTS.get(style.font, style.font)
        options |= {"musicalSymbolFont": style.font, "musicalTextFont": f"{text_font} Text"}
    return "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in options.items())
