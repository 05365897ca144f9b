"""The head: small networks that learn labelled defects from frozen features of 8-px grid cells.

An ensemble of perceptrons with one hidden layer, logit = w2 . relu(W1 x + b1) + b2, trained side by
side in one matrix product with a weighted binary cross-entropy. The mean of the members that see
everything is the head; further members, one per inner fold, do not see the parts of their fold, so
their logits there are unbiased and set constants ("cross-fitting", Chernozhukov et al. 2018); of
few defective parts none is hidden. The head itself is never cross-fitted: the variety of good parts
is what it needs most. Strong Gaussian noise on standardised inputs (Bishop 1995: equivalent to
Tikhonov regularisation) makes up for the few defective parts.

Shapes: inputs (cell, feature); logits (cell, member).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lineside.core.run.codec import built_by
from lineside.core.training.recorder import Recorder
from lineside.parts.data.items import GOOD
from lineside.parts.models.feature_head.cell_features import (
    BAND_CELLS,
    CellFeatures,
    cell_positions,
    enlarge,
    half_rows,
    row_bands,
)
from lineside.parts.models.feature_head.cell_sampling import (
    BAG_CELLS,
    UNKNOWN,
    ImageCells,
    image_weights,
    join_inputs,
)

WHOLE = 2
"""Members of the head."""
FOLDS = 3
"""Inner folds that set its constants."""
TOP_CELLS = 5
"""The head's logit for an image is the mean of this many highest cells."""
CLIP = 8.0
"""Standardised inputs are clipped to -CLIP..CLIP."""
STATISTICS_COLUMNS = 32
"""Features whose statistics are computed at once: their cells are in memory in float32."""


