"""Why a network said what it said: attribution of its score to the input.

All functions take a network, inputs of shape (batch, channel, ...) and the index of the output
that is explained, and return maps on the CPU's or the input's own device. They leave no trace:
hooks are removed, train/eval modes and gradients stay as they were, no random number is drawn.
The network is explained in evaluation mode, so items of a batch do not influence each other.

Outputs may have shape (batch,) - then `target` is not used - or (batch, score).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional

_RECTIFIERS = (nn.ReLU, nn.ReLU6)


def saliency(network: nn.Module, inputs: Tensor, target: int = 0) -> Tensor:
    """Return the signed gradient of the score by the input, shape of `inputs`.

    Simonyan et al. 2014, section 3 (there with the absolute value).
    """
    with _undisturbed(network):
        return _gradient(network, inputs, target)


def gradient_times_input(network: nn.Module, inputs: Tensor, target: int = 0) -> Tensor:
    """Return gradient times input, shape of `inputs`: exact shares of a linear model's score."""
    return saliency(network, inputs, target) * inputs.detach()


def integrated_gradients(
    network: nn.Module,
    inputs: Tensor,
    target: int = 0,
    *,
    baseline: float | Tensor = 0.0,
    nodes: int = 50,
) -> Tensor:
    """Return integrated gradients, shape of `inputs`; they sum to S(input) - S(baseline).

    Sundararajan et al. 2017, section 3, integrated by Gauss-Legendre quadrature.
    """
    points, weights = np.polynomial.legendre.leggauss(nodes)
    inputs = inputs.detach()
    start = torch.as_tensor(baseline, dtype=inputs.dtype, device=inputs.device).expand_as(inputs)
    with _undisturbed(network):
        total = torch.zeros_like(inputs)
        for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
            along = start + float(point) * (inputs - start)
            total += float(weight) * _gradient(network, along, target)
    return total * (inputs - start)


def guided_backprop(network: nn.Module, inputs: Tensor, target: int = 0) -> Tensor:
    """Return the guided-backpropagation map, shape of `inputs`.

    The backward pass through a ReLU keeps what is positive, at places where the forward input
    was positive (Springenberg et al. 2015, section 3.4). It acts on `nn.ReLU` and `nn.ReLU6`
    modules only, a functional ReLU is not seen: use one module per place, not in-place.
    The map looks sharp but depends little on the upper layers (Adebayo et al. 2018): show it
    beside Grad-CAM, with its `agreement_with_random`.
    """

    def positive(module: nn.Module, inward: tuple[Tensor, ...], outward: object) -> tuple[Tensor]:
        return (inward[0].clamp_min(0.0),)

    with _undisturbed(network), _Hooks() as hooks:
        for module in network.modules():
            if isinstance(module, _RECTIFIERS):
                hooks.add(module.register_full_backward_hook(positive))
        return _gradient(network, inputs, target)


def grad_cam(network: nn.Module, layer: nn.Module, inputs: Tensor, target: int = 0) -> Tensor:
    """Return the Grad-CAM map, shape (batch, *grid of the layer), not negative.

    ReLU of the feature maps weighted by the mean gradient over the grid (Selvaraju et al.
    2017, section 3). Bring it to the size of the input with `upsample`.
    """
    seen: list[Tensor] = []

    def keep(module: nn.Module, given: object, output: Tensor) -> None:
        seen.append(output)

    with _undisturbed(network), _Hooks() as hooks:
        hooks.add(layer.register_forward_hook(keep))
        score = _score(network, inputs.detach().clone().requires_grad_(True), target).sum()
        features = seen[-1]
        gradient = torch.autograd.grad(score, features)[0]
    weights = gradient.flatten(2).mean(2).reshape(*gradient.shape[:2], *[1] * (features.ndim - 2))
    return (weights * features).sum(1).detach().clamp_min(0.0)


