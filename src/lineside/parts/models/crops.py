"""Unscaled squares of images for the patch networks: random crops to train on, tiles to judge.

The size of a defect often decides between good and bad, so a crop is never rescaled. Defect
crops are centred on the components of the mask, with a small random shift; for a component larger
than the crop the centre is a point of the mask near its edge. Where only the image's label is
known, crops of the whole image form a bag with a defect somewhere (multiple-instance learning).
Tiles overlap and cover an image at native resolution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lineside.parts.models.detector import Image, Mask, TrainingImage

Pixels = TypeVar("Pixels", np.float32, np.bool_)

Corner = tuple[int, int]
"""Top and left of a crop in pixels of the (padded) image."""


@dataclass(frozen=True, kw_only=True)
class CropPool:
    """Crops kept in memory, and which image each comes from.

    Attributes:
        pixels: Shape (crop, channel, height, width), float16, values 0..1.
        part: The part of each crop, shape (crop,).
        source: The id of each crop's image, shape (crop,).
        good: Indices of good crops.
        defect: Indices of crops that show a defect, one array per image with a mask.
        bags: Indices of crops, one array per defective image without a mask.
    """

    pixels: NDArray[np.float16]
    part: NDArray[np.str_]
    source: NDArray[np.str_]
    good: NDArray[np.int64]
    defect: tuple[NDArray[np.int64], ...]
    bags: tuple[NDArray[np.int64], ...]


@dataclass(frozen=True, kw_only=True)
class CropBatch:
    """Crops with the bag they belong to; a crop of its own is a bag of one.

    Attributes:
        pixels: Shape (crop, channel, height, width), float32, values 0..1.
        bag: Index of the bag of each crop, shape (crop,).
        labels: One per bag, 0 good or 1 defect, float32.
        part: The part of each crop, shape (crop,).
    """

    pixels: NDArray[np.float32]
    bag: NDArray[np.int64]
    labels: NDArray[np.float32]
    part: NDArray[np.str_]

    @property
    def crop_labels(self) -> NDArray[np.float32]:
        """The label of each crop's bag, shape (crop,)."""
        labels: NDArray[np.float32] = self.labels[self.bag]
        return labels


def convert_channels(image: Image, channels: int) -> Image:
    """Return the image as grey (mean of the channels) or as RGB (grey repeated)."""
    if image.shape[2] == channels:
        return image
    grey = image.mean(axis=2, keepdims=True)
    return grey if channels == 1 else np.repeat(grey, channels, axis=2)


