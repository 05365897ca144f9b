"""Model randomisation test: does a map depend on what was learned? (Adebayo et al. 2018).

The map of the trained network is compared with that of a copy with random weights. A map that
stays the same shows edges of the input, not the network's reasons.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

MapOf = Callable[[nn.Module], Tensor]
"""Makes the map of a given network, batch first, e.g. ``lambda network: saliency(network, x)``."""


def agreement_with_random(network: nn.Module, map_of: MapOf, seed: int = 0) -> float:
    """Return the rank correlation of |map| between a network and a copy with random weights.

    Near 0: the map depends on what was learned. Near 1: it would look the same without any
    training (Adebayo et al. 2018, section 3).

    Args:
        network: The trained network.
        map_of: Makes the map of a given network.
        seed: Seed of the random weights, see `randomise_weights`.
    """
    trained, untrained = map_of(network), map_of(randomise_weights(network, seed))
    return rank_agreement(trained.abs(), untrained.abs())


def rank_agreement(first: Tensor, second: Tensor) -> float:
    """Return Spearman's correlation of maps of equal shape, mean over items (first axis).

    A constant map agrees with nothing: 0. Maps of one axis count as one item.
    """
    from scipy.stats import spearmanr

    ones, others = (_items(maps) for maps in (first, second))
    correlations = []
    for one, other in zip(ones, others, strict=True):
        constant = np.ptp(one) == 0 or np.ptp(other) == 0
        correlations.append(
            0.0 if constant else float(spearmanr(one.ravel(), other.ravel()).statistic)
        )
    return float(np.mean(correlations))


def randomise_weights(network: nn.Module, seed: int = 0) -> nn.Module:
    """Return a copy with the weights of an untrained network, see `draw_weights`."""
    untrained = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    for module in untrained.modules():
        draw_weights(module, generator)
    return untrained


@torch.no_grad()
def draw_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Draw a module's own weights at random, on the CPU so that every device gets the same.

    Kernels are normal with the spread of He et al. 2015, eq. 10 (fan-in), recurrent weights
    uniform within 1/sqrt(hidden size), biases zero, normalisations the identity.
    """
    if isinstance(module, _NormBase):
        module.reset_running_stats()
    for name, weight in module.named_parameters(recurse=False):
        drawn = torch.zeros(weight.shape, dtype=weight.dtype)
        if isinstance(module, nn.RNNBase):
            bound = 1 / math.sqrt(module.hidden_size)
            drawn.uniform_(-bound, bound, generator=generator)
        elif weight.ndim > 1:
            drawn.normal_(0.0, math.sqrt(2 / weight[0].numel()), generator=generator)
        elif is_normalisation(module) and name == "weight":
            drawn.fill_(1.0)
        weight.copy_(drawn)


def _items(maps: Tensor) -> NDArray[np.float64]:
    """Maps (item, ...) as an array; a map of one axis is a single item."""
    values: NDArray[np.float64] = maps.detach().cpu().double().numpy()
    return values[None] if values.ndim == 1 else values


def is_normalisation(module: nn.Module) -> bool:
    """Return whether a module only normalises what another layer computed."""
    return isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm)
