"""Adversarial attacks: small changes of an input that flip the prediction, and random controls.

FGSM  x + epsilon * sign(dL/dx)                              Goodfellow et al. 2015, section 4
PGD   repeated sign steps, projected back into the cube      Madry et al. 2018, section 2

The network takes inputs with values 0..1, shape (batch, channel, ...), and gives one logit per
item, shape (batch,) - class 1 where it is positive - or one per class, shape (batch, class). It
is attacked in evaluation mode and left unchanged.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lineside.core.explain.probing import evaluation_mode, gradient

PGD_STEPS = 10
BATCH = 64


def predicted_class(logits: Tensor) -> Tensor:
    """Return the class of each item: the largest logit, or the sign of a single one."""
    return (logits > 0).long() if logits.ndim == 1 else logits.argmax(1)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return log(p / (1 - p)) of each item's label, shape (batch,): the prediction flips below 0.

    Cross-entropy is softplus(-margin), a falling function of it: both give the same attack.
    With three and more classes the sign says whether the label has most of the probability.
    """
    if logits.ndim == 1:
        return torch.where(labels == 1, logits, -logits)
    # (batch, class) -> (batch,): the label's logit against all others, log sum exp of their logits
    of_label = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return of_label[:, 0] - others.logsumexp(1)


def outputs(network: nn.Module, inputs: Tensor, batch: int = BATCH) -> Tensor:
    """Return the network's logits in evaluation mode, computed in blocks."""
    with evaluation_mode(network), torch.no_grad():
        return torch.cat([network(block) for block in torch.split(inputs, batch)])


def confidence(logits: Tensor) -> NDArray[np.float64]:
    """Return the largest class probability of each item, shape (batch,)."""
    if logits.ndim == 1:
        logits = torch.stack([torch.zeros_like(logits), logits], 1)
    highest: NDArray[np.float64] = logits.double().softmax(1).amax(1).numpy()
    return highest


def fgsm(network: nn.Module, inputs: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """Return inputs moved by `epsilon` against their labels: the fast gradient sign method.

    Goodfellow et al. 2015, section 4: x + epsilon * sign(gradient of the loss), kept in 0..1.
    """
    return (inputs + epsilon * _loss_gradient_sign(network, inputs, labels)).clamp(0.0, 1.0)


def pgd(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    generator: torch.Generator,
    steps: int = PGD_STEPS,
) -> Tensor:
    """Return inputs attacked by projected gradient descent within `epsilon` in every element.

    Madry et al. 2018, section 2: random start, `steps` sign steps of epsilon / 4, each projected
    back into the cube around the input and into 0..1.
    """
    start = torch.rand(inputs.shape, generator=generator, dtype=inputs.dtype) * 2 - 1
    attacked = (inputs + epsilon * start).clamp(0.0, 1.0)
    for _ in range(steps):
        attacked = attacked + epsilon / 4 * _loss_gradient_sign(network, attacked, labels)
        attacked = torch.clamp(attacked, inputs - epsilon, inputs + epsilon).clamp(0.0, 1.0)
    return attacked


def sign_noise(inputs: Tensor, epsilon: float, *, generator: torch.Generator) -> Tensor:
    """Return inputs with every element moved by +epsilon or -epsilon at random, kept in 0..1.

    A control of the size of an FGSM attack without its direction: a detector that reacts to it
    detects mere noise.
    """
    up = torch.rand(inputs.shape, generator=generator, dtype=inputs.dtype) < 0.5
    return (inputs + epsilon * torch.where(up, 1.0, -1.0)).clamp(0.0, 1.0)


def _loss_gradient_sign(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """The sign of the gradient of each item's loss by its input, in blocks."""

    def margins(block: Tensor, own: Tensor) -> Tensor:
        return margin(network(block), own)

    blocks = zip(torch.split(inputs, BATCH), torch.split(labels, BATCH), strict=True)
    with evaluation_mode(network):
        signs = [-gradient(partial(margins, own=own), block, 0).sign() for block, own in blocks]
    return torch.cat(signs)
