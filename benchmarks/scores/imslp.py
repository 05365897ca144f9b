"""A real scan: IMSLP06053, page 1, binarised and askew (development data; boxes by Audiveris).

A hit has the right class and its centre within half a staff space of a symbol's, one to one.
Lines, beams, rests and text have no boxes there, and a few symbols lack one: only the classes below
are scored.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import ROOT, Say, plain
from benchmarks.scores.detection import shipped
from lineside.core.contract import Source
from lineside.core.errors import UserError
from lineside.scores.average_precision import PageSymbols, matched
from lineside.scores.data.dataset import PageItem
from lineside.scores.model import ScoresModel
from lineside.scores.models.watershed.targets import CLASSES

FOLDER = ROOT.parent / "shared" / "data" / "scores" / "imslp06053_symbols"
THRESHOLD = 0.4  # fixed on engraved pages
GROUPS = {
    "notehead": ("noteheadBlack",), "half": ("noteheadHalf",), "whole": ("noteheadWhole",),
    "accidental": (
        "accidentalFlat", "accidentalNatural", "accidentalSharp", "keyFlat", "keySharp",
        "keyNatural",
    ),
    "dot": ("dot",), "clef": ("gClef", "fClef", "gClefSmall", "fClefSmall"),
    "time": ("timeSig4", "timeSigCommon"),
}  # fmt: skip
NAMES = {
    "gClefChange": "gClef", "fClefChange": "fClef", "augmentationDot": "dot", "staccato": "dot",
    "flat": "accidentalFlat", "natural": "accidentalNatural", "sharp": "accidentalSharp",
}  # fmt: skip


def imslp(say: Say) -> None:
    """F1 of groups of symbols on a real scan, at a threshold fixed on engraved pages."""
    truth, interline_px = _truth(FOLDER / "IMSLP06053_1.xml")
    model = ScoresModel(method="watershed", detector=shipped())
    read = model.read(PageItem(id="imslp", source=Source(FOLDER / "IMSLP06053_1.png")))
    sure = read.found.confidences >= THRESHOLD
    names = np.array([CLASSES[c] for c in read.found.classes[sure]])
    for group, members in GROUPS.items():
        mine = np.isin(names, members)
        theirs = [box for name, box in truth if name in members]
        found = _symbols(read.boxes[sure][mine], read.found.confidences[sure][mine])
        wanted = _symbols(np.array(theirs, float).reshape(-1, 4), np.ones(len(theirs)))
        hits = int(matched(found, wanted, -0.5 * interline_px, _nearness).sum())
        f1 = 2 * hits / max(1, len(theirs) + int(mine.sum()))
        reason = f"one page: {hits} hits, {int(mine.sum())} found, {len(theirs)} there"
        say(f"imslp_{group}_f1", plain(f1, "fraction", len(theirs), reason=reason))


def _symbols(boxes: NDArray[np.floating], confidences: NDArray[np.floating]) -> PageSymbols:
    return PageSymbols(boxes=boxes, classes=np.zeros(len(boxes), int), confidences=confidences)


def _nearness(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return minus the distance of centres in pixels, shape (a, b)."""
    centres = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (a, b)]
    return -np.linalg.norm(centres[0][:, None] - centres[1][None], axis=2)


def _truth(path: Path) -> tuple[list[tuple[str, tuple[float, float, float, float]]], float]:
    if not path.exists():
        raise UserError(f"{path} is absent", "it is development data, not part of lineside")
    root = ElementTree.parse(path).getroot()
    found = []
    spaces = []
    for symbol in root.iter("Symbol"):
        bounds = symbol.find("Bounds")
        assert bounds is not None
        x, y, w, h = (float(bounds.attrib[key]) for key in "xywh")
        name = symbol.attrib["shape"]
        found.append((NAMES.get(name, name), (x, y, x + w, y + h)))
        spaces.append(float(symbol.get("interline", root.get("interline", 18.0))))
    return found, float(np.median(spaces))
