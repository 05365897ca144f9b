"""Training of the Deep Watershed Detector.

Losses as in section 3.2 of Tuggener et al. (ISMIR 2018): cross-entropy of the energy level for
every cell; cross-entropy of the class and squared error of the box only where there is energy. Each
is divided by the running mean of its last values, so that none drowns the others. Added: masks of
lines (binary cross-entropy). The weights that are kept are a moving average.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lineside.core.training.loop import NO_HOOKS, Hooks, Trained, Training, train
from lineside.core.training.step_function import Losses, Update
from lineside.scores.models.watershed.network import WatershedNetwork
from lineside.scores.models.watershed.targets import STRIDE, cones
from lineside.scores.training.crops import Crop, CropSource

NAMES = ("energy", "classes", "sizes", "masks")
STAGES = ((0.2, "energy"), (0.4, "classes"), (0.6, "sizes"), (0.7, "energy"))
"""Up to which share of the steps one loss is trained alone (20, 20, 20 and 10 of 100 thousand)."""
LEAST_MEAN = 1e-6


@dataclass(frozen=True, kw_only=True)
class WatershedTraining:
    """How the network is trained.

    Attributes:
        steps: Updates.
        batch: Crops per update.
        learning_rate: Of AdamW, constant, then falling linearly.
        falling: Share of the steps, at the end, over which it falls.
        weight_decay: Of AdamW.
        clip_norm: Largest gradient norm.
        averaged: Decay of the moving average of the weights.
        loss_weights: Of energy, classes, sizes and masks.
        window: Values in the running mean that a loss is divided by; 0: none is divided.
        symbol_weight: Of a cell with energy, beside 1 for background: where the centre of a symbol
            is uncertain, its energy would else stay below the cut.
        staged: Train each loss alone first, as the original did.
        half_precision: Compute in bfloat16 where weights stay float32.
    """

    steps: int = 20_000
    batch: int = 8
    learning_rate: float = 4e-3
    falling: float = 0.3
    weight_decay: float = 1e-3
    clip_norm: float = 5.0
    averaged: float = 0.99
    loss_weights: tuple[float, float, float, float] = (7.5, 2.0, 0.5, 3.0)
    window: int = 0
    symbol_weight: float = 5.0
    staged: bool = False
    half_precision: bool = False


class Balance(nn.Module):
    """The last values of each loss, whose mean it is divided by (part of the checkpoint)."""

    recent: Tensor
    count: Tensor

    def __init__(self, window: int) -> None:
        super().__init__()
        self.register_buffer("recent", torch.ones(len(NAMES), max(1, window)))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def means(self, losses: Tensor) -> Tensor:
        """Note new values, shape (loss,), and return the running means."""
        window = self.recent.shape[1]
        if self.count == 0:
            self.recent.copy_(losses[:, None].expand_as(self.recent))
        self.recent[:, int(self.count) % window] = losses
        self.count += 1
        return self.recent.mean(dim=1).clamp(min=LEAST_MEAN)


def encode(crop: Crop) -> tuple[NDArray[np.generic], ...]:
    """Return the targets of a crop.

    Returns:
        energy: Level per cell, shape (rows, columns).
        classes: Class number where there is energy, else -1, same shape.
        sizes: Log of width and height in cells there, shape (2, rows, columns).
        masks: 0 or 1, shape (mask, rows, columns).
    """
    placed = crop.placed
    height, width = crop.grey.shape
    cells = (height // STRIDE, width // STRIDE)
    energy, owner = cones(placed.centres / STRIDE, placed.sizes / STRIDE, cells)
    there = owner >= 0
    classes = np.full(cells, -1, np.int64)
    classes[there] = placed.classes[owner[there]]
    sizes = np.zeros((2, *cells), np.float32)
    sizes[:, there] = np.log(np.maximum(placed.sizes[owner[there]] / STRIDE, 0.25)).T
    return energy.astype(np.int64), classes, sizes, crop.masks


def watershed_losses(
    network: WatershedNetwork, batch: tuple[Tensor, ...], symbol_weight: float = 1.0
) -> Tensor:
    """Return the losses in the order of `NAMES`, shape (4,).

    Args:
        network: In training mode.
        batch: Ink, and what `encode` returns, stacked.
        symbol_weight: See `WatershedTraining`.
    """
    ink, energy, classes, sizes, masks = batch
    found = network(ink)
    there = classes >= 0
    local = network.at(found.features.movedim(1, -1)[there])
    levels = functional.cross_entropy(found.energy.float(), energy, reduction="none")
    # Sums over cells with energy; a batch without a symbol has none.
    symbols = max(1, int(there.sum()))
    wanted = sizes.movedim(1, -1)[there]
    return torch.stack(
        [
            (levels * torch.where(energy > 0, symbol_weight, 1.0)).mean(),
            functional.cross_entropy(local.classes.float(), classes[there], reduction="sum")
            / symbols,
            functional.mse_loss(local.sizes.float(), wanted, reduction="sum") / (2 * symbols),
            functional.binary_cross_entropy_with_logits(found.masks.float(), masks.float()),
        ]
    )


def train_watershed(
    network: WatershedNetwork,
    source: CropSource,
    settings: WatershedTraining,
    rng: np.random.Generator,
    hooks: Hooks = NO_HOOKS,
    validate: Callable[[WatershedNetwork], Mapping[str, float]] | None = None,
    validate_every: int = 1000,
) -> Trained:
    """Train a network in place; it ends with the averaged weights, in evaluation mode."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(settings.averaged),
        use_buffers=True,
    )  # fmt: skip
    averaged: Any = mean.module
    parts = nn.ModuleDict({"network": network, "mean": mean, "balance": Balance(settings.window)})
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_rate, settings=settings))
    weights = torch.tensor(settings.loss_weights)

    def step(update: Update) -> Losses:
        batch = update.draw(lambda rng: source.batch(rng, settings.batch, encode))
        modules: Any = update.network
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.half_precision):
            losses = watershed_losses(modules["network"], batch, settings.symbol_weight)
        means = modules["balance"].means(losses.detach())
        balance = weights / means if settings.window else weights
        stage = _stage(int(modules["balance"].count) / settings.steps) if settings.staged else ""
        if stage:
            balance = torch.where(torch.tensor([name == stage for name in NAMES]), balance, 0.0)
        update.descend((balance * losses).sum(), clip_norm=settings.clip_norm)
        modules["mean"].update_parameters(modules["network"])
        named = dict(zip(NAMES, losses.detach(), strict=True))
        return {"loss": (weights * losses.detach()).sum(), **named}

    trained = train(
        Training(
            network=parts, optimizers={"adamw": optimizer}, step=step, steps=settings.steps,
            schedulers=(schedule,), validate=(lambda: validate(averaged)) if validate else None,
            validate_every=validate_every, rng=rng, settings={"staged": settings.staged},
        ),
        hooks,
    )  # fmt: skip
    network.load_state_dict(mean.module.state_dict())
    network.eval()
    return trained


def _rate(step: int, settings: WatershedTraining) -> float:
    """Return the learning rate as a share of the highest: constant, then linear to nearly 0."""
    left = (settings.steps - step) / max(1.0, settings.falling * settings.steps)
    return min(1.0, max(left, 0.01))


def _stage(done: float) -> str:
    """Return the loss that is trained alone at a share of all steps; empty: all together."""
    return next((name for end, name in STAGES if done <= end), "")
