from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from lineside.core.errors import UserError
from lineside.parts.audit.survey import measure_mask
from lineside.parts.data.images import mask_of, read_mask
from lineside.parts.data.items import PartImage

SHAPE = (40, 60)
DEFECT = np.zeros(SHAPE, bool)
DEFECT[10:20, 30:45] = True


def save(path: Path, values: np.ndarray, mode: str | None = None) -> Path:
    picture = Pillow.fromarray(values)
    (picture.convert(mode) if mode else picture).save(path)
    return path


def of_levels(*levels: int, dtype: type = np.uint8) -> np.ndarray:
    """The background at the first level, the defect in equal strips of the others."""
    values = np.full(SHAPE, levels[0], dtype)
    strip = 15 // len(levels[1:])
    for place, level in enumerate(levels[1:]):
        last = 45 if level == levels[-1] else 30 + (place + 1) * strip
        values[10:20, 30 + place * strip : last] = level
    return values


def palette(path: Path, indices: np.ndarray, *colours: tuple[int, int, int]) -> Path:
    picture = Pillow.fromarray(indices)
    picture = picture.convert("P")
    picture.putdata(indices.ravel().tolist())
    picture.putpalette([value for colour in colours for value in colour])
    picture.save(path)
    return path


@pytest.mark.adversary("q")
@pytest.mark.parametrize(
    "levels", [(0, 1), (0, 255), (0, 100), (0, 1, 2, 3), (0, 128, 255), (0, 5, 9, 21)]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_zero_is_background_where_few_levels_say_so(tmp_path, levels, dtype):
    if dtype is np.uint16 and levels[-1] == 255 and len(levels) == 3:
        levels = (0, 128 * 257, 65535)
    path = save(tmp_path / "m.png", of_levels(*levels, dtype=dtype))
    np.testing.assert_array_equal(read_mask(path, SHAPE), DEFECT)
    assert measure_mask(path, SHAPE).area_px == DEFECT.sum()


@pytest.mark.adversary("q")
def test_classes_in_colour_are_defects_on_black(tmp_path):
    values = np.zeros((*SHAPE, 3), np.uint8)
    values[10:20, 30:38], values[10:20, 38:45] = (64, 0, 0), (0, 20, 128)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "m.png", values), SHAPE), DEFECT)


@pytest.mark.adversary("q")
@pytest.mark.parametrize(
    "colours",
    [((0, 0, 0), (64, 0, 0), (0, 64, 0)), ((0, 0, 0), (1, 1, 1), (2, 2, 2)),
     ((90, 10, 90), (64, 0, 0), (0, 64, 0))],
)  # fmt: skip
def test_palettes(tmp_path, colours):
    path = palette(tmp_path / "m.png", of_levels(0, 1, 2), *colours)
    np.testing.assert_array_equal(read_mask(path, SHAPE), DEFECT)


@pytest.mark.adversary("q")
def test_a_palette_that_has_black_last_still_has_it_as_background(tmp_path):
    path = palette(tmp_path / "m.png", of_levels(2, 1, 0), (200, 0, 0), (0, 90, 0), (0, 0, 0))
    np.testing.assert_array_equal(read_mask(path, SHAPE), DEFECT)


def coloured(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.array(colours, np.uint8)[of_levels(*range(len(colours)))]


@pytest.mark.adversary("q")
@pytest.mark.parametrize(
    ("values", "says"),
    [
        (of_levels(0, 1, 255), "holds 0, 1 and 255: which one is the defect"),
        (of_levels(0, 1, 2, 3, 4, 255), r"0, 1, 2, 3 \.\.\. 4 and 255"),
        (of_levels(1, 2), "holds only 1, 2: neither 0"),
        (coloured((90, 0, 90), (0, 0, 99)), "2 colours and none is black"),
    ],
)
def test_what_is_not_clear_is_refused_with_the_reason(tmp_path, values, says):
    path = save(tmp_path / "m.png", values)
    with pytest.raises(UserError, match=says):
        read_mask(path, SHAPE)
    assert (
        "which" in measure_mask(path, SHAPE).error or "neither" in measure_mask(path, SHAPE).error
    )


def test_many_levels_are_grey_edges_and_127_divides_them(tmp_path):
    values = np.tile(np.arange(60, dtype=np.uint8) * 4, (40, 1))
    mask = read_mask(save(tmp_path / "m.png", values), SHAPE)
    np.testing.assert_array_equal(mask, values > 127)
    dark = save(tmp_path / "d.png", (values // 2).astype(np.uint8))
    assert not read_mask(dark, SHAPE).any()


@pytest.mark.adversary("f")
@pytest.mark.parametrize(
    "mask", [~DEFECT, np.ones(SHAPE, bool), np.pad(np.zeros((20, 40), bool), 10, constant_values=1)]
)
def test_an_inverted_mask_is_no_place_and_the_audit_sees_it(tmp_path, mask):
    picture = save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, SHAPE, np.uint8))
    path = save(tmp_path / "m.png", np.where(mask, 255, 0).astype(np.uint8))
    item = PartImage(id="a", path=picture, label="crack", part="a", mask=path)
    assert mask_of(item) is None and measure_mask(path, SHAPE).inverted
    path.unlink()
    with pytest.raises(UserError, match="does not exist"):
        mask_of(item)


def test_a_large_defect_is_not_inverted(tmp_path):
    mask = np.zeros(SHAPE, bool)
    mask[:, :45] = True  # three quarters of the picture, and of its border
    path = save(tmp_path / "m.png", np.where(mask, 255, 0).astype(np.uint8))
    assert not measure_mask(path, SHAPE).inverted and read_mask(path, SHAPE).mean() == 0.75
