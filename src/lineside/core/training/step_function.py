"""What a method writes for the training loop: a step function, which does one update of everything.

It gets an `Update`, draws its batch through it and descends the gradient of one or several losses;
`supervised_step` is the step function of one network, one optimiser and one loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lineside.core.errors import UserError

if TYPE_CHECKING:
    from lineside.core.training.loop import Processes, Training
    from lineside.core.training.recorder import Recorder

Batch = tuple[Tensor, ...]
Losses = Mapping[str, Tensor]
"""By name, none for a step without any; the one called ``"loss"`` is watched for divergence."""
Shard = Callable[[Batch, int, int], tuple[Batch, float]]
"""Takes (batch, process, processes) to that process's part and its weight; weights average 1."""


def shard_rows(batch: Batch, process: int, processes: int) -> tuple[Batch, float]:
    """Return every `processes`-th row, and the weight at which the mean loss is that of all.

    Example:
        >>> batch = (torch.arange(5),)
        >>> shard_rows(batch, 0, 2), shard_rows(batch, 1, 2)
        (((tensor([0, 2, 4]),), 1.2), ((tensor([1, 3]),), 0.8))
    """
    if len(batch[0]) < processes:
        raise UserError(f"a batch of {len(batch[0])} is for {processes} processes", "start fewer")
    rows = tuple(tensor[process::processes] for tensor in batch)
    return rows, processes * len(rows[0]) / len(batch[0])


class Update:
    """One update, as the step function sees it.

    Attributes:
        network: The bare module (or modules by name) in training mode.
        rng: The training's random stream; draw from it through `draw`.
    """

    def __init__(self, training: Training, recorder: Recorder, processes: Processes) -> None:
        self.network: Any = training.network
        self.rng = training.rng
        self._optimizers = training.optimizers
        self._recorder, self._processes = recorder, processes
        self._weight = 1.0
        self._loaded = False

    def draw(
        self, draw: Callable[[np.random.Generator], Batch], shard: Shard = shard_rows
    ) -> Batch:
        """Return this process's share of a batch, on its device."""
        batch = draw(self.rng)
        if self._processes.count > 1:
            batch, self._weight = shard(batch, self._processes.index, self._processes.count)
        batch = tuple(tensor.to(self._processes.device, non_blocking=True) for tensor in batch)
        if not self._loaded:
            self._recorder.loaded()
        self._loaded = True
        return batch

    def descend(
        self, loss: Tensor, optimizer: str | None = None, *, clip_norm: float | None = None
    ) -> None:
        """Compute the gradients of a loss, average them over processes and update the weights.

        Args:
            loss: A scalar, of this process's share of the batch.
            optimizer: Whose weights are updated; may be left out if there is one optimiser.
            clip_norm: Largest gradient norm, or None.
        """
        name = next(iter(self._optimizers)) if optimizer is None else optimizer
        chosen = self._optimizers[name]
        weights = [weight for group in chosen.param_groups for weight in group["params"]]
        chosen.zero_grad(set_to_none=True)
        scaled = loss if self._weight == 1.0 else self._weight * loss
        scaled.backward()  # type: ignore[no-untyped-call]
        self._processes.average_gradients(weights)
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(weights, clip_norm)
        self._recorder.before_update(name)
        chosen.step()

    def average(self, losses: Losses) -> Losses:
        """Return the losses of the whole batch."""
        if self._processes.count == 1 or not losses:
            return losses
        values = torch.stack([self._weight * value.detach().float() for value in losses.values()])
        return dict(zip(losses, self._processes.mean(values), strict=True))


def supervised_step(
    draw: Callable[[np.random.Generator], Batch],
    loss: Callable[[Any, Batch], Tensor | Losses],
    *,
    clip_norm: float | None = None,
    shard: Shard = shard_rows,
) -> Callable[[Update], Losses]:
    """Return the step function of one network and one optimiser: draw, loss, descend.

    Args:
        draw: Makes a batch from the training's random stream.
        loss: Takes the network and a batch to the loss, or to named losses with ``"loss"``.
        clip_norm: Largest gradient norm, or None.
        shard: Divides a batch between processes.
    """

    def step(update: Update) -> Losses:
        batch = update.draw(draw, shard)
        value = loss(update.network, batch)
        losses = value if isinstance(value, Mapping) else {"loss": value}
        update.descend(losses["loss"], clip_norm=clip_norm)
        return losses

    return step
