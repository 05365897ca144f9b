"""What is kept of a fit of the default method, to show what it learned.

Everything is bounded, whatever the number of images, and chosen without random numbers: evenly
spaced images and cells. An image is judged by members of the head that did not see it wherever
there are any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lineside.core.report.figures import Onlooker
from lineside.core.statistics.ranking import auroc
from lineside.core.training.weight_snapshots import log_spaced
from lineside.parts.models.feature_head.cell_sampling import ImageCells
from lineside.parts.models.feature_head.feature_head import FitWatch
from lineside.parts.models.feature_head.head import (
    CLIP,
    WHOLE,
    CellNetwork,
    Head,
    TrainingCells,
)

Floats = NDArray[np.float64]

STEPS = 9
"""Steps of the training at which the separation is measured."""
PROBE_IMAGES, PROBE_CELLS = 40, 12
"""Faulty and good images each, and cells of each, that it is measured on."""
GALLERY_IMAGES, GALLERY_CELLS = 120, 40
"""Faulty images among whose cells the strongest are looked for."""
UNUSUAL = 6
"""Good images that the normal model finds most unusual."""
INPUTS = {
    "fine features": slice(0, 256),
    "coarse features": slice(256, 512),
    "contrast": slice(512, 537),
    "position": slice(537, 541),
}
"""Groups of the head's inputs, see `cell_features`."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Some cells with the head's answers; C cells.

    Attributes:
        image: Number of the example, shape (C,).
        target: 1 defect, 0 good, `UNKNOWN` in a faulty image without a mask; shape (C,).
        answer: Logit, shape (C,).
        inputs: Standardised features, float16, shape (C, feature).
    """

    image: NDArray[np.int64]
    target: NDArray[np.float32]
    answer: Floats
    inputs: Tensor

    def places(self, head: Head) -> Floats:
        """Return row and column of each cell as fractions of the image, shape (C, 2)."""
        columns = slice(INPUTS["position"].start, INPUTS["position"].start + 2)
        x = self.inputs[:, columns].float() * head.std[columns] + head.mean[columns]
        return x.double().clamp(0, 1).numpy()

    def standardised(self, head: Head) -> Cells:
        """Return cells that are still on the scale of the features on that of the head."""
        x = ((self.inputs.float() - head.mean) / head.std).clamp_(-CLIP, CLIP)
        return replace(self, inputs=x.half())

    def strongest(self) -> dict[int, int]:
        """Return for each image the index of its strongest cell."""
        order = np.argsort(self.answer, kind="stable")
        return {int(self.image[i]): int(i) for i in order}  # the last one of an image stays


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How the head separates faulty from good at some steps; P pictures, S steps.

    Attributes:
        steps: Updates done, shape (S,).
        faulty: Whether a picture is faulty, shape (P,).
        held_out: Whether a picture was judged by a member that did not see it, shape (P,).
        pooled: Strongest of the sampled logits of each picture, shape (S, P).
        seen: The same by members that saw it, shape (S, P).
        cells: AUROC of single cells, marked defects against good pictures; NaN without marks.
        without: AUROC of the pictures at the end without a group of inputs.
    """

    steps: tuple[int, ...]
    faulty: NDArray[np.bool_]
    held_out: NDArray[np.bool_]
    pooled: Floats
    seen: Floats
    cells: Floats
    without: Mapping[str, float]

    def auroc(self, pooled: Floats) -> float:
        """Return the area under the ROC curve of logits (P,)."""
        return area(pooled[self.faulty], pooled[~self.faulty])


@dataclass(frozen=True, kw_only=True)
class Unusual:
    """A good image that deviates: its number among the good ones, its score, and where."""

    number: int
    score: float
    place: tuple[float, float]


