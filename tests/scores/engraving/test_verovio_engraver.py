"""Engraved pages: every symbol lies on its ink and means what the score says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lineside.core.errors import UserError
from lineside.scores.engraving.page import Page, Symbol, read_page, write_page
from lineside.scores.engraving.verovio_engraver import (
    FONTS,
    UNSEEN_FONT,
    Style,
    engrave,
    random_style,
)
from lineside.scores.engraving.vocabulary import LINES, NAMES

SCORE = """X:1
M:6/8
L:1/8
K:Eb
z3 .G^FG | (3A=Bc d3- d>e | [E2G2] {a}g !fermata!c3 | !p!E,,2 z z3 |]
"""


@pytest.fixture
def score(tmp_path: Path) -> Path:
    path = tmp_path / "song.abc"
    path.write_text(SCORE)
    return path


def engraved(score: Path, style: Style, interline_px: float = 10.5) -> tuple[np.ndarray, Page]:
    ((image, page),) = engrave(score, style, interline_px)
    return image, page


def named(page: Page, name: str) -> list[Symbol]:
    return [symbol for symbol in page.symbols if symbol.name == name]


@pytest.mark.parametrize("font", [*FONTS, UNSEEN_FONT])
def test_boxes_hold_their_ink(score: Path, font: str) -> None:
    image, page = engraved(score, Style(font=font), 20.0)
    dark = np.asarray(image) < 128
    for symbol in page.symbols:
        left, top, right, bottom = symbol.box
        rows = slice(max(0, int(top)), int(np.ceil(bottom)))
        columns = slice(max(0, int(left)), int(np.ceil(right)))
        assert dark[rows, columns].any(), symbol
    for symbol in named(page, "noteheadBlack"):  # nothing of a head lies outside its box
        left, top, right, bottom = (round(value) for value in symbol.box)
        middle = (top + bottom) // 2
        assert dark[middle, left + 3 : right - 3].all(), symbol
        assert right - left == pytest.approx(1.25 * 20, abs=4)


def test_symbols_are_those_of_the_score(score: Path) -> None:
    _, page = engraved(score, Style(font="Bravura"))
    assert len(named(page, "keyFlat")) == 3
    assert len(named(page, "noteheadBlackSmall")) == 1
    assert len(named(page, "tuplet3")) == 1
    assert len(named(page, "articStaccato")) == 1
    assert len(named(page, "dynamicP")) == 1
    assert len(named(page, "staffLine")) == 5
    assert {symbol.name for symbol in page.symbols} <= {*NAMES, *LINES}
    (fermata,) = named(page, "fermataAbove")
    assert (fermata.bar, fermata.staff, fermata.system) == (2, 0, 0)


def test_notes_mean_what_the_score_says(score: Path) -> None:
    _, page = engraved(score, Style())
    owner = {note.id: note for note in page.notes}
    heads = sorted(
        (s for s in page.symbols if s.name.startswith("notehead") and s.staff == 0),
        key=lambda s: (s.bar, s.box[0]),
    )
    found = [(owner[s.owner].pitch, owner[s.owner].onset, owner[s.owner].duration) for s in heads]
    assert found[:3] == [("G4", 1.5, 0.5), ("F#4", 2.0, 0.5), ("G4", 2.5, 0.5)]
    third = [round(note[1], 3) for note in found[3:6]]
    assert third == [0.0, 0.333, 0.667]
    assert next(note for note in page.notes if note.kind == "grace").duration == 0.0
    chord = [note for note in page.notes if note.chord]
    assert sorted(note.pitch for note in chord) == ["Eb4", "G4"]
    assert {note.duration for note in chord} == {1.0}


def test_the_same_style_gives_the_same_page(score: Path, tmp_path: Path) -> None:
    style = random_style(np.random.default_rng(5))
    first, second = engraved(score, style), engraved(score, style)
    assert np.array_equal(first[0], second[0])
    write_page(tmp_path / "a.json.gz", first[1])
    write_page(tmp_path / "b.json.gz", second[1])
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()
    again = read_page(tmp_path / "a.json.gz")
    assert [s.name for s in again.symbols] == [s.name for s in first[1].symbols]
    assert again.notes == first[1].notes
    assert again.symbols[0].box == pytest.approx(first[1].symbols[0].box, abs=0.006)


def test_boxes_grow_with_the_page(score: Path) -> None:
    (_, small), (_, large) = engraved(score, Style(), 8.0), engraved(score, Style(), 16.0)
    assert large.width == pytest.approx(2 * small.width, abs=1)
    for a, b in zip(small.symbols, large.symbols, strict=True):
        assert b.box == pytest.approx([2 * value for value in a.box])


@pytest.mark.parametrize("content", ["", "no music", "<score-partwise>"])
def test_what_is_no_score_is_said_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "song.musicxml"
    path.write_text(content)
    with pytest.raises(UserError, match=r"song\.musicxml is no score"):
        list(engrave(path, Style()))


NOTE = """<note>{chord}<pitch><step>{step}</step><octave>4</octave></pitch><duration>1</duration>
<type>quarter</type>{head}<notations>{sign}</notations></note>"""
ODD = """<score-partwise version="4.0"><part-list><score-part id="P"><part-name/></score-part>
</part-list><part id="P"><measure number="1"><barline location="left"><ending number="1"
type="start"/></barline><attributes><divisions>1</divisions><time><beats>2</beats>
<beat-type>4</beat-type></time><clef><sign>G</sign><line>2</line></clef></attributes>{notes}
<barline location="right"><ending number="1" type="stop"/></barline></measure></part>
</score-partwise>"""


def test_signs_that_verovio_draws_in_odd_ways(tmp_path: Path) -> None:
    rolled = "<arpeggiate/>"
    tremolo = '<ornaments><tremolo type="single">2</tremolo></ornaments>'
    head = '<notehead parentheses="yes">normal</notehead>'
    notes = (
        NOTE.format(chord="", step="C", head="", sign=rolled)
        + NOTE.format(chord="<chord/>", step="B", head="", sign=rolled)
        + NOTE.format(chord="", step="G", head=head, sign=tremolo)
    )
    path = tmp_path / "odd.musicxml"
    path.write_text(ODD.format(notes=notes))
    image, page = engraved(path, Style(font="Bravura"), 20.0)
    low, high, last = named(page, "noteheadBlack")
    (wave,) = named(page, "arpeggiato")  # beside the chord, as high as it
    assert wave.box[2] < min(low.box[0], high.box[0])
    assert wave.box[2] - wave.box[0] < 25 < 80 < wave.box[3] - wave.box[1] < 180
    assert wave.box[1] < (high.box[1] + high.box[3]) / 2
    assert wave.box[3] > (low.box[1] + low.box[3]) / 2
    (left,), (right,) = (named(page, f"noteheadParenthesis{side}") for side in ("Left", "Right"))
    assert left.box[2] <= last.box[0] + 1 and right.box[0] >= last.box[2] - 1
    (strokes,) = named(page, "tremolo")
    assert strokes.box[3] < last.box[1] and strokes.box[0] < last.box[2] < strokes.box[2]
    assert len(named(page, "voltaBracket")) >= 2
    for symbol in (wave, left, right, strokes):
        x0, y0, x1, y1 = (round(value) for value in symbol.box)
        assert (image[y0:y1, x0:x1] < 128).mean() > 0.1


def test_the_slash_of_a_grace_note_is_no_stem(tmp_path: Path) -> None:
    slashed = NOTE.format(chord='<grace slash="yes"/>', step="G", head="", sign="")
    slashed = slashed.replace("<duration>1</duration>", "").replace("quarter", "eighth")
    path = tmp_path / "grace.musicxml"
    path.write_text(ODD.format(notes=slashed + NOTE.format(chord="", step="F", head="", sign="")))
    _, page = engraved(path, Style())
    assert len(named(page, "noteheadBlackSmall")) == 1
    assert len(named(page, "stem")) == 2
    assert all(stem.points[0][0] == stem.points[-1][0] for stem in named(page, "stem"))
