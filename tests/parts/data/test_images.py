from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from lineside.core.errors import UserError
from lineside.parts.data.images import (
    boxes_mask,
    decode,
    digest,
    mask_of,
    read_mask,
    read_picture,
    size_of,
    training_image,
)
from lineside.parts.data.items import Box, PartImage


@pytest.fixture
def grey() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)


@pytest.fixture
def colour() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def save(array: np.ndarray, path: Path, mode: str | None = None, **options) -> Path:
    picture = Pillow.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".pgm"])
def test_grey_is_lossless(tmp_path, grey, suffix):
    image = decode(save(grey, tmp_path / f"a{suffix}"))
    assert image.dtype == np.float32 and image.shape == (40, 60, 1)
    np.testing.assert_allclose(image[:, :, 0], grey / 255, atol=1e-7)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm"])
def test_colour_is_lossless(tmp_path, colour, suffix):
    image = decode(save(colour, tmp_path / f"a{suffix}"))
    np.testing.assert_allclose(image, colour / 255, atol=1e-7)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_formats_decode(tmp_path, suffix):
    ramp = np.repeat(np.arange(60, dtype=np.uint8)[None] * 4, 40, axis=0)
    image = decode(save(ramp, tmp_path / f"a{suffix}", quality=95))
    assert image.shape[:2] == (40, 60)
    assert np.abs(image - ramp[:, :, None] / 255).mean() < 0.02


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_divided_by_the_full_range(tmp_path, suffix):
    deep = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60)
    picture = read_picture(save(deep, tmp_path / f"a{suffix}"))
    assert picture.bits == 16
    np.testing.assert_allclose(picture.image[:, :, 0], deep / 65535, atol=1e-7)


def test_thirty_two_bit_integers_within_sixteen(tmp_path, grey):
    path = tmp_path / "a.tif"
    Pillow.fromarray(grey.astype(np.int32) * 257).save(path)
    np.testing.assert_allclose(decode(path)[:, :, 0], grey / 255, atol=1e-6)
    Pillow.fromarray(grey.astype(np.int32) * 1000).save(path)
    with pytest.raises(UserError, match="expected 0 to 65535"):
        decode(path)


def test_floating_point(tmp_path, grey):
    path = save((grey / 255).astype(np.float32), tmp_path / "a.tif")
    np.testing.assert_allclose(decode(path)[:, :, 0], grey / 255, atol=1e-6)
    save(np.full((20, 20), np.nan, np.float32), path)
    with pytest.raises(UserError, match="not numbers"):
        decode(path)


def test_one_bit_and_palette(tmp_path, grey, colour):
    bits = read_picture(save(grey > 127, tmp_path / "a.png"))
    assert bits.bits == 1
    np.testing.assert_array_equal(bits.image[:, :, 0], (grey > 127).astype(np.float32))
    path = save(colour, tmp_path / "p.png", "P")
    expected = np.asarray(Pillow.open(path).convert("RGB")) / 255
    np.testing.assert_allclose(decode(path), expected, atol=1e-6)


def test_opaque_alpha_changes_nothing_and_clear_is_black(tmp_path, grey, colour):
    alpha = np.full((40, 60, 1), 255, np.uint8)
    rgba = decode(save(np.concatenate([colour, alpha], axis=2), tmp_path / "a.png"))
    np.testing.assert_allclose(rgba, colour / 255, atol=1e-6)
    la = decode(save(np.stack([grey, np.full_like(grey, 51)], axis=2), tmp_path / "b.png"))
    assert la.shape == (40, 60, 1)
    np.testing.assert_allclose(la[:, :, 0], grey / 255 * 0.2, atol=1e-6)


def test_cmyk(tmp_path, colour):
    path = tmp_path / "a.tif"
    Pillow.fromarray(colour).convert("CMYK").save(path)
    assert decode(path).shape == (40, 60, 3)


def test_equal_channels_become_grey(tmp_path, grey):
    assert decode(save(np.stack([grey] * 3, axis=2), tmp_path / "a.png")).shape == (40, 60, 1)


def test_exif_rotation(tmp_path, grey):
    path = tmp_path / "a.png"
    exif = Pillow.Exif()
    exif[0x0112] = 6
    Pillow.fromarray(grey).save(path, exif=exif)
    assert decode(path).shape == (60, 40, 1)
    assert size_of(path) == (60, 40)
    np.testing.assert_allclose(decode(path)[:, :, 0], np.rot90(grey, -1) / 255, atol=1e-7)


