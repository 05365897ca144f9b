"""From labelled examples to what is learned from: a trunk pass each, inner folds, chosen cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lineside.parts.data.items import GOOD
from lineside.parts.models.detector import TrainingImage
from lineside.parts.models.feature_head.cell_sampling import Cells, choose_cells, overlap_of
from lineside.parts.models.feature_head.features import View, head_inputs, on_grid, view_of
from lineside.parts.models.feature_head.normal_model import Description, Goodness, describe

Place = tuple[int, tuple[tuple[int, ...], ...]]
"""Where the cells of an image lie on a shelf: first byte, shapes of its arrays."""


class Shelf:
    """Cells of many images on disk (float16), so that memory stays bounded."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def put(self, seen: View) -> Place:
        """Store the cells of one image and return where they are."""
        arrays = (seen.native, seen.half, seen.contrast)
        start = self.file.seek(0, 2)
        for cells in arrays:
            self.file.write(cells.half().contiguous().numpy().tobytes())
        return start, tuple(tuple(cells.shape) for cells in arrays)

    def take(self, place: Place) -> View:
        """Return the cells of an image, float32."""
        start, shapes = place
        self.file.seek(start)
        found = []
        for shape in shapes:
            content = self.file.read(2 * int(np.prod(shape)))
            values = np.frombuffer(content, np.float16).astype(np.float32)
            found.append(torch.from_numpy(values).reshape(shape))
        native, half, contrast = found
        return View(native=native, half=half, contrast=contrast)


@dataclass(frozen=True, kw_only=True)
class Look:
    """One training image after the trunk.

    Attributes:
        description: For the good-only model.
        grid: Rows and columns of cells.
        label: Good or the kind of defect.
        fold: Inner fold of the part.
        cells: The chosen cells of a good image; those of a defective one are chosen later.
        overlap: Of the mask with the cells, or None without a mask.
        place: Where all its cells lie on the shelf, or None if they were not kept.
    """

    description: Description
    grid: tuple[int, int]
    label: str
    fold: int
    cells: Cells | None
    overlap: NDArray[np.float32] | None
    place: Place | None


def inner_folds(
    examples: Sequence[TrainingImage], count: int, rng: np.random.Generator
) -> list[int]:
    """Return each example's inner fold: a part is in one fold, every kind is dealt out evenly."""
    kind_of: dict[str, str] = {}
    for example in examples:
        if kind_of.get(example.part, GOOD) == GOOD:
            kind_of[example.part] = example.label
    sizes = Counter(e.part for e in examples)
    shuffled = rng.permutation(sorted(kind_of)).tolist()
    order = sorted(shuffled, key=lambda part: (kind_of[part], -sizes[part]))
    fold = {part: place % count for place, part in enumerate(order)}
    return [fold[e.part] for e in examples]


def look_at(
    example: TrainingImage, fold: int, shelf: Shelf, keep: bool, rng: np.random.Generator
) -> Look:
    """Pass one training image through the trunk and keep what is learned from.

    Args:
        example: The image with its label.
        fold: Its inner fold.
        shelf: Takes all its cells if they are needed again.
        keep: Whether they are.
        rng: Chooses the cells of a good image.
    """
    image = example.image()
    seen = view_of(image)
    mask = example.mask() if example.faulty else None
    cells = None
    if not example.faulty:
        cells = _chosen(seen, None, np.zeros(seen.grid, np.float32), example.label, fold, rng)
    return Look(
        description=describe(image, seen.native, seen.half),
        grid=seen.grid,
        label=example.label,
        fold=fold,
        cells=cells,
        overlap=None if mask is None else overlap_of(mask, *seen.grid),
        place=shelf.put(seen) if keep else None,
    )


def cells_of(look: Look, good: Goodness, shelf: Shelf, rng: np.random.Generator) -> Cells:
    """Return the cells to learn from; without a mask, those most unlike good images."""
    if look.cells is not None:
        return look.cells
    if look.place is None:
        raise ValueError("the cells of a defective image were not kept")
    suspicion = on_grid(good.judge(look.description)[1], *look.grid)
    seen = shelf.take(look.place)
    return _chosen(seen, look.overlap, suspicion, look.label, look.fold, rng)


def _chosen(
    seen: View,
    overlap: NDArray[np.float32] | None,
    suspicion: NDArray[np.float32],
    label: str,
    fold: int,
    rng: np.random.Generator,
) -> Cells:
    places, target = choose_cells(overlap, suspicion, label != GOOD, rng)
    inputs = head_inputs(seen)[torch.from_numpy(places)]
    return Cells(
        inputs=inputs.numpy().astype(np.float16),
        target=target,
        suspicion=suspicion.ravel()[places],
        kind=label,
        fold=fold,
    )


def hard_cells(look: Look, likeness: NDArray[np.float32], inputs: Tensor, count: int = 20) -> Cells:
    """Return the cells of a good image that look most like a defect.

    Args:
        look: The image.
        likeness: How much each cell looks like a defect, shape (cell,).
        inputs: Features of all cells, shape (cell, feature).
        count: How many to return; their pooled logit stands for that of the image.
    """
    places = np.argsort(-likeness, kind="stable")[:count]
    return Cells(
        inputs=inputs[torch.from_numpy(places)].numpy().astype(np.float16),
        target=np.zeros(len(places), np.float32),
        suspicion=likeness[places],
        kind=look.label,
        fold=look.fold,
    )
