"""Incremental learning from feedback: a missed defect or a false reject updates a detector.

It takes seconds and no old image: the head is trained on from its weights, on the cells of the
replay buffer and on those of the new images, which count more. A missed defect needs no mask: its
most suspicious cells are the first positives (see `head`).

Experience replay (Robins 1995; Rolnick et al. 2019): new cells are trained on together with a
bounded sample of the old ones, so that the head does not forget. Inputs are standardised and
quantised to 8 bits.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lineside.parts.data.items import GOOD
from lineside.parts.models.detector import TrainingImage
from lineside.parts.models.feature_head.cell_features import (
    BAND_CELLS,
    CellFeatures,
    cell_features,
    head_inputs,
    resample_map,
)
from lineside.parts.models.feature_head.cell_sampling import (
    BAG_CELLS,
    UNKNOWN,
    ImageCells,
    choose_cells,
    image_weights,
    join_inputs,
    mask_coverage,
)
from lineside.parts.models.feature_head.fusion import (
    HINGE_QUANTILE,
    Fusion,
    Values,
    fit_fusion,
    robust_std,
    slope_for,
)
from lineside.parts.models.feature_head.head import (
    CLIP,
    FOLDS,
    WHOLE,
    CellNetwork,
    Head,
    TrainingCells,
    make_head,
    mean_std,
    member_mask,
    pool_logits,
    train_network,
)
from lineside.parts.models.feature_head.image_features import image_features

if TYPE_CHECKING:
    from lineside.parts.models.feature_head.feature_head import FeatureHead

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

    def good_image_logits(self, network: CellNetwork, *, held_out: bool) -> Values:
        """Return the pooled logit of good images, from their stored hard cells.

        Args:
            network: Members: of the head, or one per inner fold.
            held_out: Take the member that did not see the image's inner fold; otherwise the mean.
        """
        rows = torch.nonzero(self.image >= 0)[:, 0]
        with torch.inference_mode():
            logits = network(self.inputs[rows].float() * STEP)  # (cell, member)
        cell_logits = logits.mean(1)
        if held_out:
            cell_logits = logits.gather(1, self.fold[rows].long()[:, None])[:, 0]
        image = self.image[rows]
        return np.array([pool_logits(cell_logits[image == n]) for n in image.unique()])

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
    inputs = torch.from_numpy(join_inputs(cells))
    mean, std = (head.mean, head.std) if head else mean_std(inputs)
    targets = [_resolve_targets(c, head) for c in cells]
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
    stored = [*inputs[rows].split(BAND_CELLS), *(torch.from_numpy(c.inputs) for c in hard)]
    count = sum(len(c.target) for c in hard)
    images = np.repeat(np.arange(len(hard)), [len(c.target) for c in hard])
    folds = np.repeat([c.fold for c in hard], [len(c.target) for c in hard])
    return ReplayBuffer(
        inputs=torch.cat([quantise((some.float() - mean) / std) for some in stored]),
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


def _resolve_targets(cells: ImageCells, head: Head | None) -> NDArray[np.float32]:
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


NEW_WEIGHT = 4.0
"""Weight of the cells of a new image relative to those of an old one."""
NEW_GOOD_CELLS = 60
"""Most suspicious cells of a falsely rejected image that the head is trained on."""
STEPS_ON, RATE_ON = 250, 1e-3
STEPS_FRESH = 600


def update_detector(
    parent: FeatureHead, examples: Sequence[TrainingImage], rng: np.random.Generator
) -> FeatureHead:
    """Return a derived detector that has learned from wrongly judged images.

    Args:
        parent: The detector; it is not changed.
        examples: Missed defects (mask optional) and good images that were rejected.
        rng: All randomness.
    """
    images = [example.image() for example in examples]
    cells = [cell_features(image) for image in images]
    features = [image_features(image) for image in images]
    accepted = [f for f, e in zip(features, examples, strict=True) if not e.faulty]
    normal = parent.normal.accept(accepted)
    kinds = dict(parent.kinds)
    faulty = {(e.label, e.part) for e in examples if e.faulty}
    for label, _ in faulty:
        kinds[label] = kinds.get(label, 0) + 1
    if parent.head is None and not faulty:
        return dataclasses.replace(parent, normal=normal)
    maps = [
        resample_map(parent.normal.predict(f).map, *c.grid)
        for f, c in zip(features, cells, strict=True)
    ]
    new = [
        _new_cells(parent, cells[i], maps[i], example, i, rng) for i, example in enumerate(examples)
    ]
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    defective = sum(kinds.values())
    if parent.head is None:
        head, fusion = _fit_first_head(parent.replay, new, defective, generator)
    else:
        head, fusion = _train_on(parent, parent.head, new, defective, generator)
    return dataclasses.replace(
        parent,
        normal=normal,
        head=head,
        fusion=fusion,
        replay=_extend(parent.replay, [_resolve_bag(c, head.network) for c in new]),
        kinds=kinds,
    )


def _new_cells(
    parent: FeatureHead,
    features: CellFeatures,
    suspicion: NDArray[np.float32],
    example: TrainingImage,
    number: int,
    rng: np.random.Generator,
) -> TrainingCells:
    """Return the cells of one new image, the most suspicious ones of a good image."""
    inputs = head_inputs(features)
    if example.faulty:
        mask = example.mask()
        coverage = None if mask is None else mask_coverage(mask, *features.grid)
        index, target = choose_cells(coverage, suspicion, True, rng)
    else:
        scores = suspicion
        if parent.head is not None:
            scores = parent.head.logits(inputs).mean(1).numpy().reshape(features.grid)
        index = np.argsort(-scores, axis=None, kind="stable")[:NEW_GOOD_CELLS]
        target = np.zeros(len(index), np.float32)
    weight = np.full(len(index), NEW_WEIGHT, np.float32)
    weight[target == 1] /= math.sqrt(max(1, int((target == 1).sum())))
    weight[target == UNKNOWN] = 0
    weight[np.flatnonzero(target == UNKNOWN)[:BAG_CELLS]] = NEW_WEIGHT / math.sqrt(BAG_CELLS)
    return TrainingCells(
        inputs=(inputs[torch.from_numpy(index)] - parent.replay.mean) / parent.replay.std,
        target=torch.from_numpy(target),
        weight=torch.from_numpy(weight)[:, None],
        image=torch.full((len(index),), number),
    )


def _join(replay: ReplayBuffer, new: Sequence[TrainingCells], folds: int) -> TrainingCells:
    """Return old and new cells; every member sees the new ones."""
    old = replay.training_cells(WHOLE, folds)
    members = WHOLE + folds
    return TrainingCells(
        inputs=torch.cat([old.inputs, *(c.inputs.clamp(-CLIP, CLIP) for c in new)]),
        target=torch.cat([old.target, *(c.target for c in new)]),
        weight=torch.cat([old.weight, *(c.weight.repeat(1, members) for c in new)]),
        image=torch.cat([torch.full_like(old.image, -1), *(c.image for c in new)]),
    )


def _train_on(
    parent: FeatureHead,
    head: Head,
    new: Sequence[TrainingCells],
    defective_parts: int,
    generator: torch.Generator,
) -> tuple[Head, Fusion]:
    """Return the parent's head trained further on old and new cells."""
    network = train_network(
        _join(parent.replay, new, 0),
        generator=generator,
        hidden=head.hidden,
        least_steps=STEPS_ON,
        most_steps=STEPS_ON,
        rate=RATE_ON,
        start=head.network,
    ).requires_grad_(False)
    # the constants move as the pooled logits of good images move
    before, after = (
        parent.replay.good_image_logits(each, held_out=False) for each in (head.network, network)
    )
    slope = parent.fusion.slope
    if defective_parts > sum(parent.kinds.values()):  # whatever was measured: this one was missed
        slope = max(slope, slope_for(defective_parts))
    move = float(np.quantile(after, HINGE_QUANTILE) - np.quantile(before, HINGE_QUANTILE))
    fusion = Fusion(
        hinge=parent.fusion.hinge + move,
        spread=parent.fusion.spread * robust_std(after) / robust_std(before),
        slope=slope,
    )
    return dataclasses.replace(head, network=network), fusion


