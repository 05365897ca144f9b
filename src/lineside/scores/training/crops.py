"""Training crops of pages: chosen with rare classes in mind, turned, scaled and degraded.

Half of the crops are centred on a symbol of a class drawn with weight n^0.3 instead of n, and rare
glyphs are pasted where there is room (Elezi, Tuggener, Pelillo and Stadelmann, "DeepScores and Deep
Watershed Detection", WoRMS 2018: a weighted loss alone failed).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lineside.core.errors import UserError
from lineside.scores.data.normalise import warp
from lineside.scores.engraving.glyphs import Glyph, glyphs
from lineside.scores.engraving.page import read_page, truth_of
from lineside.scores.engraving.verovio_engraver import FONTS
from lineside.scores.models.watershed.targets import (
    CLASSES,
    NUMBER,
    Drawing,
    Placed,
    class_of,
)

Degrade = Callable[[NDArray[np.uint8], np.random.Generator], NDArray[np.uint8]]
"""Takes a grey crop to what a scanner or camera makes of it, without moving anything."""
KEPT_PAGES = 2500
ROOM = 0.02  # ink where a glyph may be pasted


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A crop and what is on it: grey image, glyphs, masks of lines (see `Drawing.masks`)."""

    grey: NDArray[np.uint8]
    placed: Placed
    masks: NDArray[np.uint8]


Encode = Callable[[Crop], tuple[NDArray[np.generic], ...]]
"""Makes the targets of a method of a crop."""


@dataclass(frozen=True, kw_only=True)
class CropSettings:
    """How crops are drawn.

    Attributes:
        size: Side in pixels.
        centred: Share of crops centred on a symbol drawn by class.
        class_power: Weight of a class with n symbols is n to this power.
        pasted: Fewest and most glyphs pasted into a crop; (0, 0) for none.
        scale: Range of enlargement.
        turn_degrees: Standard deviation of the rotation.
        degraded: Share of crops that are degraded.
    """

    size: int = 256
    centred: float = 0.5
    class_power: float = 0.3
    pasted: tuple[int, int] = (2, 6)
    scale: tuple[float, float] = (0.9, 1.1)
    turn_degrees: float = 0.6
    degraded: float = 0.7


class Pages:
    """Engraved pages with their symbols.

    Args:
        images: A folder that the page maker wrote, or images of such pages; the truth of each lies
            beside it.

    Attributes:
        paths: Of the images.
        interline_px: Staff space of all of them.
        drawings: Their symbols.
        counts: Number of symbols by class number, over all pages.
    """

    def __init__(self, images: Path | Sequence[Path]) -> None:
        if isinstance(images, Path):
            self.paths = [p for p in sorted(images.glob("*.png")) if truth_of(p).exists()]
            if not self.paths:
                hint = "make some: lineside scores make FOLDER SCORES"
                raise UserError(f"no page in {images}", hint)
        else:
            self.paths = list(images)
        truths = [read_page(truth_of(path)) for path in self.paths]
        self.interline_px = truths[0].interline_px
        if any(truth.interline_px != self.interline_px for truth in truths):
            raise UserError("the pages differ in their staff space", "make them all with one")
        self.drawings = [Drawing(truth.symbols) for truth in truths]
        classes = np.concatenate([drawing.classes for drawing in self.drawings])
        self.counts = np.bincount(classes, minlength=len(CLASSES))
        self.image = lru_cache(KEPT_PAGES)(self._image)

    def _image(self, number: int) -> NDArray[np.uint8]:
        with Image.open(self.paths[number]) as image:
            return np.asarray(image.convert("L"))


