"""Glyphs drawn alone lie in their boxes."""

from __future__ import annotations

import numpy as np
import pytest

from lineside.scores.engraving.glyphs import glyphs
from lineside.scores.engraving.verovio_engraver import FONTS
from lineside.scores.engraving.vocabulary import NAMES


@pytest.mark.parametrize("font", FONTS)
def test_ink_fills_the_box(font: str) -> None:
    drawn = glyphs(font, 20.0)
    assert {*drawn} <= {*NAMES}
    assert len(drawn) > 100
    for alike in drawn.values():
        for glyph in alike:
            rows, columns = np.nonzero(glyph.image < 128)
            left, top, right, bottom = glyph.box
            found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert found == pytest.approx((left, top, right, bottom), abs=1.6), glyph.name
