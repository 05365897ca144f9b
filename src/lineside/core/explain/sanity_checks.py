"""Does a map depend on what was learned? The sanity checks of Adebayo et al. 2018.

A network's weights are drawn anew, from the output down or all at once, and the maps before and
after are compared. A map that stays the same shows the input, not the network's reasons.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from lineside.core.explain.probing import Hooks

Explain = Callable[[nn.Module], Tensor]
"""Makes the map of a given network, e.g. ``lambda net: saliency(net, x)``."""

_SSIM_WINDOW = 7


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How much of a map is left when the layers from the top down to one are drawn anew.

    Attributes:
        layer: The lowest of the layers that were drawn anew.
        layers: How many layers were.
        absolute: Rank correlation of the maps' absolute values, mean over items.
        signed: Rank correlation of the maps themselves.
        ssim: Structural similarity of the absolute values; NaN where maps are not 2-D.
    """

    layer: str
    layers: int
    absolute: float
    signed: float
    ssim: float


def agreement_with_random(network: nn.Module, explain: Explain, seed: int = 0) -> float:
    """Return the rank correlation of |map| between a network and its twin of random weights.

    Near 0: the map depends on what was learned. Near 1: it would look the same without any
    training, so it shows edges of the input, not reasons (Adebayo et al. 2018, section 3).

    Args:
        network: The trained network.
        explain: Makes the map of a given network, batch first.
        seed: Seed of the random weights, see `randomised`.
    """
    twin = randomised(network, seed)
    return rank_agreement(_map(explain, network).abs(), _map(explain, twin).abs())


def cascade(
    network: nn.Module, explain: Explain, *, seed: int = 0, most: int = 50
) -> list[Agreement]:
    """Return how a map falls apart while layers are drawn anew one by one, from the top.

    Adebayo et al. 2018, section 4.1. The layers are the modules with weights of their own, in
    the order in which they are used; a normalisation counts with the layer before it.

    Args:
        network: The trained network; it is not changed.
        explain: Makes the map of a given network, batch first.
        seed: Seed of the random weights.
        most: Stages that are looked at, evenly spaced; the last one, all layers, always is.

    Raises:
        ValueError: if `explain` did not run the network.
    """
    twin = copy.deepcopy(network)
    groups = _from_the_top(twin, explain)
    if not groups:
        raise ValueError("the explanation did not run the network, or it has no weights")
    trained = _map(explain, network)
    looked_at = np.linspace(len(groups), 1, min(most, len(groups))).round().astype(int).tolist()
    generator = torch.Generator().manual_seed(seed)
    found = []
    for count, (name, modules) in enumerate(groups, start=1):
        for module in modules:
            _redraw(module, generator)
        if count in looked_at:
            now = _map(explain, twin)
            flat = now.ndim in (3, 4)
            found.append(
                Agreement(
                    layer=name,
                    layers=count,
                    absolute=rank_agreement(trained.abs(), now.abs()),
                    signed=rank_agreement(trained, now),
                    ssim=structural_similarity(trained, now) if flat else math.nan,
                )
            )
    return found


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """Return a copy as it would be before any training.

    Kernels are normal with the spread of He et al. 2015, eq. 10 (fan-in), recurrent weights
    uniform within 1/sqrt(hidden size), biases zero, normalisations the identity.
    """
    twin = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    for module in twin.modules():
        _redraw(module, generator)
    return twin


def rank_agreement(first: Tensor, second: Tensor) -> float:
    """Return Spearman's correlation of maps of equal shape, mean over items (first axis).

    A constant map agrees with nothing: 0. Maps of one axis count as one item.
    """
    found = []
    for one, other in zip(_items(first), _items(second), strict=True):
        constant = np.ptp(one) == 0 or np.ptp(other) == 0
        found.append(0.0 if constant else float(spearmanr(one.ravel(), other.ravel()).statistic))
    return float(np.mean(found))


def structural_similarity(first: Tensor, second: Tensor) -> float:
    """Return the structural similarity of |maps|, each scaled to a maximum of 1, mean over items.

    Wang et al. 2004, eq. 13, with uniform windows of 7 x 7 cells (whole windows only where the
    map is large enough). Maps have shape (batch, *, height, width).
    """
    found = []
    for one, other in zip(_items(first), _items(second), strict=True):
        pairs = zip(_planes(one), _planes(other), strict=True)
        found.append(np.mean([_ssim(a, b) for a, b in pairs]))
    return float(np.mean(found))


def _ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    window = min(_SSIM_WINDOW, *a.shape)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        smooth: NDArray[np.float64] = ndimage.uniform_filter(values, window, mode="reflect")
        off = window // 2
        return smooth[
            off : smooth.shape[0] - window + off + 1, off : smooth.shape[1] - window + off + 1
        ]

    c1, c2 = 0.01**2, 0.03**2
    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    ratio = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return float(ratio.mean())


def _planes(item: NDArray[np.float64]) -> NDArray[np.float64]:
    """The item's |map| as planes (channel, height, width) with a maximum of 1."""
    strength = np.abs(item)
    strength = strength / max(float(strength.max()), 1e-30)
    return strength.reshape(-1, *strength.shape[-2:])


def _items(maps: Tensor) -> NDArray[np.float64]:
    values: NDArray[np.float64] = maps.detach().cpu().double().numpy()
    return values[None] if values.ndim == 1 else values


def _map(explain: Explain, network: nn.Module) -> Tensor:
    return explain(network).detach()


def _from_the_top(network: nn.Module, explain: Explain) -> list[tuple[str, list[nn.Module]]]:
    """Modules with weights of their own in reverse order of use, normalisations with a layer."""
    names = {module: name for name, module in network.named_modules()}
    used: list[nn.Module] = []

    def note(module: nn.Module, given: object) -> None:
        if module not in used:
            used.append(module)

    with Hooks() as hooks:
        for module in names:
            if next(module.parameters(recurse=False), None) is not None:
                hooks.add(module.register_forward_pre_hook(note))
        _map(explain, network)
    groups: list[tuple[str, list[nn.Module]]] = []
    for module in used:
        if _normalises(module) and groups:
            groups[-1][1].append(module)
        else:
            groups.append((names[module], [module]))
    return groups[::-1]


def _normalises(module: nn.Module) -> bool:
    return isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm)


@torch.no_grad()
def _redraw(module: nn.Module, generator: torch.Generator) -> None:
    """Draw a module's own weights anew, on the CPU so that every device gets the same."""
    if isinstance(module, _NormBase):
        module.reset_running_stats()
    for name, weight in module.named_parameters(recurse=False):
        drawn = torch.zeros(weight.shape, dtype=weight.dtype)
        if isinstance(module, nn.RNNBase):
            bound = 1 / math.sqrt(module.hidden_size)
            drawn.uniform_(-bound, bound, generator=generator)
        elif weight.ndim > 1:
            drawn.normal_(0.0, math.sqrt(2 / weight[0].numel()), generator=generator)
        elif _normalises(module) and name == "weight":
            drawn.fill_(1.0)
        weight.copy_(drawn)
