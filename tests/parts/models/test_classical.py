from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import ndimage

from lineside.core.errors import UserError
from lineside.core.run.codec import decode, encode
from lineside.parts.models.classical import brightness, descriptors, gaussian, pca, texture
from lineside.parts.models.classical import golden_template as golden
from lineside.parts.models.classical import position_statistics as statistics
from lineside.parts.models.detector import TrainingImage

FITS = {
    "texture": texture.fit_texture_patches,
    "pca": pca.fit_pca,
    "gaussian": gaussian.fit_gaussian,
    "golden": golden.fit_golden_template,
    "brightness": brightness.fit_brightness,
}


def example(number: int, faulty: bool, *, marked: bool = True, channels: int = 1) -> TrainingImage:
    """A printed pattern with noise, at a size of its own; a defect is a dark spot."""
    rng = np.random.default_rng([number, faulty])
    height, width = 88 + 4 * (number % 3), 104
    pattern = ndimage.gaussian_filter(np.random.default_rng(0).random((100, 104)), 4)
    pattern = 0.5 + 1.5 * (pattern - pattern.mean())
    picture = pattern[:height] + rng.normal(0, 0.02, (height, width))
    mask = np.zeros((height, width), dtype=bool)
    if faulty:
        row, column = rng.integers(20, [height - 20, width - 20])
        mask[row - 3 : row + 4, column - 3 : column + 4] = True
        picture[mask] *= 0.4
    image = np.clip(picture, 0, 1).astype(np.float32)[..., None].repeat(channels, axis=2)
    return TrainingImage(
        id=str(number),
        label="spot" if faulty else "good",
        part=str(number),
        digest=str(number),
        image=lambda: image,
        mask=lambda: mask if marked and faulty else None,
    )


GOOD = [example(n, False) for n in range(24)]
BAD = [example(n, True) for n in range(100, 108)]
TEST = [example(n, n % 2 == 0) for n in range(200, 216)]


def fitted(name: str, train, validation=()):
    fit = FITS[name]
    return fit(train, validation, rng=np.random.default_rng(0), log=lambda event: None)


def separation(detector) -> float:
    """Share of (defect, good) pairs in the right order."""
    scores = [(detector.predict(e.image()).score, e.faulty) for e in TEST]
    pairs = [a > b for a, bad in scores if bad for b, worse in scores if not worse]
    return float(np.mean(pairs))


def test_lbp_of_a_3x3_picture_by_hand():
    grey = np.array([[5, 1, 7], [2, 4, 4], [9, 3, 0]], dtype=np.float32)
    # Around the centre 4, clockwise from the top left: 5 1 7 4 0 3 9 2 -> 1 0 1 1 0 0 1 0.
    assert descriptors.lbp_codes(grey)[1, 1] == 1 + 4 + 8 + 64
    assert descriptors.UNIFORM[77] == 9  # six changes: not uniform
    flat = descriptors.lbp_codes(np.full((3, 3), 0.5, np.float32))
    assert (flat == 255).all()


def test_uniform_patterns_are_58_and_turn_with_the_picture():
    def changes(code: int) -> int:
        text = f"{code:08b}"
        return sum(text[i] != text[i - 1] for i in range(8))

    uniform = [code for code in range(256) if changes(code) <= 2]
    assert len(uniform) == 58
    for code in range(256):
        expected = code.bit_count() if code in uniform else 9
        assert descriptors.UNIFORM[code] == expected
    grey = np.random.default_rng(1).random((16, 16)).astype(np.float32)
    turned = descriptors.lbp_histograms(np.rot90(grey).copy(), (1, 1))
    np.testing.assert_array_equal(turned, descriptors.lbp_histograms(grey, (1, 1)))


def test_hog_of_ramps():
    grid = (2, 2)
    ramp = np.tile(np.arange(16, dtype=np.float32) * 0.01, (16, 1))
    across = descriptors.hog_histograms(ramp, grid)
    np.testing.assert_allclose(across[..., 0], 64 * 0.01, rtol=1e-4)
    np.testing.assert_allclose(across[..., 1:], 0, atol=1e-6)
    # 90 degrees lie halfway between bin 4 (80) and bin 5 (100).
    down = descriptors.hog_histograms(ramp.T.copy(), grid)
    np.testing.assert_allclose(down[..., 4], 32 * 0.01, rtol=1e-4)
    np.testing.assert_allclose(down[..., 5], 32 * 0.01, rtol=1e-4)
    # Unsigned: a falling ramp looks the same.
    falling = descriptors.hog_histograms(ramp[:, ::-1].copy(), grid)
    np.testing.assert_allclose(falling.sum(), across.sum(), rtol=1e-4)
    np.testing.assert_allclose(falling[..., 1:].max(), 0, atol=1e-3)


