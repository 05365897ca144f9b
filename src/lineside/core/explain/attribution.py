"""Attribution maps: which elements of an input change one score of a network.

S(x) is the explained output (`target`). Inputs x have shape (batch, channel, time), (batch,
channel, height, width) or, for recurrent networks, (batch, time, feature).

function                       map                                             shape
saliency                       dS/dx                                           of x
integrated_gradients           (x - x0) * mean of dS/dx on the line x0 .. x    of x
guided_backprop                dS/dx with ReLUs that pass positive gradients   of x
grad_cam                       ReLU(sum over k of weight_k * feature map_k)    (batch, *grid)
occlusion                      S(x) - S(x with a window covered)               (batch, *grid)
"""

from __future__ import annotations

import math
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lineside.core.explain.probing import evaluation_mode, gradient, score

_RECTIFIERS = (nn.ReLU, nn.ReLU6)


def saliency(network: nn.Module, inputs: Tensor, target: int = 0) -> Tensor:
    """Return the signed gradient of the score by the input, shape of `inputs`.

    Simonyan et al. 2014, section 3 (there with the absolute value).
    """
    with evaluation_mode(network):
        return gradient(network, inputs, target)


def integrated_gradients(
    network: nn.Module,
    inputs: Tensor,
    target: int = 0,
    *,
    baseline: float | Tensor = 0.0,
    nodes: int = 50,
) -> Tensor:
    """Return integrated gradients, shape of `inputs`; they sum to S(inputs) - S(baseline).

    Sundararajan et al. 2017, section 3, integrated by Gauss-Legendre quadrature.
    """
    points, weights = np.polynomial.legendre.leggauss(nodes)
    inputs = inputs.detach()
    start = torch.as_tensor(baseline, dtype=inputs.dtype, device=inputs.device).expand_as(inputs)
    with evaluation_mode(network):
        total = torch.zeros_like(inputs)
        # The quadrature is defined on -1..1, the path runs from 0 to 1.
        for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
            along = start + float(point) * (inputs - start)
            total += float(weight) * gradient(network, along, target)
    return total * (inputs - start)


def guided_backprop(network: nn.Module, inputs: Tensor, target: int = 0) -> Tensor:
    """Return the guided-backpropagation map, shape of `inputs`.

    The backward pass through a ReLU keeps positive gradients, where the forward input was
    positive (Springenberg et al. 2015, section 3.4). It acts on `nn.ReLU` and `nn.ReLU6` modules
    only, a functional ReLU is not seen: use one module per call, not in-place. The map looks
    sharp but depends little on the upper layers (Adebayo et al. 2018): show it beside Grad-CAM,
    with its `agreement_with_random`.
    """

    def clamp(module: nn.Module, inward: tuple[Tensor, ...], outward: object) -> tuple[Tensor]:
        return (inward[0].clamp_min(0.0),)

    with evaluation_mode(network), ExitStack() as hooks:
        for module in network.modules():
            if isinstance(module, _RECTIFIERS):
                hooks.enter_context(module.register_full_backward_hook(clamp))
        return gradient(network, inputs, target)


def grad_cam(
    network: nn.Module,
    layer: nn.Module,
    inputs: Tensor,
    target: int = 0,
    *,
    channel_axis: int = 1,
) -> Tensor:
    """Return the Grad-CAM map, shape (batch, *grid of the layer), not negative.

    ReLU of the feature maps weighted by the mean gradient over the grid (Selvaraju et al.
    2017, section 3). Bring it to the size of the input with `upsample`.

    Args:
        network: The network.
        layer: A module of it whose output has a grid; of a tuple (recurrent layers) the first.
        inputs: What is explained.
        target: Index of the explained output.
        channel_axis: Axis of the features in the layer's output; 2 for (batch, time, feature).
    """
    outputs: list[Tensor] = []

    def record(module: nn.Module, given: object, output: Tensor | tuple[Tensor, ...]) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    with evaluation_mode(network), ExitStack() as hooks:
        hooks.enter_context(layer.register_forward_hook(record))
        total = score(network, inputs.detach().clone().requires_grad_(True), target).sum()
        features = outputs[-1]
        by_feature = torch.autograd.grad(total, features)[0]
    # (batch, channel, *grid): gradients are averaged over the grid to one weight per channel,
    # then the weighted channels are summed -> (batch, *grid)
    grid = [axis for axis in range(1, features.ndim) if axis != channel_axis % features.ndim]
    weights = by_feature.mean(grid, keepdim=True)
    return (weights * features).sum(channel_axis).detach().clamp_min(0.0)


def upsample(maps: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """Return maps of shape (batch, *grid) brought to (batch, *size) by linear interpolation."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return functional.interpolate(maps.unsqueeze(1), tuple(size), mode=mode).squeeze(1)


def occlusion(
    network: nn.Module,
    inputs: Tensor,
    target: int = 0,
    *,
    window: int,
    stride: int,
    baseline: float = 0.0,
    whole_axis: int | None = 1,
) -> Tensor:
    """Return the score lost where a window is covered, shape (batch, *grid of the input).

    A window slides over the grid and covers it with `baseline`; where windows overlap their
    losses are averaged; the last window may reach over the border (Zeiler and Fergus 2014,
    section 4.2).

    Args:
        network: The network.
        inputs: What is explained.
        target: Index of the explained output.
        window: Its side along every axis of the grid.
        stride: Step between windows.
        baseline: Value of covered elements.
        whole_axis: Axis that every window covers whole and the map lacks: 1, the channels;
            2, the features of a sequence (batch, time, feature); None, no axis.
    """
    axes = [axis for axis in range(1, inputs.ndim) if axis != whole_axis]
    grid = [inputs.shape[axis] for axis in axes]
    counts = [math.ceil((side - window) / stride) + 1 for side in grid]
    with evaluation_mode(network), torch.no_grad():
        total = torch.zeros(inputs.shape[0], *grid, dtype=inputs.dtype, device=inputs.device)
        covers = torch.zeros(grid, dtype=inputs.dtype, device=inputs.device)
        full = score(network, inputs, target)
        for corner in np.ndindex(*counts):
            cells = tuple(slice(place * stride, place * stride + window) for place in corner)
            hidden = [slice(None)] * inputs.ndim
            for axis, part in zip(axes, cells, strict=True):
                hidden[axis] = part
            covered = inputs.clone()
            covered[tuple(hidden)] = baseline
            loss = full - score(network, covered, target)
            # (batch,) -> (batch, 1, ...): every cell of the window gets the item's loss
            total[(slice(None), *cells)] += loss.reshape(-1, *[1] * len(grid))
            covers[cells] += 1
    return total / covers
