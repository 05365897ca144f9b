"""Small changes of an input, made to flip what a network predicts, and random ones of equal size.

The network takes inputs with values 0..1, shape (batch, channel, ...), and gives one logit per
item, shape (batch,) - class 1 where it is positive - or one per class, shape (batch, class). It
is attacked in evaluation mode and left as it was found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import differential_evolution
from torch import Tensor, nn

from lineside.core.explain.gradients import saliency

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
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return own[:, 0] - others.logsumexp(1)


def outputs(network: nn.Module, inputs: Tensor, batch: int = BATCH) -> Tensor:
    """Return the network's logits in evaluation mode, computed in blocks."""
    training = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        with torch.no_grad():
            return torch.cat([network(block) for block in torch.split(inputs, batch)])
    finally:
        for module, mode in training:
            module.training = mode


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
    return (inputs + epsilon * _uphill(network, inputs, labels)).clamp(0.0, 1.0)


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
    moved = (inputs + epsilon * start).clamp(0.0, 1.0)
    for _ in range(steps):
        moved = moved + epsilon / 4 * _uphill(network, moved, labels)
        moved = torch.clamp(moved, inputs - epsilon, inputs + epsilon).clamp(0.0, 1.0)
    return moved


def sign_noise(inputs: Tensor, epsilon: float, *, generator: torch.Generator) -> Tensor:
    """Return inputs with every element moved by +epsilon or -epsilon at random, kept in 0..1.

    It has the size of an FGSM attack without its aim: what alarms here detects mere noise.
    """
    up = torch.rand(inputs.shape, generator=generator, dtype=inputs.dtype) < 0.5
    return (inputs + epsilon * torch.where(up, 1.0, -1.0)).clamp(0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Search:
    """How long differential evolution looks for points that flip one prediction.

    Attributes:
        points: Positions that may be changed in all channels (Su et al. 2019: 1, 3, 5).
        population: Candidates per generation (400 in the paper).
        generations: Generations after the first (100 in the paper); it ends at the first flip.
    """

    points: int = 1
    population: int = 40
    generations: int = 9


def few_points(
    network: nn.Module, item: Tensor, label: int, search: Search, rng: np.random.Generator
) -> Tensor:
    """Return one two-dimensional item with a few positions set to the worst values found.

    The one-pixel attack of Su et al. 2019, section 3: a candidate lists position and new value
    per channel of each point; differential evolution with mutation factor 0.5 and no crossover.

    Args:
        network: The attacked network.
        item: Shape (channel, height, width), values 0..1.
        label: Its class.
        search: Points and bounds of the effort.
        rng: Random stream.
    """
    channels, height, width = item.shape
    bounds = [(0, height - 1e-6), (0, width - 1e-6), *[(0.0, 1.0)] * channels] * search.points
    lowest = {"margin": np.inf}

    def changed(candidates: NDArray[np.float64]) -> Tensor:
        """Items of shape (candidate, channel, height, width)."""
        genes = torch.from_numpy(candidates).reshape(len(candidates), search.points, -1)
        items = item.repeat(len(candidates), 1, 1, 1)
        for place in range(search.points):
            row, column = genes[:, place, 0].long(), genes[:, place, 1].long()
            values = genes[:, place, 2:].to(item.dtype)
            items[torch.arange(len(items)), :, row, column] = values
        return items

    def loss(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        # scipy gives (parameter, candidate), or (parameter,) of a single one.
        items = changed(np.atleast_2d(parameters.T))
        labels = torch.full((len(items),), label)
        values: NDArray[np.float64] = margin(outputs(network, items), labels).double().numpy()
        lowest["margin"] = min(lowest["margin"], float(values.min()))
        return values if parameters.ndim == 2 else values[0]

    first = rng.random((search.population, len(bounds))) * np.array([high for _, high in bounds])
    found = differential_evolution(
        loss,
        bounds,
        init=first,
        maxiter=search.generations,
        mutation=0.5,
        recombination=1.0,
        strategy="rand1bin",
        polish=False,
        tol=0.0,
        atol=0.0,
        rng=rng,
        vectorized=True,
        updating="deferred",
        callback=lambda intermediate_result: lowest["margin"] < 0,
    )
    return changed(found.x[None])[0]


def _uphill(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """The sign of the gradient of each item's loss by its input, in blocks."""
    signs = []
    for block, own in zip(torch.split(inputs, BATCH), torch.split(labels, BATCH), strict=True):
        signs.append(-saliency(_Margin(network, own), block).sign())
    return torch.cat(signs)


class _Margin(nn.Module):
    """A network that gives the margin of given labels."""

    def __init__(self, network: nn.Module, labels: Tensor) -> None:
        super().__init__()
        self.network = network
        self.labels = labels

    def forward(self, inputs: Tensor) -> Tensor:
        return margin(self.network(inputs), self.labels)
