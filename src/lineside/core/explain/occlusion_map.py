"""Attribution by covering: how much of the score is lost where the input is hidden."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from lineside.core.explain.probing import score, undisturbed


def occlusion(
    network: nn.Module,
    inputs: Tensor,
    target: int = 0,
    *,
    window: int | tuple[int, ...],
    stride: int | tuple[int, ...],
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
        window: Its sides along the axes of the grid, or one side for all.
        stride: Steps between windows, likewise.
        baseline: Value of what is covered.
        whole_axis: Axis that every window covers whole and the map lacks: 1, the channels;
            2, the features of a sequence (batch, time, feature); None, no axis.
    """
    axes = [axis for axis in range(1, inputs.ndim) if axis != whole_axis]
    grid = [inputs.shape[axis] for axis in axes]
    sizes = (window,) * len(grid) if isinstance(window, int) else window
    steps = (stride,) * len(grid) if isinstance(stride, int) else stride
    counts = [math.ceil((g - w) / s) + 1 for g, w, s in zip(grid, sizes, steps, strict=True)]
    with undisturbed(network), torch.no_grad():
        total = torch.zeros(inputs.shape[0], *grid, dtype=inputs.dtype, device=inputs.device)
        covers = torch.zeros(grid, dtype=inputs.dtype, device=inputs.device)
        full = score(network, inputs, target)
        for place in np.ndindex(*counts):
            where = tuple(
                slice(p * s, p * s + w) for p, s, w in zip(place, steps, sizes, strict=True)
            )
            hidden = [slice(None)] * inputs.ndim
            for axis, part in zip(axes, where, strict=True):
                hidden[axis] = part
            covered = inputs.clone()
            covered[tuple(hidden)] = baseline
            loss = full - score(network, covered, target)
            total[(slice(None), *where)] += loss.reshape(-1, *[1] * len(grid))
            covers[where] += 1
    return total / covers
