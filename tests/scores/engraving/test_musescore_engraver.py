"""Pages of MuseScore: every glyph is named, lies on its ink, and is counted as in the score."""

from __future__ import annotations

import stat
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lineside.core.errors import UserError
from lineside.core.run.progress import Progress
from lineside.scores.engraving import musescore_engraver, page_maker
from lineside.scores.engraving.musescore_engraver import (
    MUSESCORE_FONTS,
    PROGRAMS,
    engrave_with_musescore,
)
from lineside.scores.engraving.musescore_svg import Staff, _hanging_or_standing
from lineside.scores.engraving.page import Page, Symbol
from lineside.scores.engraving.page_maker import Settings, find_scores, make_pages
from lineside.scores.engraving.verovio_engraver import Style
from lineside.scores.engraving.vocabulary import LINES, NAMES

drawn = pytest.mark.skipif(
    not any(musescore_engraver.shutil.which(name) for name in PROGRAMS),
    reason="MuseScore 3 is not installed (apt-get install musescore3)",
)


def note(step: str, length: int, kind: str, inside: str = "", after: str = "") -> str:
    pitch = "<rest/>" if step == "rest" else _pitch(step)
    return (
        f"<note>{pitch}<duration>{length}</duration><voice>1</voice><type>{kind}</type>"
        f"{inside}{after}</note>"
    )


def _pitch(step: str) -> str:
    alter = {"#": "<alter>1</alter>", "b": "<alter>-1</alter>"}.get(step[1:-1], "")
    return f"<pitch><step>{step[0]}</step>{alter}<octave>{step[-1]}</octave></pitch>"


def marks(content: str) -> str:
    return f"<notations>{content}</notations>"


TRIPLET = (
    "<time-modification><actual-notes>3</actual-notes><normal-notes>2</normal-notes>"
    "</time-modification>"
)
GRACE = f"<note><grace/>{_pitch('A4')}<voice>1</voice><type>eighth</type></note>"
STACCATO = marks("<articulations><staccato/></articulations>")
BARS = (
    "<attributes><divisions>6</divisions><key><fifths>-3</fifths></key><time><beats>4</beats>"
    "<beat-type>4</beat-type></time><clef><sign>G</sign><line>2</line></clef></attributes>"
    '<direction placement="below"><direction-type><dynamics><mf/></dynamics></direction-type>'
    "</direction>"
    + note("G4", 6, "quarter", after=STACCATO)
    + note("F#4", 6, "quarter", "<accidental>sharp</accidental>")
    + note("C5", 12, "half", after=marks("<fermata/>")),
    note("rest", 12, "half")
    + note("A4", 2, "eighth", TRIPLET, marks('<tuplet type="start" bracket="yes"/>'))
    + note("B4", 2, "eighth", TRIPLET)
    + note("C5", 2, "eighth", TRIPLET, marks('<tuplet type="stop"/>'))
    + note("rest", 6, "quarter"),
    GRACE
    + note("G4", 9, "quarter", "<dot/>", marks('<slur type="start" number="1"/>'))
    + note("C4", 3, "eighth", after=marks('<slur type="stop" number="1"/>'))
    + note("E4", 12, "half"),
    '<note><rest measure="yes"/><duration>24</duration><voice>1</voice></note>'
    '<barline location="right"><bar-style>light-heavy</bar-style><repeat direction="backward"/>'
    "</barline>",
)


@pytest.fixture
def score(tmp_path: Path) -> Path:
    bars = "".join(f'<measure number="{i}">{bar}</measure>' for i, bar in enumerate(BARS, 1))
    path = tmp_path / "a song.musicxml"
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?><score-partwise version="3.1"><part-list>'
        '<score-part id="P1"><part-name>Voice</part-name></score-part></part-list>'
        f'<part id="P1">{bars}</part></score-partwise>'
    )
    return path


def engraved(score: Path, font: str = "Emmentaler", px: float = 20.0) -> tuple[np.ndarray, Page]:
    ((image, page),) = engrave_with_musescore(score, px, Style(font=font))
    return image, page


def named(page: Page, name: str) -> list[Symbol]:
    return [symbol for symbol in page.symbols if symbol.name == name]


@drawn
@pytest.mark.parametrize("font", MUSESCORE_FONTS)
def test_symbols_are_those_of_the_score(score: Path, font: str) -> None:
    _, page = engraved(score, font)
    assert page.engraver == f"musescore {font}"
    assert page.unknown == 0
    assert {symbol.name for symbol in page.symbols} <= {*NAMES, *LINES}
    counts = Counter(symbol.name for symbol in page.symbols)
    wanted = {
        "gClef": 1, "keyFlat": 3, "timeSig4": 2, "dynamicM": 1, "dynamicF": 1, "noteheadHalf": 2,
        "noteheadBlack": 7, "noteheadBlackSmall": 1, "accidentalSharp": 1, "articStaccato": 1,
        "fermataAbove": 1, "restHalf": 1, "restQuarter": 1, "restWhole": 1, "tuplet3": 1,
        "augmentationDot": 1, "flag8thUp": 1, "flag8thUpSmall": 1, "repeatDot": 2, "slur": 1,
        "staffLine": 5, "stem": 10, "beam": 1, "ledgerLine": 1,
        "accidentalNatural": 3, "accidentalNaturalSmall": 1,
    }  # fmt: skip
    assert {name: counts[name] for name in wanted} == wanted
    assert set(counts) - set(wanted) <= {"barLine", "tupletBracket"}


