"""Findings: regions of a map, and the size of a defect where the picture shows it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from lineside.parts.calibration import MapScale
from lineside.parts.explain.explanation import sentence
from lineside.parts.explain.findings import _interpolate, _pieces, findings
from lineside.parts.explain.overlays import overlay
from lineside.parts.metrics import to_pixels


def grey(height: int, width: int, value: float = 0.5) -> np.ndarray:
    return np.full((height, width, 1), value, dtype=np.float32)


def test_regions_at_pixel_resolution_by_hand():
    cells = np.zeros((12, 20), dtype=np.float32)  # one cell per pixel: nothing is interpolated
    cells[2:4, 3:8] = 2.0
    cells[3, 5] = 5.0
    cells[4, 8] = 2.0  # touches at a corner
    cells[10, 19] = 3.0
    first, second = findings(cells, grey(12, 20), 2.0, px_per_mm=2.0)
    assert first.peak == 5.0
    assert first.region_px == 11
    assert first.box == (3, 2, 9, 5)
    assert first.centroid == pytest.approx(((2 * (3 + 4 + 5 + 6 + 7) + 8) / 11, (5 * 5 + 4) / 11))
    assert second.region_px == 1  # no region is too small
    assert second.box == (19, 10, 20, 11)
    assert json.loads(json.dumps(dataclasses.asdict(first)))["box"] == [3, 2, 9, 5]


def test_a_coarse_map_is_read_between_cell_centres():
    cells = np.zeros((4, 6), dtype=np.float32)
    cells[1, 2] = 4.0
    (found,) = findings(cells, grey(32, 48), 2.0)
    # bilinear: v(dx) v(dy) 4 >= 2 with v = 1 - |d| / 8 and pixel centres at odd halves
    half = (np.arange(16) - 7.5) / 8
    weight = np.maximum(1 - np.abs(half), 0)
    assert found.region_px == int((4 * np.outer(weight, weight) >= 2).sum())
    assert found.centroid == pytest.approx((2 * 8 + 3.5, 1 * 8 + 3.5), abs=0.05)


def test_no_cell_above_the_threshold_is_lost():
    cells = np.zeros((5, 5), dtype=np.float32)
    cells[2, 3] = 1.0
    assert to_pixels(cells, (40, 40)).max() < 1.0  # the middle of a cell lies between pixels
    (found,) = findings(cells, grey(40, 40), 1.0)
    assert found.peak == 1.0
    fine = np.zeros((300, 300), dtype=np.float32)
    fine[151, 37] = 1.0  # finer than the pixels
    (found,) = findings(fine, grey(50, 50), 1.0)
    assert found.box[:2] == (37 // 6, 151 // 6)
    assert findings(cells, grey(40, 40), 1.01) == []


def test_values_that_are_no_numbers_are_no_finding():
    cells = np.zeros((4, 4), dtype=np.float32)
    cells[0, 0] = np.nan
    assert findings(cells, grey(16, 16), 1.0) == []
    scale = MapScale(low=0.0, threshold=1.0, high=2.0)
    assert overlay(grey(16, 16), cells, scale).shape == (16, 16, 3)


# ---- the size of the defect in a region


def picture(rng, kind: str, radius: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """A lit, noisy surface with a defect: a dark hole, a coloured spot, or a soft shading."""
    rows, columns = np.indices((128, 160))
    shades = 0.4 + 0.001 * rows + 0.0006 * columns
    image = np.repeat((shades + rng.normal(0, 0.01, shades.shape))[..., None], 3, axis=2)
    distance = np.hypot(rows - 61, columns - 83)
    if kind == "hole":
        image[distance <= radius] -= 0.25
    if kind == "colour":  # as bright as the surface
        image[distance <= radius] += (0.2, -0.1, -0.1)
    if kind == "shading":
        image += 0.05 * np.exp(-((distance / 40) ** 2))[..., None]
    return image.clip(0, 1).astype(np.float32), distance <= radius


@pytest.mark.adversary("d")
@pytest.mark.parametrize("kind", ["hole", "colour"])
@pytest.mark.parametrize("radius", [2.5, 3.5, 9.0])
def test_a_size_is_that_of_the_defect_not_of_the_coarse_region(kind, radius):
    rng = np.random.default_rng(0)
    image, mask = picture(rng, kind, radius)
    cells = np.zeros((16, 20), dtype=np.float32)
    reach = 1 if radius < 6 else 2
    cells[8 - reach : 7 + reach, 11 - reach : 10 + reach] = 3.0  # 8 or 24 px and a margin
    (found,) = findings(cells, image, 1.0, px_per_mm=4.0)
    assert found.region_px > 2 * mask.sum()
    assert 0.5 <= found.area_px / mask.sum() <= 2
    assert found.area_mm2 == pytest.approx(found.area_px / 16)
    assert found.length_mm == pytest.approx(2 * radius * np.sqrt(2) / 4, rel=0.35)
    said = sentence("a.png", "reject", 2.0, 1.0, [dataclasses.replace(found, area_mm2=None)])
    assert f"of {found.area_px} px" in said and "about" not in said


@pytest.mark.adversary("d")
@pytest.mark.parametrize("kind", ["shading", "nothing", "too large"])
def test_no_size_is_stated_where_the_outline_is_not_to_be_seen(kind):
    rng = np.random.default_rng(0)
    large = {"hole": 30.0}
    image, _ = picture(rng, "hole" if kind == "too large" else kind, large["hole"])
    cells = np.zeros((16, 20), dtype=np.float32)
    cells[6:9, 9:12] = 3.0
    (found,) = findings(cells, image, 1.0, px_per_mm=4.0)
    assert found.area_px is None and found.area_mm2 is None and found.length_mm is None
    said = sentence("a.png", "reject", 2.0, 1.0, [found])
    assert f"region of about {found.region_px} px" in said


def test_a_region_is_continued_as_a_smooth_surface_whatever_its_shape():
    rows, columns = np.indices((40, 50)).astype(float)
    surface = np.stack([rows * columns, rows**2 - columns**2])  # both solve Laplace's equation
    wide, frame = np.zeros((2, 40, 50), dtype=bool)
    wide[12:16, 3:45] = True
    wide[14:17, 44:] = True  # reaches the border of the picture, where nothing is known beyond
    frame[5:35, 10:30] = True
    frame[9:30, 14:26] = False  # the inside is known
    for region in (wide & (columns < 50 - 1), frame):
        for values, mask in ((surface, region), (surface.swapaxes(1, 2), region.T)):
            holes = np.where(mask, 0.0, values)
            np.testing.assert_allclose(_interpolate(holes, mask), values, atol=1e-8)


def test_a_region_at_the_border_of_the_picture_is_continued_without_what_lies_beyond():
    values = np.array([[[0.0, 1.0, 4.0], [0.0, 2.0, 5.0]]])
    mask = np.array([[True, False, False], [True, False, False]])
    # 2 a = 1 + b and 2 b = 2 + a: each is the mean of the two neighbours that it has
    np.testing.assert_allclose(_interpolate(values, mask)[0, :, 0], [4 / 3, 5 / 3])


def test_pieces_are_those_of_each_level_alone():
    z = np.array([[0, 9, 2, 5, 0], [0, 3, 0, 5, 0], [7, 0, 0, 0, 4]], dtype=float)
    pieces = _pieces(z, np.array([1.0, 2.5, 4.0]))
    assert pieces.sum((1, 2)).tolist() == [7, 3, 1]
    assert pieces[1, [0, 1, 2], [1, 1, 0]].all()  # corners connect
