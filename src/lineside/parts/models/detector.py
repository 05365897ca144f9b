"""What every detector of `parts` takes and gives: training images in, predictions out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lineside.parts.data.items import GOOD

Image = NDArray[np.float32]
"""A decoded picture, shape (height, width, channel), values 0..1, channel 1 (grey) or 3 (RGB)."""

Mask = NDArray[np.bool_]
"""Where the defect is, shape (height, width) of the picture it belongs to."""


@dataclass(frozen=True, kw_only=True)
class TrainingImage:
    """One labelled training image, decoded on demand so that a data set need not fit in memory.

    Attributes:
        id: The item's id.
        label: ``"good"`` or the kind of defect.
        part: The independent unit; inner folds are made by it.
        digest: SHA-256 of the file, the key of cached features.
        image: Decodes the picture.
        mask: Returns the defect mask, or None if only the image label is known.
    """

    id: str
    label: str
    part: str
    digest: str
    image: Callable[[], Image]
    mask: Callable[[], Mask | None] = lambda: None

    @property
    def faulty(self) -> bool:
        """True if the label is a kind of defect."""
        return self.label != GOOD

    @classmethod
    def from_array(
        cls, pixels: Image, label: str = GOOD, *, part: str = "", mask: Mask | None = None
    ) -> TrainingImage:
        """Return a training image that is held in memory.

        Args:
            pixels: Shape (height, width, 1 or 3), values 0..1.
            label: ``"good"`` or the kind of defect.
            part: The part that it shows; without it the image counts as a part of its own.
            mask: Where the defect is, shape (height, width).
        """
        digest = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
        return cls(
            id=digest[:12], label=label, part=part or digest[:12], digest=digest,
            image=lambda: pixels, mask=lambda: mask,
        )  # fmt: skip


NORMAL_TERM, KNOWN_TERM = "normal model", "known defects"
"""Contributions of a detector that learns from labelled defects too: without and from them."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Score and anomaly map of one image.

    Attributes:
        score: Evidence for a defect, higher is more faulty; comparable between images.
        map: Local evidence, shape (rows, columns), float32, in the units of the score where the
            method allows it. The grid covers the picture exactly: cell (r, c) stands for
            the pixels [r*height/rows, (r+1)*height/rows) x [c*width/columns, (c+1)*width/columns).
        contributions: Named terms of the score, for the explanation (``{"goodness": 1.2}``).
        tile_logits: Of a method that scores tiles, shape (tile,), in the order of `tile_corners`.
    """

    score: float
    map: NDArray[np.float32]
    contributions: Mapping[str, float] = field(default_factory=dict)
    tile_logits: NDArray[np.float32] | None = None


class Detector(Protocol):
    """A fitted detector: a frozen dataclass that `core.run.codec` can store.

    It takes one image at a time, in fixed-size batches inside: a prediction never depends on other
    images. It may offer ``update(examples, rng=...)``, which returns a derived detector.
    """

    def predict(self, image: Image) -> Prediction: ...


Log = Callable[[dict[str, Any]], None]
"""Receives one record per stage of a fit."""


def good_of(examples: Sequence[TrainingImage]) -> list[TrainingImage]:
    """Return the good examples."""
    return [example for example in examples if not example.faulty]
