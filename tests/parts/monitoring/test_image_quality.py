from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import lineside
from lineside.core.errors import UserError
from lineside.core.run.codec import decode, encode
from lineside.parts.models.classical.registration import phase_shift
from lineside.parts.monitoring.image_quality import (
    HealthReference,
    fit_health,
    measure,
)


def scene(seed: int = 0, shape=(96, 128)) -> np.ndarray:
    rough = np.random.default_rng(seed).random(shape)
    smooth = ndimage.gaussian_filter(rough, 2)
    return (0.3 + 0.4 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


def pictures(count: int, seed: int = 1) -> list[np.ndarray]:
    """One scene, slightly shifted, with noise and changes of light."""
    rng = np.random.default_rng(seed)
    base = scene(0, (120, 160))
    result = []
    for _ in range(count):
        dy, dx = rng.integers(-1, 2, size=2) + 12
        crop = base[dy : dy + 96, dx : dx + 128]
        noisy = crop * rng.uniform(0.95, 1.05) + rng.normal(0, 0.01, crop.shape)
        result.append(np.clip(noisy, 0, 1).astype(np.float32)[..., None])
    return result


def test_sharpness_of_an_impulse_is_that_of_the_laplacian_kernel():
    grey = np.zeros((20, 20), dtype=np.float32)
    grey[10, 10] = 1
    # The response is -4 once and 1 four times: mean 0, variance (16 + 4) / 400.
    assert measure(grey, None)["sharpness"] == pytest.approx(np.log10(20 / 400 + 1e-8), abs=1e-6)


def test_brightness_and_saturation_by_hand():
    grey = np.array([[0.0, 1.0], [0.5, 0.99]], dtype=np.float32)
    assert measure(grey, None)["brightness"] == pytest.approx(2.49 / 4)
    assert measure(grey, None)["saturated_share"] == 0.5


@pytest.mark.parametrize("shift", [(0, 0), (3, -5), (-7, 4)])
def test_phase_correlation_finds_a_shift_whatever_the_light(shift):
    base = scene(3, (140, 140))
    template = base[20:116, 20:116]
    moved = base[20 - shift[0] : 116 - shift[0], 20 - shift[1] : 116 - shift[1]]
    found = phase_shift(template, 0.5 * moved + 0.3)
    assert found.down_px == pytest.approx(shift[0], abs=0.3)
    assert found.right_px == pytest.approx(shift[1], abs=0.3)
    assert found.peak > 8


def test_phase_correlation_finds_a_fraction_of_a_pixel():
    base = scene(4, (96, 96))
    moved = ndimage.shift(base, (0.5, 0), order=3, mode="nearest").astype(np.float32)
    assert phase_shift(base, moved).down_px == pytest.approx(0.5, abs=0.2)


def test_unrelated_pictures_have_no_peak():
    assert phase_shift(scene(5), scene(6)).peak < phase_shift(scene(5), scene(5)).peak / 2


def test_healthy_pictures_pass_and_each_fault_is_named():
    reference = fit_health(pictures(30))
    assert not any(reference.check(image) for image in pictures(20, seed=2))
    good = pictures(1, seed=3)[0]
    faults = {
        "sharpness": ndimage.gaussian_filter(good, (3, 3, 0)),
        "brightness": good * 0.5,
        "saturated share": np.clip(good * 1.9, 0, 1),
        "offset": np.roll(good, 12, axis=1),
    }
    for name, image in faults.items():
        verdict = reference.check(image.astype(np.float32))
        assert any(name in sentence for sentence in verdict), (name, verdict)


def test_pose_is_not_judged_where_parts_do_not_lie_alike():
    images = [scene(seed)[..., None] for seed in range(12)]
    reference = fit_health(images)
    assert reference.template is None
    assert "offset_px" not in reference.center


def test_reference_survives_storing():
    reference = fit_health(pictures(12))
    spec, tensors = encode(reference)
    again = decode(HealthReference, json.loads(json.dumps(spec)), tensors)
    image = pictures(1, seed=9)[0]
    assert again.check(image) == reference.check(image)


def test_unmeasurable_pictures_are_findings_and_never_dropped():
    reference = fit_health(pictures(8))
    broken = pictures(1)[0].copy()
    broken[0, 0] = np.nan
    for image in (broken, np.zeros((0, 5, 1), np.float32), np.zeros((4, 4), np.float32)):
        (finding,) = reference.check(image)
        assert "not numbers" in finding
    flat = reference.check(np.full((1, 1, 1), 0.5, np.float32))
    assert any("sharpness" in finding for finding in flat)


def test_too_few_pictures_are_refused():
    with pytest.raises(UserError, match="too few"):
        fit_health(pictures(3))


def discs(count: int, radius: float, shape=(128, 160), seed: int = 0) -> list[np.ndarray]:
    """A bright part before a dark background, its place and its light a little different."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    result = []
    for _ in range(count):
        row, column = np.array(shape) / 2 + rng.integers(-6, 7, 2)
        grey = rng.normal(0.08, 0.015, shape)
        grey[np.hypot(rows - row, columns - column) < radius] += rng.uniform(0.4, 0.6)
        result.append(grey.clip(0, 1).astype(np.float32)[..., None])
    return result


@pytest.mark.adversary("i")
def test_another_size_of_the_picture_is_said():
    reference = fit_health(pictures(30))
    for factor, said in ((1.0, False), (0.5, True), (0.9, True), (2.0, True)):
        for image in pictures(10, seed=7):
            resized = ndimage.zoom(image, (factor, factor, 1), order=1)
            found = [line for line in reference.check(resized) if "another size" in line]
            assert bool(found) == said, (factor, found)
            if factor == 0.5:
                assert found[0].startswith("the width of 64 px is 0.50 times the usual 128 px")
                assert found[1].startswith("the height of 48 px is 0.50 times the usual 96 px")


@pytest.mark.adversary("i")
def test_sizes_that_varied_in_training_may_vary():
    rng = np.random.default_rng(0)
    sizes = rng.integers(90, 180, (40, 2))
    varied = [scene(i, tuple(size))[..., None] for i, size in enumerate(sizes)]
    reference = fit_health(varied[:30])
    assert not any("size" in line for image in varied[30:] for line in reference.check(image))
    assert "another size" in reference.check(scene(99, (40, 120))[..., None])[0]


@pytest.mark.adversary("i")
def test_another_scale_of_the_part_in_the_picture_is_said():
    reference = fit_health(discs(40, 40.0))
    assert "log_extent" in reference.center
    assert not any(reference.check(image) for image in discs(200, 40.0, seed=1))
    for radius in (20.0, 28.0, 58.0):
        for image in discs(20, radius, seed=2):
            assert any("another scale than in training" in x for x in reference.check(image))
    spotted = discs(20, 40.0, seed=3)
    for image in spotted:
        image[60:68, 70:78] = 1.0  # a defect is no other scale
        assert not any("scale" in line for line in reference.check(image))


@pytest.mark.adversary("i")
def test_the_scale_is_not_judged_where_parts_fill_the_picture_or_differ():
    assert "log_extent" not in fit_health(pictures(30)).center
    mixed = [image for radius in (20.0, 30.0, 45.0) for image in discs(12, radius)]
    assert "log_extent" not in fit_health(mixed).center


@pytest.mark.adversary("i")
def test_a_good_part_at_half_size_is_not_rejected_without_a_word(trained, shop, tmp_path):
    whole = shop.picture(tmp_path / "whole_v1.png", seed=77)
    with Image.open(whole) as raw:
        raw.resize((48, 48)).save(tmp_path / "half_v1.png")
    predictor = lineside.load(trained)
    full, half = predictor.predict([whole, tmp_path / "half_v1.png"])
    assert full.health == ()
    assert any("0.50 times the usual 96 px" in line for line in half.health)
    assert half.verdict != "accept"
    assert "0.50 times the usual 96 px" in half.as_line()
    assert any("another size" in line for line in half.as_json()["health"])
    assert "another size" in predictor.explain(tmp_path / "half_v1.png").facts["picture"]
