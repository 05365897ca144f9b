"""Isolation forest (Liu, Ting and Zhou, "Isolation forest", ICDM 2008), stored as flat arrays.

score(x) = 2^(-E[h(x)] / c(n)), between 0 and 1: h is the path length of x in a tree that splits at
random, c(n) the mean path length of an unsuccessful search in a binary search tree of n rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineside.core.errors import UserError
from lineside.machines.models.detector import TINY, Floats, Log, Rows, no_log
from lineside.machines.models.scaling import RowDetector, ScalingKind, fit_scaling, occlusion_shares

Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class IsolationForest(RowDetector):
    """All trees in flat arrays over their nodes.

    Attributes:
        roots: First node of each tree, shape (tree,).
        left: Left child of each node, itself at a leaf, shape (node,).
        right: Right child, likewise.
        feature: Feature that a node splits on, shape (node,).
        threshold: Rows up to here go left, shape (node,).
        length: Path length at a leaf, shape (node,).
        normal: c(n), the path length to divide by.
    """

    roots: Indices
    left: Indices
    right: Indices
    feature: Indices
    threshold: Floats
    length: Floats
    normal: float

    def __post_init__(self) -> None:
        own = np.arange(len(self.left))
        if any(
            (child < own).any() or (child >= len(own)).any() for child in (self.left, self.right)
        ):
            raise UserError("a tree of the isolation forest has a loop", "train the model again")

    @property
    def ceiling(self) -> float:
        """The largest possible score."""
        return 1.0

    def _score(self, row: Floats) -> float:
        row = row.astype(np.float32).astype(np.float64)  # scikit-learn compares float32
        nodes = self.roots  # one node per tree: all trees are walked down together
        while True:
            goes_left = row[self.feature[nodes]] <= self.threshold[nodes]
            children = np.where(goes_left, self.left[nodes], self.right[nodes])
            if np.array_equal(children, nodes):  # every tree is at a leaf
                return float(2.0 ** (-self.length[nodes].mean() / self.normal))
            nodes = children

    def contributions(self, rows: Rows) -> Floats:
        """Return shares by occlusion."""
        return occlusion_shares(self.scaling(rows[-1:])[0], self._score)


def fit_iforest(
    rows: Rows,
    *,
    rng: np.random.Generator,
    log: Log = no_log,
    trees: int = 200,
    scaling: ScalingKind = "standard",
) -> IsolationForest:
    """Fit an isolation forest.

    Args:
        rows: Healthy rows, shape (snapshot, feature).
        rng: Seeds the trees.
        log: Receives one row with the number of nodes.
        trees: Number of trees.
        scaling: Of the rows; it does not change the trees but keeps float32 exact enough.

    Raises:
        UserError: too few rows, or NaN.
    """
    from sklearn import ensemble

    scale = fit_scaling(rows, scaling)
    forest = ensemble.IsolationForest(
        n_estimators=trees, random_state=int(rng.integers(2**31))
    ).fit(scale(rows))
    offsets = np.cumsum([0, *(tree.tree_.node_count for tree in forest.estimators_)])
    flat = [
        _flatten(tree.tree_, int(offset))
        for tree, offset in zip(forest.estimators_, offsets[:-1], strict=True)
    ]
    log({"detector": "iforest", "nodes": int(offsets[-1]), "snapshots": len(rows)})
    arrays: dict[str, Any] = {name: np.concatenate([t[name] for t in flat]) for name in flat[0]}
    normal = float(_average_path(np.array([forest.max_samples_]))[0])
    return IsolationForest(scaling=scale, normal=max(normal, TINY), **arrays)


def _flatten(tree: Any, offset: int) -> dict[str, NDArray[Any]]:
    """Return one tree with its nodes counted from `offset`; leaves point at themselves."""
    nodes = np.arange(tree.node_count)
    leaf = tree.children_left < 0
    depth = np.zeros(tree.node_count)
    for node in nodes[~leaf]:  # parents come before their children
        depth[[tree.children_left[node], tree.children_right[node]]] = depth[node] + 1
    return {
        "roots": np.array([offset]),
        "left": np.where(leaf, nodes, tree.children_left) + offset,
        "right": np.where(leaf, nodes, tree.children_right) + offset,
        "feature": np.where(leaf, 0, tree.feature).astype(np.int64),
        "threshold": np.where(leaf, 0.0, tree.threshold),
        "length": depth + _average_path(tree.n_node_samples),
    }


def _average_path(samples: NDArray[Any]) -> Floats:
    """c(n) = 2 H(n - 1) - 2 (n - 1) / n, equation 1 of the paper, shape of `samples`."""
    n = np.asarray(samples, dtype=np.float64)
    big = np.maximum(n, 3.0)
    length = 2.0 * (np.log(big - 1.0) + np.euler_gamma) - 2.0 * (big - 1.0) / big
    return np.where(n > 2, length, np.where(n == 2, 1.0, 0.0))
