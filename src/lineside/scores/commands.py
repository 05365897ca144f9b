"""The verbs of ``lineside scores``; torch-free until one runs."""

from pathlib import Path
from typing import Literal

from lineside.core.commands import BAD_INPUT, build, print_refusals
from lineside.core.errors import UserError
from lineside.scores.config import Config

app = build("scores", Config, "What music is on this page? Music scanning.")


@app.command
def make(
    out: Path,
    /,
    *scores: Path,
    interline_px: float = 10.5,
    fonts: tuple[str, ...] = (),
    compose: int = 0,
    engraver: Literal["verovio", "musescore"] = "verovio",
    pages: int = 0,
    seed: int = 0,
    workers: int = 1,
    cluster: str = "",
) -> int:
    """Engrave scores: page images with the class, place and meaning of every symbol.

    Parameters
    ----------
    out: Path
        The folder of the pages; a repeated command continues where it was stopped.
    scores: Path
        MusicXML (.mxl, .musicxml, .xml), MEI, ABC or Humdrum, or folders of them.
    interline_px: float
        Distance between two neighbouring staff lines, in pixels.
    fonts: tuple[str, ...]
        Music fonts to draw from. verovio has Leipzig, Bravura, Leland, Petaluma (all of them by
        default) and Gootville, MuseScore has Emmentaler (by default), Bravura, Gonville, MuseJazz.
    compose: int
        Number of pieces to compose at random and engrave as well.
    engraver: Literal["verovio", "musescore"]
        The program that engraves; MuseScore 3 must be installed.
    pages: int
        Pages of one piece at most; 0: all.
    seed: int
        Seed of fonts and layouts.
    workers: int
        Number of worker processes on this computer.
    cluster: str
        Address of a Dask scheduler instead, e.g. tcp://10.0.0.1:8786 (docs/scale.md).
    """
    if not scores and not compose:
        hint = "e.g. lineside scores make PAGES song.musicxml, or --compose 20"
        raise UserError("no score is given", hint)
    if not 4.0 <= interline_px <= 60.0:
        raise UserError(f"interline_px is {interline_px}", "it is between 4 and 60 pixels")
    from lineside.scores.engraving.page_maker import Settings, run_maker

    settings = Settings(
        interline_px=interline_px, fonts=fonts, pages=pages, seed=seed, engraver=engraver
    )
    refused = run_maker(out, scores, settings, compose, workers, cluster)
    print_refusals(refused)
    return BAD_INPUT if refused else 0
