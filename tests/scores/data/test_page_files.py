"""Pages of pictures and PDFs, of every mode, and damaged ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lineside.core.contract import Source
from lineside.core.errors import UserError
from lineside.scores.data.page_files import page_count, read_grey

PAGE = np.full((40, 60), 255, np.uint8)
PAGE[10:20, 5:50] = 0


def read(path: Path, locator: str = "") -> np.ndarray:
    return read_grey(Source(path, locator))


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "RGBA", "P", "CMYK", "I;16", "LA"])
def test_every_mode_is_ink_on_paper(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("page.tif" if mode == "CMYK" else "page.png")
    if mode == "I;16":
        Image.fromarray(PAGE.astype(np.uint16) * 257).save(path)
    elif mode in ("RGBA", "LA"):  # transparent paper
        ink = np.zeros((*PAGE.shape, 2), np.uint8)
        ink[..., 1] = 255 - PAGE
        Image.fromarray(ink, "LA").convert(mode).save(path)
    else:
        Image.fromarray(PAGE).convert(mode).save(path)
    assert np.abs(read(path).astype(int) - PAGE).max() <= 2


def test_pages_of_one_file(tmp_path: Path) -> None:
    frames = [Image.fromarray(PAGE), Image.fromarray(255 - PAGE)]
    for name in ("pages.tif", "pages.pdf"):
        path = tmp_path / name
        frames[0].save(path, save_all=True, append_images=frames[1:], resolution=300)
        assert page_count(path) == 2
        assert np.abs(read(path, "2")[:40, :60].astype(int) - (255 - PAGE)).mean() < 8
        assert np.abs(read(path)[:40, :60].astype(int) - PAGE).mean() < 8
        with pytest.raises(UserError, match="cannot be read"):
            read(path, "3")


def test_a_rotated_photo_is_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    Image.fromarray(PAGE).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    assert read(tmp_path / "photo.jpg").shape == (60, 40)


@pytest.mark.parametrize("name", ["page.png", "page.tif", "page.pdf", "page.jpg"])
@pytest.mark.parametrize("content", [b"", b"no page", b"%PDF-1.4 no page", b"\x89PNG\r\n\x1a\n"])
def test_a_damaged_file_is_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for what in (page_count, read):
        with pytest.raises(UserError) as caught:
            what(path)
        assert str(path) in str(caught.value)
    with pytest.raises(UserError):
        read(tmp_path / "absent.png")


def test_a_cut_picture_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="cannot be read"):
        read(path)