class HeadOnlooker(Onlooker, FitWatch):
    """Looks at a fit of the default method.

    Attributes:
        unusual: Good images with the highest held-out scores, highest first.
        mean_map: Mean map of held-out good images, shape (32, 32).
        separation: None before the end, or without labelled defects.
        faulty: Cells of faulty images at the end of the training.
        good: The cells of good images that most look like a defect, by members that did not see
            them; not yet standardised.
        hidden: Activations of one fold member on the probe, shape (C, hidden).
        probe: The probe's cells; `hidden` belongs to them.
        probe_held_out: Whether that member did not see the cell's image, shape (C,).
    """

    def __init__(self) -> None:
        super().__init__()
        self.unusual: list[Unusual] = []
        self.mean_map: Floats = np.zeros((1, 1))
        self.separation: Separation | None = None
        self.faulty: Cells | None = None
        self.good: Cells | None = None
        self.probe: Cells | None = None
        self.hidden: Floats = np.zeros((0, 1))
        self.probe_held_out: NDArray[np.bool_] = np.zeros(0, bool)
        self._due: frozenset[int] = frozenset()
        self._rows = torch.zeros(0, dtype=torch.long)
        self._pooled: dict[int, tuple[Floats, Floats, float]] = {}

    def normal_model(self, scores: Tensor, maps: Tensor) -> None:
        """Keep the most unusual good images; see `FitWatch`."""
        with self.looking():
            self.mean_map = maps.double().mean(0).numpy()
            order = torch.argsort(scores, descending=True, stable=True)[:UNUSUAL].tolist()
            side = maps.shape[1]
            for number in order:
                row, column = divmod(int(maps[number].argmax()), side)
                place = ((row + 0.5) / side, (column + 0.5) / side)
                self.unusual.append(
                    Unusual(number=number, score=float(scores[number]), place=place)
                )

    def head(self, done: int, planned: int, network: CellNetwork, cells: TrainingCells) -> None:
        """Measure the separation at log-spaced steps, and look closely at the end."""
        if self.failure or (self._due and done not in self._due):
            return
        with self.looking(), torch.inference_mode():
            if not self._due:
                self._due = frozenset(log_spaced(planned, STEPS))
                self._rows = _probe_rows(cells)
            rows = self._rows
            logits = network(cells.standardised(rows)).double()
            self._pooled[done] = _separation(cells, rows, logits)
            if done == planned:
                self._finish(network, cells)

    def hard_cells(self, numbers: Sequence[int], cells: Sequence[ImageCells]) -> None:
        """Keep the strongest cells of good images, which members that did not see them chose."""
        if self.failure or self.separation is None:
            return
        with self.looking():
            inputs = torch.from_numpy(np.concatenate([each.inputs for each in cells]))
            self.good = Cells(
                image=np.repeat(numbers, [len(each.target) for each in cells]),
                target=np.concatenate([each.target for each in cells]),
                answer=np.concatenate([each.suspicion for each in cells]).astype(np.float64),
                inputs=inputs,
            )

    def _finish(self, network: CellNetwork, cells: TrainingCells) -> None:
        rows, unseen = self._rows, _unseen(cells)
        inputs = cells.standardised(rows)
        logits = network(inputs)
        self.probe = _cells(cells, rows, logits, unseen)
        member = slice(WHOLE * network.hidden, (WHOLE + 1) * network.hidden)
        hidden = F.relu(F.linear(inputs, network.first[member], network.first_bias[member]))
        self.hidden = hidden.double().numpy()
        self.probe_held_out = unseen[cells.image[rows], WHOLE].numpy()
        faulty = _faulty_images(cells)
        own = _some_rows(cells, faulty, GALLERY_IMAGES, GALLERY_CELLS)
        self.faulty = _cells(cells, own, network(cells.standardised(own)), unseen)
        pictures = cells.image[rows].unique()
        steps = sorted(self._pooled)
        without = {}
        for name, columns in INPUTS.items():
            others = inputs.clone()
            others[:, columns] = 0.0  # the mean of standardised inputs
            pooled = _separation(cells, rows, network(others).double())[0]
            is_faulty = torch.isin(pictures, faulty).numpy()
            without[name] = area(pooled[is_faulty], pooled[~is_faulty])
        self.separation = Separation(
            steps=tuple(steps),
            faulty=torch.isin(pictures, faulty).numpy(),
            held_out=unseen[pictures, WHOLE:].any(1).numpy(),
            pooled=np.array([self._pooled[step][0] for step in steps]),
            seen=np.array([self._pooled[step][1] for step in steps]),
            cells=np.array([self._pooled[step][2] for step in steps]),
            without=without,
        )


