"""Pictures in memory as items to predict: frames of a camera (numpy), pictures of Pillow.

They are judged as the same picture in a file is: uint8 is divided by 255, uint16 by 65535, floating
point is taken as it is; alpha is composited over black; equal channels become grey.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from lineside.core.errors import UserError
from lineside.core.run.files import sha256
from lineside.parts.data.images import (
    check_shape,
    decode,
    digest,
    grey_if_equal,
    pillow_pixels,
    without_alpha,
)
from lineside.parts.data.items import PartImage
from lineside.parts.data.sources import part_of, unlabelled
from lineside.parts.models.detector import Image

SCALES = {"uint8": 255.0, "uint16": 65535.0, "float16": 1.0, "float32": 1.0, "float64": 1.0}
"""What each dtype is divided by."""
EXPECTED = "an array (height, width) or (height, width, 1, 3 or 4) of uint8, uint16 or float 0..1"


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame(PartImage):
    """A picture that lies in no file; `path` is its name only.

    Attributes:
        value: The array or Pillow picture as it was given; it is checked when it is judged.
    """

    value: Any = field(repr=False)


def item_of(value: Any, index: int, pattern: str = "") -> PartImage:
    """Return an item of what a caller gives: an item, a path, or a picture in memory.

    Args:
        value: A `PartImage`, a path, an array or a Pillow picture.
        index: Its place among what was given; it names a frame.
        pattern: Finds the part in a file name, also of a picture that Pillow opened.
    """
    if isinstance(value, PartImage):
        return value
    if isinstance(value, str | os.PathLike):
        return unlabelled(Path(value), pattern)
    name = str(getattr(value, "filename", "") or f"frame {index}")
    return Frame(id=name, path=Path(name), label="", part=part_of(Path(name), pattern), value=value)


def image_of(item: PartImage) -> Image:
    """Return the pixels of an item, shape (height, width, 1 or 3), values 0..1.

    Raises:
        UserError: for a file as `decode`; for a frame of another dtype, shape or range.
    """
    if not isinstance(item, Frame):
        return decode(item.path)
    if isinstance(item.value, Pillow.Image):
        return pillow_pixels(item.value, item.id)
    return _array_pixels(item.value, item.id)


def digest_of(item: PartImage) -> str:
    """Return the SHA-256 of an item's file, or of the values of a frame."""
    if not isinstance(item, Frame):
        return digest(item.path)
    return sha256(np.ascontiguousarray(item.value).tobytes())


def _array_pixels(value: Any, name: str) -> Image:
    if not isinstance(value, np.ndarray):
        what = f"{name} is a {type(value).__name__}, not a picture"
        raise UserError(what, f"give a path, a Pillow picture or {EXPECTED}")
    scale = SCALES.get(value.dtype.name)
    if scale is None:
        raise UserError(f"{name} has the dtype {value.dtype}", f"expected {EXPECTED}")
    _check_axes(value, name)
    check_shape(value.shape[1], value.shape[0], name)
    pixels: NDArray[np.float32] = np.atleast_3d(value).astype(np.float32)
    pixels /= np.float32(scale)
    low, high = float(pixels.min()), float(pixels.max())  # NaN if one is
    if not (low >= 0.0 and high <= 1.0):
        raise UserError(
            f"{name} holds values from {low:g} to {high:g}, expected 0 to 1",
            "divide by the largest value that the camera can give, or give uint8 or uint16",
        )
    return grey_if_equal(without_alpha(pixels))


def _check_axes(value: NDArray[Any], name: str) -> None:
    if value.ndim == 2 or (value.ndim == 3 and value.shape[2] in (1, 3, 4)):
        return
    hint = f"expected {EXPECTED}"
    if value.ndim == 4:
        hint = "give several frames as a list"
    elif value.ndim == 3 and value.shape[0] in (1, 3, 4):
        hint = "channels come last: frame.transpose(1, 2, 0)"
    raise UserError(f"{name} has the shape {value.shape}", hint)
