"""Trace of an adversarial attack: local entropy of a network's response, given its prediction.

Guided backpropagation of the last feature maps to the input shows where the network responds; the
mean entropy of its 3x3 neighbourhoods separates a few clear spots from a diffuse response (Amirian
et al. 2018, section 3). On each map's own scale, as published, it is no better than noise on a
small network. Here it is taken twice, on the map's own scale and on one scale for all maps:

    score = sqrt((e - m_c)' P_c (e - m_c))

with the two entropies e and mean m_c and inverse covariance P_c of clean items of the predicted
class c (Mahalanobis distance). The score is high where the response does not fit the predicted
class, whatever the reason.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lineside.core.errors import UserError
from lineside.core.explain.adversarial_attacks import BATCH, outputs, predicted_class
from lineside.core.explain.attribution import guided_backprop

Floats = NDArray[np.float64]
Maps = NDArray[np.float32]

LEVELS = 256
STEPS_PER_PEAK = 4.0
"""Grey levels of the common scale up to the typical peak of a response."""
FEWEST_PER_CLASS = 10
"""Clean items of a predicted class below which its mean and spread say nothing."""
_RIDGE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A fitted detector of responses that do not fit the predicted class.

    Attributes:
        network: Takes inputs (batch, channel, height, width) to logits.
        layer: The module of `network` whose summed activations are explained.
        peak: Median over clean items of the largest response: the unit of the common scale.
        centre: Mean entropies of clean items by predicted class, in bits, shape (class, 2).
        precision: Inverse of their covariance, shape (class, 2, 2).
    """

    network: nn.Module
    layer: nn.Module
    peak: float
    centre: Floats
    precision: Floats

    def score(self, inputs: Tensor) -> Floats:
        """Return how far each response lies from clean ones of its predicted class, (batch,).

        It is the Mahalanobis distance of the two entropies, at least 0, without a unit.
        """
        classes = predicted_class(outputs(self.network, inputs)).cpu().numpy()
        maps = response(self.network, self.layer, inputs)
        return distance(entropies(maps, self.peak), classes, self.centre, self.precision)


def fit_trace(network: nn.Module, layer: nn.Module, clean: Tensor) -> Trace:
    """Set the common scale and the clean entropies by predicted class.

    Args:
        network: Maps inputs to logits, see `adversarial_attacks`.
        layer: A module of `network` with a grid, by convention the last one.
        clean: Items that the network was not trained on, shape (batch, channel, height, width).

    Raises:
        UserError: if a class is predicted for fewer than `FEWEST_PER_CLASS` items.
    """
    logits = outputs(network, clean)
    classes = predicted_class(logits).cpu().numpy()
    count = 2 if logits.ndim == 1 else logits.shape[1]
    maps = response(network, layer, clean)
    peak = typical_peak(maps)
    centre, precision = clean_entropies(entropies(maps, peak), classes, count)
    return Trace(network=network, layer=layer, peak=peak, centre=centre, precision=precision)


def clean_entropies(
    entropy: Floats, classes: NDArray[np.int64], count: int
) -> tuple[Floats, Floats]:
    """Return mean and inverse covariance of clean entropies by predicted class.

    Args:
        entropy: Shape (batch, feature), in bits.
        classes: Predicted classes, shape (batch,).
        count: Number of classes.

    Raises:
        UserError: if a class is predicted for fewer than `FEWEST_PER_CLASS` items.
    """
    members = np.bincount(classes, minlength=count)
    if members.min() < FEWEST_PER_CLASS:
        raise UserError(
            f"class {members.argmin()} is predicted for {members.min()} of {len(classes)} clean "
            "items",
            f"the trace needs {FEWEST_PER_CLASS} of every class",
        )
    by_class = [entropy[classes == label] for label in range(count)]
    covariances = [np.atleast_2d(np.cov(values.T)) for values in by_class]
    size = entropy.shape[1]
    # A small ridge: a class whose maps are all alike would have infinite distances.
    ridged = [c + np.eye(size) * (_RIDGE * np.trace(c) / size + 1e-12) for c in covariances]
    return np.stack([values.mean(0) for values in by_class]), np.linalg.inv(np.stack(ridged))


