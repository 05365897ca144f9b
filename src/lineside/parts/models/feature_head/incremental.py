"""Feedback: a missed defect or a false reject makes a child of a detector in seconds.

No old image is needed: the head trains on from where it is, on the cells kept in the detector's
memory and on those of the new images, which count more. A missed defect needs no mask: its most
suspicious cells are believed first (see `head`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lineside.parts.models.detector import TrainingImage
from lineside.parts.models.feature_head.cell_sampling import (
    BAG_CELLS,
    UNKNOWN,
    choose_cells,
    overlap_of,
)
from lineside.parts.models.feature_head.features import View, head_inputs, on_grid, view_of
from lineside.parts.models.feature_head.fusion import (
    BEND,
    Combination,
    fit_combination,
    slope_for,
    spread_of,
)
from lineside.parts.models.feature_head.head import (
    CLIP,
    FOLDS,
    TOP_CELLS,
    WHOLE,
    CellNetwork,
    Head,
    TrainingCells,
    train_network,
)
from lineside.parts.models.feature_head.normal_model import describe
from lineside.parts.models.feature_head.replay_buffer import CellMemory, rounded

if TYPE_CHECKING:
    from lineside.parts.models.feature_head.feature_head import GoodAndHead

NEW_WEIGHT = 4.0
"""How much more the cells of a new image count than those of an old one."""
STEPS_ON, RATE_ON = 250, 1e-3
STEPS_FRESH = 600


def taught(
    parent: GoodAndHead, examples: Sequence[TrainingImage], rng: np.random.Generator
) -> GoodAndHead:
    """Return a child that has learned from wrongly judged images.

    Args:
        parent: The detector; it is not changed.
        examples: Missed defects (mask optional) and good images that were rejected.
        rng: All randomness.
    """
    images = [example.image() for example in examples]
    views = [view_of(image) for image in images]
    seen_as = [describe(i, v.native, v.half) for i, v in zip(images, views, strict=True)]
    accepted = [d for d, e in zip(seen_as, examples, strict=True) if not e.faulty]
    good = parent.good.update(accepted) if accepted else parent.good
    faulty = {(e.label, e.part) for e in examples if e.faulty}
    kinds = dict(parent.kinds)
    for label, _ in faulty:
        kinds[label] = kinds.get(label, 0) + 1
    if parent.head is None and not faulty:
        return dataclasses.replace(parent, good=good)
    maps = [on_grid(parent.good.judge(d)[1], *v.grid) for d, v in zip(seen_as, views, strict=True)]
    new = [
        _new_cells(parent, views[i], maps[i], example, i, rng) for i, example in enumerate(examples)
    ]
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    defective = sum(kinds.values())
    if parent.head is None:
        head, combination = _first_head(parent.memory, new, defective, generator)
    else:
        head, combination = _trained_on(parent, new, defective, generator)
    return dataclasses.replace(
        parent,
        good=good,
        head=head,
        combination=combination,
        memory=_remembering(parent.memory, [_settled(c, head.network) for c in new]),
        kinds=kinds,
    )


def _new_cells(
    parent: GoodAndHead,
    seen: View,
    suspicion: NDArray[np.float32],
    example: TrainingImage,
    number: int,
    rng: np.random.Generator,
) -> TrainingCells:
    """Return the cells of one new image, the most suspicious ones of a good image."""
    memory = parent.memory
    inputs = head_inputs(seen)
    if example.faulty:
        mask = example.mask()
        overlap = None if mask is None else overlap_of(mask, *seen.grid)
        places, target = choose_cells(overlap, suspicion, True, rng)
    else:
        likeness = suspicion
        if parent.head is not None:
            likeness = parent.head.logits(inputs).mean(1).numpy().reshape(seen.grid)
        places = np.argsort(-likeness, axis=None, kind="stable")[:60]
        target = np.zeros(len(places), np.float32)
    weight = np.full(len(places), NEW_WEIGHT, np.float32)
    weight[target == 1] /= math.sqrt(max(1, int((target == 1).sum())))
    weight[target == UNKNOWN] = 0
    weight[np.flatnonzero(target == UNKNOWN)[:BAG_CELLS]] = NEW_WEIGHT / math.sqrt(BAG_CELLS)
    return TrainingCells(
        inputs=(inputs[torch.from_numpy(places)] - memory.centre) / memory.scale,
        target=torch.from_numpy(target),
        weight=torch.from_numpy(weight)[:, None],
        image=torch.full((len(places),), number),
    )


def _joined(memory: CellMemory, new: Sequence[TrainingCells], folds: int) -> TrainingCells:
    """Return old and new cells; new ones are hidden from no member."""
    old = memory.training_cells(WHOLE, folds)
    members = WHOLE + folds
    return TrainingCells(
        inputs=torch.cat([old.inputs, *(c.inputs.clamp(-CLIP, CLIP) for c in new)]),
        target=torch.cat([old.target, *(c.target for c in new)]),
        weight=torch.cat([old.weight, *(c.weight.repeat(1, members) for c in new)]),
        image=torch.cat([torch.full_like(old.image, -1), *(c.image for c in new)]),
    )


def _trained_on(
    parent: GoodAndHead,
    new: Sequence[TrainingCells],
    defective_parts: int,
    generator: torch.Generator,
) -> tuple[Head, Combination]:
    """Return the parent's head trained further on old and new cells."""
    assert parent.head is not None
    start = parent.head.network
    network = train_network(
        _joined(parent.memory, new, 0),
        generator=generator,
        hidden=start.hidden,
        least_steps=STEPS_ON,
        most_steps=STEPS_ON,
        rate=RATE_ON,
        start=start,
    ).requires_grad_(False)
    head = dataclasses.replace(parent.head, network=network)
    return head, _moved(parent, head, defective_parts)


