"""Replay buffer: training cells stored with the detector, so that it is updated without the images.

Experience replay (Robins 1995; Rolnick et al. 2019): new cells are trained on together with a
bounded sample of the old ones, so that the head does not forget. Inputs are standardised and
quantised to 8 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lineside.parts.data.items import GOOD
from lineside.parts.models.feature_head.cell_sampling import (
    BAG_CELLS,
    UNKNOWN,
    ImageCells,
    image_weights,
)
from lineside.parts.models.feature_head.fusion import Values
from lineside.parts.models.feature_head.head import (
    CLIP,
    CellNetwork,
    Head,
    TrainingCells,
    mean_std,
    member_mask,
)

STEP = CLIP / 127
"""One unit of the stored 8-bit values, in standard deviations of a feature."""
MAX_POSITIVE, MAX_NEGATIVE = 4000, 8000
"""Maximum of stored cells with and without a defect, besides the hard ones."""


@dataclass(frozen=True, kw_only=True)
class ReplayBuffer:
    """Cells of training images.

    Attributes:
        inputs: int8, standardised features, shape (cell, feature).
        target: int8, 1 defect or 0 good, shape (cell,).
        weight: float32, shape (cell,).
        fold: int8, inner fold of a good image's part, -1 for cells of defective images.
        image: int32, number of the image of a hard cell, -1 for all others.
        mean: Mean of each feature, shape (feature,).
        std: Standard deviation of each feature, shape (feature,).
    """

    inputs: Tensor
    target: Tensor
    weight: Tensor
    fold: Tensor
    image: Tensor
    mean: Tensor
    std: Tensor

    def good_image_logits(self, network: CellNetwork, top: int, *, held_out: bool) -> Values:
        """Return the pooled logit of good images, from their stored hard cells.

        Args:
            network: Members: of the head, or one per inner fold.
            top: How many cells are pooled.
            held_out: Take the member that did not see the image's inner fold; otherwise the mean.
        """
        rows = torch.nonzero(self.image >= 0)[:, 0]
        with torch.inference_mode():
            logits = network(self.inputs[rows].float() * STEP)  # (cell, member)
        cell_logits = logits.mean(1)
        if held_out:
            cell_logits = logits.gather(1, self.fold[rows].long()[:, None])[:, 0]
        image = self.image[rows]
        groups = [cell_logits[image == number] for number in image.unique()]
        return np.array([float(g.topk(min(top, len(g))).values.mean()) for g in groups])

    def training_cells(self, whole: int, folds: int) -> TrainingCells:
        """Return all cells; see `head.join_cells` for which member sees what."""
        return TrainingCells(
            inputs=self.inputs.float() * STEP,
            target=self.target.float(),
            weight=self.weight[:, None] * member_mask(self.fold, whole, folds),
            image=self.image.long(),
        )


def build_replay_buffer(
    cells: Sequence[ImageCells],
    hard: Sequence[ImageCells],
    head: Head | None,
    rng: np.random.Generator,
) -> ReplayBuffer:
    """Keep a bounded sample of the training cells.

    Args:
        cells: Training cells of all images.
        hard: The cells of good images that look most like a defect, image by image.
        head: Chooses the positives of a bag; without it the suspicion does.
        rng: Chooses the sample.
    """
    inputs = torch.from_numpy(np.concatenate([c.inputs for c in cells]))
    mean, std = (head.mean, head.std) if head else mean_std(inputs)
    targets = [_resolve_bag(c, head) for c in cells]
    target = np.concatenate(targets)
    sizes = [len(c.target) for c in cells]
    weight = np.concatenate(
        [image_weights(t, c.suspicion) for t, c in zip(targets, cells, strict=True)]
    )
    fold = np.repeat([-1 if c.kind != GOOD else c.fold for c in cells], sizes)
    rows = np.concatenate(
        [
            _sample(np.flatnonzero(target == 1), MAX_POSITIVE, rng),
            _sample(np.flatnonzero(target == 0), MAX_NEGATIVE, rng),
        ]
    )
    stored = [inputs[rows], *(torch.from_numpy(c.inputs) for c in hard)]
    count = sum(len(c.target) for c in hard)
    images = np.repeat(np.arange(len(hard)), [len(c.target) for c in hard])
    folds = np.repeat([c.fold for c in hard], [len(c.target) for c in hard])
    return ReplayBuffer(
        inputs=quantise((torch.cat(stored).float() - mean) / std),
        target=torch.from_numpy(np.r_[target[rows], np.zeros(count)]).to(torch.int8),
        weight=torch.from_numpy(np.r_[weight[rows], np.ones(count)]).float(),
        fold=torch.from_numpy(np.r_[fold[rows], folds]).to(torch.int8),
        image=torch.from_numpy(np.r_[np.full(len(rows), -1), images]).to(torch.int32),
        mean=mean,
        std=std,
    )


def quantise(standardised: Tensor) -> Tensor:
    """Return standardised values as int8."""
    return (standardised.clamp(-CLIP, CLIP) / STEP).round().to(torch.int8)


def _resolve_bag(cells: ImageCells, head: Head | None) -> NDArray[np.float32]:
    """Return targets in which a bag's most likely cells are positive and the others `UNKNOWN`."""
    target = cells.target.copy()
    bag = np.flatnonzero(target == UNKNOWN)
    if len(bag):
        scores = cells.suspicion[bag]
        if head is not None:
            scores = head.logits(torch.from_numpy(cells.inputs[bag])).mean(1).numpy()
        target[bag[np.argsort(-scores, kind="stable")[:BAG_CELLS]]] = 1
    return target


def _sample(rows: NDArray[np.intp], count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    return rng.permutation(rows)[:count] if len(rows) > count else rows
