"""Units of a network, what they answer, and which items they answer most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lineside.core.explain.probing import Hooks, undisturbed


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A channel of a layer, or an output.

    Attributes:
        layer: Name of the module with output (batch, channel, ...); "" for the network's output.
        channel: Which of its channels.
        sign: 1 for what raises it, -1 for what lowers it.
    """

    layer: str
    channel: int = 0
    sign: int = 1


def unit_activations(
    network: nn.Module, units: Sequence[Unit], batches: Iterable[Tensor]
) -> NDArray[np.float64]:
    """Return each unit's mean activation over its grid times its sign, shape (item, unit)."""
    found = []
    with undisturbed(network), torch.no_grad(), Activations(network, units) as activations:
        for batch in batches:
            found.append(activations.of(batch).double().cpu().numpy())
    return np.concatenate(found)


def most_activating(
    activations: NDArray[np.floating[Any]],
    k: int = 9,
    groups: Sequence[str] | NDArray[Any] | None = None,
) -> NDArray[np.int64]:
    """Return the indices of the `k` items with the highest activation, highest first.

    Args:
        activations: Shape (item,).
        k: How many; fewer if there are fewer items.
        groups: The independent unit of each item. Each gives one item as long as there are
            others that have given none, so that one part does not fill the list.
    """
    order = np.argsort(-np.asarray(activations), kind="stable")
    if groups is None:
        return order[:k].astype(np.int64)
    turns: dict[Any, int] = {}
    turn = []
    for index in order:
        group = groups[index]
        turn.append(turns.get(group, 0))
        turns[group] = turn[-1] + 1
    by_turn = order[np.argsort(turn, kind="stable")][:k]
    best_first = np.argsort(-np.asarray(activations)[by_turn], kind="stable")
    return by_turn[best_first].astype(np.int64)


def first_filters(network: nn.Module) -> NDArray[np.float64]:
    """Return the kernels of the first convolution, shape (filter, channel, *kernel).

    Raises:
        ValueError: if the network has none.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            weights: NDArray[np.float64] = module.weight.detach().double().cpu().numpy()
            return weights
    raise ValueError("the network has no convolution")


class Activations:
    """Answers what units say to inputs: each unit's mean over the grid times its sign."""

    def __init__(self, network: nn.Module, units: Sequence[Unit]) -> None:
        self._network, self._units = network, units
        self._seen: dict[str, Tensor] = {}
        self._hooks = Hooks()

    def of(self, inputs: Tensor) -> Tensor:
        """Return the answer of every unit to every input, shape (input, unit)."""
        self._seen[""] = self._network(inputs)
        answers = [unit.sign * self._mean(unit) for unit in self._units]
        return torch.stack(answers, dim=1)

    def _mean(self, unit: Unit) -> Tensor:
        output = self._seen[unit.layer]
        channel = output if output.ndim == 1 else output[:, unit.channel]
        return channel.flatten(1).mean(1) if channel.ndim > 1 else channel

    def __enter__(self) -> Activations:
        for name in sorted({unit.layer for unit in self._units} - {""}):

            def keep(module: nn.Module, given: object, output: Tensor, name: str = name) -> None:
                self._seen[name] = output

            self._hooks.add(self._network.get_submodule(name).register_forward_hook(keep))
        return self

    def __exit__(self, *exception: object) -> None:
        self._hooks.__exit__()
        self._seen.clear()
