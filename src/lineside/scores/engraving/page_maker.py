"""Make pages of many scores: ``NAME-1.png`` with its truth ``NAME-1.json.gz``, and ``pages.csv``.

Each piece is engraved in a style of its own, drawn from the seed and the name of the piece, so
that any number of workers makes the same pages. A journal keeps finished pieces: the same command
continues where it was stopped, and engraves nothing twice.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.core.parallel import Executor, map_items, open_executor
from lineside.core.run.files import canonical, replace_file, sha256, sha256_of_file
from lineside.core.run.folder import rng_of
from lineside.core.run.journal import Journal
from lineside.core.run.progress import Progress
from lineside.scores.engraving.composer import ComposerSettings, compose
from lineside.scores.engraving.musescore_engraver import (
    MUSESCORE_FONTS,
    engrave_with_musescore,
    find_musescore,
)
from lineside.scores.engraving.page import TABLE, write_page
from lineside.scores.engraving.verovio_engraver import (
    FONTS,
    SUFFIXES,
    UNSEEN_FONT,
    Style,
    engrave,
    random_style,
)

FIELDS = ("page", "song", "group", "engraver", "number", "symbols", "width", "height")
ENGRAVERS = {"verovio": (*FONTS, UNSEEN_FONT), "musescore": MUSESCORE_FONTS}
"""Engravers and their music fonts."""
JOURNAL = "made.jsonl"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides how pages look.

    Attributes:
        interline_px: Staff space of the images in pixels.
        fonts: Music fonts to draw from; empty: those for training of verovio, or the font that
            MuseScore takes itself.
        pages: Pages of one piece at most; 0: all.
        seed: Of every style.
        engraver: ``"verovio"``, in a random style, or ``"musescore"``, in its own style.
    """

    interline_px: float = 10.5
    fonts: tuple[str, ...] = ()
    pages: int = 0
    seed: int = 0
    engraver: str = "verovio"

    def __post_init__(self) -> None:
        known = ENGRAVERS.get(self.engraver)
        if known is None:
            raise UserError(
                f"there is no engraver {self.engraver!r}", f"take {' or '.join(ENGRAVERS)}"
            )
        if not self.fonts:
            fonts = FONTS if self.engraver == "verovio" else MUSESCORE_FONTS[:1]
            object.__setattr__(self, "fonts", fonts)
        for font in self.fonts:
            if font not in known:
                raise UserError(f"there is no music font {font!r}", f"take {', '.join(known)}")


@dataclass(frozen=True, kw_only=True)
class Score:
    """A piece to engrave: its file, a name that is unique, and the cycle it belongs to."""

    path: Path
    name: str
    group: str


def find_scores(paths: Sequence[Path]) -> list[Score]:
    """Return the scores of files and folders; songs of one folder above are a group (a cycle).

    Raises:
        UserError: if there is none, or two have one name.
    """
    found = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            found += [Score(path=p, name=p.stem, group=_group(p, path)) for p in inside]
        elif path.is_file():
            found.append(Score(path=path, name=path.stem, group=path.stem))
        else:
            raise UserError(f"{path} does not exist", "give scores, or folders of scores")
    if not found:
        raise UserError(f"no score in {paths[0]}", f"readable are {' '.join(SUFFIXES)}")
    names = [score.name for score in found]
    twice = next((name for name in names if names.count(name) > 1), "")
    if twice:
        first, second = (score.path for score in found if score.name == twice)
        raise UserError(f"{first} and {second} have one name", "rename one: pages are named by it")
    return found


