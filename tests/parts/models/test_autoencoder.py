"""The rivals on the same patches: convolutional autoencoder, PCA of patches, and their patches."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from lineside.core.errors import UserError
from lineside.core.run.codec import decode, encode
from lineside.core.run.folder import Stopped
from lineside.parts.models.detector import TrainingImage
from lineside.parts.models.reconstruction import patch_pca, patch_scoring
from lineside.parts.models.reconstruction.autoencoder import (
    Autoencoder,
    ConvAutoencoder,
    fit_autoencoder,
    score_patches,
)
from lineside.parts.models.reconstruction.patch_pca import PatchPca, fit_patch_pca
from lineside.parts.models.reconstruction.patch_scoring import (
    Patches,
    example_patches,
    good_patches,
    score_tiles,
)


def picture(seed, dent=False, size=(104, 98)):
    noise = np.random.default_rng(seed)
    columns = np.linspace(0, 8, size[1])[None] + noise.uniform(0, 6)
    image = 0.5 + 0.2 * np.sin(columns) + noise.normal(0, 0.02, size)
    if dent:
        image[40:60, 40:60] -= 0.5
    return np.clip(image, 0, 1).astype(np.float32)[..., None]


def example(index, dent=False):
    mask = np.zeros((104, 98), bool)
    mask[40:60, 40:60] = True
    return TrainingImage(
        id=str(index), label="dent" if dent else "good", part=f"p{index}", digest="",
        image=lambda: picture(index, dent), mask=lambda: mask if dent else None,
    )  # fmt: skip


GOOD = [example(index) for index in range(8)]
TINY = {"steps": 6, "batch": 8, "width": 2, "latent": 4}


def fitted(**options):
    return fit_autoencoder(GOOD, [], rng=np.random.default_rng(0), **{**TINY, **options})


@pytest.mark.parametrize("patch_px", [32, 64])
def test_the_shape_comes_back(patch_px):
    network = ConvAutoencoder(patch_px=patch_px, width=2, latent=4)
    patches = torch.rand(3, 1, patch_px, patch_px)
    assert network(patches).shape == patches.shape
    assert network.encoder(patches).shape == (3, 4)
    with pytest.raises(UserError):
        ConvAutoencoder(patch_px=30, width=2, latent=4)


def test_it_overfits_eight_patches():
    torch.manual_seed(0)
    network = ConvAutoencoder(patch_px=32, width=4, latent=16)
    patches = good_patches(GOOD, Patches(), np.random.default_rng(0), per_image=1)
    adam = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(100):
        adam.zero_grad()
        loss = (network(patches) - patches).square().mean()
        loss.backward()
        adam.step()
    assert loss < 0.15 * (patches - patches.mean(0)).square().mean()


def test_it_reads_is_rebuilt_and_resumes(tmp_path):
    whole = fitted()
    prediction = whole.predict(picture(30))
    assert decode(Autoencoder, *encode(whole)).predict(picture(30)).score == prediction.score
    calls = [0]

    def stop():
        calls[0] += 1
        return calls[0] > 3

    with pytest.raises(Stopped):
        fitted(checkpoint=tmp_path, stop=stop)
    resumed = fitted(checkpoint=tmp_path)
    for name, value in encode(whole)[1].items():
        assert torch.equal(value, encode(resumed)[1][name]), name


def test_validation_parts_are_watched():
    rows = []
    fit_autoencoder(GOOD[:4], GOOD[4:], rng=np.random.default_rng(0), log=rows.append, **TINY)
    assert any("validation_loss" in row for row in rows)


def test_pca_agrees_with_scikit_learn():
    detector = fit_patch_pca(GOOD, [], rng=np.random.default_rng(0), components=5)
    pool = good_patches(GOOD, detector.scorer.patches, np.random.default_rng(0).spawn(2)[0])
    flat = pool.flatten(1).numpy()
    theirs = PCA(5, svd_solver="full").fit(flat)
    again = theirs.inverse_transform(theirs.transform(flat[:9]))
    scores, residual = patch_pca.score_patches(detector.mean, detector.components, pool[:9])
    np.testing.assert_allclose(residual.flatten(1).numpy(), flat[:9] - again, atol=1e-4)
    np.testing.assert_allclose(scores.numpy(), ((flat[:9] - again) ** 2).mean(1), rtol=1e-3)


def test_no_component_is_the_residual_against_the_mean_patch():
    detector = fit_patch_pca(GOOD, [], rng=np.random.default_rng(0), components=0)
    patches = torch.rand(3, 1, 32, 32)
    scores, _ = patch_pca.score_patches(detector.mean, detector.components, patches)
    expected = (patches.flatten(1) - detector.mean).square().mean(1)
    torch.testing.assert_close(scores, expected)
    again = decode(PatchPca, *encode(detector))
    assert again.predict(picture(9)).score == detector.predict(picture(9)).score


def test_a_dent_stands_out_in_score_and_map():
    detector = fit_patch_pca(GOOD, [], rng=np.random.default_rng(0), components=8)
    good, bad = detector.predict(picture(40)), detector.predict(picture(40, dent=True))
    assert bad.score > good.score + 3
    row, column = np.unravel_index(bad.map.argmax(), bad.map.shape)
    assert 36 <= (row + 0.5) * 3 <= 64 and 36 <= (column + 0.5) * 3 <= 64


def test_ground_is_reduced_centred_and_free_of_exposure():
    patches = Patches(reduce=2)
    image = picture(0)
    ground = patches.normalise(image)
    assert ground.shape == (52, 49)
    assert abs(np.median(ground)) < 1e-6 and np.abs(ground).max() <= 1
    np.testing.assert_allclose(patches.normalise(0.5 * image + 0.1), ground, atol=1e-4)
    assert np.all(patches.normalise(np.full((64, 64, 3), 0.3, np.float32)) == 0)


def test_good_patches_are_cut_from_good_pictures_within_memory(monkeypatch):
    pool = good_patches([*GOOD, example(9, dent=True)], Patches(), np.random.default_rng(0))
    assert pool.shape == (8 * 48, 1, 32, 32)
    monkeypatch.setattr(patch_scoring, "_POOL_BYTES", 8 * 3 * 4096)
    few = good_patches(GOOD, Patches(), np.random.default_rng(0))
    assert len(few) == 8 * 3
    with pytest.raises(UserError):
        good_patches([example(1, dent=True)], Patches(), np.random.default_rng(0))


def test_a_tile_is_judged_alone_and_the_map_covers_the_picture():
    ground = np.random.default_rng(0).uniform(-1, 1, (75, 110)).astype(np.float32)

    def judge(tiles):
        return tiles.square().mean((1, 2, 3)), tiles[:, 0]

    scores, residual = score_tiles(ground, judge, 32)
    np.testing.assert_allclose(residual, np.abs(ground), atol=1e-6)
    assert len(scores) > 20  # more than one batch or a part of one
    small = ground[:20, :25]
    scores, residual = score_tiles(small, judge, 32)
    assert scores.shape == (1,)
    np.testing.assert_allclose(residual, np.abs(small), atol=1e-6)


def test_a_residual_network_is_scored_by_its_residual():
    patches = torch.rand(4, 1, 8, 8)
    scores, residual = score_patches(torch.nn.Identity(), patches)
    assert scores.abs().sum() == 0 and residual.shape == (4, 8, 8)


def test_shown_patches_are_centred_on_the_defect():
    found, labels = example_patches([example(5, dent=True)], Patches(), np.random.default_rng(0), 3)
    assert labels == ["dent"] and found.shape == (1, 1, 32, 32)
    assert found[0, 0, 13:19, 13:19].mean() < found.mean() - 0.3
