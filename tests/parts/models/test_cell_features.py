"""Hand-made contrast: what raises which feature, tiles, exposure."""

import numpy as np
import pytest
import torch

from lineside.parts.models.feature_head import cell_features
from lineside.parts.models.feature_head.cell_features import CONTRASTS, cell_contrast


def flat(height=64, width=80, level=0.5):
    return np.full((height, width, 1), level, np.float32)


def test_a_flat_picture_has_no_contrast_but_its_brightness():
    found = cell_contrast(flat())
    assert found.shape == (8, 10, CONTRASTS)
    torch.testing.assert_close(found[..., 0], torch.full((8, 10), np.log(0.5 + 8 / 255)).float())
    torch.testing.assert_close(found[..., 1:-1], torch.zeros(8, 10, CONTRASTS - 2))
    torch.testing.assert_close(found[..., -1], torch.full((8, 10), np.log(1e-6)).float())


def test_a_ragged_border_gets_cells_of_its_own():
    assert cell_contrast(flat(61, 74)).shape == (8, 10, CONTRASTS)
    assert cell_contrast(flat(9, 3)).shape == (2, 1, CONTRASTS)


def test_a_dark_spot_shows_in_its_cell_only_as_dark():
    image = flat()
    image[35:38, 43:46] = 0.2
    found = cell_contrast(image)
    dark, bright = found[..., 3], found[..., 2]
    assert divmod(int(dark.argmax()), dark.shape[1]) == (4, 5)
    assert dark.max() > 3 * bright.max()


@pytest.mark.parametrize("upright", [True, False])
def test_lines_are_told_by_direction(upright):
    image = flat(64, 64)
    if upright:
        image[:, 30:32] = 0.8
    else:
        image[30:32] = 0.8
    found = cell_contrast(image)
    columns, rows = found[..., 4:6].abs().max(), found[..., 6:8].abs().max()
    assert (columns > 10 * rows) if upright else (rows > 10 * columns)


def test_a_step_edge_shows_its_sign_and_direction():
    image = flat(64, 64, 0.3)
    image[32:] = 0.6
    down, up, right, left = cell_contrast(image)[..., 20:24].amax((0, 1))
    assert down > 0.5
    assert max(up, right, left) < 0.05


def test_exposure_is_an_offset():
    rng = np.random.default_rng(0)
    image = (0.5 + 0.2 * rng.random((64, 64, 1))).astype(np.float32)
    one, two = cell_contrast(image), cell_contrast(image * 0.8)
    assert (one[..., 0] - two[..., 0]).mean() == pytest.approx(-np.log(0.8), abs=0.03)
    torch.testing.assert_close(one[..., 2:20], two[..., 2:20], atol=0.02, rtol=0.1)


@pytest.mark.parametrize(("axis", "dilation"), [(2, 1), (3, 1), (2, 3), (3, 2)])
def test_sums_of_shifted_images_are_convolutions(axis, dilation):
    x, taps = torch.rand(1, 1, 20, 30), torch.tensor([0.1, 0.5, -0.2])
    kernel = taps.view((1, 1, 3, 1) if axis == 2 else (1, 1, 1, 3))
    steps = (dilation, 1) if axis == 2 else (1, dilation)
    expected = torch.nn.functional.conv2d(x, kernel, dilation=steps)
    found = cell_features._sum_shifted(x, taps.tolist(), axis, dilation)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("size", [2, 8])
def test_the_strongest_of_either_sign_is_kept_of_each_square(size):
    x = torch.randn(1, 1, 24, 40)
    high, low = cell_features._strongest(x, size)
    pool = torch.nn.functional.max_pool2d
    assert torch.equal(high, pool(x, size)) and torch.equal(low, pool(-x, size))


def test_tiles_give_what_the_whole_gives(monkeypatch):
    rng = np.random.default_rng(0)
    image = rng.random((200, 330, 3)).astype(np.float32)
    whole = cell_contrast(image)
    monkeypatch.setattr(cell_features, "TILE_CELLS", 10)
    torch.testing.assert_close(cell_contrast(image), whole, atol=1e-5, rtol=1e-4)
