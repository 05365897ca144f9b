"""Isolation forest (Liu, Ting and Zhou 2008), kept as plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest

from lineside.machines.models.detector import Rows
from lineside.machines.models.scaling import (
    Floats,
    Scaling,
    ScalingKind,
    by_occlusion,
    fit_scaling,
    row_by_row,
)

TINY = 1e-12
Indices = NDArray[np.int64]
FOREST_ARRAYS = ("roots", "left", "right", "feature", "threshold", "length")


@dataclass(frozen=True, kw_only=True)
class Forest:
    """Isolation forest (Liu, Ting and Zhou 2008): all trees in flat arrays.

    Attributes:
        scaling: Of the rows.
        roots: First node of each tree.
        left: Left child of each node; itself at a leaf.
        right: Right child, likewise.
        feature: Which feature is asked.
        threshold: Rows up to here go left.
        length: Path length at a leaf.
        normal: Path length to divide by.
    """

    scaling: Scaling
    roots: Indices
    left: Indices
    right: Indices
    feature: Indices
    threshold: Floats
    length: Floats
    normal: float
    history: int = 0

    @property
    def ceiling(self) -> float:
        """The largest score that there is."""
        return 1.0

    def _score(self, row: Floats) -> float:
        row = row.astype(np.float32).astype(np.float64)
        nodes = self.roots
        while True:
            goes_left = row[self.feature[nodes]] <= self.threshold[nodes]
            following = np.where(goes_left, self.left[nodes], self.right[nodes])
            if np.array_equal(following, nodes):
                return float(2.0 ** (-self.length[nodes].mean() / self.normal))
            nodes = following

    def score(self, rows: Rows) -> Floats:
        """Return the anomaly score of the paper, between 0 and 1, shape (snapshot,)."""
        return row_by_row(self.scaling(rows), self._score)

    def contributions(self, rows: Rows) -> Floats:
        """Return how far the score falls without each feature."""
        return by_occlusion(self.scaling(rows[-1:])[0], self._score)


def fit_iforest(
    rows: Rows,
    *,
    rng: np.random.Generator,
    log: Callable[[dict[str, Any]], None] = lambda row: None,
    trees: int = 200,
    scaling: ScalingKind = "standard",
) -> Forest:
    """Fit an isolation forest.

    Args:
        rows: Healthy rows, shape (snapshot, feature).
        rng: Seeds the trees.
        log: Receives one row with the number of nodes.
        trees: How many.
        scaling: Of the rows; it does not change the trees but keeps float32 exact enough.

    Raises:
        UserError: too few rows, or NaN.
    """
    scale = fit_scaling(rows, scaling)
    forest = IsolationForest(n_estimators=trees, random_state=int(rng.integers(2**31))).fit(
        scale(rows)
    )
    flat: dict[str, list[NDArray[Any]]] = {name: [] for name in FOREST_ARRAYS}
    offset = 0
    for grown in forest.estimators_:
        for name, values in _flat_tree(grown.tree_, offset).items():
            flat[name].append(values)
        offset += grown.tree_.node_count
    log({"detector": "iforest", "nodes": offset, "snapshots": len(rows)})
    arrays: dict[str, Any] = {name: np.concatenate(parts) for name, parts in flat.items()}
    normal = float(_average_path(np.array([forest.max_samples_]))[0])
    return Forest(scaling=scale, normal=max(normal, TINY), **arrays)


def _flat_tree(tree: Any, offset: int) -> dict[str, NDArray[Any]]:
    """One tree with its nodes counted from `offset`; leaves point at themselves."""
    own = np.arange(tree.node_count)
    leaf = tree.children_left < 0
    depth = np.zeros(tree.node_count)
    for node in own[~leaf]:
        depth[[tree.children_left[node], tree.children_right[node]]] = depth[node] + 1
    return {
        "roots": np.array([offset]),
        "left": np.where(leaf, own, tree.children_left) + offset,
        "right": np.where(leaf, own, tree.children_right) + offset,
        "feature": np.where(leaf, 0, tree.feature).astype(np.int64),
        "threshold": np.where(leaf, 0.0, tree.threshold),
        "length": depth + _average_path(tree.n_node_samples),
    }


def _average_path(samples: NDArray[Any]) -> Floats:
    """Mean path length of an unsuccessful search in a binary search tree (equation 1)."""
    n = np.asarray(samples, dtype=np.float64)
    big = np.maximum(n, 3.0)
    length = 2.0 * (np.log(big - 1.0) + np.euler_gamma) - 2.0 * (big - 1.0) / big
    return np.where(n > 2, length, np.where(n == 2, 1.0, 0.0))
