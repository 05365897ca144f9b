"""Songs of the OpenScore Lieder collection (CC0) by role, and their pages (development data).

Roles go by cycle, so that no song of a test cycle is trained on: a cycle is for testing where its
name hashes to 0 modulo 6. Of a cycle one song is tested, in the order of their names, until there
are `TEST_SONGS`; Schubert's "Die Forelle" is always among them.
"""

from __future__ import annotations

import shutil
import tarfile
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.checkpoints import STORE
from benchmarks.results import ROOT
from benchmarks.scores import second_family
from lineside.core.errors import UserError
from lineside.core.run.folder import rng_of
from lineside.core.run.progress import Progress
from lineside.scores.engraving.page import TABLE, Page, read_page, truth_of, write_page
from lineside.scores.engraving.page_maker import Score, Settings, find_scores, make_pages
from lineside.scores.engraving.verovio_engraver import UNSEEN_FONT
from lineside.scores.simulation.degradations import degrade, draw_degradation

ARCHIVE = ROOT.parent / "shared" / "data" / "scores" / "openscore_lieder_mxl.tar"
FOLDER = STORE / "scores"
FORELLE = "lc6900961"
TEST_SONGS, TEST_PAGES = 64, 2
TRAIN_SONGS, TRAIN_PAGES = 500, 2


def songs() -> tuple[list[Score], list[Score]]:
    """Return the songs to train on and those to test on.

    Raises:
        UserError: if the archive is absent.
    """
    folder = FOLDER / "lieder"
    if not folder.exists():
        if not ARCHIVE.exists():
            raise UserError(f"{ARCHIVE} is absent", "it is development data, not part of lineside")
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(folder, filter="data")
    found = find_scores([folder / "scores"])
    held_out = {s.group for s in found if _hash(s.group) % 6 == 0 or s.name == FORELLE}
    first = {score.group: score for score in reversed(found) if score.group in held_out}
    forelle = [score for score in found if score.name == FORELLE]
    others = sorted(first.values(), key=lambda score: _hash(score.group))
    test = forelle + [score for score in others if score.name != FORELLE]
    train = sorted((s for s in found if s.group not in held_out), key=lambda s: _hash(s.name))
    return train, test[:TEST_SONGS]


def pages(kind: str) -> Path:
    """Make the pages of a kind, or continue; return their folder.

    Args:
        kind: ``train``; ``test`` (training fonts), ``font`` (a font never trained on) and
            ``musescore`` (an engraver never trained on), all of the test songs; ``degraded1`` to
            ``degraded5`` (the test pages as our own scans and photos of that grade); ``augraphy``
            (the test pages by the second family of degradations).
    """
    out = FOLDER / "pages" / kind
    train, test = songs()
    if kind == "train":
        make_pages(train[:TRAIN_SONGS], out, Settings(pages=TRAIN_PAGES), Progress())
    elif kind.startswith("degraded"):
        _degraded(out, float(kind.removeprefix("degraded")))
    elif kind == "augraphy":
        _second_family(out)
    else:
        engraver: Literal["verovio", "musescore"] = (
            "musescore" if kind == "musescore" else "verovio"
        )
        fonts = (UNSEEN_FONT,) if kind == "font" else ()
        settings = Settings(pages=TEST_PAGES, seed=1, fonts=fonts, engraver=engraver)
        make_pages(test, out, settings, Progress())
    return out


def _degraded(out: Path, grade: float) -> None:
    """Degrade each test page once, two thirds as scans and one third as photos."""
    for number, (name, image) in enumerate(_test_pages()):
        rng = rng_of(number, f"degraded {grade}")
        drawn = draw_degradation(rng, grade, "photo" if number % 3 == 2 else "scan")
        truth = read_page(truth_of(image))
        with Image.open(image) as picture:
            grey = np.asarray(picture.convert("L"))
        worse, warp = degrade(grey, truth.interline_px, drawn)
        _write(out, name, worse, warp.page(truth))
    _copy_table(out)


def _second_family(out: Path) -> None:
    for number, (name, image) in enumerate(_test_pages()):
        with Image.open(image) as picture:
            grey = np.asarray(picture.convert("L"))
        truth = read_page(truth_of(image))
        _write(out, name, second_family.degrade(grey, number)[0], truth)
    _copy_table(out)


def _test_pages() -> list[tuple[str, Path]]:
    folder = pages("test")
    return [(path.stem, path) for path in sorted(folder.glob("*.png"))]


def _write(out: Path, name: str, grey: NDArray[np.uint8], truth: Page) -> None:
    out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey).save(out / f"{name}.png")
    write_page(out / f"{name}.json.gz", truth)


def _copy_table(out: Path) -> None:
    shutil.copy(FOLDER / "pages" / "test" / TABLE, out / TABLE)


def _hash(name: str) -> int:
    return zlib.crc32(name.encode())
