"""Figures of a patch CNN's features, on a small network of random and of planted weights."""

import io

import numpy as np
import pytest
from PIL import Image

from lineside.parts.explain import learned_features as features
from lineside.parts.models.crops import CropPool
from lineside.parts.models.patch_cnn import vgg as networks
from lineside.parts.models.patch_cnn.patch_cnn import PatchCNN, build_network


def crops(channels=1, side=32):
    """Grey noise; a quarter of the crops has a bright square."""
    rng = np.random.default_rng(0)
    pixels = (0.4 + 0.05 * rng.standard_normal((60, channels, side, side))).astype(np.float16)
    pixels[:15, :, 10:20, 10:20] += 0.4
    return CropPool(
        pixels=pixels.clip(0, 1),
        part=np.array([f"part-{i % 12}" for i in range(60)]),
        source=np.array([f"{i}.png" for i in range(60)]),
        good=np.arange(15, 60),
        defect=tuple(np.array([i, i + 5, i + 10]) for i in range(5)),
        bags=(),
    )


def network(channels=1, side=32):
    net = build_network("vgg19_eighth", channels)
    networks.initialise(net, 0)
    return PatchCNN(
        network=net.eval(), architecture="vgg19_eighth", crop_px=side, channels=channels,
        mean=0.45, spread=0.15,
    )  # fmt: skip


@pytest.fixture(scope="module")
def looked_at():
    cnn = network()
    sample = features.crop_sample(crops(), np.random.default_rng(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "STEPS", 4)
        return cnn, sample, features.features(cnn, sample)


def test_sample_takes_turns_and_knows_defects():
    sample = features.crop_sample(crops(), np.random.default_rng(1))
    assert sample.crop_labels.sum() == 15 and len(sample.pixels) == 60
    bright = sample.pixels[:, 0, 12:18, 12:18].mean((1, 2)) > 0.6
    assert np.array_equal(bright, sample.crop_labels)
    assert sample.pixels.dtype == np.float32


def test_units_are_spread_and_checked(looked_at):
    cnn, sample, found = looked_at
    assert [f.unit.layer for f in found[-2:]] == ["", ""]
    assert [f.unit.sign for f in found[-2:]] == [1, -1]
    layers = [f.unit.layer for f in found[:8]]
    assert len(set(layers)) == 4 and layers[-1] == "blocks.4.10"
    assert all(f.picture.shape == (32, 32, 1) for f in found)
    assert all(f.picture.min() >= 0 and f.picture.max() <= 1 for f in found)
    logits = cnn.logits(sample.pixels)
    assert found[-2].percentile_99 == pytest.approx(np.quantile(logits, 0.99), rel=1e-3)
    assert found[-1].percentile_99 == pytest.approx(np.quantile(-logits, 0.99), rel=1e-3)
    reached = cnn.logits(found[-2].picture.transpose(2, 0, 1)[None]).item()
    assert found[-2].reached == pytest.approx(reached, rel=1e-3, abs=1e-5)
    crossed = cnn.logits(found[-1].untrained_picture.transpose(2, 0, 1)[None]).item()
    assert found[-1].untrained_reached == pytest.approx(-crossed, rel=1e-3, abs=1e-5)
    assert all(len(set(sample.part[f.nearest].tolist())) == 9 for f in found)


def test_channels_tell_defects_from_good(looked_at):
    cnn, sample, found = looked_at
    for low, high in zip(found[0:8:2], found[1:8:2], strict=True):
        rise = features.roc_auc_by_column(
            sample.crop_labels > 0,
            features._answers(cnn, cnn.network, [low.unit, high.unit], sample.pixels),
        )
        assert rise[0] < 0.5 < rise[1]
    values = np.array([[1.0, 4.0], [2.0, 3.0], [3.0, 2.0]])
    assert features.roc_auc_by_column(np.array([False, True, True]), values).tolist() == [1, 0]
    assert features.roc_auc_by_column(np.zeros(3, bool), values).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("channels", [1, 3])
def test_figures(channels, monkeypatch):
    monkeypatch.setattr(features, "STEPS", 4)
    pool, rng = crops(channels), np.random.default_rng(2)
    figures = features.feature_figures(network(channels), pool, rng)
    assert len(figures) == 3 and len({figure.title for figure in figures}) == 3
    for figure in figures:
        picture = Image.open(io.BytesIO(figure.image))
        assert figure.mime == f"image/{picture.format.lower()}"
        assert picture.width > 300 and len(figure.image) < 250_000
    assert "8 of 8 filters" in figures[0].caption
    assert "99 %" in figures[1].caption and "32 x 32 pixels" in figures[1].caption
    assert "orange frame" in figures[2].caption and "60 training crops" in figures[2].caption