@pytest.mark.parametrize(
    ("height", "width", "grid"), [(17, 23, (2, 3)), (5, 9, (3, 4)), (1, 1, (1, 1))]
)
def test_cells_cover_the_picture_exactly(height, width, grid):
    values = np.random.default_rng(0).random((height, width)).astype(np.float32)
    index = descriptors.cell_index(height, width, grid).ravel()
    sums = np.bincount(index, weights=values.ravel(), minlength=grid[0] * grid[1])
    means = sums / np.bincount(index, minlength=grid[0] * grid[1])
    np.testing.assert_allclose(descriptors.cell_mean(values, grid).ravel(), means, rtol=1e-5)
    tops = [values.ravel()[index == cell].max() for cell in range(grid[0] * grid[1])]
    np.testing.assert_array_equal(descriptors.cell_max(values, grid).ravel(), np.float32(tops))


def test_filter_features_ignore_exposure():
    grey = GOOD[0].image()[..., 0]
    bright = (grey + descriptors.DARK) * 1.4 - descriptors.DARK
    difference = descriptors.filter_features(grey) - descriptors.filter_features(bright)
    assert np.abs(difference).max() < 1e-2
    assert descriptors.filter_features(grey).shape[2] == len(descriptors.FILTER_NAMES)


def test_zones_are_ordered_and_complete():
    np.testing.assert_array_equal(
        statistics.axis_zones(14), [0, 1, 2, 2, 3, 4, 4, 4, 4, 4, 6, 6, 7, 8]
    )
    for count in range(1, 40):
        zones = statistics.axis_zones(count)
        assert ((zones >= 0) & (zones < statistics.AXIS_ZONES)).all()
        assert (np.diff(zones) >= 0).all()


def test_normal_statistics_against_numpy():
    rng = np.random.default_rng(0)
    maps = [rng.normal(3, 2, (12, 12, 2)).astype(np.float32) for _ in range(400)]
    gathered = statistics.StatisticsAccumulator()
    for features in maps:
        gathered.add(features)
    found = gathered.result()
    stacked = np.stack(maps)
    corner = stacked[:, 0, 0]
    shrunk = (corner.sum(axis=0) + 50 * stacked.mean(axis=(0, 1, 2))) / 450
    np.testing.assert_allclose(found.mean[0], shrunk, rtol=1e-4)
    np.testing.assert_allclose(found.std[0], 2, rtol=0.1)


def test_standard_takes_the_size_away():
    rng = np.random.default_rng(0)
    sizes = [(int(h), int(w)) for h, w in rng.integers(80, 600, (200, 2))]
    raw = [2 * np.log(h) + 3 * np.log(w) + rng.normal(0, 0.1) for h, w in sizes]
    standard = statistics.fit_score_scale(raw, sizes)
    np.testing.assert_allclose(standard.weights[1:], [2, 3], atol=0.05)
    assert standard.std == pytest.approx(0.1, rel=0.2)
    assert standard.expected(10**6, 600) == pytest.approx(
        standard.expected(max(h for h, _ in sizes), 600)
    )
    same = statistics.fit_score_scale(rng.normal(5, 1, 50), [(64, 64)] * 50)
    assert same.weights[1:] == (0, 0)
    assert same.z(5.0, 64, 64) == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize("name", FITS)
def test_round_trip_and_exact_map(name):
    detector = fitted(name, GOOD + BAD)
    spec, tensors = encode(detector)
    spec = json.loads(json.dumps(spec, allow_nan=False))
    again = decode(type(detector), spec, tensors)
    for item in TEST[:3]:
        first, second = detector.predict(item.image()), again.predict(item.image())
        assert np.isfinite(first.score)
        assert first.score == pytest.approx(second.score, rel=1e-6)
        np.testing.assert_array_equal(first.map, second.map)
        assert first.map.dtype == np.float32
        assert first.map.ndim == 2
        assert np.isfinite(first.map).all()


