"""Decoding of images and masks to arrays; a damaged file is refused in one line.

What is done to a picture, always and in this order: EXIF rotation; the first page of several;
palette, CMYK and other colour spaces to RGB; an alpha channel is composited over black, so that a
fully opaque one changes nothing; 8-bit values divided by 255, 16-bit ones by 65535 (never by the
picture's own maximum: pictures stay comparable); colour with three equal channels becomes grey.

A file is read once for its hash and its pixels. `decode` takes a picture from the `PictureCache`
where the survey of a data set put it.
"""

from __future__ import annotations

import errno
import io
import os
import struct
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from lineside.core.errors import Note, UserError, printable
from lineside.core.run.files import check_file, read_and_hash, sha256, sha256_of_file
from lineside.parts.config import Config
from lineside.parts.data.ignored import IgnoredRegion
from lineside.parts.data.items import Box, IgnoreFile, PartImage
from lineside.parts.data.masks import MASK_THRESHOLD, defect_values, is_inverted
from lineside.parts.models.detector import Image, Mask, TrainingImage

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm",
)  # fmt: skip
COMPANIONS = (
    ".txt", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".names", ".csv", ".tsv", ".md", ".html",
    ".log", ".ini", ".db",
)  # fmt: skip
"""Files that lie beside pictures and are none; every other one that is not read is counted."""
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
SMALLEST_PX = 16
LARGEST_PIXELS = 8192 * 8192
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
TRANSPOSED = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""
ORIENTATION_TAG = 0x0112
LARGEST_BYTES = 4 * 2**30
MOST_BYTES_AT_ONCE = 256 * 2**20
"""Larger files (stacks of pages) are not read into memory as a whole."""
CACHE_MB = 256
"""Memory that decoded pictures and masks of one data set may take."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A decoded picture with what its file says of itself.

    Attributes:
        values: Shape (height, width, 1 or 3): float32 0..1, or uint8 0..255 in the cache.
        mode: How the file stores it (``"L"``, ``"RGB"``, ``"I;16"``, ``"P"`` ...).
        bits: Bits per channel, 1, 8 or 16 (32 for floating point).
        seconds: Time that reading and decoding took when the file was opened.
    """

    values: Image | NDArray[np.uint8]
    mode: str
    bits: int
    seconds: float

    @property
    def image(self) -> Image:
        """The picture as float32, shape (height, width, 1 or 3), values 0..1."""
        if self.values.dtype == np.uint8:
            return np.divide(self.values, np.float32(255), dtype=np.float32)
        return self.values  # type: ignore[return-value]


@dataclass(kw_only=True)
class PictureCache:
    """Decoded pictures and masks, in one byte per value where that loses nothing.

    A picture that no longer fits is not kept, and none makes room for another: every step of a
    training reads the pictures in the same order, where the least recently used one is always the
    one that is wanted next.

    Attributes:
        most_bytes: Bound of the memory.
        pictures: Pictures by path, size and time of change of the file.
        bytes: Memory in use.
    """

    most_bytes: int
    pictures: dict[FileState, Picture] = field(default_factory=dict)
    bytes: int = 0

    def put(self, state: FileState, picture: Picture) -> None:
        """Keep a picture if it fits."""
        bytes_ = (picture.image * 255 + 0.5).astype(np.uint8)
        stored = replace(picture, values=bytes_)
        if not np.array_equal(stored.image, picture.image):  # 16 bits, or an alpha channel
            stored = picture
        if state not in self.pictures and self.bytes + stored.values.nbytes <= self.most_bytes:
            self.pictures[state] = stored
            self.bytes += stored.values.nbytes

    def get(self, state: FileState) -> Picture | None:
        """Return a picture whose array the caller may change, None if it was not kept."""
        picture = self.pictures.get(state)
        if picture is None or picture.values.dtype == np.uint8:
            return picture
        return replace(picture, values=picture.values.copy())

    def clear(self) -> None:
        """Forget all pictures."""
        self.pictures.clear()
        self.bytes = 0


FileState = tuple[str, int, int]
"""Path, size in bytes, time of change in nanoseconds."""
CACHE = PictureCache(most_bytes=CACHE_MB * 2**20)
"""Filled by `lineside.parts.audit.survey`, so that `predict` and `watch` hold nothing."""


