"""Which pixels of a mask picture are the defect.

==============================================  ==================================================
levels or colours in the file                   defect
==============================================  ==================================================
grey, one level over 127 of 255                 over 127
0 and a few levels up to 127 (0/1, class ids)   over 0
a few colours with black (classes, palette)     all but black
a palette without black that uses index 0       all but index 0
0, class ids and 255; a few dark levels         refused: 255 may mean "ignore"; nothing says what
without 0; a few colours without black          is background
==============================================  ==================================================

More levels than a few come from smoothing or lossy storage. A mask that is white nearly
everywhere, or on the whole border and most of the rest, is inverted: it shows no place.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MASK_THRESHOLD = 127.5 / 255
FEW = 32
"""Levels or colours; also the largest class id."""
NEARLY_ALL = 0.9
BORDER = 0.99


def defect_values(
    values: NDArray[np.float32], *, top: int = 255, indices: NDArray[np.uint8] | None = None
) -> NDArray[np.float32]:
    """Return a mask as values 0..1, shape (height, width); over `MASK_THRESHOLD` is the defect.

    Args:
        values: The decoded mask, shape (height, width, 1 or 3), values 0..1.
        top: Integer level that 1.0 stands for, 255 or 65535.
        indices: Of a palette, shape (height, width); None if the file has no palette.

    Raises:
        ValueError: if it is not clear what is the defect; the message is a clause.
    """
    if values.shape[2] == 3:
        return _of_colours(values, indices)
    grey: NDArray[np.float32] = values[:, :, 0]
    levels = np.rint(grey * top).astype(np.int64)
    present = np.flatnonzero(np.bincount(levels.ravel()))
    if len(present) > FEW + 2:
        return grey
    ids = present[(present > 0) & (present <= FEW)]
    if present[-1] > top * MASK_THRESHOLD:
        if len(ids) and len(present) == len(ids) + 2 and present[0] == 0:
            raise ValueError(f"holds 0, {_listed(ids)} and {present[-1]}: which one is the defect?")
        return grey
    if present[0] > 0:
        raise ValueError(f"holds only {_listed(present)}: neither 0 nor anything over 127")
    return (levels > 0).astype(np.float32)


def _of_colours(
    values: NDArray[np.float32], indices: NDArray[np.uint8] | None
) -> NDArray[np.float32]:
    bytes_ = np.rint(values * 255).astype(np.int64)
    packed = bytes_[:, :, 0] << 16 | bytes_[:, :, 1] << 8 | bytes_[:, :, 2]
    present = np.unique(packed)
    if len(present) > FEW:  # smoothed or lossy colour on black: its brightest channel
        brightest: NDArray[np.float32] = values.max(axis=2)
        return brightest
    if present[0] == 0:
        return (packed > 0).astype(np.float32)
    if indices is not None and (indices == 0).any():
        return (indices > 0).astype(np.float32)
    raise ValueError(f"holds {len(present)} colours and none is black: which one is background?")


def is_inverted(mask: NDArray[np.bool_]) -> bool:
    """Return whether a mask, shape (height, width), marks what surrounds a defect."""
    share = float(mask.mean())
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean()
    return share > NEARLY_ALL or (share > 0.5 and float(border) >= BORDER)


def _listed(levels: NDArray[np.int64]) -> str:
    first = ", ".join(map(str, levels[:3].tolist()))
    return first if len(levels) <= 3 else f"{first} ... {levels[-1]}"
