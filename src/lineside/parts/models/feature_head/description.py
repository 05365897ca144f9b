"""All that the good-only model needs of one image, small enough to keep for thousands."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lineside.parts.models import backbone as trunk
from lineside.parts.models.detector import Image
from lineside.parts.models.feature_head import line_filters as contrast

NEAR_PX, FAR_PX = 256, 192
"""Side of the squashed picture of the two scales."""
PLACE_BLOCK, WHOLE_BLOCK = 14, 15
_VERSION = "description 1"


@dataclass(frozen=True, kw_only=True)
class Description:
    """Features of one image, float16.

    Attributes:
        near: Block 14 of the picture at 256 px, shape (64, 192): 8 x 8 places.
        far: Block 14 at 192 px, shape (36, 192): 6 x 6 places.
        whole: Mean and standard deviation over places of block 15 at 256 px, shape (640,).
        lines: Log contrast of 16 x 16 regions, shape (24, 16, 16).
        size: Log of width and height in px, shape (2,).
    """

    near: Tensor
    far: Tensor
    whole: Tensor
    lines: Tensor
    size: Tensor

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return the features for a cache."""
        return {f.name: getattr(self, f.name).float().numpy() for f in fields(self)}


def description_of(arrays: Mapping[str, NDArray[np.float32]]) -> Description:
    """Rebuild from `Description.arrays`."""
    return Description(
        **{f.name: torch.from_numpy(arrays[f.name]).half() for f in fields(Description)}
    )


@functools.cache
def extractor() -> str:
    """Return the hash of everything but the image that decides a description."""
    settings = (_VERSION, NEAR_PX, FAR_PX, contrast.LEVELS, contrast.SIGMA_PX, contrast.BAR_PX)
    return hashlib.sha256(repr((settings, trunk.weight_digest())).encode()).hexdigest()


@torch.inference_mode()
def describe(image: Image, native: Tensor | None = None, half: Tensor | None = None) -> Description:
    """Return what the good-only model needs of an image of any size.

    Args:
        image: Shape (height, width, 1 or 3), values 0..1.
        native: Cells of the image (`trunk.cells`), if at hand; not needed by this description.
        half: Cells of the halved image, likewise.
    """
    near = trunk.block_maps(trunk.resized(image, NEAR_PX, NEAR_PX), (PLACE_BLOCK, WHOLE_BLOCK))
    far = trunk.block_maps(trunk.resized(image, FAR_PX, FAR_PX), (PLACE_BLOCK,))
    whole = near[WHOLE_BLOCK].flatten(1)
    height, width = image.shape[:2]
    return Description(
        near=near[PLACE_BLOCK].flatten(1).T.half().contiguous(),
        far=far[PLACE_BLOCK].flatten(1).T.half().contiguous(),
        whole=torch.cat([whole.mean(1), whole.std(1)]).half(),
        lines=contrast.contrast(image).half(),
        size=torch.tensor([math.log(width), math.log(height)]).half(),
    )


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Descriptions of several images, float16, image first."""

    near: Tensor
    far: Tensor
    whole: Tensor
    lines: Tensor
    size: Tensor

    def __len__(self) -> int:
        return len(self.near)

    def rows(self, chosen: Tensor) -> Stack:
        """Return the images of a boolean or index tensor."""
        return Stack(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})


def stacked(descriptions: Sequence[Description]) -> Stack:
    """Stack descriptions."""
    return Stack(
        **{f.name: torch.stack([getattr(d, f.name) for d in descriptions]) for f in fields(Stack)}
    )
