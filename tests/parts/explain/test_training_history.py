"""Pictures of how a patch CNN learned, on a small training with kept weights."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from lineside.parts.explain.training_history import STAGES, gallery, past_of, training_figures
from lineside.parts.models.crops import crop_pool, fixed_batch
from lineside.parts.models.detector import TrainingImage
from lineside.parts.models.patch_cnn.patch_cnn import fit_patch_cnn


def example(number, faulty):
    rng = np.random.default_rng(number)
    image = rng.normal(0.5, 0.05, size=(48, 48, 1)).astype(np.float32).clip(0, 1)
    mask = np.zeros((48, 48), dtype=bool)
    if faulty:
        mask[20:28, 16:26] = True
        image[mask] = 0.95
    return TrainingImage(
        id=str(number), part=str(number), digest=str(number), label="spot" if faulty else "good",
        image=lambda: image, mask=lambda: mask if faulty else None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    examples = [example(n, n % 2 == 0) for n in range(20)]
    seen = []
    cnn = fit_patch_cnn(
        examples[:12], examples[12:], rng=np.random.default_rng(0), crop_px=32, steps=40,
        snapshots=folder, fitted=lambda cnn, data: seen.append(data),
    )  # fmt: skip
    return cnn, seen[0], folder


def test_past_is_in_order_and_ends_with_the_fitted_weights(fitted):
    cnn, _, folder = fitted
    past = past_of(cnn, folder, STAGES)
    steps = [step for step, _ in past]
    assert steps == sorted(steps) and steps[0] == 0 and steps[-1] == 40 and len(past) == STAGES
    last = past[-1][1].state_dict()
    for name, value in cnn.network.state_dict().items():
        assert torch.allclose(last[name], value, atol=5e-3)
    first = past[0][1].head.weight
    assert not torch.allclose(first, cnn.network.head.weight, atol=1e-3)


def test_figures_are_pictures_with_steps_and_trust_in_their_captions(fitted):
    cnn, data, folder = fitted
    figures = training_figures(cnn, data, folder, np.random.default_rng(0))
    titles = [figure.title for figure in figures]
    assert "Guided backprop while it learned" in titles and "Map of the embedding" in titles
    sheet = Image.open(io.BytesIO(figures[0].image))
    assert sheet.width > sheet.height / 3 and "random weights" in figures[0].caption
    assert "at step 0" in next(f for f in figures if "Map" in f.title).caption


def test_gallery_shows_as_many_crops_as_there_are(fitted):
    cnn, _, folder = fitted
    few = [example(n, n == 0) for n in range(3)]
    rng = np.random.default_rng(0)
    pool = crop_pool(few, crop_px=cnn.crop_px, rng=rng)
    crops = fixed_batch(pool, per_image=1, good_per_defect=2, bag_crops=1, rng=rng)
    assert len(gallery(cnn, past_of(cnn, folder, 2), crops)) == 2