def test_elongated_and_large(tmp_path):
    assert decode(save(np.zeros((16, 4000), np.uint8), tmp_path / "a.png")).shape == (16, 4000, 1)
    assert size_of(save(np.zeros((4096, 4096), np.uint8), tmp_path / "b.png")) == (4096, 4096)


def header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be huge."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    parts = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
             for c in (chunk, data, b"IEND")]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encoded(form: str) -> bytes:
    picture = Pillow.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
    stream = io.BytesIO()
    picture.save(stream, form)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "0 bytes"),
        (b"this is not a picture", "not a picture"),
        (header(50_000, 50_000), "too large"),
        (header(10_000, 8_000), "too large: 10000x8000"),
        (header(64, 64), "damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    ],
)
def test_bad_files_say_one_line(tmp_path, content, says, recwarn):
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        decode(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert not recwarn.list


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated(tmp_path, form, share):
    whole = encoded(form)
    path = tmp_path / "cut.img"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=r"damaged|not a picture"):
        decode(path)


def test_damaged_bytes_never_crash(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "noise.img"
    for form in ("PNG", "JPEG", "BMP", "TIFF", "WEBP"):
        for _ in range(30):
            content = bytearray(encoded(form))
            for place in rng.integers(0, len(content), 5):
                content[place] = int(rng.integers(256))
            path.write_bytes(bytes(content))
            try:
                image = decode(path)
            except UserError:
                continue
            assert np.isfinite(image).all()


def test_too_small_names_its_size(tmp_path):
    with pytest.raises(UserError, match="1x1"):
        decode(save(np.zeros((1, 1), np.uint8), tmp_path / "a.png"))


def test_missing_folder_and_permission(tmp_path, grey):
    with pytest.raises(UserError, match="does not exist"):
        decode(tmp_path / "none.png")
    with pytest.raises(UserError, match="folder"):
        decode(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        digest(tmp_path / "none.png")
    if os.geteuid() != 0:
        path = save(grey, tmp_path / "a.png")
        path.chmod(0)
        with pytest.raises(UserError, match="cannot be read"):
            decode(path)


def test_mask_threshold_and_size(tmp_path):
    values = np.zeros((40, 60), np.uint8)
    values[0, :3] = (127, 128, 255)
    mask = read_mask(save(values, tmp_path / "m.png"), (40, 60))
    assert mask.dtype == bool and mask[0, :3].tolist() == [False, True, True] and mask.sum() == 2
    with pytest.raises(UserError, match="60x40 pixels, its picture is 50x40"):
        read_mask(tmp_path / "m.png", (40, 50))


def test_red_mask_counts(tmp_path):
    values = np.zeros((40, 60, 3), np.uint8)
    values[5, 5, 0] = 255
    assert read_mask(save(values, tmp_path / "m.png"), (40, 60)).sum() == 1


def item(path: Path, label: str, **options) -> PartImage:
    return PartImage(id="a", path=path, label=label, part="p", **options)


def test_mask_of_knows_what_is_known(tmp_path, grey):
    path = save(grey, tmp_path / "a.png")
    empty = save(np.zeros((40, 60), np.uint8), tmp_path / "m.png")
    assert mask_of(item(path, "good", mask=empty), (40, 60)).sum() == 0
    assert mask_of(item(path, "crack", mask=empty), (40, 60)) is None
    assert mask_of(item(path, "crack"), (40, 60)) is None
    box = Box(left=1.5, top=2, right=3.5, bottom=4)
    assert mask_of(item(path, "crack", boxes=(box,)), (40, 60)).sum() == 3 * 2


def test_boxes_are_clipped():
    far = Box(left=-5, top=-5, right=500, bottom=1)
    assert boxes_mask((far,), (10, 20)).sum() == 20


def test_example_decodes_on_demand(tmp_path, grey):
    path = save(grey, tmp_path / "a.png")
    example = training_image(item(path, "crack", boxes=(Box(left=0, top=0, right=2, bottom=2),)))
    assert example.digest == digest(path) and example.part == "p" and example.faulty
    assert example.image().shape == (40, 60, 1)
    assert example.mask().sum() == 4 and example.mask().shape == (40, 60)
