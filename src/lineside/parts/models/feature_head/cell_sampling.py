"""From labelled images to the grid cells that the head is trained on, and how much each counts.

Images with a mask give positive and negative cells. Images that are only known to be defective are
bags (multiple-instance learning, Andrews et al. 2003): their positives are the cells that the
normal model finds most suspicious, and after a warm-up those that the head itself does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from lineside.parts.data.items import GOOD
from lineside.parts.models.backbone import by_channel
from lineside.parts.models.detector import Mask, TrainingImage
from lineside.parts.models.feature_head.cell_features import (
    CellFeatures,
    cell_features,
    inputs_at,
    resample_map,
)
from lineside.parts.models.feature_head.image_features import Features, image_features
from lineside.parts.models.feature_head.normal_model import NormalModel

UNKNOWN = -1.0
"""Target of a cell of a defective image without a mask."""
COVERED = 0.3
"""A cell is positive if the mask covers more than this share of it."""
BAND_CELLS = 2
"""Only this outer band of a large mask is positive: the inside of a wide region looks normal."""
BAG_CELLS = 8
"""This many cells of a defective image without a mask are assumed to show the defect."""
POSITIVE_CELLS, NEGATIVE_CELLS, GOOD_CELLS = 60, 40, 100
"""Maximum of cells of an image: positive ones (or of a bag), those of a defective image that
the mask does not touch, and those of a good image."""
HARD_CELLS = 20
"""Cells kept of a good image; their pooled logit stands for that of the image."""


@dataclass(frozen=True, kw_only=True)
class ImageCells:
    """The training cells of one image.

    Attributes:
        inputs: Features, shape (cell, feature), float16.
        target: 1 defect, 0 good, `UNKNOWN` for the cells of a bag; shape (cell,).
        suspicion: Score by which a bag's first positives are chosen, shape (cell,).
        kind: ``"good"`` or the kind of defect.
        fold: Inner fold of the image's part.
    """

    inputs: NDArray[np.float16]
    target: NDArray[np.float32]
    suspicion: NDArray[np.float32]
    kind: str
    fold: int


@dataclass(frozen=True, kw_only=True)
class PreparedImage:
    """One training image after the backbone.

    Attributes:
        spool: Where features and cells lie.
        features_offset: First byte of the features for the normal model.
        grid: Rows and columns of cells.
        label: Good or the kind of defect.
        fold: Inner fold of the part.
        sampled: First byte of a good image's sampled cells in the spool; None for a defective
            image, whose cells are sampled later.
        coverage: Share of each cell under the mask, shape (rows, columns), or None without a mask.
        offset: First byte of all its cells in the spool, or None if they were not kept.
    """

    spool: FeatureSpool
    features_offset: int
    grid: tuple[int, int]
    label: str
    fold: int
    sampled: int | None
    coverage: NDArray[np.float32] | None
    offset: int | None

    @property
    def features(self) -> Features:
        """Features for the normal model, read from the spool."""
        return self.spool.read_features(self.features_offset)


class FeatureSpool:
    """Cell features of many images in a file (float16), so that memory stays bounded."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def write(self, features: CellFeatures) -> int:
        """Append the cells of one image and return at which byte they start."""
        start = self.file.seek(0, 2)
        for array in (features.native, features.half, features.contrast):
            self.write_array(array.half().contiguous().numpy())
        return start

    def read(self, start: int) -> CellFeatures:
        """Return the cells of an image, float32."""
        self.file.seek(start)
        native, half, contrast = (
            torch.from_numpy(np.load(self.file).astype(np.float32)) for _ in range(3)
        )
        return CellFeatures(native=native, half=half, contrast=contrast)

    def write_features(self, features: Features) -> int:
        """Append the features of one image and return at which byte they start."""
        start = self.file.seek(0, 2)
        for field in fields(features):
            self.write_array(getattr(features, field.name).numpy())
        return start

    def read_features(self, start: int) -> Features:
        """Return the features of an image."""
        self.file.seek(start)
        return Features(**{f.name: torch.from_numpy(np.load(self.file)) for f in fields(Features)})

    def write_array(self, array: NDArray[np.float16]) -> int:
        """Append an array and return at which byte it starts."""
        start = self.file.seek(0, 2)
        np.save(self.file, array)
        return start

    def read_array(self, start: int) -> NDArray[np.float16]:
        """Return an array."""
        self.file.seek(start)
        array: NDArray[np.float16] = np.load(self.file)
        return array


