"""Training cells kept with a detector, so that feedback can teach it without the old images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lineside.parts.data.items import GOOD
from lineside.parts.models.feature_head.cell_sampling import (
    BAG_CELLS,
    UNKNOWN,
    Cells,
    image_weights,
)
from lineside.parts.models.feature_head.fusion import Values
from lineside.parts.models.feature_head.head import (
    CLIP,
    CellNetwork,
    Head,
    TrainingCells,
    seen_by,
    standardisation,
)

STEP = CLIP / 127
"""One unit of the stored 8-bit values, in standard deviations of a feature."""


@dataclass(frozen=True, kw_only=True)
class CellMemory:
    """Cells of training images, standardised and rounded to 8 bits.

    Attributes:
        inputs: int8, shape (cell, feature).
        target: int8, 1 defect or 0 good, shape (cell,).
        weight: float32, shape (cell,).
        fold: int8, inner fold of a good image's part, -1 for cells of defective images.
        image: int32, number of the image of a hard cell, -1 for all others.
        centre: Mean of each feature, shape (feature,).
        scale: Standard deviation of each feature, shape (feature,).
    """

    inputs: Tensor
    target: Tensor
    weight: Tensor
    fold: Tensor
    image: Tensor
    centre: Tensor
    scale: Tensor

    def standardised(self) -> Tensor:
        """Return the features as a head wants them, float32, shape (cell, feature)."""
        return self.inputs.float() * STEP

    def good_tops(self, network: CellNetwork, top: int, *, unseen: bool) -> Values:
        """Return the pooled logit of good images kept, from their hard cells.

        Args:
            network: Members: of the head, or one per inner fold.
            top: How many cells are pooled.
            unseen: Ask the member of the image's inner fold; otherwise take the mean of members.
        """
        rows = torch.nonzero(self.image >= 0)[:, 0]
        with torch.inference_mode():
            logits = network(self.inputs[rows].float() * STEP)
        mine = logits.mean(1)
        if unseen:
            mine = logits.gather(1, self.fold[rows].long()[:, None])[:, 0]
        image = self.image[rows]
        groups = [mine[image == number] for number in image.unique()]
        return np.array([float(g.topk(min(top, len(g))).values.mean()) for g in groups])

    def training_cells(self, whole: int, folds: int) -> TrainingCells:
        """Return all cells; see `head.assemble` for which member sees what."""
        return TrainingCells(
            inputs=self.standardised(),
            target=self.target.float(),
            weight=self.weight[:, None] * seen_by(self.fold, whole, folds),
            image=self.image.long(),
        )

    def spec(self) -> dict[str, Any]:
        """Return what there is to say without tensors: nothing."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def load_memory(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> CellMemory:
    """Rebuild from `CellMemory.spec` and `CellMemory.tensors`."""
    return CellMemory(**{name: tensors[name] for name in CellMemory.__dataclass_fields__})


def build_memory(
    cells: Sequence[Cells],
    hard: Sequence[Cells],
    head: Head | None,
    rng: np.random.Generator,
    *,
    most_positive: int = 4000,
    most_negative: int = 8000,
) -> CellMemory:
    """Keep a bounded sample of the training cells.

    Args:
        cells: Training cells of all images.
        hard: The cells of good images that look most like a defect, image by image.
        head: Says which cells of a bag are the defect; else the suspicion does.
        rng: Chooses.
        most_positive: At most so many cells of defects.
        most_negative: At most so many cells without a defect besides the hard ones.
    """
    inputs = torch.from_numpy(np.concatenate([c.inputs for c in cells]))
    centre, scale = (head.centre, head.scale) if head else standardisation(inputs)
    target = np.concatenate([_settled(c, head) for c in cells])
    sizes = [len(c.target) for c in cells]
    weight = np.concatenate([image_weights(_settled(c, head), c.suspicion) for c in cells])
    fold = np.repeat([-1 if c.kind != GOOD else c.fold for c in cells], sizes)
    rows = np.concatenate(
        [
            _some(np.flatnonzero(target == 1), most_positive, rng),
            _some(np.flatnonzero(target == 0), most_negative, rng),
        ]
    )
    kept = [inputs[rows], *(torch.from_numpy(c.inputs) for c in hard)]
    count = sum(len(c.target) for c in hard)
    images = np.repeat(np.arange(len(hard)), [len(c.target) for c in hard])
    folds = np.repeat([c.fold for c in hard], [len(c.target) for c in hard])
    return CellMemory(
        inputs=rounded((torch.cat(kept).float() - centre) / scale),
        target=torch.from_numpy(np.r_[target[rows], np.zeros(count)]).to(torch.int8),
        weight=torch.from_numpy(np.r_[weight[rows], np.ones(count)]).float(),
        fold=torch.from_numpy(np.r_[fold[rows], folds]).to(torch.int8),
        image=torch.from_numpy(np.r_[np.full(len(rows), -1), images]).to(torch.int32),
        centre=centre,
        scale=scale,
    )


def rounded(standardised: Tensor) -> Tensor:
    """Return standardised values as int8."""
    return (standardised.clamp(-CLIP, CLIP) / STEP).round().to(torch.int8)


def _settled(mine: Cells, head: Head | None) -> NDArray[np.float32]:
    """Return targets in which a bag's most likely cells are positive and its others left out."""
    target = mine.target.copy()
    bag = np.flatnonzero(target == UNKNOWN)
    if len(bag):
        likeness = mine.suspicion[bag]
        if head is not None:
            likeness = head.logits(torch.from_numpy(mine.inputs[bag])).mean(1).numpy()
        target[bag[np.argsort(-likeness, kind="stable")[:BAG_CELLS]]] = 1
    return target


def _some(rows: NDArray[np.intp], most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    return rng.permutation(rows)[:most] if len(rows) > most else rows
