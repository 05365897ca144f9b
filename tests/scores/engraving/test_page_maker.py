"""Pages of many scores: resumable, the same in any order, refusals instead of a stop."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.core.run.progress import Progress
from lineside.scores.engraving import page_maker
from lineside.scores.engraving.page import read_page
from lineside.scores.engraving.page_maker import Settings, find_scores, make_pages

QUIET = Progress(quiet=True)


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    for composer, cycle, song in (("A", "Op.1", "one"), ("A", "Op.1", "two"), ("B", "_", "three")):
        folder = tmp_path / "songs" / composer / cycle / song
        folder.mkdir(parents=True)
        (folder / f"{song}.abc").write_text("X:1\nL:1/4\nM:4/4\nK:C\nCDEF|G4|]\n")
    return tmp_path / "songs"


def test_songs_of_a_cycle_are_one_group(songs: Path) -> None:
    groups = {score.name: score.group for score in find_scores([songs])}
    assert groups == {"one": "A/Op.1", "two": "A/Op.1", "three": "B/_/three"}


def test_pages_and_table(songs: Path, tmp_path: Path) -> None:
    rows, refused = make_pages(find_scores([songs]), tmp_path / "pages", Settings(), QUIET)
    assert (len(rows), refused) == (3, [])
    with (tmp_path / "pages" / "pages.csv").open() as stream:
        assert [row["page"] for row in csv.DictReader(stream)] == ["one-1", "two-1", "three-1"]
    page = read_page(tmp_path / "pages" / "one-1.json.gz")
    assert (page.song, page.number) == ("one", 1)
    assert sum(symbol.name == "noteheadBlack" for symbol in page.symbols) == 4


def test_a_repeated_command_makes_nothing_twice(
    songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "pages"
    first, _ = make_pages(find_scores([songs]), out, Settings(), QUIET)
    before = (out / "two-1.png").read_bytes()
    made: list[str] = []
    engrave = page_maker.engrave

    def watched(path: Path, *others: Any) -> Any:
        made.append(path.stem)
        return engrave(path, *others)

    monkeypatch.setattr(page_maker, "engrave", watched)
    (out / "two-1.png").unlink()
    again, _ = make_pages(find_scores([songs]), out, Settings(), QUIET)
    assert made == ["two"]
    assert again == first
    assert (out / "two-1.png").read_bytes() == before
    make_pages(find_scores([songs]), out, Settings(seed=1), QUIET)
    assert sorted(made) == ["one", "three", "two", "two"]


def test_one_bad_score_does_not_stop_the_others(songs: Path, tmp_path: Path) -> None:
    (songs / "bad.mxl").write_bytes(b"no zip")
    rows, refused = make_pages(find_scores([songs]), tmp_path / "pages", Settings(), QUIET)
    assert len(rows) == 3
    (refusal,) = refused
    assert isinstance(refusal, Refusal)
    assert refusal.item == "bad"


def test_bad_requests_are_said_in_one_line(songs: Path, tmp_path: Path) -> None:
    (songs / "B" / "one.abc").write_text("X:1")
    with pytest.raises(UserError, match="have one name"):
        find_scores([songs])
    with pytest.raises(UserError, match="does not exist"):
        find_scores([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="no music font 'Times'"):
        Settings(fonts=("Times",))