class StoredFeatures(Sequence[Features]):
    """Features of images for the normal model, each read from the spool when it is asked for."""

    def __init__(self, images: Sequence[PreparedImage]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: Any) -> Any:
        return self.images[number].features


def inner_folds(
    examples: Sequence[TrainingImage], count: int, rng: np.random.Generator
) -> list[int]:
    """Return each image's inner fold: a part is in one fold, every kind is dealt out evenly."""
    kind_of: dict[str, str] = {}
    for example in examples:
        if kind_of.get(example.part, GOOD) == GOOD:
            kind_of[example.part] = example.label
    sizes = Counter(e.part for e in examples)
    shuffled = rng.permutation(sorted(kind_of)).tolist()
    order = sorted(shuffled, key=lambda part: (kind_of[part], -sizes[part]))
    fold = {part: index % count for index, part in enumerate(order)}
    return [fold[e.part] for e in examples]


def pass_backbone(example: TrainingImage) -> tuple[CellFeatures, Features]:
    """Decode an image and pass it through the backbone: what takes nearly all of a fit."""
    image = by_channel(example.image())
    return cell_features(image), image_features(image)


def prepare_image(
    example: TrainingImage,
    passed: tuple[CellFeatures, Features],
    fold: int,
    spool: FeatureSpool,
    keep: bool,
    rng: np.random.Generator,
) -> PreparedImage:
    """Keep of one training image what the fit needs.

    Args:
        example: The image with its label.
        passed: What `pass_backbone` returned.
        fold: Its inner fold.
        spool: Takes all its cells if they are needed again.
        keep: Whether they are.
        rng: Samples the cells of a good image.
    """
    features, whole_image = passed
    mask = example.mask() if example.faulty else None
    sampled = None
    if not example.faulty:
        index, _ = choose_cells(None, np.zeros(features.grid, np.float32), False, rng)
        sampled = spool.write_array(_inputs_at(index, features))
    return PreparedImage(
        spool=spool,
        features_offset=spool.write_features(whole_image),
        grid=features.grid,
        label=example.label,
        fold=fold,
        sampled=sampled,
        coverage=None if mask is None else mask_coverage(mask, *features.grid),
        offset=spool.write(features) if keep else None,
    )


def sample_cells(
    images: Sequence[PreparedImage],
    normal: NormalModel,
    spool: FeatureSpool,
    rng: np.random.Generator,
) -> list[ImageCells]:
    """Return the cells to train on, those of all images one after another in one array.

    Of an image without a mask they are the ones most unlike good images.
    """
    together = None
    result, count = [], 0
    for image in images:
        cells = _image_cells(image, normal, spool, rng)
        if together is None:
            most = len(images) * max(GOOD_CELLS, POSITIVE_CELLS + NEGATIVE_CELLS)
            together = np.empty((most, cells.inputs.shape[1]), np.float16)
        rows = together[count : count + len(cells.inputs)]
        rows[:] = cells.inputs
        result.append(replace(cells, inputs=rows))
        count += len(rows)
    return result


def join_inputs(cells: Sequence[ImageCells]) -> NDArray[np.float16]:
    """Return the inputs of all images, shape (cell, feature); no copy after `sample_cells`."""
    whole = cells[0].inputs.base
    if whole is None or any(each.inputs.base is not whole for each in cells):
        return np.concatenate([each.inputs for each in cells])
    ends = np.cumsum([each.inputs.nbytes for each in cells])
    starts = np.array([each.inputs.ctypes.data for each in cells]) - whole.ctypes.data
    if not np.array_equal(starts, np.r_[0, ends[:-1]]):  # some left out, or in another order
        return np.concatenate([each.inputs for each in cells])
    joined: NDArray[np.float16] = whole[: sum(len(each.inputs) for each in cells)]
    return joined


def _image_cells(
    image: PreparedImage, normal: NormalModel, spool: FeatureSpool, rng: np.random.Generator
) -> ImageCells:
    if image.sampled is not None:
        inputs = spool.read_array(image.sampled)
        none = np.zeros(len(inputs), np.float32)
        return ImageCells(
            inputs=inputs, target=none, suspicion=none, kind=image.label, fold=image.fold
        )
    assert image.offset is not None, "the cells of defective images are kept"
    suspicion = resample_map(normal.predict(image.features).map, *image.grid)
    features = spool.read(image.offset)
    index, target = choose_cells(image.coverage, suspicion, image.label != GOOD, rng)
    return _cells_at(index, features, target, suspicion, image.label, image.fold)


