"""Pages as grey images, from pictures, TIFFs of many pages and PDFs."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pypdfium2
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lineside.core.contract import Source
from lineside.core.errors import UserError
from lineside.core.run.files import check_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".pgm", ".ppm", ".pdf")
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM")
PDF_DPI = 300
LARGEST_BYTES = 2 * 2**30
LARGEST_PIXELS = 12_000 * 12_000
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


def page_count(path: Path) -> int:
    """Return how many pages a file has.

    Raises:
        UserError: if it cannot be read.
    """
    with _readable(path):
        if path.suffix.lower() == ".pdf":
            with pypdfium2.PdfDocument(path) as document:
                return len(document)
        with Image.open(path, formats=FORMATS) as image:
            return int(getattr(image, "n_frames", 1))


def read_grey(source: Source) -> NDArray[np.uint8]:
    """Return a page, shape (height, width), 0 black; EXIF rotation is applied, paper is white.

    Args:
        source: A file; the locator is the number of its page from 1, empty for the first.

    Raises:
        UserError: if it cannot be read, or has no such page.
    """
    number = int(source.locator or 1) - 1
    with _readable(source.path):
        if source.path.suffix.lower() == ".pdf":
            with pypdfium2.PdfDocument(source.path) as document:
                _check_size([PDF_DPI / 72 * side for side in document.get_page_size(number)])
                bitmap = document[number].render(scale=PDF_DPI / 72, grayscale=True)
                return np.array(bitmap.to_numpy()).reshape(bitmap.height, bitmap.width)
        with Image.open(source.path, formats=FORMATS) as image:
            image.seek(number)
            _check_size(image.size)
            return _grey(ImageOps.exif_transpose(image))


def _grey(image: Image.Image) -> NDArray[np.uint8]:
    """Convert any mode; what is transparent is paper, 16 bits become 8."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, np.float64)
        top = 65535.0 if values.max(initial=0.0) > 255 else 255.0
        return np.clip(values * 255.0 / top, 0, 255).astype(np.uint8)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        ink = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", ink.size, "white"), ink)
    return np.asarray(image.convert("L"))


def _check_size(size: list[float] | tuple[int, int]) -> None:
    width, height = size
    if width * height > LARGEST_PIXELS:
        raise UserError(
            f"a page of {width:.0f} x {height:.0f} pixels is too large", "scan it at 300 dpi"
        )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what decoders raise on a damaged file into one clear line."""
    try:
        check_file(path, LARGEST_BYTES, "page")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist", "check the name") from error
    except UnidentifiedImageError as error:
        hint = f"readable are {' '.join(SUFFIXES)}"
        raise UserError(f"{path} is no picture that can be read", hint) from error
    except pypdfium2.PdfiumError as error:
        hint = "is it damaged, or protected by a password?"
        raise UserError(f"{path} cannot be read as a PDF: {error}", hint) from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} has too many pixels", "scan it at 300 dpi") from error
    except DAMAGE as error:
        raise UserError(f"{path} cannot be read: {error}", "is the file damaged?") from error