def compose_scores(
    folder: Path, count: int, seed: int = 0, settings: ComposerSettings | None = None
) -> list[Path]:
    """Write random pieces as ``000.musicxml`` ..., so that pages can be made without any score.

    The same seed and number give the same bytes; files that are there already stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03d}.musicxml" for number in range(count)]
    for number, path in enumerate(paths):
        text = compose(rng_of(seed, f"composed {number}"), settings).encode()
        if not path.exists() or path.read_bytes() != text:
            replace_file(path, text, flush=False)
    return paths


def run_maker(
    out: Path, paths: Sequence[Path], settings: Settings, composed: int, workers: int, cluster: str
) -> list[Refusal]:
    """Make the pages of files, folders and composed pieces, print how many, return refusals."""
    if composed:
        compose_scores(out / "composed", composed, settings.seed)
        paths = (*paths, out / "composed")
    scores = find_scores(paths)
    with open_executor(workers=workers, cluster=cluster) as executor:
        rows, refused = make_pages(scores, out, settings, Progress(), executor)
    symbols = sum(row["symbols"] for row in rows)
    print(f"{len(rows)} pages of {len(scores) - len(refused)} scores, {symbols} symbols: {out}")
    return refused


def make_pages(
    scores: Sequence[Score],
    out: Path,
    settings: Settings,
    progress: Progress,
    executor: Executor | None = None,
) -> tuple[list[dict[str, Any]], list[Refusal]]:
    """Engrave scores into a folder; what is there already is not made again.

    Returns:
        One row per page, as in the table that is written; a refusal per score that failed.

    Raises:
        UserError: if the engraver is a program that is not installed.
    """
    if settings.engraver == "musescore":
        find_musescore()
    work = partial(_make, out=out, settings=settings)
    journal = Journal(path=out / JOURNAL, content_hash=partial(_hash, settings=settings))
    rows: list[dict[str, Any]] = []
    refused: list[Refusal] = []
    made = map_items(work, scores, executor, name_of=_name_of, journal=journal)
    for score, found in zip(scores, progress.track(made, "engraving", len(scores)), strict=True):
        if isinstance(found, Refusal):
            refused.append(found)
        else:
            rows += found if _all_there(found, out) else work(score)
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_file(out / TABLE, text.getvalue().encode())
    return rows, refused


def _all_there(rows: list[dict[str, Any]], out: Path) -> bool:
    """Say whether the pages that the journal names still lie in the folder."""
    names = (f"{row['page']}{ending}" for row in rows for ending in (".png", ".json.gz"))
    return all((out / name).exists() for name in names)


def _make(score: Score, *, out: Path, settings: Settings) -> list[dict[str, Any]]:
    rng = rng_of(settings.seed, score.name)
    if settings.engraver == "musescore":
        plain = Style(font=str(rng.choice(settings.fonts)))
        pages = engrave_with_musescore(score.path, settings.interline_px, plain)
    else:
        pages = engrave(score.path, random_style(rng, settings.fonts), settings.interline_px)
    rows = []
    for image, page in itertools.islice(pages, settings.pages or None):
        name = f"{score.name}-{page.number}"
        content = io.BytesIO()
        Image.fromarray(image).save(content, "PNG")
        replace_file(out / f"{name}.png", content.getvalue(), flush=False)
        write_page(out / f"{name}.json.gz", replace(page, song=score.name))
        rows.append({
            "page": name, "song": score.name, "group": score.group, "engraver": page.engraver,
            "number": page.number, "symbols": len(page.symbols), "width": page.width,
            "height": page.height,
        })  # fmt: skip
    return rows


def _hash(score: Score, *, settings: Settings) -> str:
    decided = asdict(settings)
    if settings.engraver == "verovio":  # journals from before there was another one hold
        del decided["engraver"]
    return sha256(canonical([sha256_of_file(score.path), decided]))


def _name_of(score: Score) -> str:
    return score.name


def _group(path: Path, top: Path) -> str:
    """Name the cycle: the folder two levels above the file, or the song where there is none."""
    folders = path.relative_to(top).parts[:-1]
    if len(folders) < 2 or folders[-2] == "_":  # a single song
        return "/".join(folders) or path.stem
    return "/".join(folders[:-1])