@pytest.mark.parametrize("name", ["texture", "pca", "gaussian", "golden"])
def test_good_pictures_alone_find_and_place_a_spot(name):
    detector = fitted(name, GOOD)
    assert separation(detector) > 0.9
    bad = next(item for item in TEST if item.faulty)
    heat, mask = detector.predict(bad.image()).map, bad.mask()
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    spot = np.argwhere(mask).mean(axis=0)
    at = (
        (row + 0.5) * mask.shape[0] / heat.shape[0],
        (column + 0.5) * mask.shape[1] / heat.shape[1],
    )
    assert np.hypot(*(np.array(at) - spot)) < 16


@pytest.mark.parametrize("marked", [True, False])
def test_texture_learns_from_masks_and_from_image_labels(marked):
    bad = [example(n, True, marked=marked) for n in range(100, 108)]
    detector = fitted("texture", GOOD + bad)
    assert set(detector.predict(TEST[0].image()).contributions) == {"novelty", "linear"}
    assert separation(detector) > 0.95


def test_golden_template_says_whether_pictures_align():
    assert fitted("golden", GOOD).aligned
    rng = np.random.default_rng(0)
    loose = []
    for number in range(12):
        image = ndimage.gaussian_filter(rng.random((64, 64)), 2).astype(np.float32)[..., None]
        loose.append(
            TrainingImage(id=str(number), label="good", part="", digest="", image=lambda i=image: i)
        )
    detector = fitted("golden", loose)
    assert not detector.aligned
    assert np.isfinite(detector.predict(loose[0].image()).score)


@pytest.mark.parametrize("name", FITS)
def test_colour_tiny_and_long_pictures(name):
    detector = fitted(name, [example(n, False, channels=3) for n in range(6)])
    rng = np.random.default_rng(0)
    for shape in ((90, 100, 3), (1, 1, 3), (5, 300, 3), (40, 7, 1)):
        prediction = detector.predict(rng.random(shape).astype(np.float32))
        assert np.isfinite(prediction.score)
        assert np.isfinite(prediction.map).all()


@pytest.mark.parametrize("name", FITS)
def test_no_good_picture_is_an_error(name):
    with pytest.raises(UserError, match="good"):
        fitted(name, BAD)


def on_black(number: int, faulty: bool) -> TrainingImage:
    """A clean 8-bit picture of a disc on a background of exactly 0; a defect is a dark spot."""
    rng = np.random.default_rng([number, faulty])
    rows, columns = np.indices((96, 96))
    row, column = 48 + rng.integers(-3, 4, 2)
    grey = np.where(np.hypot(rows - row, columns - column) < 22, 150 + rows - row, 0)
    if faulty:
        grey[np.hypot(rows - row - 5, columns - column) < 4] = 40
    image = (grey.astype(np.uint8) / np.float32(255))[..., None].astype(np.float32)
    return TrainingImage.from_array(image, "spot" if faulty else "good", part=f"{number} {faulty}")


@pytest.mark.adversary("a")
@pytest.mark.parametrize("name", FITS)
def test_a_flat_background_gives_numbers(name):
    """The running sum of a filter leaves -1e-20 in cells without gradient."""
    good = [on_black(n, False) for n in range(24)]
    with np.errstate(invalid="raise", divide="raise"):
        detector = fitted(name, [*good, *(on_black(n, True) for n in range(6))])
        flat = [np.full((96, 96, 1), grey, np.float32) for grey in (0, 0.5, 1)]
        for image in [*flat, *(on_black(n, n % 2 == 0).image() for n in range(100, 110))]:
            prediction = detector.predict(image)
            assert np.isfinite(prediction.score) and np.isfinite(prediction.map).all()


@pytest.mark.adversary("a")
def test_no_method_learns_from_flat_pictures_alone_what_is_no_number():
    """Every picture is the same grey: all deviations are 0."""
    for name in FITS:
        grey = [np.full((64, 64, 1), 0.5, np.float32) for _ in range(24)]
        same = [TrainingImage.from_array(g, part=str(i)) for i, g in enumerate(grey)]
        with np.errstate(invalid="raise", divide="raise"):
            detector = fitted(name, same)
            assert np.isfinite(detector.predict(on_black(0, True).image()).score), name
