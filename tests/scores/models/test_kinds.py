"""Dots and rest blocks of engraved pages get their kind from what is around them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lineside.scores.engraving.page import Symbol
from lineside.scores.engraving.verovio_engraver import Style, engrave
from lineside.scores.models.kinds import kinds
from lineside.scores.models.watershed.decoding import Detections
from lineside.scores.models.watershed.targets import MASK_OF, MERGED, NUMBER, class_of

SCORE = """X:1
L:1/4
M:4/4
K:C
|: .G z3 | z4 | z2 .c'2 | [CEG]3 z | z3/2 d/ .e3/2 .f/ | .[Gc].d g> a | [cd]3 .B, :|
"""


@pytest.mark.parametrize("font", ["Bravura", "Petaluma"])
@pytest.mark.parametrize("interline_px", [10.5, 18.0])
def test_kinds_of_an_engraved_page(tmp_path: Path, font: str, interline_px: float) -> None:
    path = tmp_path / "song.abc"
    path.write_text(SCORE)
    ((image, page),) = engrave(path, Style(font=font), interline_px)
    symbols = [s for s in page.symbols if s.name not in MASK_OF and class_of(s.name) in NUMBER]
    found = kinds(detections(symbols), np.asarray(image), interline_px)
    wanted = [symbol.name for symbol in symbols]
    assert list(found) == wanted
    assert set(MERGED) <= set(wanted)  # one of each kind was there to be told


def test_rests_by_their_line() -> None:
    grey = np.full((120, 200), 255, np.uint8)
    for row in range(40, 81, 10):
        grey[row] = 0
    grey[50:56, 60:72], grey[55:61, 120:132] = 0, 0  # below the second line, on the third
    blocks = [
        Symbol(name="restWhole", box=(60, 50, 72, 56)),
        Symbol(name="restHalf", box=(120, 54.5, 132, 61)),
    ]
    assert kinds(detections(blocks), grey, 10.0) == ("restWhole", "restHalf")


def test_no_symbol() -> None:
    assert kinds(detections([]), np.full((50, 50), 255, np.uint8), 10.0) == ()


def detections(symbols: list[Symbol]) -> Detections:
    boxes = np.array([symbol.box for symbol in symbols], np.float32).reshape(-1, 4)
    return Detections(
        centres=(boxes[:, :2] + boxes[:, 2:]) / 2, sizes=boxes[:, 2:] - boxes[:, :2],
        classes=np.array([NUMBER[class_of(symbol.name)] for symbol in symbols], np.int64),
        confidences=np.ones(len(boxes), np.float32),
    )  # fmt: skip