def area(faulty: Floats, good: Floats) -> float:
    """Return the area under the ROC curve of faulty against good; NaN without one of them."""
    if not len(faulty) or not len(good):
        return float("nan")
    labels = np.repeat([1.0, 0.0], [len(faulty), len(good)])
    return auroc(np.concatenate([faulty, good]), labels)


def held_out_answers(logits: Tensor, unseen: Tensor) -> Tensor:
    """Return the mean logit of fold members that did not see a cell, else of the head itself.

    Args:
        logits: Shape (cell, member), the first `WHOLE` members see everything.
        unseen: Whether a member did not see the image of a cell, shape (cell, member).
    """
    fold = unseen[:, WHOLE:].double()
    count = fold.sum(1)
    held_out = (logits[:, WHOLE:] * fold).sum(1) / count.clamp(min=1.0)
    return torch.where(count > 0, held_out, logits[:, :WHOLE].double().mean(1))


def _unseen(cells: TrainingCells) -> Tensor:
    """Whether no cell of an image counts for a member, shape (image, member)."""
    images, members = int(cells.image.max()) + 1, cells.weight.shape[1]
    total = torch.zeros(images, members).index_add_(0, cells.image, cells.weight)
    return total == 0


def _faulty_images(cells: TrainingCells) -> Tensor:
    return cells.image[cells.target != 0].unique()


def _probe_rows(cells: TrainingCells) -> Tensor:
    faulty, everything = _faulty_images(cells), cells.image.unique()
    good = everything[~torch.isin(everything, faulty)]
    parts = [_some_rows(cells, each, PROBE_IMAGES, PROBE_CELLS) for each in (faulty, good)]
    return torch.cat(parts)


def _some_rows(cells: TrainingCells, images: Tensor, most: int, each: int) -> Tensor:
    """Rows of evenly spaced cells of evenly spaced images; cells lie image by image."""
    chosen = images[_spread(len(images), most)]
    rows = []
    for number in chosen.tolist():
        own = torch.nonzero(cells.image == number)[:, 0]
        rows.append(own[_spread(len(own), each)])
    return torch.cat(rows) if rows else torch.zeros(0, dtype=torch.long)


def _spread(count: int, most: int) -> Tensor:
    return torch.linspace(0, count - 1, min(count, most)).round().long()


def _cells(cells: TrainingCells, rows: Tensor, logits: Tensor, unseen: Tensor) -> Cells:
    return Cells(
        image=cells.image[rows].numpy(),
        target=cells.target[rows].numpy(),
        answer=held_out_answers(logits.double(), unseen[cells.image[rows]]).numpy(),
        inputs=cells.standardised(rows).half(),
    )


def _separation(cells: TrainingCells, rows: Tensor, logits: Tensor) -> tuple[Floats, Floats, float]:
    """Return the strongest logit of each picture, held out and seen, and AUROC of single cells.

    Pictures are in the order of their numbers, shape (picture,).
    """
    image, target = cells.image[rows], cells.target[rows]
    answers = held_out_answers(logits, _unseen(cells)[image])
    seen = logits[:, :WHOLE].mean(1)
    pooled = [
        np.array([float(values[image == number].max()) for number in image.unique()])
        for values in (answers, seen)
    ]
    good = ~torch.isin(image, _faulty_images(cells))
    marked = area(answers[target == 1].numpy(), answers[good].numpy())
    return pooled[0], pooled[1], marked
