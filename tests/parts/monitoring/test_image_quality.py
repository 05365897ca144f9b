from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import ndimage

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
