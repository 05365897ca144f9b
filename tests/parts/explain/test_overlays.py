"""Pictures for people: regions with sizes, overlays on one scale, small files."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image as Pillow

from lineside.parts.calibration import MapScale
from lineside.parts.explain.findings import findings
from lineside.parts.explain.overlays import (
    CONTOUR,
    MASK_OUTLINE,
    as_rgb,
    colour_bar,
    contact_sheet,
    encode_jpeg,
    encode_png,
    heat_colours,
    overlay,
    side_by_side,
    signed_map,
    srgb,
    thumbnail,
)
from lineside.parts.metrics import to_pixels


def grey(height: int, width: int, value: float = 0.5) -> np.ndarray:
    return np.full((height, width, 1), value, dtype=np.float32)


def scale(threshold: float, high: float, low: float = 0.0) -> MapScale:
    return MapScale(low=low, threshold=threshold, high=high)


def where(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (picture == np.array(colour)).all(axis=2)


# ---- overlay


def test_overlay_marks_map_contour_and_mask():
    cells = np.zeros((8, 8), dtype=np.float32)
    cells[3:5, 3:5] = 2.0
    mask = np.zeros((64, 64), dtype=bool)
    mask[50:56, 50:56] = True
    shown = overlay(grey(64, 64), cells, scale(1.0, 2.0), mask)
    assert shown.shape == (64, 64, 3)
    assert shown.dtype == np.uint8
    assert (shown[5, 5] == 128).all()  # no evidence: the picture itself
    middle = shown[32, 32].astype(int)
    assert np.ptp(middle) > 60  # coloured
    assert where(shown, CONTOUR).any()
    assert where(shown, MASK_OUTLINE).sum() == 8 * 8 - 6 * 6
    region = to_pixels(cells, (64, 64)) >= 1.0
    assert not where(shown, CONTOUR)[region].any()  # drawn round the finding, not over it


def test_the_scale_is_the_callers_not_the_pictures():
    cells = np.full((4, 4), 1.0, dtype=np.float32)
    weak = overlay(grey(32, 32), cells, scale(50.0, 100.0))
    strong = overlay(grey(32, 32), cells, scale(50.0, 1.0))
    assert np.abs(weak.astype(int) - 128).max() <= 2
    assert np.abs(strong.astype(int) - 128).max() > 60
    nothing = overlay(grey(32, 32), cells, scale(50.0, 100.0, 1.0))
    assert (nothing == 128).all()
    # a good part beside a faulty one looks the same as alone
    assert (overlay(grey(32, 32), cells * 0, scale(1.0, 1.0)) == 128).all()


def test_huge_and_elongated_pictures_are_reduced_and_lose_no_defect():
    start = time.perf_counter()
    picture = np.broadcast_to(np.float32(0.4), (4096, 1024, 1))
    cells = np.zeros((512, 128), dtype=np.float32)
    cells[300, 60] = 9.0
    mask = np.zeros((4096, 1024), dtype=bool)
    mask[100, 200] = True
    shown = overlay(picture, cells, scale(8.9, 10.0), mask)
    assert shown.shape == (512, 128, 3)
    rows, columns = np.nonzero(where(shown, CONTOUR))
    assert rows.mean() == pytest.approx(300, abs=1.5)
    assert columns.mean() == pytest.approx(60, abs=1.5)
    assert where(shown, MASK_OUTLINE).sum() == 8
    (found,) = findings(cells, picture, 8.9)
    assert found.centroid == pytest.approx((60 * 8 + 3.5, 300 * 8 + 3.5), abs=1)
    assert time.perf_counter() - start < 5
    thin = overlay(np.zeros((16, 4000, 1), np.float32), np.zeros((2, 500), np.float32), scale(1, 2))
    assert thin.shape == (2, 512, 3)


def test_colours_get_evenly_lighter():
    colours = heat_colours()
    assert colours.shape == (256, 3)
    linear = (colours / 255) ** 2.2
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) > -1e-3).all()
    assert luminance[0] < 0.12
    assert luminance[-1] > 0.6
    assert srgb(1.0, 0.0, 0.0) == pytest.approx([255, 255, 255], abs=0.5)  # Oklab's white
    assert srgb(0.62796, 0.25768, 29.234) == pytest.approx([255, 0, 0], abs=1)  # sRGB's red


def test_colour_bar_shows_its_numbers():
    bar = colour_bar(scale(1.5, 3.0, 0.25), width_px=300)
    assert bar.shape[1:] == (300, 3)
    assert (bar != colour_bar(scale(2.5, 3.0, 0.25), width_px=300)).any()


# ---- signed maps


def test_signed_map_is_orange_for_and_blue_against():
    values = np.zeros((20, 30))
    values[5, 5], values[15, 20] = 2.0, -2.0
    shown = signed_map(values, scale=2.0).astype(int)
    assert shown[5, 5, 0] > shown[5, 5, 2] + 80
    assert shown[15, 20, 2] > shown[15, 20, 0] + 80
    assert np.ptp(shown[0, 0]) == 0
    over = signed_map(values[::5, ::5], grey(200, 300), longest_px=150)
    assert over.shape == (100, 150, 3)
    assert (signed_map(np.zeros((4, 4))) == signed_map(np.zeros((4, 4)))[0, 0]).all()
    half = signed_map(values, scale=4.0).astype(int)
    assert shown[5, 5, 0] - shown[5, 5, 2] > half[5, 5, 0] - half[5, 5, 2] > 30


# ---- sheets and files


def test_thumbnail_keeps_the_aspect_and_never_enlarges():
    assert thumbnail(grey(400, 100), 160).shape == (160, 40, 3)
    assert thumbnail(grey(20, 30), 160).shape == (20, 30, 3)
    ramp = np.linspace(0, 1, 640, dtype=np.float32).reshape(1, 640, 1).repeat(64, axis=0)
    assert thumbnail(ramp, 64).mean() == pytest.approx(127.5, abs=1)  # area average


def test_side_by_side_and_contact_sheet():
    row = side_by_side([as_rgb(grey(10, 20, 0)), as_rgb(grey(30, 5, 1))], gap_px=4)
    assert row.shape == (30, 29, 3)
    assert (row[10:20, :20] == 0).all()
    assert (row[:, 24:] == 255).all()
    sheet = contact_sheet(
        [grey(100, 50, 0)] * 5, ["part"] * 4 + ["x" * 200], columns=3, cell_px=50, gap_px=8
    )
    assert sheet.shape == (2 * 74 + 8, 3 * 58 + 8, 3)
    assert (sheet[8:58, 20:45] == 0).all()
    assert (sheet[-76:, -58:] > 200).all()  # the sixth cell is empty
    with pytest.raises(ValueError, match="2 pictures with 1 captions"):
        contact_sheet([grey(9, 9)] * 2, ["one"])
    with pytest.raises(ValueError, match="0 pictures"):
        contact_sheet([])


def test_files_decode_to_the_same_picture_and_are_small():
    rng = np.random.default_rng(0)
    coarse = rng.random((8, 8, 3)).astype(np.float32)
    picture = as_rgb(np.stack([to_pixels(c, (256, 256)) for c in coarse.transpose(2, 0, 1)], 2))
    lossless = np.asarray(Pillow.open(io.BytesIO(encode_png(picture))))
    assert (lossless == picture).all()
    jpeg = encode_jpeg(picture)
    assert len(jpeg) < 30_000
    error = np.asarray(Pillow.open(io.BytesIO(jpeg))).astype(int) - picture
    assert np.abs(error).mean() < 4
    assert Pillow.open(io.BytesIO(encode_png(grey(9, 9)))).mode == "L"
    assert len(encode_png(np.eye(256, dtype=bool))) < 3000


def test_as_rgb_says_what_it_needs():
    assert as_rgb(np.array([[0.0, 1.0, 2.0]])).tolist() == [[[0] * 3, [255] * 3, [255] * 3]]
    assert as_rgb(np.array([[True]])).tolist() == [[[255] * 3]]
    with pytest.raises(ValueError, match="shape"):
        as_rgb(np.zeros((2, 2, 4)))
    with pytest.raises(ValueError, match="int64"):
        as_rgb(np.zeros((2, 2), dtype=np.int64))
