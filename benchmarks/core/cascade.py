"""Cascading randomisation: what is left of a map when layers get random weights from the top.

Adebayo et al. 2018, "Sanity checks for saliency maps", section 4.1.
"""

from __future__ import annotations

import copy
import math
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from lineside.core.explain.sanity_checks import (
    MapOf,
    draw_weights,
    is_normalisation,
    rank_agreement,
)

SSIM_WINDOW = 7


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement with the trained network's map when the upper layers have random weights.

    Attributes:
        layer: The lowest of the randomised layers.
        layers: Number of randomised layers.
        absolute: Rank correlation of the maps' absolute values, mean over items.
        signed: Rank correlation of the maps themselves.
        ssim: Structural similarity of the absolute values; NaN where maps are not 2-D.
    """

    layer: str
    layers: int
    absolute: float
    signed: float
    ssim: float


def cascade(network: nn.Module, map_of: MapOf, *, seed: int = 0, most: int = 50) -> list[Agreement]:
    """Return the agreement of a map as layers are randomised one by one, from the top.

    The layers are the modules with weights of their own, in the order in which they are used; a
    normalisation counts with the layer before it.

    Args:
        network: The trained network; it is not changed.
        map_of: Makes the map of a given network, batch first.
        seed: Seed of the random weights.
        most: Number of stages, evenly spaced; the last one, all layers, is always among them.

    Raises:
        ValueError: if `map_of` did not run the network.
    """
    untrained = copy.deepcopy(network)
    groups = layers_from_the_top(untrained, map_of)
    if not groups:
        raise ValueError("the explanation did not run the network, or it has no weights")
    trained = map_of(network).detach()
    stages = np.linspace(len(groups), 1, min(most, len(groups))).round().astype(int).tolist()
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for count, (name, modules) in enumerate(groups, start=1):
        for module in modules:
            draw_weights(module, generator)
        if count in stages:
            now = map_of(untrained).detach()
            rows.append(
                Agreement(
                    layer=name,
                    layers=count,
                    absolute=rank_agreement(trained.abs(), now.abs()),
                    signed=rank_agreement(trained, now),
                    ssim=structural_similarity(trained, now) if now.ndim in (3, 4) else math.nan,
                )
            )
    return rows


def structural_similarity(first: Tensor, second: Tensor) -> float:
    """Return the structural similarity of |maps|, each scaled to a maximum of 1, mean over items.

    Wang et al. 2004, eq. 13, with uniform windows of 7 x 7 cells (whole windows only where the
    map is large enough). Maps have shape (batch, *, height, width).
    """
    values = []
    for one, other in zip(first.detach().numpy(), second.detach().numpy(), strict=True):
        planes = zip(_planes(one), _planes(other), strict=True)
        values.append(np.mean([_ssim(a, b) for a, b in planes]))
    return float(np.mean(values))


def layers_from_the_top(network: nn.Module, map_of: MapOf) -> list[tuple[str, list[nn.Module]]]:
    """Return modules with weights in reverse order of use, a normalisation with its layer."""
    names = {module: name for name, module in network.named_modules()}
    used: list[nn.Module] = []

    def record(module: nn.Module, given: object) -> None:
        if module not in used:
            used.append(module)

    with ExitStack() as hooks:
        for module in names:
            if next(module.parameters(recurse=False), None) is not None:
                hooks.enter_context(module.register_forward_pre_hook(record))
        map_of(network)
    groups: list[tuple[str, list[nn.Module]]] = []
    for module in used:
        if is_normalisation(module) and groups:
            groups[-1][1].append(module)
        else:
            groups.append((names[module], [module]))
    return groups[::-1]


def _ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    window = min(SSIM_WINDOW, *a.shape)

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
    """Return |map| as planes (channel, height, width) with a maximum of 1."""
    strength = np.abs(item.astype(np.float64))
    strength = strength / max(float(strength.max()), 1e-30)
    return strength.reshape(-1, *strength.shape[-2:])
