"""Two-dimensional maps of embeddings (PCA, t-SNE) and how well neighbours agree on the label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Figure
from lineside.core.report import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.floating[Any]]

NEIGHBOURS = 10
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")


def embedding_map(
    title: str,
    caption: str,
    maps: Mapping[str, Floats],
    labels: Sequence[str],
    classes: Sequence[str],
    *,
    marked: Sequence[bool] | None = None,
    margins: Mapping[str, float] | None = None,
    size_inches: tuple[float, float] | None = None,
) -> Figure:
    """Return small maps side by side, coloured by label.

    Args:
        title: Short heading.
        caption: One sentence that reads the figure.
        maps: Coordinates by panel title, each of shape (items, 2), see `principal` and `tsne`.
        labels: The class of each item.
        classes: All classes, in the order of colours.
        marked: Items drawn with an edge in the colour of the text; none if not given.
        margins: See `plots.panels`.
        size_inches: Width and height of the whole.
    """
    colour = {name: plots.SERIES[i % len(plots.SERIES)] for i, name in enumerate(classes)}
    known = np.array(labels)
    edged = np.zeros(len(known), bool) if marked is None else np.array(marked, dtype=bool)

    def painter(points: Floats, panel: str, legend: bool) -> Callable[[Axes], None]:
        def paint(axes: Axes) -> None:
            for number, name in enumerate(classes):
                marker = MARKERS[number % len(MARKERS)]
                x, y = points[(known == name) & ~edged].T
                axes.scatter(
                    x, y, s=12, alpha=0.75, linewidths=0, label=name,
                    color=colour[name], marker=marker,
                )  # fmt: skip
                x, y = points[(known == name) & edged].T
                axes.plot(
                    x, y, marker, markersize=4, color=colour[name], markeredgewidth=0.7,
                    markeredgecolor=plots.MARKER,
                )  # fmt: skip
            axes.set_title(panel, fontsize=9)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(visible=False)
            if legend:
                axes.legend(fontsize=8, loc="best", markerscale=1.6)

        return paint

    painters = [painter(xy, panel, i == 0) for i, (panel, xy) in enumerate(maps.items())]
    return plots.panels(
        title, caption, painters, size_inches=size_inches, margins=margins, wide=margins is None
    )


def principal(embeddings: Floats) -> Floats:
    """Return the first two principal components, shape (items, 2), of (items, dimensions)."""
    from sklearn.decomposition import PCA

    return np.asarray(PCA(2, svd_solver="full").fit_transform(_finite(embeddings)))


def tsne(embeddings: Floats, seed: int) -> Floats:
    """Return a t-SNE map, shape (items, 2); distances between far clusters mean nothing.

    Van der Maaten and Hinton 2008; started from principal components, perplexity 30 or less.
    """
    from sklearn.manifold import TSNE

    x = _finite(embeddings)
    perplexity = min(30.0, (len(x) - 1) / 3)
    spread = x.std() or 1.0
    start = principal(x) / (principal(x).std() or 1.0) * 1e-4
    model = TSNE(2, perplexity=perplexity, init=start.astype(np.float32), random_state=seed)
    return np.asarray(model.fit_transform((x / spread).astype(np.float32)))


def neighbour_agreement(embeddings: Floats, labels: Sequence[str], groups: Sequence[str]) -> float:
    """Return the share of 10 nearest neighbours from other groups that carry the same label.

    It is the mean over classes of each class's share, so that 1 / number of classes is chance.
    NaN if no item has a neighbour from another group.
    """
    from sklearn.neighbors import NearestNeighbors

    x, known = np.asarray(embeddings, dtype=np.float64), np.array(labels)
    group = np.unique(np.array(groups), return_inverse=True)[1]
    near = NearestNeighbors(n_neighbors=len(x)).fit(x).kneighbors(x, return_distance=False)
    weight = {name: 1.0 / (known == name).mean() for name in set(labels)}
    shares: dict[str, list[float]] = {}
    for item, order in enumerate(near):
        others = order[group[order] != group[item]][:NEIGHBOURS]
        if len(others):
            votes = np.array([weight[name] for name in known[others]])
            share = votes[known[others] == known[item]].sum() / votes.sum()
            shares.setdefault(str(known[item]), []).append(float(share))
    return float(np.mean([np.mean(values) for values in shares.values()])) if shares else np.nan


def _finite(embeddings: Floats) -> Floats:
    return np.nan_to_num(np.asarray(embeddings, dtype=np.float64))
