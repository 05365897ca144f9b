"""Access to a network that leaves it unchanged: modes, scores and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Evaluation mode with gradients on, then everything as it was.

    cuDNN's recurrent layers refuse a backward pass in evaluation mode: they stay in training
    mode, where without dropout between their layers they compute the same.
    """
    training = [(module, module.training) for module in network.modules()]
    recurrent = [module for module in network.modules() if isinstance(module, nn.RNNBase)]
    dropout = [(module, module.dropout) for module in recurrent]
    try:
        network.eval()
        for module in recurrent:
            module.training, module.dropout = True, 0.0
        with (
            torch.random.fork_rng(devices=[]),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            yield
    finally:
        for module, share in dropout:
            module.dropout = share
        for other, mode in training:
            other.training = mode


def score(network: Callable[[Tensor], Tensor], inputs: Tensor, target: int) -> Tensor:
    """The explained output of each item, shape (batch,)."""
    output = network(inputs)
    return output if output.ndim == 1 else output.flatten(1)[:, target]


def gradient(network: Callable[[Tensor], Tensor], inputs: Tensor, target: int) -> Tensor:
    """Gradient of the score by the input; parameters' own gradients are not touched."""
    inputs = inputs.detach().clone().requires_grad_(True)
    total = score(network, inputs, target).sum()
    return torch.autograd.grad(total, inputs)[0]
