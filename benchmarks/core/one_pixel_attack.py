"""The one-pixel attack of Su, Vargas and Sakurai 2019: differential evolution of a few pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import differential_evolution
from torch import Tensor, nn

from lineside.core.explain.adversarial_attacks import margin, outputs


@dataclass(frozen=True, kw_only=True)
class Search:
    """Bounds of the search for points that flip one prediction.

    Attributes:
        points: Positions that may be changed in all channels (Su et al. 2019: 1, 3, 5).
        population: Candidates per generation (400 in the paper).
        generations: Generations after the first (100 in the paper); it ends at the first flip.
    """

    points: int = 1
    population: int = 40
    generations: int = 9


def change_points(
    network: nn.Module, item: Tensor, label: int, search: Search, rng: np.random.Generator
) -> Tensor:
    """Return one two-dimensional item with a few positions set to the worst values found.

    Su et al. 2019, section 3: a candidate lists position and new value per channel of each
    point; differential evolution with mutation factor 0.5 and no crossover.

    Args:
        network: The attacked network.
        item: Shape (channel, height, width), values 0..1.
        label: Its class.
        search: Points and bounds of the effort.
        rng: Random stream.
    """
    channels, height, width = item.shape
    bounds = [(0, height - 1e-6), (0, width - 1e-6), *[(0.0, 1.0)] * channels] * search.points
    lowest = {"margin": np.inf}

    def apply(candidates: NDArray[np.float64]) -> Tensor:
        """Items of shape (candidate, channel, height, width)."""
        # (candidate, point * (2 + channel)) -> (candidate, point, row, column and values)
        genes = torch.from_numpy(candidates).reshape(len(candidates), search.points, -1)
        items = item.repeat(len(candidates), 1, 1, 1)
        for point in range(search.points):
            row, column = genes[:, point, 0].long(), genes[:, point, 1].long()
            values = genes[:, point, 2:].to(item.dtype)
            items[torch.arange(len(items)), :, row, column] = values
        return items

    def loss(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        # scipy gives (parameter, candidate), or (parameter,) of a single one.
        items = apply(np.atleast_2d(parameters.T))
        labels = torch.full((len(items),), label)
        values: NDArray[np.float64] = margin(outputs(network, items), labels).double().numpy()
        lowest["margin"] = min(lowest["margin"], float(values.min()))
        return values if parameters.ndim == 2 else values[0]

    first = rng.random((search.population, len(bounds))) * np.array([high for _, high in bounds])
    optimum = differential_evolution(
        loss,
        bounds,
        init=first,
        maxiter=search.generations,
        mutation=0.5,
        recombination=1.0,
        strategy="rand1bin",
        polish=False,
        tol=0.0,
        atol=0.0,
        rng=rng,
        vectorized=True,
        updating="deferred",
        callback=lambda intermediate_result: lowest["margin"] < 0,
    )
    return apply(optimum.x[None])[0]
