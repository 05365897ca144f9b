"""Sizes of the gradients and updates of one optimiser, and how much of a gradient is signal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

_DECAY = 0.8


def norm_of(tensors: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm over all elements of all tensors, without a wait for the device."""
    norms: tuple[Tensor, ...] = torch._foreach_norm(tuple(tensors))
    return torch.stack(norms).square().sum().sqrt()


class UpdateStatistics:
    """Gradients and changes of the weights of one optimiser.

    Call `before_update` when the gradients are there, and `after_update` when the weights have
    changed.

    Args:
        optimizer: Whose weights are followed.
        named_weights: Parameters by name; those of other optimisers are skipped.

    Attributes:
        signal: How much of the gradient is signal.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, named_weights: Iterable[tuple[str, nn.Parameter]]
    ) -> None:
        self._optimizer = optimizer
        ids = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        named = [(n, w) for n, w in named_weights if w.requires_grad and id(w) in ids]
        self._weights = [w for _, w in named]
        # Vectors (biases, batch norm) are left out of a layer's gradient.
        self._layers = [n.rpartition(".")[0] if w.ndim > 1 else None for n, w in named]
        self._layer_norms: tuple[list[str], Tensor] | None = None
        self.signal = GradientSignal()
        self._gradient_norm: Tensor | None = None
        self._before: list[Tensor] = []

    @property
    def learning_rate(self) -> float:
        """Of the first group of weights."""
        return float(self._optimizer.param_groups[0]["lr"])

    def before_update(self) -> None:
        """Measure the gradients, in total and by layer, and copy the weights."""
        self._before = [w.detach().clone() for w in self._weights]
        present = [i for i, w in enumerate(self._weights) if w.grad is not None]
        gradients = [self._weights[i].grad.detach() for i in present]  # type: ignore[union-attr]
        self._layer_norms = self._gradient_norm = None
        if not gradients:
            return
        norms = torch.stack(torch._foreach_norm(gradients))  # one norm per weight
        self._gradient_norm = torch.linalg.vector_norm(norms)
        self.signal.add(gradients, self._gradient_norm)
        layers = [(k, self._layers[i]) for k, i in enumerate(present)]
        matrices = [(k, layer) for k, layer in layers if layer is not None]
        if matrices:
            self._layer_norms = [layer for _, layer in matrices], norms[[k for k, _ in matrices]]

    def after_update(self) -> dict[str, Tensor]:
        """Return the norms of gradient, weights and their change, scalars on their device."""
        change = torch._foreach_sub([w.detach() for w in self._weights], self._before)
        norms = {"update_norm": norm_of(change), "weight_norm": norm_of(self._before)}
        if self._gradient_norm is not None:
            norms["gradient_norm"] = self._gradient_norm
        self._before = []
        return norms

    def layer_gradients(self) -> dict[str, float]:
        """Return the gradient norm of each layer, in the network's order."""
        if self._layer_norms is None:
            return {}
        squares: dict[str, float] = {}
        for layer, norm in zip(self._layer_norms[0], self._layer_norms[1].tolist(), strict=True):
            squares[layer] = math.hypot(squares.get(layer, 0.0), norm)  # several weights in a layer
        return squares


class GradientSignal:
    """Signal-to-noise ratio of the gradient over recent sampled steps.

    With weights w_i of recent gradients g_i (exponential, summing to 1), the weighted mean has
    the expected squared norm ``|mu|^2 + s^2 * sum w_i^2``, and the mean of ``|g_i|^2`` is
    ``|mu|^2 + s^2``; solving gives the norm of the true mean over that of the noise.
    """

    def __init__(self) -> None:
        self._mean: list[Tensor] = []
        self._square: Tensor | None = None
        self._weight_square = 1.0
        self._count = 0

    def add(self, gradients: list[Tensor], norm: Tensor | None = None) -> None:
        """Add the gradients of one step, and their norm where it is known."""
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
        """Return the ratio, or None before three gradients were added."""
        if self._square is None or self._count < 3:
            return None
        mean_square = float(norm_of(self._mean).square())
        noise = max(float(self._square) - mean_square, 0.0) / (1.0 - self._weight_square)
        signal = max(mean_square - noise * self._weight_square, 0.0)
        return math.sqrt(signal / noise) if noise > 0 else math.inf