def guided_grad_cam(
    network: nn.Module, layer: nn.Module, inputs: Tensor, target: int = 0
) -> Tensor:
    """Return guided backpropagation times up-sampled Grad-CAM, shape of `inputs`."""
    cam = upsample(grad_cam(network, layer, inputs, target), inputs.shape[2:])
    return guided_backprop(network, inputs, target) * cam.unsqueeze(1)


def upsample(maps: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """Return maps of shape (batch, *grid) brought to (batch, *size) by linear interpolation."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return functional.interpolate(maps.unsqueeze(1), tuple(size), mode=mode).squeeze(1)


def occlusion(
    network: nn.Module,
    inputs: Tensor,
    target: int = 0,
    *,
    window: int | tuple[int, ...],
    stride: int | tuple[int, ...],
    baseline: float = 0.0,
) -> Tensor:
    """Return the score lost where a window is covered, shape (batch, *grid of the input).

    A window slides over the input and covers all channels with `baseline`; where windows
    overlap their losses are averaged; the last window may reach over the border (Zeiler and
    Fergus 2014, section 4.2).
    """
    grid = inputs.shape[2:]
    sizes = (window,) * len(grid) if isinstance(window, int) else window
    steps = (stride,) * len(grid) if isinstance(stride, int) else stride
    counts = [math.ceil((g - w) / s) + 1 for g, w, s in zip(grid, sizes, steps, strict=True)]
    with _undisturbed(network), torch.no_grad():
        total = torch.zeros(inputs.shape[0], *grid, dtype=inputs.dtype, device=inputs.device)
        covers = torch.zeros(grid, dtype=inputs.dtype, device=inputs.device)
        full = _score(network, inputs, target)
        for place in np.ndindex(*counts):
            where = tuple(
                slice(p * s, p * s + w) for p, s, w in zip(place, steps, sizes, strict=True)
            )
            covered = inputs.clone()
            covered[(slice(None), slice(None), *where)] = baseline
            loss = full - _score(network, covered, target)
            total[(slice(None), *where)] += loss.reshape(-1, *[1] * len(grid))
            covers[where] += 1
    return total / covers


def agreement_with_random(
    network: nn.Module, explain: Callable[[nn.Module], Tensor], seed: int = 0
) -> float:
    """Return the rank correlation of |map| between a network and its twin of random weights.

    Near 0: the map depends on what was learned. Near 1: it would look the same without any
    training, so it shows edges of the input, not reasons (Adebayo et al. 2018, section 3).

    Args:
        network: The trained network.
        explain: Makes the map of a given network, e.g. ``lambda net: saliency(net, x)``.
        seed: Seed of the random weights, drawn per tensor with the trained tensor's spread.
    """
    twin = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in twin.parameters():
            if weight.ndim > 1:
                noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
                weight.copy_(noise * weight.std())
    maps = [explain(net).abs().flatten().cpu().numpy() for net in (network, twin)]
    if any(np.ptp(values) == 0 for values in maps):
        return 0.0
    return float(spearmanr(*maps).statistic)


class _Hooks:
    """Hooks that are removed at the end, whatever happens."""

    def __init__(self) -> None:
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def add(self, handle: torch.utils.hooks.RemovableHandle) -> None:
        self._handles.append(handle)

    def __enter__(self) -> _Hooks:
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()


@contextmanager
def _undisturbed(network: nn.Module) -> Iterator[None]:
    """Evaluation mode with gradients on, then everything as it was."""
    training = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        with (
            torch.random.fork_rng(devices=[]),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            yield
    finally:
        for module, mode in training:
            module.training = mode


def _score(network: nn.Module, inputs: Tensor, target: int) -> Tensor:
    """The explained output of each item, shape (batch,)."""
    output: Tensor = network(inputs)
    return output if output.ndim == 1 else output.flatten(1)[:, target]


def _gradient(network: nn.Module, inputs: Tensor, target: int) -> Tensor:
    """Gradient of the score by the input; parameters' own gradients are not touched."""
    inputs = inputs.detach().clone().requires_grad_(True)
    score = _score(network, inputs, target).sum()
    return torch.autograd.grad(score, inputs)[0]
