from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from benchmarks.parts.pixel_counts import aupro, pixel_counts
from scipy import ndimage
from sklearn import metrics as reference

from lineside.core.contract import Outcome
from lineside.core.statistics.estimates import estimate
from lineside.parts.metrics import (
    METRICS,
    MapOverlap,
    map_details,
    partial_area,
    to_pixels,
)

RANKED = [metric for metric in METRICS if metric.name != "map_aupro_30"]
"""Metrics of scores; the other one is of maps."""


def outcomes_of(parts: int = 30, views: int = 4) -> list[Outcome]:
    rng = np.random.default_rng(0)
    return [
        Outcome(
            item=f"{p}/{v}", groups=(str(p),), unit=str(p),
            value={"score": round(rng.normal(p % 2, 1), 1), "label": float(p % 2)},
        )
        for p in range(parts) for v in range(views)
    ]  # fmt: skip


def blobs(seed: int = 0, pictures: int = 6) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Maps of 8 x 10 cells for pictures of 36 x 45 px; every third picture is good."""
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for i in range(pictures):
        mask = np.zeros((36, 45), dtype=bool)
        for _ in range(0 if i % 3 == 2 else 3):
            r, c, size = rng.integers(0, 28), rng.integers(0, 35), rng.integers(1, 12)
            mask[r : r + size, c : c + size] = True
        small = ndimage.zoom(ndimage.gaussian_filter(mask.astype(float), 2), (8 / 36, 10 / 45))
        maps.append((rng.normal(0, 0.25, (8, 10)) + small).astype(np.float32))
        masks.append(mask)
    return maps, masks


def exact_aupro(maps, masks, limit: float) -> float:
    """Every distinct score is a threshold; components by depth-first search."""
    scores = [to_pixels(m, k.shape) for m, k in zip(maps, masks, strict=True)]
    regions = []
    for i, mask in enumerate(masks):
        left = {tuple(p) for p in np.argwhere(mask)}
        while left:
            stack, region = [left.pop()], []
            while stack:
                r, c = stack.pop()
                region.append((r, c))
                for near in [(r + a, c + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]:
                    if near in left:
                        left.remove(near)
                        stack.append(near)
            rows, columns = zip(*region, strict=True)
            regions.append(np.sort(scores[i][list(rows), list(columns)]))
    good = np.sort(np.concatenate([s[~k] for s, k in zip(scores, masks, strict=True)]))
    x, y = [0.0], [0.0]
    for t in np.unique(np.concatenate([s.ravel() for s in scores]))[::-1]:
        x.append(1 - np.searchsorted(good, t) / len(good))
        y.append(np.mean([1 - np.searchsorted(r, t) / len(r) for r in regions]))
        if x[-1] > limit:
            break
    area = 0.0
    for i in range(1, len(x)):
        if x[i] > limit:
            end = y[i - 1] + (y[i] - y[i - 1]) * (limit - x[i - 1]) / (x[i] - x[i - 1])
            return (area + (limit - x[i - 1]) * (y[i - 1] + end) / 2) / limit
        area += (x[i] - x[i - 1]) * (y[i] + y[i - 1]) / 2
    return (area + (limit - x[-1]) * y[-1]) / limit


def test_metrics_agree_with_sklearn():
    outcomes = outcomes_of()
    scores = np.array([o.value["score"] for o in outcomes])
    labels = np.array([o.value["label"] for o in outcomes])
    best, truth = scores.reshape(30, 4).max(1), labels[::4]

    def false_rejects(y, s, recall):
        fpr, tpr, _ = reference.roc_curve(y, s, drop_intermediate=False)
        return fpr[tpr >= recall - 1e-12].min()

    found = {m.name: m.of(outcomes) for m in RANKED}
    assert METRICS[0].name == "image_auroc"
    assert found == pytest.approx(
        {
            "image_auroc": reference.roc_auc_score(labels, scores),
            "image_average_precision": reference.average_precision_score(labels, scores),
            "part_auroc": reference.roc_auc_score(truth, best),
            "image_false_rejects_at_95_recall": false_rejects(labels, scores, 0.95),
            "image_false_rejects_at_100_recall": false_rejects(labels, scores, 1.0),
            "part_false_rejects_at_95_recall": false_rejects(truth, best, 0.95),
            "part_false_rejects_at_100_recall": false_rejects(truth, best, 1.0),
        }
    )


def test_metrics_have_intervals_over_parts_and_are_nan_where_undefined():
    for metric in RANKED:
        found = estimate(outcomes_of(), metric, np.random.default_rng(0))
        assert found.n == 30
        assert found.low <= found.value <= found.high
        assert math.isnan(metric.of([]))
        assert metric.help


def test_metrics_by_part_are_left_out_where_every_part_is_one_image():
    outcomes = [dataclasses.replace(o, unit=o.item, groups=(o.item,)) for o in outcomes_of()]
    for metric in RANKED:
        assert math.isnan(metric.of(outcomes)) == metric.name.startswith("part_")
        found = estimate(outcomes, metric, np.random.default_rng(0))
        assert math.isnan(found.value) == metric.name.startswith("part_")


@pytest.mark.parametrize("shape", [(60, 80), (7, 5), (8, 10), (61, 3)])
def test_upsampling_agrees_with_torch(shape):
    cells = np.random.default_rng(0).normal(size=(8, 10)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(cells)[None, None], size=shape, mode="bilinear", align_corners=False
    )[0, 0].numpy()
    assert to_pixels(cells, shape) == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize(("seed", "limit"), [(0, 0.05), (1, 0.30), (2, 0.30), (3, 1.0)])
def test_aupro_agrees_with_the_exact_definition(seed, limit):
    maps, masks = blobs(seed)
    assert aupro(maps, masks, limit) == pytest.approx(exact_aupro(maps, masks, limit), abs=5e-4)


def test_aupro_by_hand():
    # Pixels of two faults (2 px and 1 px) and 4 good ones; each pixel is a cell.
    scores = np.array([[9.0, 1.0, 8.0, 0.5, 5.0, 0.2, 0.1]], dtype=np.float32)
    mask = np.array([[1, 1, 0, 0, 1, 0, 0]], dtype=bool)
    # Thresholds 9, 8, 5, 1, ...: (fpr, pro) = (0, .25), (.25, .25), (.25, .75), (.25, 1), (.5, 1)
    assert aupro([scores], [mask], 0.5) == pytest.approx((0.25 * 0.25 + 0.25 * 1) / 0.5)
    assert aupro([scores], [mask], 0.25) == pytest.approx(0.25)
    assert aupro([scores], [mask], 0.125) == pytest.approx(0.25)


def test_partial_area_is_cut_linearly():
    x, y = np.array([0.0, 0.2, 0.6]), np.array([0.0, 0.4, 0.8])
    assert partial_area(x, y, 0.4) == pytest.approx(0.04 + 0.2 * 0.5)
    assert partial_area(x, y, 0.2) == pytest.approx(0.04)


def test_perfect_useless_and_undefined_maps():
    masks = [np.zeros((40, 40), dtype=bool) for _ in range(3)]
    masks[0][5:9, 5:9] = True
    masks[1][20:22, 1:30] = True
    assert aupro([m.astype(np.float32) for m in masks], masks) == pytest.approx(1.0)
    constant = [np.zeros((4, 4), dtype=np.float32)] * 3
    assert aupro(constant, masks) == pytest.approx(0.15)  # the diagonal
    assert math.isnan(aupro(constant, [np.zeros((40, 40), dtype=bool)] * 3))
    with pytest.raises(ValueError, match="finite"):
        aupro([np.full((2, 2), np.nan, dtype=np.float32)], masks[:1])
    with pytest.raises(ValueError, match="no maps"):
        aupro([], [])
    with pytest.raises(ValueError, match="argument"):
        aupro(constant, masks[:2])


def test_one_outlier_does_not_spoil_the_bins():
    maps, masks = blobs(2)
    maps[0] = maps[0].copy()
    maps[0][0, 0] = 1e6
    assert aupro(maps, masks) == pytest.approx(exact_aupro(maps, masks, 0.3), abs=5e-3)


def test_components_touch_at_corners():
    mask = np.eye(6, dtype=bool)
    assert pixel_counts([np.zeros((6, 6), dtype=np.float32)], [mask]).components == 1


def test_aupro_of_outcomes_is_that_of_their_maps():
    """Counts by bin of single images give the AUPRO of all maps at full resolution."""
    rng = np.random.default_rng(4)
    maps, masks, outcomes = [], [], []
    for i in range(40):
        cells = rng.gamma(2.0, 1.0, (12, 16)).astype(np.float32)
        mask = np.zeros((96, 128), dtype=bool)
        if i % 2:
            row, column = rng.integers(8, 80), rng.integers(8, 110)
            mask[row : row + 9, column : column + 9] = True
            cells[row // 8, column // 8] += rng.uniform(0, 6)
        maps.append(cells)
        masks.append(mask)
        details = map_details(cells, mask, usual=2.0, threshold=6.0)
        outcomes.append(Outcome(item=str(i), groups=(str(i),), details=details))
    assert MapOverlap()(outcomes) == pytest.approx(aupro(maps, masks), abs=0.002)
    metric = next(m for m in METRICS if m.name == "map_aupro_30")
    found = estimate(outcomes, metric, np.random.default_rng(0))
    assert found.low < found.value < found.high
    unmasked = [o for o in outcomes if len(o.details) == 1]
    assert np.isnan(MapOverlap()(unmasked)) and np.isnan(MapOverlap()([]))
