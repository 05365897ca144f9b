"""Class activation maps: which places of a layer's grid speak for the score."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from lineside.core.explain.gradients import guided_backprop
from lineside.core.explain.probing import Hooks, score, undisturbed


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
    seen: list[Tensor] = []

    def keep(module: nn.Module, given: object, output: Tensor | tuple[Tensor, ...]) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    with undisturbed(network), Hooks() as hooks:
        hooks.add(layer.register_forward_hook(keep))
        total = score(network, inputs.detach().clone().requires_grad_(True), target).sum()
        features = seen[-1]
        by_feature = torch.autograd.grad(total, features)[0]
    grid = [axis for axis in range(1, features.ndim) if axis != channel_axis % features.ndim]
    weights = by_feature.mean(grid, keepdim=True)
    return (weights * features).sum(channel_axis).detach().clamp_min(0.0)


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