class CropSource:
    """Draws crops, and batches of them with the targets of a method."""

    def __init__(
        self, pages: Pages, settings: CropSettings, degrade: Degrade | None = None
    ) -> None:
        self._pages, self._settings, self._degrade = pages, settings, degrade
        # Every symbol by class: which page, which row.
        owners = [
            (number, row, c)
            for number, drawing in enumerate(pages.drawings)
            for row, c in enumerate(drawing.classes)
        ]
        self._symbols = np.array(owners, np.int64).reshape(-1, 3)
        self._order = np.argsort(self._symbols[:, 2], kind="stable")
        self._first = np.searchsorted(self._symbols[self._order, 2], np.arange(len(CLASSES) + 1))
        weights = np.where(pages.counts > 0, pages.counts.astype(float) ** settings.class_power, 0)
        self._class_weights = weights / weights.sum()
        self._bank = _bank(pages.interline_px)
        names = sorted(self._bank)
        seen = np.array([pages.counts[NUMBER[name]] for name in names])
        rarity = 1.0 / np.sqrt(20.0 + seen)
        self._names, self._rarity = names, rarity / rarity.sum()

    def batch(self, rng: np.random.Generator, size: int, encode: Encode) -> tuple[Tensor, ...]:
        """Return crops as a network takes them, and their targets, stacked.

        Args:
            rng: All randomness.
            size: Number of crops.
            encode: Makes the targets of one.

        Returns:
            Ink, shape (crop, 1, height, width), 0 paper to 1 black; then what `encode` returns.
        """
        crops = [self.crop(rng) for _ in range(size)]
        ink = [(1.0 - crop.grey.astype(np.float32) / 255.0)[None] for crop in crops]
        targets = zip(*(encode(crop) for crop in crops), strict=True)
        return tuple(torch.from_numpy(np.stack(parts)) for parts in (ink, *targets))

    def crop(self, rng: np.random.Generator) -> Crop:
        """Return one crop."""
        settings, shape = self._settings, (self._settings.size,) * 2
        number, point = self._place(rng)
        transform = _transform(rng, point, settings)
        grey = warp(self._pages.image(number), transform, shape)
        drawing = self._pages.drawings[number]
        grey, placed = self._paste(rng, grey, drawing.glyphs(transform, shape))
        if rng.random() < settings.degraded and self._degrade is not None:
            grey = self._degrade(grey, rng)
        return Crop(grey=grey, placed=placed, masks=drawing.masks(transform, shape))

    def _place(self, rng: np.random.Generator) -> tuple[int, NDArray[np.floating]]:
        """Choose a page and the point of it that the crop is laid around."""
        if rng.random() < self._settings.centred:
            c = rng.choice(len(CLASSES), p=self._class_weights)
            row = self._order[rng.integers(self._first[c], self._first[c + 1])]
            number, symbol, _ = self._symbols[row]
            box = self._pages.drawings[number].boxes[symbol]
            return int(number), (box[:2] + box[2:]) / 2
        number = int(rng.integers(len(self._pages.paths)))
        height, width = self._pages.image(number).shape
        return number, rng.uniform(0.0, (width, height))

    def _paste(
        self, rng: np.random.Generator, grey: NDArray[np.uint8], placed: Placed
    ) -> tuple[NDArray[np.uint8], Placed]:
        """Paste rare glyphs where there is room."""
        fewest, most = self._settings.pasted
        if not most:
            return grey, placed
        grey = grey.copy()
        centres, sizes, classes = [], [], []
        for name in rng.choice(self._names, rng.integers(fewest, most + 1), p=self._rarity):
            alike = self._bank[str(name)]
            glyph = alike[int(rng.integers(len(alike)))]
            height, width = glyph.image.shape
            if height >= grey.shape[0] or width >= grey.shape[1]:
                continue
            for _ in range(6):
                top = int(rng.integers(grey.shape[0] - height))
                left = int(rng.integers(grey.shape[1] - width))
                window = grey[top : top + height, left : left + width]
                if (window < 128).mean() > ROOM:
                    continue
                np.minimum(window, glyph.image, out=window)
                x0, y0, x1, y1 = glyph.box
                centres.append((left + (x0 + x1) / 2, top + (y0 + y1) / 2))
                sizes.append((x1 - x0, y1 - y0))
                classes.append(NUMBER[str(name)])
                break
        if not classes:
            return grey, placed
        return grey, Placed(
            centres=np.concatenate([placed.centres, np.array(centres)]),
            sizes=np.concatenate([placed.sizes, np.array(sizes)]),
            classes=np.concatenate([placed.classes, np.array(classes)]),
        )


def _transform(
    rng: np.random.Generator, point: NDArray[np.floating], settings: CropSettings
) -> NDArray[np.float64]:
    """Turn and scale around a point, and lay it somewhere in the middle half of the crop."""
    angle = np.deg2rad(rng.normal(0.0, settings.turn_degrees))
    scale = np.exp(rng.uniform(*np.log(settings.scale)))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    there = rng.uniform(0.25, 0.75, 2) * settings.size
    return np.column_stack([turn, there - turn @ point])


def _bank(interline_px: float) -> Mapping[str, Sequence[Glyph]]:
    """Return glyphs of all training fonts by the class that the network knows them by."""
    found: dict[str, list[Glyph]] = {}
    for font in FONTS:
        for name, drawn in glyphs(font, interline_px).items():
            if class_of(name) in NUMBER and name not in ("restWhole", "restHalf"):
                found.setdefault(class_of(name), []).extend(drawn)
    return found
