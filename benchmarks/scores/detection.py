"""Average precision of the shipped detector on songs that it was not trained on.

Four kinds of pages are never pooled: clean, degraded, an unseen font or engraver, and real scans.
Means over classes are quoted over those with at least 20 symbols in the test, and over all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from benchmarks.results import Say, plain
from benchmarks.scores.songs import pages
from lineside.core.contract import Metric, Outcome
from lineside.core.errors import UserError
from lineside.core.run.codec import decode
from lineside.core.statistics.estimates import estimate
from lineside.scores.config import Config
from lineside.scores.data.dataset import PageItem, read
from lineside.scores.metrics import IOUS, mean_precision, precisions
from lineside.scores.model import ScoresModel
from lineside.scores.models.watershed.detector import WatershedDetector
from lineside.scores.outcomes import outcomes
from lineside.scores.pretraining import SPEC, TENSORS, WEIGHTS

FEWEST = 20


def clean(say: Say) -> None:
    """Pages of unseen songs in the fonts that were trained on."""
    test = _measure(say, "clean", "test")
    coco = Metric(
        name="map", unit="fraction", better="higher",
        of=partial(mean_precision, levels=range(len(IOUS))),
    )  # fmt: skip
    say("clean_map", estimate(test, coco, np.random.default_rng(0)))


def degraded(say: Say) -> None:
    """The same pages as our own model of scans and photos makes them at grade 3."""
    _measure(say, "degraded3", "degraded3")


def second_family(say: Say) -> None:
    """The same pages by a family of degradations that was never trained on (augraphy)."""
    _measure(say, "augraphy", "augraphy")


def font(say: Say) -> None:
    """The same songs in a music font that was never trained on (Gootville)."""
    _measure(say, "font", "font")


def musescore(say: Say) -> None:
    """The same songs by an engraver that was never trained on (MuseScore 3)."""
    _measure(say, "musescore", "musescore")


def _measure(say: Say, name: str, kind: str) -> list[Outcome]:
    items = [item for item in read(pages(kind), Config()) if isinstance(item, PageItem)]
    model = ScoresModel(method="watershed", detector=shipped())
    test = list(outcomes(model, items))
    found = precisions(test)
    usual = frozenset(c for c, (_, count) in found.items() if count >= FEWEST)
    for ending, of in (
        ("ap50_weighted", partial(mean_precision, by_count=True)),
        ("ap50_mean", partial(_mean_over, classes=usual)),
        ("ap50_mean_all", mean_precision),
    ):
        metric = Metric(name=ending, unit="fraction", better="higher", of=of)
        say(f"{name}_{ending}", estimate(test, metric, np.random.default_rng(0)))
    say(f"{name}_classes", plain(len(usual), "classes", len(found), reason="a count"))
    for c, (precision, count) in sorted(found.items(), key=lambda row: row[1][0]):
        print(f"  {c:<28} {precision:.3f} {count}")
    return test


def _mean_over(test: Sequence[Outcome], *, classes: frozenset[str]) -> float:
    values = [precision for c, (precision, _) in precisions(test).items() if c in classes]
    return float(np.mean(values)) if values else float("nan")


@cache
def shipped(folder: Path = WEIGHTS) -> WatershedDetector:
    """Return the detector that comes with lineside.

    Raises:
        UserError: if it does not.
    """
    if not (folder / SPEC).exists():
        raise UserError(
            f"there are no weights in {folder}", "python -m lineside.scores.pretraining"
        )
    spec: dict[str, Any] = json.loads((folder / SPEC).read_text(encoding="utf-8"))
    return decode(WatershedDetector, spec, load_file(folder / TENSORS))