def unread(names: Iterable[str]) -> Counter[str]:
    """Return how many files are neither pictures that are read nor known companions, by ending."""
    endings = (os.path.splitext(name)[1].lower() for name in names)
    return Counter(e or "without ending" for e in endings if e not in SUFFIXES + COMPANIONS)


def tell_unread(folder: Path, counts: Counter[str]) -> None:
    """Note in one line what was skipped in a folder, if anything was."""
    if not counts:
        return
    each = ", ".join(f"{count} {ending}" for ending, count in counts.most_common(8))
    files = "file" if counts.total() == 1 else "files"
    line = f"{folder}: {counts.total()} {files} skipped: {each}; readable are {' '.join(SUFFIXES)}"
    warnings.warn(printable(line), Note, stacklevel=2)


def decode(path: Path) -> Image:
    """Return a picture as float32, shape (height, width, channel), values 0..1, channel 1 or 3.

    Raises:
        UserError: one line for a missing, empty, truncated, foreign, too small or too large file.
    """
    return read_picture(path).image


def read_picture(path: Path, *, keep: bool = False, smallest_px: int = SMALLEST_PX) -> Picture:
    """Decode a picture, or take it from the cache.

    Args:
        path: The picture file.
        keep: Put the picture into the cache.
        smallest_px: Smaller sides are refused.

    Raises:
        UserError: one line for a missing, empty, truncated, foreign, too small or too large file.
    """
    state = file_state(path)
    if (known := CACHE.get(state)) is not None:
        return known
    start = time.perf_counter()
    with _opened(path) as raw:
        check_shape(*raw.size, path, smallest_px)
        values, mode, bits = _pixels(raw, path)
    values = grey_if_equal(values)
    picture = Picture(values=values, mode=mode, bits=bits, seconds=time.perf_counter() - start)
    if keep:
        CACHE.put(state, picture)
    return picture


def pillow_pixels(raw: Pillow.Image, name: str) -> Image:
    """Return a picture that Pillow holds as `decode` returns one.

    Raises:
        UserError: one line for a truncated, too small or too large picture.
    """
    with _one_line(name):
        check_shape(*raw.size, name)
        return grey_if_equal(_pixels(raw, name)[0])


def check_shape(width: int, height: int, name: object, smallest_px: int = SMALLEST_PX) -> None:
    """Refuse what is too small to be judged, or too large for the memory.

    Raises:
        UserError: in one line.
    """
    if min(width, height) < smallest_px:
        raise UserError(
            f"{name} is too small: {width}x{height} pixels",
            f"pictures of {smallest_px}x{smallest_px} pixels and more can be judged",
        )
    if width * height > LARGEST_PIXELS:
        raise _too_large(name, f"{width}x{height}")


def file_state(path: Path) -> FileState:
    """Return what changes when a file does; zeros for a missing one."""
    try:
        state = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), state.st_size, state.st_mtime_ns


def size_of(path: Path) -> tuple[int, int]:
    """Return (height, width) of the decoded picture, from the header where it is not known.

    Raises:
        UserError: as `decode`, as far as the header shows it.
    """
    if (known := CACHE.pictures.get(file_state(path))) is not None:
        return known.values.shape[0], known.values.shape[1]
    with _opened(path, whole=False) as raw:
        width, height = raw.size
        turned = raw.getexif().get(ORIENTATION_TAG) in TRANSPOSED
    return (width, height) if turned else (height, width)


