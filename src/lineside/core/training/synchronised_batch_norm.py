"""Batch norm over the batch of all processes, so that several processes compute what one does.

Torch's own `SyncBatchNorm` runs on GPUs only; this one runs wherever all-reduce does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def synchronised_batch_norm(network: nn.Module) -> Iterator[None]:
    """Let all batch norms of a network normalise with the statistics of all processes."""
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    for layer in layers:
        layer.forward = partial(_forward, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: _BatchNorm, x: Tensor) -> Tensor:
    """Batch norm (Ioffe & Szegedy 2015) of x, shape (batch, channel, ...)."""
    if not layer.training:
        evaluated: Tensor = type(layer).forward(layer, x)
        return evaluated
    axes = [axis for axis in range(x.ndim) if axis != 1]
    shape = [1 if axis in axes else -1 for axis in range(x.ndim)]  # broadcasts (channel,) to x
    sums = torch.cat([x.sum(axes), x.new_tensor([x.numel() / x.shape[1]])])  # (channel + 1,)
    sums = _sum(sums)
    count, mean = sums[-1].detach(), sums[:-1] / sums[-1]
    centred = x - mean.view(shape)
    variance = _sum(centred.square().sum(axes)) / count
    if layer.running_mean is not None and layer.running_var is not None:
        momentum = 0.1 if layer.momentum is None else layer.momentum
        with torch.no_grad():
            layer.running_mean.lerp_(mean, momentum)
            layer.running_var.lerp_(variance * count / (count - 1), momentum)
            if layer.num_batches_tracked is not None:
                layer.num_batches_tracked.add_(1)
    normalised = centred * (variance + layer.eps).rsqrt().view(shape)
    return normalised * layer.weight.view(shape) + layer.bias.view(shape)


def _sum(x: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return total


class _Sum(torch.autograd.Function):
    """Sum over processes; so is its gradient, since each sum enters the losses of all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total