def hard_cells(
    image: PreparedImage, scores: NDArray[np.float32], features: CellFeatures
) -> ImageCells:
    """Return the `HARD_CELLS` cells of a good image that look most like a defect.

    Args:
        image: The image.
        scores: How much each cell looks like a defect, shape (cell,).
        features: All its cells.
    """
    index = np.argsort(-scores, kind="stable")[:HARD_CELLS]
    target = np.zeros(len(index), np.float32)
    return _cells_at(index, features, target, scores, image.label, image.fold)


def _cells_at(
    index: NDArray[np.intp],
    features: CellFeatures,
    target: NDArray[np.float32],
    suspicion: NDArray[np.float32],
    kind: str,
    fold: int,
) -> ImageCells:
    """Return the chosen ones of all cells of an image."""
    return ImageCells(
        inputs=_inputs_at(index, features),
        target=target,
        suspicion=suspicion.ravel()[index],
        kind=kind,
        fold=fold,
    )


def _inputs_at(index: NDArray[np.intp], features: CellFeatures) -> NDArray[np.float16]:
    chosen: NDArray[np.float16] = inputs_at(features, torch.from_numpy(index)).half().numpy()
    return chosen


def mask_coverage(mask: Mask, rows: int, columns: int, cell_px: int = 8) -> NDArray[np.float32]:
    """Return the share of each cell that the mask covers, shape (rows, columns)."""
    canvas = np.zeros((rows * cell_px, columns * cell_px), np.float32)
    canvas[: mask.shape[0], : mask.shape[1]] = mask
    # (rows, 8, columns, 8): mean over the pixels of each cell
    shares: NDArray[np.float32] = canvas.reshape(rows, cell_px, columns, cell_px).mean((1, 3))
    return shares


def positive_cells(coverage: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which cells show the defect: covered cells, of wide regions only the outer band."""
    covered = coverage > COVERED
    if not covered.any():
        covered = (coverage > 0) & (coverage >= coverage.max())
    inside = ndimage.binary_erosion(covered, iterations=BAND_CELLS, border_value=1)
    band: NDArray[np.bool_] = covered & ~inside
    return band if band.any() else covered


def choose_cells(
    coverage: NDArray[np.float32] | None,
    suspicion: NDArray[np.float32],
    faulty: bool,
    rng: np.random.Generator,
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Choose the cells of an image to train on.

    Args:
        coverage: `mask_coverage`, or None if there is no (or an empty) mask.
        suspicion: Map of the normal model on the grid, shape (rows, columns).
        faulty: Whether the image is labelled with a defect.
        rng: Chooses among many cells.

    Returns:
        Flat indices of cells and their targets.
    """
    if not faulty:
        index = rng.permutation(suspicion.size)[:GOOD_CELLS]
        return index, np.zeros(len(index), np.float32)
    if coverage is None or not coverage.any():
        index = np.argsort(-suspicion, axis=None, kind="stable")[:POSITIVE_CELLS]
        return index, np.full(len(index), UNKNOWN, np.float32)
    positive = rng.permutation(np.flatnonzero(positive_cells(coverage)))[:POSITIVE_CELLS]
    negative = rng.permutation(np.flatnonzero(coverage == 0))[:NEGATIVE_CELLS]
    target = np.repeat(np.array([1, 0], np.float32), [len(positive), len(negative)])
    return np.concatenate([positive, negative]), target


def image_weights(
    target: NDArray[np.float32], suspicion: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return cell weights: k positives of an image count 1 / sqrt(k) each, negatives 1.

    Of a bag only the `BAG_CELLS` most suspicious cells count at first, as positives.
    """
    weight = np.ones(len(target), np.float32)
    positive = target == 1
    weight[positive] = 1 / np.sqrt(max(1, positive.sum()))
    unknown = np.flatnonzero(target == UNKNOWN)
    if len(unknown):
        weight[unknown] = 0
        first = unknown[np.argsort(-suspicion[unknown], kind="stable")[:BAG_CELLS]]
        weight[first] = 1 / np.sqrt(len(first))
    return weight