def pad(image: NDArray[Pixels], min_px: int) -> tuple[NDArray[Pixels], Corner]:
    """Return the image mirrored outwards to at least `min_px` on each side, and the shift.

    Args:
        image: Shape (height, width) or (height, width, channel).
        min_px: Smallest side of the result.

    Returns:
        The padded image, and rows and columns before the image in it.
    """
    missing = [max(min_px - size, 0) for size in image.shape[:2]]
    if not any(missing):
        return image, (0, 0)
    before = (missing[0] // 2, missing[1] // 2)
    width = [(b, m - b) for b, m in zip(before, missing, strict=True)]
    width.extend([(0, 0)] * (image.ndim - 2))
    return np.pad(image, width, mode="reflect"), before


def defect_corners(mask: Mask, crop_px: int, count: int, rng: np.random.Generator) -> list[Corner]:
    """Return corners of crops that show a defect, inside a mask at least as large as the crop.

    A component is chosen with probability proportional to the root of its area; the crop's
    centre is the component's, shifted by up to a quarter of the crop (as far as it can lie off
    the centre of the nearest tile of half a crop's stride) without cutting it; for a component
    larger than the crop, the centre is a random point of the mask near its edge.
    """
    labels, number = ndimage.label(mask, structure=np.ones((3, 3)))
    if not number:
        return []
    boxes = ndimage.find_objects(labels)
    areas = np.sqrt(np.bincount(labels.ravel())[1:])
    rims: dict[int, NDArray[np.int64]] = {}
    corners = []
    for component in rng.choice(number, size=count, p=areas / areas.sum()).tolist():
        box = boxes[component]
        sizes = [side.stop - side.start for side in box]
        if max(sizes) > crop_px:
            if component not in rims:
                rims[component] = np.argwhere(_rim(labels == component + 1, crop_px // 8))
            centre = rims[component][rng.integers(len(rims[component]))]
        else:
            slack = [min(crop_px // 4, (crop_px - size) // 2) for size in sizes]
            shift = [int(rng.integers(-s, s + 1)) for s in slack]
            centre = np.array([(side.start + side.stop) // 2 for side in box]) + shift
        corners.append(_clamp(centre - crop_px // 2, mask.shape, crop_px))
    return corners


def clean_corners(mask: Mask, crop_px: int, count: int, rng: np.random.Generator) -> list[Corner]:
    """Return up to `count` random corners of crops without a pixel of the mask.

    The mask is grown by an eighth of the crop first, since the edge of a defect is vague.
    """
    margin = crop_px // 8
    grown = ndimage.maximum_filter(mask, size=2 * margin + 1) if mask.any() else mask
    candidates = random_corners(mask.shape, crop_px, 4 * count if mask.any() else count, rng)
    # summed-area table (height + 1, width + 1): pixels of a box are four look-ups
    table = np.pad(grown, ((1, 0), (1, 0))).astype(np.int64).cumsum(0).cumsum(1)
    clean = []
    for top, left in candidates:
        bottom, right = top + crop_px, left + crop_px
        hits = table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
        if hits == 0:
            clean.append((top, left))
    return clean[:count]


def random_corners(
    shape: tuple[int, ...], crop_px: int, count: int, rng: np.random.Generator
) -> list[Corner]:
    """Return corners of crops anywhere in an image at least as large as the crop."""
    tops = rng.integers(0, shape[0] - crop_px + 1, size=count)
    lefts = rng.integers(0, shape[1] - crop_px + 1, size=count)
    return list(zip(tops.tolist(), lefts.tolist(), strict=True))


def crop_pool(
    examples: Sequence[TrainingImage],
    *,
    crop_px: int,
    rng: np.random.Generator,
    crops_per_image: int = 48,
    pool_bytes: int = 256_000_000,
    channels: int | None = None,
) -> CropPool:
    """Decode every example once and keep crops of it, within bounded memory.

    Good crops come from good images and, far from the mask, from images with a mask: the same
    part with and without its defect is the most informative pair.

    Args:
        examples: Images to crop.
        crop_px: Side of the square crops.
        rng: Random stream.
        crops_per_image: Crops kept of each image, fewer if `pool_bytes` demands it.
        pool_bytes: Bound of the memory of all crops.
        channels: 1 grey or 3 RGB; None: those of the first example.
    """
    channels = channels or examples[0].image().shape[2]
    limit = pool_bytes // (2 * channels * crop_px * crop_px * max(len(examples), 1))
    per_image = int(np.clip(limit, 2, crops_per_image))
    pixels: list[NDArray[np.float16]] = []
    part: list[str] = []
    source: list[str] = []
    good: list[int] = []
    defect: list[NDArray[np.int64]] = []
    bags: list[NDArray[np.int64]] = []
    for example in examples:
        padded, _ = pad(convert_channels(example.image(), channels), crop_px)
        defective, clean, whole = _corners(example, padded.shape, crop_px, per_image, rng)
        first = len(pixels)
        for top, left in [*defective, *clean, *whole]:
            crop = padded[top : top + crop_px, left : left + crop_px]
            pixels.append(crop.transpose(2, 0, 1).astype(np.float16))
            part.append(example.part)
            source.append(example.id)
        numbers = np.arange(first, len(pixels))
        first_bag = len(defective) + len(clean)
        good.extend(numbers[len(defective) : first_bag])
        if defective:
            defect.append(numbers[: len(defective)])
        if whole:
            bags.append(numbers[first_bag:])
    return CropPool(
        pixels=np.stack(pixels),
        part=np.array(part),
        source=np.array(source),
        good=np.array(good, dtype=np.int64),
        defect=tuple(defect),
        bags=tuple(bags),
    )


def draw_batch(
    pool: CropPool, *, crops: int, good_per_defect: int, bag_crops: int, rng: np.random.Generator
) -> CropBatch:
    """Draw a training batch: images first, so that large and small defects count alike.

    Args:
        pool: Where crops come from.
        crops: Crops in the batch.
        good_per_defect: Good crops for each defect bag.
        bag_crops: Crops drawn of an image of which only the label is known.
        rng: Random stream.
    """
    sources = len(pool.defect) + len(pool.bags)
    positives = max(1, round(crops / (1 + good_per_defect)))
    # The share of weak bags is fixed, so that every batch has the same shape.
    weak = round(positives * len(pool.bags) / sources)
    weak = min(max(weak, 1 if pool.bags else 0), positives)
    strong = positives - weak
    chosen = [rng.choice(pool.defect[rng.integers(len(pool.defect))]) for _ in range(strong)]
    groups = [np.array([index]) for index in chosen]
    for _ in range(weak):
        bag = pool.bags[rng.integers(len(pool.bags))]
        groups.append(rng.choice(bag, size=bag_crops, replace=len(bag) < bag_crops))
    negatives = max(crops - sum(len(g) for g in groups), crops // 2)
    return join_bags(pool, groups, rng.choice(pool.good, size=negatives))


def fixed_batch(
    pool: CropPool,
    *,
    per_image: int,
    good_per_defect: int,
    bag_crops: int,
    rng: np.random.Generator,
    most_defects: int = 1_000_000,
) -> CropBatch:
    """Draw the crops that a network is validated on: once, with the given ratio of classes.

    Args:
        pool: Where crops come from.
        per_image: Defect crops of each image with a mask.
        good_per_defect: Good crops for each defect bag, as far as there are enough.
        bag_crops: Crops of an image of which only the label is known.
        rng: Random stream.
        most_defects: Bound of the number of defect bags.
    """
    groups = [
        np.array([index]) for crops in pool.defect for index in rng.permutation(crops)[:per_image]
    ]
    groups.extend(bag[:bag_crops] for bag in pool.bags)
    groups = [groups[index] for index in rng.permutation(len(groups))[:most_defects]]
    negatives = min(len(pool.good), max(len(groups), 1) * good_per_defect)
    return join_bags(pool, groups, rng.permutation(pool.good)[:negatives])


def augment(pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return crops flipped at random in both directions and changed in brightness.

    Brightness is multiplied by 0.8 to 1.25 and shifted by up to 0.05; values stay in 0..1.
    """
    count = len(pixels)
    vertical, horizontal = rng.random((2, count)) < 0.5
    pixels = pixels.copy()
    pixels[vertical] = pixels[vertical, :, ::-1]
    pixels[horizontal] = pixels[horizontal, :, :, ::-1]
    gain = np.exp(rng.uniform(np.log(0.8), np.log(1.25), size=(count, 1, 1, 1)))
    shift = rng.uniform(-0.05, 0.05, size=(count, 1, 1, 1))
    return np.clip(pixels * gain + shift, 0.0, 1.0).astype(np.float32)


def _corners(
    example: TrainingImage,
    shape: tuple[int, ...],
    crop_px: int,
    count: int,
    rng: np.random.Generator,
) -> tuple[list[Corner], list[Corner], list[Corner]]:
    """Return corners with a defect, without one, and of a bag, in the padded image."""
    if not example.faulty:
        return [], random_corners(shape, crop_px, count, rng), []
    mask = example.mask()
    if mask is None or not mask.any():
        return [], [], random_corners(shape, crop_px, count, rng)
    padded, _ = pad(mask, crop_px)
    defective = defect_corners(padded, crop_px, count, rng)
    return defective, clean_corners(padded, crop_px, max(count // 4, 1), rng), []


def _rim(component: Mask, width_px: int) -> Mask:
    """Return the outer band of a large component: its inside often looks normal."""
    inner = ndimage.minimum_filter(component, size=2 * width_px + 1, mode="nearest")
    rim: Mask = component & ~inner
    return rim if rim.any() else component


def _clamp(corner: NDArray[np.int64], shape: tuple[int, ...], crop_px: int) -> Corner:
    top, left = np.clip(corner, 0, [side - crop_px for side in shape[:2]])
    return int(top), int(left)


def join_bags(
    pool: CropPool, defects: Sequence[NDArray[np.int64]], good: NDArray[np.int64]
) -> CropBatch:
    """Return the crops of defect bags, then good crops, each a bag of its own."""
    sizes = [*(len(group) for group in defects), *[1] * len(good)]
    bag = np.repeat(np.arange(len(sizes)), sizes)
    chosen = np.concatenate([*defects, good])
    return CropBatch(
        pixels=pool.pixels[chosen].astype(np.float32),
        bag=bag,
        labels=np.repeat(np.array([1, 0], np.float32), [len(defects), len(good)]),
        part=pool.part[chosen],
    )


def tile_corners(shape: tuple[int, ...], tile_px: int) -> list[Corner]:
    """Return top and left of tiles that cover the image at half a tile's stride or less.

    The first and last tiles touch the borders and the ones between are spread evenly.

    Args:
        shape: Height and width of the image, each at least `tile_px`.
        tile_px: Side of a tile.
    """
    tops, lefts = (_starts(side, tile_px) for side in shape[:2])
    return [(top, left) for top in tops for left in lefts]


def tile_batches(
    image: Image, corners: Sequence[Corner], tile_px: int, batch: int
) -> Iterator[NDArray[np.float32]]:
    """Yield tiles of shape (batch, channel, tile, tile), cut one batch at a time."""
    for first in range(0, len(corners), batch):
        tiles = [
            image[top : top + tile_px, left : left + tile_px].transpose(2, 0, 1)
            for top, left in corners[first : first + batch]
        ]
        yield np.stack(tiles).astype(np.float32)


def tile_map(
    values: NDArray[np.float32], corners: Sequence[Corner], shape: tuple[int, ...], tile_px: int
) -> NDArray[np.float32]:
    """Return the mean value of the tiles over each cell's centre; cells are a quarter tile wide.

    Args:
        values: One per tile.
        corners: Top and left of each tile, in pixels of the image.
        shape: Height and width of the image.
        tile_px: Side of a tile.

    Returns:
        Shape (rows, columns), float32; the cells cover the image exactly.
    """
    counts = [max(1, math.ceil(4 * side / tile_px)) for side in shape[:2]]
    total = np.zeros(counts)
    tiles = np.zeros(counts)
    for value, corner in zip(values, corners, strict=True):
        covered = tuple(
            slice(*(_first_centre(edge, side, count) for edge in (start, start + tile_px)))
            for start, side, count in zip(corner, shape, counts, strict=False)
        )
        total[covered] += value
        tiles[covered] += 1
    return (total / tiles).astype(np.float32)


def _starts(side: int, tile_px: int) -> list[int]:
    slack = side - tile_px
    count = math.ceil(slack / (tile_px / 2)) + 1
    return [round(index * slack / max(count - 1, 1)) for index in range(count)]


def _first_centre(edge: int, side: int, count: int) -> int:
    """Return the first of `count` cells along a side whose centre is not before an edge."""
    return min(max(math.ceil(edge * count / side - 0.5), 0), count)
