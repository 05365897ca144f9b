"""How much of a gradient is signal, and how much is the noise of its batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_DECAY = 0.8


def norm_of(tensors: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm over all elements of all tensors, without a wait for the device."""
    norms: tuple[Tensor, ...] = torch._foreach_norm(tuple(tensors))
    return torch.stack(norms).square().sum().sqrt()


class GradientSignal:
    """Signal-to-noise ratio of the gradient over recent sampled steps.

    With weights w_i of recent gradients g_i (exponential, summing to 1), the weighted mean has
    the expected squared norm ``|mu|^2 + s^2 * sum w_i^2``, and the mean of ``|g_i|^2`` is
    ``|mu|^2 + s^2``; solving gives the norm of the true mean over that of the spread.
    """

    def __init__(self) -> None:
        self._mean: list[Tensor] = []
        self._square: Tensor | None = None
        self._weight_square = 1.0
        self._count = 0

    def add(self, gradients: list[Tensor], norm: Tensor | None = None) -> None:
        """Take in the gradients of one step, and their norm where it is known."""
        square = (norm_of(gradients) if norm is None else norm).square()
        if self._square is None or len(self._mean) != len(gradients):
            self._mean = [g.clone() for g in gradients]
            self._square, self._weight_square, self._count = square, 1.0, 1
            return
        torch._foreach_lerp_(self._mean, gradients, 1.0 - _DECAY)
        self._square = torch.lerp(self._square, square, 1.0 - _DECAY)
        self._weight_square = _DECAY**2 * self._weight_square + (1.0 - _DECAY) ** 2
        self._count += 1

    def ratio(self) -> float | None:
        """Return the ratio, or None before three gradients were seen."""
        if self._square is None or self._count < 3:
            return None
        mean_square = float(norm_of(self._mean).square())
        spread = max(float(self._square) - mean_square, 0.0) / (1.0 - self._weight_square)
        signal = max(mean_square - spread * self._weight_square, 0.0)
        return math.sqrt(signal / spread) if spread > 0 else math.inf