@drawn
@pytest.mark.parametrize("font", MUSESCORE_FONTS)
def test_boxes_hold_their_ink(score: Path, font: str) -> None:
    image, page = engraved(score, font)
    dark = np.asarray(image) < 128
    heads = {"noteheadBlack", "keyFlat", "restQuarter", "gClef", "timeSig4", "fermataAbove"}
    for symbol in page.symbols:
        left, top, right, bottom = symbol.box
        rows = slice(int(top), int(np.ceil(bottom)))
        columns = slice(int(left), int(np.ceil(right)))
        inside = dark[rows, columns]
        assert inside.any(), symbol
        if symbol.name in heads:  # ink reaches all four sides
            assert inside[:3].any(), symbol
            assert inside[-3:].any(), symbol
            assert inside[:, :3].any(), symbol
            assert inside[:, -3:].any(), symbol
    gaps = np.diff(sorted(symbol.box[1] for symbol in named(page, "staffLine")))
    assert gaps == pytest.approx(20.0, abs=0.1)


@drawn
def test_every_symbol_has_its_bar_and_staff(score: Path) -> None:
    _, page = engraved(score)
    where = {name: [symbol.bar for symbol in named(page, name)] for name in NAMES}
    assert where["articStaccato"] == [0]
    assert where["tuplet3"] == [1]
    assert where["noteheadBlackSmall"] == [2]
    assert where["restWhole"] == where["repeatDot"][:1] == [3]
    assert {(symbol.system, symbol.staff) for symbol in page.symbols} == {(0, 0)}


@drawn
def test_a_rest_outside_the_staff_is_a_rest_and_a_ledger_line(score: Path) -> None:
    high = "<rest><display-step>C</display-step><display-octave>6</display-octave></rest>"
    text = score.read_text().replace("<rest/><duration>12", f"{high}<duration>12")
    score.write_text(text)
    _, page = engraved(score)
    (rest,) = named(page, "restHalf")
    (line,) = (one for one in named(page, "ledgerLine") if one.bar == 1)
    assert page.unknown == 0
    assert rest.box[3] == pytest.approx(line.points[0][1], abs=0.1)
    assert line.box[0] < rest.box[0] < rest.box[2] < line.box[2]
    assert rest.box[2] - rest.box[0] == pytest.approx(1.5 * 20, abs=0.5)


@drawn
def test_boxes_grow_with_the_page_and_runs_side_by_side_agree(score: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        small, large, again = pool.map(lambda px: engraved(score, px=px), (8.0, 16.0, 16.0))
    assert np.array_equal(large[0], again[0])
    assert large[1] == again[1]
    for a, b in zip(small[1].symbols, large[1].symbols, strict=True):
        assert b.box == pytest.approx([2 * value for value in a.box])


@drawn
def test_what_is_no_score_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "song.musicxml"
    path.write_text("no music")
    with pytest.raises(UserError, match=r"song\.musicxml is no score"):
        list(engrave_with_musescore(path))


@drawn
def test_page_maker_engraves_with_musescore(score: Path, tmp_path: Path) -> None:
    (tmp_path / "other.abc").write_text("X:1\nK:C\nCDEF|]\n")
    scores = find_scores([score, tmp_path / "other.abc"])
    settings = Settings(engraver="musescore")
    rows, refused = make_pages(scores, tmp_path / "pages", settings, Progress(quiet=True))
    assert [(row["page"], row["engraver"]) for row in rows] == [
        ("a song-1", "musescore Emmentaler")
    ]
    assert [refusal.item for refusal in refused] == ["other"]


def test_whole_rests_hang_and_half_rests_stand() -> None:
    staff = Staff(0, 0, (100.0, 125.0, 150.0, 175.0, 200.0))
    assert _hanging_or_standing(125.0, 140.6, staff) == "restWhole"
    assert _hanging_or_standing(134.4, 150.0, staff) == "restHalf"
    assert _hanging_or_standing(59.4, 75.0, staff) == "restHalf"  # above the staff


def test_a_missing_program_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="MuseScore 3 is not installed"):
        make_pages([], tmp_path, Settings(engraver="musescore"), Progress(quiet=True))


def test_a_program_that_hangs_is_ended(
    score: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "musescore3"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(musescore_engraver, "find_musescore", lambda: str(program))
    monkeypatch.setattr(musescore_engraver, "TIME_LIMIT_S", 0.2)
    monkeypatch.setattr(musescore_engraver, "_shapes", lambda font: {})
    with pytest.raises(UserError, match="was not done after"):
        list(engrave_with_musescore(score))


def test_settings_of_another_engraver() -> None:
    with pytest.raises(UserError, match="no engraver 'lilypond'"):
        Settings(engraver="lilypond")
    with pytest.raises(UserError, match="no music font 'Leipzig'"):
        Settings(engraver="musescore", fonts=("Leipzig",))
    assert page_maker.asdict(Settings())["fonts"] == page_maker.FONTS