def digest(path: Path) -> str:
    """Return the SHA-256 of the file.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        return sha256_of_file(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def read_mask_values(
    path: Path, shape: tuple[int, int], *, keep: bool = False
) -> NDArray[np.float32]:
    """Return a mask's values 0..1 before binarising, shape (height, width); see `masks`.

    Raises:
        UserError: if the file cannot be decoded, is not of the picture's size, or does not say
            what is the defect.
    """
    picture = read_picture(path, keep=keep, smallest_px=1)
    values = picture.image
    if values.shape[:2] != shape:
        raise UserError(
            f"mask {path} is {values.shape[1]}x{values.shape[0]} pixels, its picture is "
            f"{shape[1]}x{shape[0]}",
            "a mask must have the size of its picture",
        )
    indices = _indices(path) if picture.mode == "P" and values.shape[2] == 3 else None
    try:
        return defect_values(values, top=65535 if picture.bits == 16 else 255, indices=indices)
    except ValueError as error:
        raise UserError(f"mask {path} {error}", "save it as 0 and 255") from error


def _indices(path: Path) -> NDArray[np.uint8]:
    """Return the palette indices of a picture, shape (height, width)."""
    with _opened(path) as raw:
        return np.array(ImageOps.exif_transpose(raw), dtype=np.uint8)


def read_mask(path: Path, shape: tuple[int, int]) -> Mask:
    """Return a mask, true where the defect is.

    Args:
        path: The mask's picture file.
        shape: (height, width) of the picture that it belongs to.

    Raises:
        UserError: as `read_mask_values`.
    """
    return read_mask_values(path, shape) > MASK_THRESHOLD


def ignore_file(path: Path) -> IgnoreFile:
    """Return a mask of what is to be ignored, for items.

    Raises:
        UserError: if it cannot be read, or ignores nothing or everything.
    """
    file = IgnoreFile(path=path, sha256=digest(path))
    share = _region(file).mask.mean()
    if share in (0, 1):
        what = "everything" if share else "nothing"
        raise UserError(f"{path} ignores {what}", "white is ignored, black counts")
    return file


def region_of(item: PartImage) -> IgnoredRegion | None:
    """Return the ignored region of an item; the file is read once."""
    return _region(item.ignore) if item.ignore is not None else None


def ignored_by(config: Config) -> IgnoredRegion | None:
    """Return the region that a config names, None if everything counts.

    Raises:
        UserError: as `ignore_file`.
    """
    return _region(ignore_file(Path(config.ignore))) if config.ignore else None


@lru_cache(maxsize=4)
def _region(file: IgnoreFile) -> IgnoredRegion:
    height, width = read_picture(file.path, smallest_px=1).values.shape[:2]
    return IgnoredRegion(mask=read_mask(file.path, (height, width)))


def visible(item: PartImage) -> Image:
    """Return the picture of an item as methods see it: decoded, without what is ignored.

    Raises:
        UserError: as `decode`, and if it has another shape than the ignored region.
    """
    region = region_of(item)
    return _neutral(item.path, region) if region is not None else decode(item.path)


def boxes_mask(boxes: tuple[Box, ...], shape: tuple[int, int]) -> Mask:
    """Return the union of filled boxes, grown to whole pixels, shape (height, width)."""
    mask = np.zeros(shape, dtype=bool)
    for box in boxes:
        if not box.usable:
            continue
        top, left = max(int(np.floor(box.top)), 0), max(int(np.floor(box.left)), 0)
        mask[top : int(np.ceil(box.bottom)), left : int(np.ceil(box.right))] = True
    return mask


def mask_of(item: PartImage, shape: tuple[int, int] | None = None) -> Mask | None:
    """Return where the defect is, or None if only the image label is known.

    A good image has an all-false mask, whatever lies beside it. A defect with an empty mask says
    nothing about the place (it was often too faint to paint), and neither does one that cannot be
    used or is inverted (the audit names it): without boxes the answer is None. What is ignored is
    no place. The shape is (height, width), that of the picture if it is not given.

    Raises:
        UserError: if the mask file is gone.
    """
    shape = shape or size_of(item.path)
    if not item.faulty:
        return np.zeros(shape, dtype=bool) if item.label else None
    mask = _painted(item.mask, shape) if item.mask is not None else None
    if mask is None:
        mask = boxes_mask(item.boxes, shape)
    if (region := region_of(item)) is not None:
        mask = mask & ~region.at(shape)
    return mask if mask.any() else None


def _painted(path: Path, shape: tuple[int, int]) -> Mask | None:
    """Return a mask, or None if it cannot be used."""
    try:
        mask = read_mask(path, shape)
    except UserError:
        if not path.exists():
            raise
        return None
    return None if is_inverted(mask) else mask


def training_image(item: PartImage, ignored: IgnoredRegion | None = None) -> TrainingImage:
    """Return a labelled item as what detectors are fitted on; pixels are decoded when asked for.

    Args:
        item: The item.
        ignored: The region that a model ignores, where the item does not say.

    Raises:
        UserError: if the file cannot be read.
    """
    region, content = ignored or region_of(item), digest(item.path)
    image = partial(decode, item.path)
    if region is not None:
        content = sha256(f"{content} without {region.digest}".encode())
        image = partial(_neutral, item.path, region)
    return TrainingImage(
        id=item.id,
        label=item.label,
        part=item.groups[0],
        digest=content,
        image=image,
        mask=partial(mask_of, item),
    )


def _neutral(path: Path, region: IgnoredRegion) -> Image:
    return region.neutralise(decode(path))


@contextmanager
def _opened(path: Path, *, whole: bool = True) -> Iterator[Pillow.Image]:
    """Open a picture, check its size by the header, and put all damage into one line.

    Args:
        path: The picture file.
        whole: Read (and hash) all bytes at once; False where the header is enough.
    """
    with _one_line(path):
        size = check_file(path, LARGEST_BYTES, "picture")
        if size == 0:
            raise UserError(f"{path} is empty (0 bytes)", "copy the file again")
        whole = whole and size <= MOST_BYTES_AT_ONCE
        source = io.BytesIO(read_and_hash(path)) if whole else path
        with Pillow.open(source, formats=FORMATS) as raw:
            check_shape(*raw.size, path, smallest_px=1)
            yield raw


@contextmanager
def _one_line(path: Path | str) -> Iterator[None]:
    """Put all damage of a picture into one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # size and damage are judged here
            yield
    except Pillow.DecompressionBombError as error:
        raise _too_large(path, "more than twice as many") from error
    except UnidentifiedImageError as error:
        raise UserError(
            f"{path} is not a picture that can be read",
            "PNG, JPEG, BMP, TIFF, WebP, PGM and PPM are",
        ) from error
    except (FileNotFoundError, PermissionError) as error:
        raise _unreadable(path, error) from error
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            raise _unreadable(path, error) from error
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path} is damaged or cut off: {what}", "copy or save the file again"
        ) from error


