"""Every method: a stored model gives identical scores, and pictures of any size are judged."""

import numpy as np
import pytest
import torch

import lineside
from lineside.core.run import model_store
from lineside.parts.config import METHOD_NAMES
from lineside.parts.methods import METHODS
from lineside.parts.model import Settings, fit_references, make_model
from lineside.parts.models.detector import TrainingImage

OPTIONS = {
    "detector": {"hidden": 8, "least_steps": 10, "most_steps": 10},
    "patch_cnn": {"steps": 2, "crop_px": 32, "width": "eighth"},
}


def example(number, label="good"):
    rng = np.random.default_rng(number)
    image = (0.5 + 0.02 * rng.standard_normal((48, 64, 1))).astype(np.float32)
    mask = np.zeros((48, 64), bool)
    if label != "good":
        mask[10:20, 10 + number % 20 : 20 + number % 20] = True
        image[mask] += 0.3
    return TrainingImage(
        id=f"{label}{number}", label=label, part=f"{label}{number}", digest="",
        image=lambda: image, mask=lambda: mask,
    )  # fmt: skip


@pytest.fixture(scope="module")
def examples():
    return [example(i) for i in range(8)] + [example(i, "spot") for i in range(3)]


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_a_stored_model_gives_identical_scores(method, examples, tmp_path):
    pytest.importorskip(METHODS[method].module)
    detector = METHODS[method].fit(
        examples, examples[:2] + examples[-2:], rng=np.random.default_rng(0),
        log=lambda row: None, **OPTIONS.get(method, {}),
    )  # fmt: skip
    model = make_model(
        method, detector, Settings(), fit_references(examples, np.random.default_rng(0))
    )
    identity = model_store.save_model(tmp_path / method, "parts", model)
    assert identity == model.identity
    loaded = lineside.load(tmp_path / method).model
    rng = np.random.default_rng(1)
    odd = [rng.random(shape, np.float32) for shape in ((16, 16, 1), (17, 130, 1), (48, 64, 3))]
    for image in [*(e.image() for e in examples[::3]), *odd]:
        first, second = model.predict_image(image), loaded.predict_image(image)
        assert first.score == second.score
        assert np.array_equal(first.map, second.map)
        assert np.isfinite(first.score) and np.isfinite(first.map).all()
    assert model_store.identity_of("parts", loaded) == identity, "storing again changes nothing"
    for key, value in model.tensors().items():
        assert torch.equal(value, loaded.tensors()[key])


def test_too_few_good_pictures_have_no_health_limits(examples, tmp_path):
    detector = METHODS["brightness"].fit(
        examples[:3], [], rng=np.random.default_rng(0), log=lambda row: None
    )
    references = fit_references(examples[:3], np.random.default_rng(0))
    model = make_model("brightness", detector, Settings(), references)
    assert model.health is None
    model_store.save_model(tmp_path / "m", "parts", model)
    assert lineside.load(tmp_path / "m").model.health is None