def _fit_first_head(
    replay: ReplayBuffer,
    new: Sequence[TrainingCells],
    defective_parts: int,
    generator: torch.Generator,
) -> tuple[Head, Fusion]:
    """Return a head for a detector that had none, with constants from the buffer's inner folds."""
    network = train_network(
        _join(replay, new, FOLDS),
        generator=generator,
        least_steps=STEPS_FRESH,
        most_steps=STEPS_FRESH,
    )
    cross_fitted = network.subset(WHOLE, WHOLE + FOLDS)
    logits = replay.good_image_logits(cross_fitted, held_out=True)
    head = make_head(network.subset(0, WHOLE), replay.mean, replay.std)
    return head, fit_fusion(logits, defective_parts)


def _resolve_bag(cells: TrainingCells, network: CellNetwork) -> TrainingCells:
    """Return the cells with those of a bag that look most like a defect as positives."""
    bag = torch.nonzero(cells.target == UNKNOWN)[:, 0]
    if len(bag) == 0:
        return cells
    with torch.inference_mode():
        best = network(cells.inputs[bag]).mean(1).topk(min(BAG_CELLS, len(bag))).indices
    rows = bag[best]
    return TrainingCells(
        inputs=cells.inputs[rows],
        target=torch.ones(len(rows)),
        weight=torch.full((len(rows), 1), NEW_WEIGHT / math.sqrt(len(rows))),
        image=cells.image[rows],
    )


def _extend(replay: ReplayBuffer, new: Sequence[TrainingCells]) -> ReplayBuffer:
    """Return the buffer with new cells at its end: of no fold, so that every member sees them."""
    none = [torch.full((len(cells.target),), -1) for cells in new]
    return dataclasses.replace(
        replay,
        inputs=torch.cat([replay.inputs, *(quantise(c.inputs) for c in new)]),
        target=torch.cat([replay.target, *(c.target.to(torch.int8) for c in new)]),
        weight=torch.cat([replay.weight, *(c.weight[:, 0] for c in new)]),
        fold=torch.cat([replay.fold, *none]).to(torch.int8),
        image=torch.cat([replay.image, *none]).to(torch.int32),
    )
