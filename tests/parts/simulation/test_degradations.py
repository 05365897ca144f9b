from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from lineside.parts.models.detector import TrainingImage
from lineside.parts.simulation.degradations import SEVERITIES, SUITE, degrade

GRADED = {degradation.name: degradation for degradation in SUITE}


def picture(channels: int = 1, shape=(64, 80)) -> np.ndarray:
    rough = np.random.default_rng(0).random((*shape, channels))
    smooth = ndimage.gaussian_filter(rough, (1.5, 1.5, 0))
    return (0.2 + 0.6 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


def stream() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.parametrize("degradation", SUITE, ids=lambda d: d.name)
@pytest.mark.parametrize("channels", [1, 3])
def test_pure_in_range_and_worse_with_every_grade(degradation, channels):
    image = picture(channels)
    before = image.copy()
    distances = []
    for severity in SEVERITIES:
        result = degradation.apply(image, severity, stream())
        assert result.shape == image.shape
        assert result.dtype == np.float32
        assert 0 <= result.min() <= result.max() <= 1
        np.testing.assert_array_equal(result, degradation.apply(image, severity, stream()))
        distances.append(np.abs(result - image).mean())
    np.testing.assert_array_equal(image, before)
    assert distances[0] > 0
    if degradation.name != "offset":  # a random texture is as far from itself at any distance
        assert all(np.diff(distances) > 0), distances
    assert "grades 1-5" in degradation.help


@pytest.mark.parametrize("degradation", SUITE, ids=lambda d: d.name)
def test_tiny_pictures_are_no_exception(degradation):
    for shape in ((1, 1, 1), (3, 2, 3)):
        image = np.full(shape, 0.5, dtype=np.float32)
        assert degradation.apply(image, 5, stream()).shape == shape


def test_amounts_are_what_the_grades_say():
    flat = np.full((32, 32, 1), 0.4, dtype=np.float32)
    assert GRADED["darker"].apply(flat, 3, stream()).mean() == pytest.approx(0.2, abs=1 / 510)
    assert GRADED["brighter"].apply(flat, 4, stream()).mean() == pytest.approx(0.8, abs=1e-6)
    assert GRADED["gamma"].apply(flat, 5, stream()).mean() == pytest.approx(0.4**2.2, abs=1e-6)
    large = np.full((200, 200, 1), 0.5, dtype=np.float32)
    assert GRADED["noise"].apply(large, 3, stream()).std() == pytest.approx(8 / 255, rel=0.02)


def test_blur_has_the_variance_of_its_point_spread():
    impulse = np.zeros((61, 61, 1), dtype=np.float32)
    impulse[30, 30] = 1
    rows = GRADED["blur"].apply(impulse, 4, stream())[..., 0].sum(axis=1)
    assert (rows * (np.arange(61) - 30.0) ** 2).sum() == pytest.approx(2.5**2, rel=0.02)


def test_smear_spreads_a_point_over_its_length():
    impulse = np.zeros((41, 41, 1), dtype=np.float32)
    impulse[20, 20] = 1
    assert (GRADED["motion"].apply(impulse, 3, stream()) > 0).sum() == 9


def test_offset_has_its_length():
    image = np.zeros((100, 100, 1), dtype=np.float32)
    image[50, 50] = 1
    moved = GRADED["offset"].apply(image, 4, stream())
    row, column = np.unravel_index(int(moved.argmax()), (100, 100))
    assert np.hypot(row - 50, column - 50) == pytest.approx(16, abs=1)


def example() -> TrainingImage:
    image = picture()
    return TrainingImage(id="a.png", label="crack", part="1", digest="00", image=lambda: image)


def test_degrade_is_repeatable():
    original = example()
    noise = next(d for d in SUITE if d.name == "noise")
    first, second = (degrade(original, noise, 2, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, degrade(original, noise, 2, seed=2))


def test_unknown_grades_are_refused():
    with pytest.raises(ValueError, match="severity"):
        degrade(example(), SUITE[0], 6)
    with pytest.raises(ValueError, match="severity"):
        SUITE[0].apply(picture(), 0, stream())
