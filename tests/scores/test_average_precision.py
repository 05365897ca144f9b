"""Average precision against hand-computed values and a second formula."""

from __future__ import annotations

import numpy as np
import pytest

from lineside.scores.average_precision import (
    PageSymbols,
    area_under,
    average_precisions,
    iou,
    matched,
)


def page(*rows: tuple[float, float, float, float, int, float]) -> PageSymbols:
    table = np.array(rows, float).reshape(-1, 6)
    return PageSymbols(boxes=table[:, :4], classes=table[:, 4].astype(int), confidences=table[:, 5])


def test_iou() -> None:
    a = np.array([[0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 6.0, 6.0]])
    b = np.array([[1.0, 0.0, 3.0, 2.0]])
    assert iou(a, b)[:, 0] == pytest.approx([2 / 6, 0.0])


def test_a_symbol_is_matched_once_and_by_the_surest() -> None:
    truth = page((0, 0, 10, 10, 3, 1))
    found = page((0, 0, 10, 9, 3, 0.6), (0, 0, 10, 10, 3, 0.5), (0, 0, 10, 10, 4, 0.9))
    assert matched(found, truth, 0.5).tolist() == [True, False, False]


def test_average_precision_of_a_known_ranking() -> None:
    # right, wrong, right, and one of three symbols never found: 1/3 * 1 + 1/3 * 2/3
    right = np.array([True, False, True])
    assert area_under(np.array([0.9, 0.8, 0.7]), right, 3) == pytest.approx(1 / 3 + 2 / 9)


def test_average_precision_agrees_with_integration_of_the_envelope() -> None:
    rng = np.random.default_rng(0)
    confidences, right = rng.random(200), rng.random(200) < 0.4
    positives = int(right.sum()) + 17
    order = np.argsort(-confidences)
    hits = np.cumsum(right[order])
    recall, precision = hits / positives, hits / np.arange(1, 201)
    area, levels = 0.0, np.unique(recall[hits > 0])
    for low, high in zip([0.0, *levels[:-1]], levels, strict=True):
        area += (high - low) * precision[recall >= high].max()
    assert area_under(confidences, right, positives) == pytest.approx(area)


def test_classes_are_counted_over_pages() -> None:
    truth = page((0, 0, 10, 10, 1, 1), (20, 0, 30, 10, 2, 1))
    found = page((0, 0, 10, 10, 1, 0.9), (50, 0, 60, 10, 7, 0.9))
    assert average_precisions([(found, truth), (page(), truth)], 0.5) == {
        1: (0.5, 2), 2: (0.0, 2),
    }  # fmt: skip
