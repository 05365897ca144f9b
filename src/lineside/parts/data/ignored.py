"""The region of all pictures that must not count: a fixture, a printed label, the surroundings.

``--ignore MASK`` is a picture of the same shape as the data, white where nothing counts. Ignored
pixels take the median of the others, so that what no method may answer to is a function of what it
may; cells of an anomaly map that are ignored by half or more take the least evidence of the others.
The model keeps the region.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from lineside.core.errors import UserError
from lineside.parts.data.items import ASPECT_TOLERANCE
from lineside.parts.models.detector import Image, Mask

HALF = 0.5


@dataclass(frozen=True, kw_only=True)
class IgnoredRegion:
    """Where pictures are ignored.

    Attributes:
        mask: True where nothing counts, shape (height, width).
    """

    mask: NDArray[np.bool_]

    @property
    def digest(self) -> str:
        """Hash of the region and its size."""
        content = str(self.mask.shape).encode() + np.packbits(self.mask).tobytes()
        return hashlib.sha256(content).hexdigest()

    def at(self, shape: tuple[int, int]) -> Mask:
        """Return the region for pictures of a shape (height, width), scaled if it is alike.

        Raises:
            UserError: if the pictures have another ratio of width to height.
        """
        (height, width), (rows, columns) = self.mask.shape, shape
        if (height, width) == (rows, columns):
            return self.mask
        if abs(columns * height / (width * rows) - 1) > ASPECT_TOLERANCE:
            raise UserError(
                f"the ignored region is for pictures of {width}x{height}, "
                f"this one is {columns}x{rows}: another shape",
                "ignore a region only where all pictures show the part alike",
            )
        scaled = Pillow.fromarray(self.mask).resize((columns, rows), Pillow.Resampling.NEAREST)
        return np.asarray(scaled, dtype=bool)

    def neutralise(self, image: Image) -> Image:
        """Return a picture, shape (height, width, 1 or 3), that does not depend on ignored pixels.

        Raises:
            UserError: as `at`.
        """
        mask = self.at((image.shape[0], image.shape[1]))
        filled = image.copy()
        filled[mask] = np.median(image[~mask], axis=0)
        first = filled[:, :, :1]
        return first.copy() if (filled == first).all() else filled  # grey but for the ignored part

    def suppress(self, cells: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
        """Return an anomaly map without evidence where it is ignored.

        Args:
            cells: The map, shape (rows, columns).
            shape: (height, width) of the picture.
        """
        rows, columns = cells.shape
        mask = Pillow.fromarray(self.at(shape).astype(np.float32))
        # (height, width) -> (rows, columns): the ignored share of each cell
        share = np.asarray(mask.resize((columns, rows), Pillow.Resampling.BOX))
        seen = cells[share < HALF]
        least = seen.min() if seen.size else cells.min()
        quiet: NDArray[np.float32] = np.where(share < HALF, cells, least).astype(np.float32)
        return quiet