def _too_large(path: object, size: str) -> UserError:
    return UserError(
        f"{path} is too large: {size} pixels, at most {LARGEST_PIXELS // 10**6} million are read",
        "cut it into several pictures",
    )


def _unreadable(path: Path | str, error: OSError) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path} does not exist", "check the path")
    if isinstance(error, IsADirectoryError):
        return UserError(f"{path} is a folder, not a picture", "give its files")
    hint = "check its permissions" if isinstance(error, PermissionError) else "check its name"
    return UserError(f"{path} cannot be read: {error.strerror}", hint)


def _pixels(raw: Pillow.Image, path: object) -> tuple[NDArray[np.float32], str, int]:
    """Return values 0..1 of shape (height, width, 1 or 3), the storage mode and its bits."""
    mode = raw.mode
    raw.load()
    upright = ImageOps.exif_transpose(raw)
    if mode.startswith(("I", "F")):
        values, bits = _deep(upright, path)
        return values[:, :, None], mode, bits
    if "transparency" in raw.info and mode in ("P", "L", "RGB", "1"):
        upright = upright.convert("RGBA")
    if upright.mode in ("LA", "La", "RGBA", "RGBa", "PA"):
        values = np.asarray(upright.convert("RGBA"), dtype=np.float32) / np.float32(255)
        return without_alpha(values), mode, 8
    flat = upright.convert("L" if upright.mode in ("L", "1") else "RGB")
    values = np.asarray(flat, dtype=np.float32)
    values /= 255
    return np.atleast_3d(values), mode, 1 if mode == "1" else 8


def without_alpha(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Composite over black: (height, width, 4) -> (height, width, 3); others stay as they are."""
    return values[:, :, :3] * values[:, :, 3:] if values.shape[2] == 4 else values


def _deep(upright: Pillow.Image, path: object) -> tuple[NDArray[np.float32], int]:
    """Return grey values 0..1 of integers over 8 bits (read as 16-bit) or floating point."""
    raw = np.asarray(upright)
    if not np.isfinite(raw).all():
        raise UserError(f"{path} holds values that are not numbers", "export it again")
    largest, bits = (1.0, 32) if upright.mode == "F" else (65535.0, 16)
    if raw.min() < 0 or raw.max() > largest:
        raise UserError(
            f"{path} holds values from {raw.min():g} to {raw.max():g}, expected 0 to {largest:g}",
            "export it as 8-bit or 16-bit grey",
        )
    return (raw / np.float32(largest)).astype(np.float32), bits


def grey_if_equal(values: NDArray[np.float32]) -> Image:
    """Drop the copies of a channel: many cameras store grey pictures as RGB."""
    if values.shape[2] == 1:
        return np.ascontiguousarray(values)
    first = values[:, :, :1]
    if np.array_equal(first, values[:, :, 1:2]) and np.array_equal(first, values[:, :, 2:]):
        return np.ascontiguousarray(first)
    return np.ascontiguousarray(values)