def distance(
    entropy: Floats, classes: NDArray[np.int64], centre: Floats, precision: Floats
) -> Floats:
    """Return the Mahalanobis distance of entropies from clean ones of their class, (batch,).

    Args:
        entropy: Shape (batch, feature), in bits.
        classes: Predicted classes, shape (batch,).
        centre: From `clean_entropies`, shape (class, feature).
        precision: From `clean_entropies`, shape (class, feature, feature).
    """
    residual = entropy - centre[classes]
    # (batch, feature) x (batch, feature, feature) x (batch, feature) -> (batch,)
    squared = np.einsum("bi,bij,bj->b", residual, precision[classes], residual)
    return np.asarray(np.sqrt(squared))


def typical_peak(maps: Maps) -> float:
    """Return the median over items of the largest response, the unit of the common scale."""
    return float(np.median(maps.reshape(len(maps), -1).max(1))) or 1.0


def entropies(maps: Maps, peak: float) -> Floats:
    """Return the mean local entropy on each map's own scale and on the common one, (batch, 2).

    The own scale has `LEVELS` grey levels up to the map's largest value; the common one has
    `STEPS_PER_PEAK` levels up to `peak` and goes on to `LEVELS`.
    """
    own_scale = maps.reshape(len(maps), -1).max(1)[:, None, None].clip(1e-30)
    common_scale = peak * (LEVELS - 1) / STEPS_PER_PEAK
    scales = (own_scale, common_scale)
    return np.stack([mean_local_entropy(levels(maps, scale)) for scale in scales], axis=1)


def response(network: nn.Module, layer: nn.Module, inputs: Tensor) -> Maps:
    """Return the absolute guided-backprop response, mean over channels, (batch, height, width).

    It explains the sum of all activations of `layer`, so no class is singled out.
    """
    layer_sum = _LayerSum(network, layer)
    # (batch, channel, height, width) -> (batch, height, width)
    maps = [guided_backprop(layer_sum, block).abs().mean(1) for block in torch.split(inputs, BATCH)]
    stacked: Maps = torch.cat(maps).cpu().numpy()
    return stacked


def levels(maps: Maps, scale: float | Maps, count: int = LEVELS) -> NDArray[np.uint8]:
    """Return maps cut at `scale` and rounded to `count` grey levels (at most 256) from 0."""
    grey: NDArray[np.uint8] = np.rint(np.clip(maps / scale, 0.0, 1.0) * (count - 1)).astype(
        np.uint8
    )
    return grey


def mean_local_entropy(grey: NDArray[np.uint8], window: int = 3) -> Floats:
    """Return the mean over all windows of the entropy of their grey levels, in bits, (batch,).

    Amirian et al. 2018, eq. 1: -sum h log2 h over the histogram h of a window; stride 1, no
    padding. A constant map gives 0, windows of different values log2(window ** 2).
    """
    size = window * window
    # (batch, height, width) -> (batch, rows of windows, columns of windows, window, window)
    windows = np.lib.stride_tricks.sliding_window_view(grey, (window, window), axis=(1, 2))
    values = [windows[..., i, j] for i in range(window) for j in range(window)]
    equal = np.ones((size, *values[0].shape), dtype=np.uint8)
    for i, j in combinations(range(size), 2):
        same = values[i] == values[j]
        equal[i] += same
        equal[j] += same
    # A level that c of the elements share contributes log2(size / c) / size by each of them.
    share = np.append(0.0, np.log2(size / np.arange(1, size + 1)) / size)
    total = np.zeros(values[0].shape)
    for count in equal:
        total += share[count]
    return np.asarray(total.mean(axis=(1, 2)))


def total_variation(inputs: Tensor) -> Floats:
    """Return the mean absolute step between neighbours of each item, shape (batch,).

    A baseline that uses the input alone: it detects any noise, adversarial or not.
    """
    down = (inputs[:, :, 1:] - inputs[:, :, :-1]).abs().flatten(1).mean(1)
    right = (inputs[:, :, :, 1:] - inputs[:, :, :, :-1]).abs().flatten(1).mean(1)
    total: Floats = (down + right).double().cpu().numpy()
    return total


class _LayerSum(nn.Module):
    """A network that gives the sum of the activations of one of its layers, shape (batch,)."""

    def __init__(self, network: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._layer = (layer,)  # in a tuple, so that it is not registered a second time

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: list[Tensor] = []

        def record(module: nn.Module, given: object, output: Tensor) -> None:
            outputs.append(output)

        with ExitStack() as hooks:
            hooks.enter_context(self._layer[0].register_forward_hook(record))
            self.network(inputs)
        return outputs[-1].flatten(1).sum(1)