def _first_head(
    memory: CellMemory,
    new: Sequence[TrainingCells],
    defective_parts: int,
    generator: torch.Generator,
) -> tuple[Head, Combination]:
    """Return a head for a detector that had none, with constants from inner folds of memory."""
    network = train_network(
        _joined(memory, new, FOLDS),
        generator=generator,
        least_steps=STEPS_FRESH,
        most_steps=STEPS_FRESH,
    )
    head = Head(network=network.some(0, WHOLE), centre=memory.centre, scale=memory.scale)
    judge = network.some(WHOLE, WHOLE + FOLDS)
    tops = memory.good_tops(judge, TOP_CELLS, unseen=True)
    return head, fit_combination(tops, defective_parts)


def _settled(cells: TrainingCells, network: CellNetwork) -> TrainingCells:
    """Return the cells with those of a bag that look most like a defect as positives."""
    bag = torch.nonzero(cells.target == UNKNOWN)[:, 0]
    if len(bag) == 0:
        return cells
    with torch.inference_mode():
        best = network(cells.inputs[bag]).mean(1).topk(min(BAG_CELLS, len(bag))).indices
    chosen = bag[best]
    return TrainingCells(
        inputs=cells.inputs[chosen],
        target=torch.ones(len(chosen)),
        weight=torch.full((len(chosen), 1), NEW_WEIGHT / math.sqrt(len(chosen))),
        image=cells.image[chosen],
    )


def _remembering(memory: CellMemory, new: Sequence[TrainingCells]) -> CellMemory:
    """Return the memory with new cells at its end; they are hidden from no member."""

    def nothing(cells: TrainingCells) -> Tensor:
        return torch.full((len(cells.target),), -1)

    return dataclasses.replace(
        memory,
        inputs=torch.cat([memory.inputs, *(rounded(c.inputs) for c in new)]),
        target=torch.cat([memory.target, *(c.target.to(torch.int8) for c in new)]),
        weight=torch.cat([memory.weight, *(c.weight[:, 0] for c in new)]),
        fold=torch.cat([memory.fold, *(nothing(c).to(torch.int8) for c in new)]),
        image=torch.cat([memory.image, *(nothing(c).to(torch.int32) for c in new)]),
    )


def _moved(parent: GoodAndHead, head: Head, defective_parts: int) -> Combination:
    """Return the constants for a head trained on: they move as good images' logits move."""
    assert parent.head is not None
    memory, old = parent.memory, parent.combination
    before, after = (
        memory.good_tops(network, TOP_CELLS, unseen=False)
        for network in (parent.head.network, head.network)
    )
    return Combination(
        bend=old.bend + float(np.quantile(after, BEND) - np.quantile(before, BEND)),
        spread=old.spread * spread_of(after) / spread_of(before),
        slope=slope_for(defective_parts),
    )
