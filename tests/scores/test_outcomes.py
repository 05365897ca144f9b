"""Outcomes, metrics and thresholds against values computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lineside.core.contract import Outcome, Source
from lineside.core.run.progress import Progress
from lineside.scores.config import Config
from lineside.scores.data.dataset import PageItem
from lineside.scores.engraving.page_maker import Settings, find_scores, make_pages
from lineside.scores.metrics import METRICS, mean_precision, precisions
from lineside.scores.model import ScoresModel
from lineside.scores.models.blobs import Blobs
from lineside.scores.outcomes import calibrate, outcomes, threshold


def page(*rows: tuple[str, int, list[float], list[int]]) -> Outcome:
    details = tuple(
        {"class": name, "count": count, "confidences": confidences, "right": right}
        for name, count, confidences, right in rows
    )
    return Outcome(item="p", groups=("g",), details=details)


def test_precision_is_pooled_over_pages_and_averaged_over_classes() -> None:
    pages = [
        page(("a", 1, [0.9], [10]), ("b", 3, [0.8, 0.7], [1, 0])),
        page(("a", 1, [0.95], [0])),  # surer than the right one of the first page
    ]
    assert precisions(pages) == {"a": (0.25, 2), "b": (pytest.approx(1 / 3), 3)}
    assert mean_precision(pages) == pytest.approx((0.25 + 1 / 3) / 2)
    assert mean_precision(pages, by_count=True) == pytest.approx((2 * 0.25 + 3 / 3) / 5)
    assert precisions(pages, level=1)["b"][0] == 0.0  # right at IoU 0.5 only
    assert mean_precision(pages, levels=(0, 1)) == pytest.approx(
        (mean_precision(pages) + mean_precision(pages, levels=(1,))) / 2
    )
    assert np.isnan(mean_precision([]))


def test_a_threshold_misses_no_more_than_it_may() -> None:
    hits = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05]
    assert threshold(hits, 10, 0.2) == (0.2, pytest.approx(0.2))
    assert threshold(hits, 10, 0.29) == (0.2, pytest.approx(0.2))
    assert threshold(hits, 20, 0.2) == (0.05, pytest.approx(0.5))  # more was never found
    assert threshold([], 5, 0.2) == (0.0, 1.0)


def test_rare_classes_share_a_threshold() -> None:
    many = [round(0.99 - 0.01 * i, 2) for i in range(40)]
    pages = [page(("a", 40, many, [1] * 40), ("b", 1, [0.4], [1]), ("c", 1, [0.2, 0.9], [1, 0]))]
    model = calibrate(ScoresModel(method="blobs", detector=Blobs()), pages, Config(max_miss=0.1))
    assert model.thresholds is not None
    assert model.thresholds.by_class == {"a": many[35]}
    assert model.thresholds.of("c") == 0.2  # of b and c together


def test_blobs_find_black_noteheads_of_a_page(tmp_path: Path) -> None:
    (tmp_path / "song.abc").write_text("X:1\nL:1/4\nM:4/4\nK:C\nCEGc|BGFD|C4|]\n")
    make_pages(find_scores([tmp_path / "song.abc"]), tmp_path, Settings(), Progress(quiet=True))
    item = PageItem(id="song-1", source=Source(tmp_path / "song-1.png"), label="x", group="song")
    model = ScoresModel(method="blobs", detector=Blobs())
    (found,) = outcomes(model, [item])
    rows = {row["class"]: row for row in found.details}
    assert rows["noteheadBlack"]["count"] == 8
    assert sum(right > 0 for right in rows["noteheadBlack"]["right"]) >= 7
    assert found.value["hits"] <= found.value["believed"]
    recall = next(metric for metric in METRICS if metric.name == "recall").of([found])
    assert recall == found.value["hits"] / found.value["symbols"]
    (result,) = model.predict([item])
    left, top, right, bottom = result.symbols[0].box
    assert right - left == pytest.approx(1.25 * 10.5, abs=1)
    assert bottom > top