class CellNetwork(nn.Module):
    """Perceptrons with one hidden layer, side by side: (cell, feature) -> (cell, member) logits."""

    def __init__(self, inputs: int, members: int, hidden: int) -> None:
        super().__init__()
        self.members, self.hidden = members, hidden
        self.first = nn.Parameter(torch.zeros(members * hidden, inputs))
        self.first_bias = nn.Parameter(torch.zeros(members * hidden))
        self.second = nn.Parameter(torch.zeros(members, hidden))
        self.second_bias = nn.Parameter(torch.zeros(members))

    def initialise(self, generator: torch.Generator) -> CellNetwork:
        """Draw the weights (uniform, 1 / sqrt(fan-in)) and return the network itself."""
        with torch.no_grad():
            for weight, fan_in in (
                (self.first, self.first.shape[1]),
                (self.first_bias, self.first.shape[1]),
                (self.second, self.hidden),
            ):
                bound = 1 / math.sqrt(fan_in)
                weight.uniform_(-bound, bound, generator=generator)
        return self

    def subset(self, first: int, last: int) -> CellNetwork:
        """Return members first ... last - 1 as a frozen network of their own."""
        inputs, hidden = self.first.shape[1], self.hidden
        part = CellNetwork(inputs, last - first, hidden)
        rows = slice(first * hidden, last * hidden)
        with torch.no_grad():
            part.first.copy_(self.first[rows])
            part.first_bias.copy_(self.first_bias[rows])
            part.second.copy_(self.second[first:last])
            part.second_bias.copy_(self.second_bias[first:last])
        return part.eval().requires_grad_(False)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Map (cell, feature) to (cell, member); `keep` is a dropout mask (cell, hidden unit)."""
        h = F.relu(F.linear(x, self.first, self.first_bias))  # (cell, member * hidden)
        if keep is not None:
            h = h * keep
        # (cell, member, hidden) * (member, hidden), summed over hidden -> (cell, member)
        return (h.view(-1, self.members, self.hidden) * self.second).sum(2) + self.second_bias


Watch = Callable[[int, int, "CellNetwork", "TrainingCells"], None]
"""Looks at a training: updates done and planned, the network, the cells. It changes none of them
and draws no random number."""


@dataclass(frozen=True, kw_only=True)
class TrainingCells:
    """The cells of all training images in one piece.

    Attributes:
        inputs: Shape (cell, feature), any float type; standardised when a batch is taken.
        target: 0, 1 or `UNKNOWN`, shape (cell,).
        weight: Weight of the cell for each member, 0 where held out; shape (cell, member).
        image: Number of the image each cell belongs to, shape (cell,).
        mean: Mean of each feature, shape (feature,); None where inputs are standardised already.
        std: Standard deviation of each feature, shape (feature,).
    """

    inputs: Tensor
    target: Tensor
    weight: Tensor
    image: Tensor
    mean: Tensor | None = None
    std: Tensor | None = None

    def standardised(self, rows: Tensor) -> Tensor:
        """Return the standardised inputs of some cells, float32: one batch in memory, not all."""
        x = self.inputs[rows].float()
        if self.mean is None or self.std is None:
            return x
        return x.sub_(self.mean).div_(self.std).clamp_(-CLIP, CLIP)


def train_network(
    cells: TrainingCells,
    *,
    generator: torch.Generator,
    hidden: int = 128,
    epochs: int = 12,
    least_steps: int = 500,
    most_steps: int = 3000,
    batch: int = 512,
    rate: float = 4e-3,
    decay: float = 1e-2,
    noise: float = 2.0,
    dropout: float = 0.2,
    start: CellNetwork | None = None,
    log: Callable[[dict[str, Any]], None] = lambda row: None,
    watch: Watch = lambda done, planned, network, cells: None,
) -> CellNetwork:
    """Train all members at once: AdamW, one-cycle schedule (Smith & Topin 2019), input noise.

    Args:
        cells: Training cells.
        generator: All randomness.
        hidden, dropout: Hidden units per member, and the share of them that is dropped.
        epochs: Passes over the cells, but at least `least_steps` and at most `most_steps` batches.
        least_steps, most_steps: For small sets, and for large ones.
        batch: Cells per step.
        rate, decay: Peak learning rate, and weight decay.
        noise: Standard deviation of the noise on standardised inputs.
        start: Continue from this network instead of a random one (it is not changed).
        log, watch: Receives the recorder's rows; called before the first update and after each.
    """
    network = _initial_network(cells, hidden, generator, start)
    (count, members), batch = cells.weight.shape, min(batch, len(cells.weight))
    steps = int(np.clip(epochs * count // batch, least_steps, most_steps))
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    recorder = Recorder(network, optimiser, log)
    noise_pool = _NoisePool(generator, noise, dropout)
    weight, order = cells.weight.clone(), torch.randperm(count, generator=generator)
    labels = cells.target.clamp(min=0) + (cells.target == UNKNOWN).float()  # a bag counts as 1
    watch(0, steps, network, cells)
    for step in range(steps):
        recorder.start(step)
        if step >= steps // 3 and step % max(1, steps // 8) == 0:
            _rank_bags(cells, weight, network)
        if step * batch % count + batch > count:
            order = torch.randperm(count, generator=generator)
        rows = _batch_rows(order, step * batch % count, batch)
        x = noise_pool.add_noise(cells.standardised(rows))
        recorder.loaded()
        keep = noise_pool.dropout_mask(batch, members * hidden)
        loss = _loss(network(x, keep), labels[rows], weight[rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        recorder.before_update()
        optimiser.step()
        recorder.finish({"loss": loss})
        schedule.step()
        watch(step + 1, steps, network, cells)
    recorder.flush()
    return network.eval()


def _batch_rows(order: Tensor, at: int, batch: int) -> Tensor:
    """The rows of a batch; at the end of a pass the first ones of the next order."""
    return order[at : at + batch] if at + batch <= len(order) else order[:batch]


def _initial_network(
    cells: TrainingCells, hidden: int, generator: torch.Generator, start: CellNetwork | None
) -> CellNetwork:
    """Return a network of random weights, or a copy of `start`."""
    network = CellNetwork(cells.inputs.shape[1], cells.weight.shape[1], hidden)
    if start is None:
        return network.initialise(generator)
    network.load_state_dict(start.state_dict())
    return network


def _loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the sum over members of the weighted mean binary cross-entropy."""
    each = F.binary_cross_entropy_with_logits(
        logits, target[:, None].expand_as(logits), reduction="none"
    )
    return ((each * weight).sum(0) / weight.sum(0).clamp(min=1e-6)).sum()


class _NoisePool:
    """Noise and dropout masks cut from a pool drawn once: fresh draws would take half the time."""

    def __init__(self, generator: torch.Generator, noise: float, dropout: float) -> None:
        self.generator = generator
        self.normal = torch.randn(1 << 21, generator=generator) * noise
        kept = torch.rand(1 << 21, generator=generator) >= dropout
        self.mask = kept.float() / (1 - dropout)

    def add_noise(self, x: Tensor) -> Tensor:
        return x + self._cut(self.normal, x.shape[0], x.shape[1])

    def dropout_mask(self, rows: int, columns: int) -> Tensor:
        return self._cut(self.mask, rows, columns)

    def _cut(self, pool: Tensor, rows: int, columns: int) -> Tensor:
        size = rows * columns
        repeats = -(-size // (len(pool) // 2))
        if repeats > 1:
            pool = pool.repeat(repeats)
        at = int(torch.randint(0, len(pool) - size + 1, (1,), generator=self.generator))
        return pool[at : at + size].view(rows, columns)


@torch.no_grad()
def _rank_bags(cells: TrainingCells, weight: Tensor, network: CellNetwork) -> None:
    """Give the weight of every bag to the cells that each member finds most defective now."""
    rows = torch.nonzero(cells.target == UNKNOWN)[:, 0]
    if len(rows) == 0:
        return
    logits = torch.cat([network(cells.standardised(some)) for some in rows.split(BAND_CELLS)])
    image = cells.image[rows]
    for number in image.unique():
        bag = rows[image == number]
        best = logits[image == number].topk(min(BAG_CELLS, len(bag)), dim=0).indices
        allowed = (weight[bag].amax(0) > 0).float()
        weight[bag] = torch.zeros(len(bag), weight.shape[1]).scatter_(
            0, best, allowed.expand(best.shape[0], -1) / math.sqrt(best.shape[0])
        )


def mean_std(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each feature, (feature,), of cells (cell, feature)."""
    block = torch.empty(len(inputs), STATISTICS_COLUMNS)  # one for all columns
    mean, std = torch.empty(2, inputs.shape[1])
    for first in range(0, inputs.shape[1], STATISTICS_COLUMNS):
        columns = slice(first, first + STATISTICS_COLUMNS)
        values = inputs[:, columns]
        x = block[:, : values.shape[1]].copy_(values)
        mean[columns], std[columns] = x.mean(0), x.std(0)
    return mean, std + 1e-3


def join_cells(
    cells: Sequence[ImageCells], whole: int, folds: int, *, hide_faulty: bool = False
) -> tuple[TrainingCells, Tensor, Tensor]:
    """Join the cells of all images and weigh them for each member.

    The first `whole` members see everything. Of the `folds` members after them, member m does not
    see the good images of inner fold m, and the defective ones if they are hidden too.

    Returns:
        The cells, and mean and standard deviation of each feature, shape (feature,).
    """
    inputs = torch.from_numpy(join_inputs(cells))
    mean, std = mean_std(inputs)
    sizes = [len(c.target) for c in cells]
    weight = np.concatenate([image_weights(c.target, c.suspicion) for c in cells])
    hidden = [c.fold if hide_faulty or c.kind == GOOD else -1 for c in cells]
    fold = torch.from_numpy(np.repeat(hidden, sizes))
    return (
        TrainingCells(
            inputs=inputs,
            target=torch.from_numpy(np.concatenate([c.target for c in cells])),
            weight=torch.from_numpy(weight)[:, None] * member_mask(fold, whole, folds),
            image=torch.from_numpy(np.repeat(np.arange(len(cells)), sizes)),
            mean=mean,
            std=std,
        ),
        mean,
        std,
    )


def member_mask(fold: Tensor, whole: int, folds: int) -> Tensor:
    """Return 1 where a member sees a cell and 0 where not, shape (cell, whole + folds)."""
    held_out = fold.long()[:, None] == torch.arange(folds)
    return torch.cat([torch.ones(len(fold), whole), (~held_out).float()], 1)


@dataclass(frozen=True, kw_only=True)
class Head:
    """A trained head, ready to score cells.

    Attributes:
        members: Number of networks in the ensemble.
        hidden: Hidden units of each.
        mean: Mean of each feature, shape (feature,).
        std: Standard deviation of each feature, shape (feature,).
        network: All members.
    """

    members: int
    hidden: int
    mean: Tensor
    std: Tensor
    network: CellNetwork = field(
        metadata=built_by(
            lambda head: CellNetwork(len(head.mean), head.members, head.hidden).requires_grad_(
                False
            )
        )
    )

    def alone(self) -> list[Head]:
        """Return each member as a head of its own."""
        parts = [self.network.subset(m, m + 1) for m in range(self.members)]
        return [make_head(part, self.mean, self.std) for part in parts]

    @torch.inference_mode()
    def logits(self, inputs: Tensor) -> Tensor:
        """Return each member's logits, shape (cell, member), of cells (cell, feature)."""
        x = (inputs.float() - self.mean).div_(self.std).clamp_(-CLIP, CLIP)
        return self.network(x)

    @torch.inference_mode()
    def cell_logits(self, cells: CellFeatures) -> Tensor:
        """Return each member's logits of all cells of an image, shape (rows * columns, member)."""
        return torch.cat([self._band_logits(cells, *band) for band in row_bands(cells)])

    def _band_logits(self, cells: CellFeatures, first_row: int, last_row: int) -> Tensor:
        """Return `logits` of `head_inputs` of some rows of cells, in about half of the time.

        Interpolation and the first layer are linear, so half-scale features pass the layer before
        they are interpolated, in a quarter of the cells. Clipping is not linear: the few features
        that it changes there are interpolated first.
        """
        columns, native = cells.grid[1], cells.native.shape[2]
        start, end = half_rows(first_row, last_row, len(cells.half))
        of_half = slice(native, native + cells.half.shape[2])
        half = self._standardised(cells.half[start:end], of_half)
        clipped = half.abs().amax((0, 1)) > CLIP
        if clipped.any():
            late = enlarge(half[..., clipped], first_row, last_row, columns, start)
            half.masked_fill_(clipped, 0.0)
        weight = self.network.first
        h = F.linear(half, weight[:, of_half])  # (row, column, member * hidden) at half scale
        h = enlarge(h, first_row, last_row, columns, start).flatten(0, 1)
        rest = torch.cat(
            [
                cells.contrast[first_row:last_row],
                cell_positions(cells.grid, first_row, last_row),
            ],
            2,
        )
        for features, place in (
            (cells.native[first_row:last_row], slice(0, native)),
            (rest, slice(of_half.stop, None)),
        ):
            x = self._standardised(features, place).clamp_(-CLIP, CLIP).flatten(0, 1)
            h.addmm_(x, weight[:, place].T)
        if clipped.any():
            h.addmm_(late.clamp_(-CLIP, CLIP).flatten(0, 1), weight[:, of_half][:, clipped].T)
        h.add_(self.network.first_bias).relu_()
        # (member, cell, hidden) @ (member, hidden, 1) -> (member, cell, 1)
        of_members = h.view(len(h), self.members, self.hidden).transpose(0, 1)
        logits = of_members @ self.network.second[:, :, None]
        return logits[:, :, 0].T + self.network.second_bias

    def _standardised(self, features: Tensor, place: slice) -> Tensor:
        """Return some of the features, on the last axis, standardised and not clipped."""
        return (features - self.mean[place]).div_(self.std[place])


def pool_logits(logits: Tensor) -> float:
    """Return the mean of the `TOP_CELLS` highest logits of an image, shape (cell,)."""
    return float(logits.topk(min(TOP_CELLS, len(logits))).values.mean())


def make_head(network: CellNetwork, mean: Tensor, std: Tensor) -> Head:
    """Return the head of a trained network; see `Head`."""
    return Head(members=network.members, hidden=network.hidden, mean=mean, std=std, network=network)


def fit_head(
    cells: Sequence[ImageCells],
    *,
    whole: int,
    folds: int,
    generator: torch.Generator,
    hide_faulty: bool = False,
    **settings: Any,
) -> tuple[Head, Head]:
    """Train a head, and beside it members that only set constants.

    Args:
        cells: Training cells of every image.
        whole: Members of the head; they see everything.
        folds: Inner folds; one more member each that does not see the fold's good images.
        generator: All randomness.
        hide_faulty: Those members do not see the fold's defective images either.
        settings: Keywords of `train_network`.

    Returns:
        The head, and one whose member m did not see the images of fold m.
    """
    joined, mean, std = join_cells(cells, whole, folds, hide_faulty=hide_faulty)
    network = train_network(joined, generator=generator, **settings)
    return (
        make_head(network.subset(0, whole), mean, std),
        make_head(network.subset(whole, whole + folds), mean, std),
    )
