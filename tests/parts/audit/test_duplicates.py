"""Same-part search on textures made here: known parts, known light, nothing from disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, rotate

from lineside.parts.audit import duplicates
from lineside.parts.audit.duplicates import (
    Duplicates,
    find_same_part,
    peak_table,
    prominence_table,
    rotated,
)

Picture = NDArray[np.float32]


def _surface(rng: np.random.Generator, side_px: int = 150) -> Picture:
    """A machined surface: grain plus vertical streaks, mean 0, deviation about 1."""
    grain = gaussian_filter(rng.normal(size=(side_px, side_px)), 1.0)
    streaks = gaussian_filter(rng.normal(size=(1, side_px)), (0, 1.0))
    return (grain / grain.std() + 0.7 * streaks / streaks.std()).astype(np.float32)


def _light(height: int, width: int) -> Picture:
    """The same bright patch and dark smear over every part."""
    y, x = np.mgrid[:height, :width]
    patch = 0.35 * np.exp(-((y - 30) ** 2 + (x - 70) ** 2) / 600)
    return (0.35 + patch - 0.15 * np.exp(-((x - 15) ** 2) / 150)).astype(np.float32)


def _photograph(surface: Picture, rng: np.random.Generator) -> Picture:
    """A crop by hand of a random exposure, with gamma, noise, saturation and 8 bits."""
    top, left, bottom, right = rng.integers(0, 12, size=4)
    side = len(surface)
    crop = surface[15 + top : side - 15 - bottom, 15 + left : side - 15 - right]
    reflected = _light(*crop.shape) * (1 + 0.12 * crop)
    picture = rng.uniform(0.6, 2.0) * np.clip(reflected, 0, None) ** rng.uniform(0.7, 1.4)
    picture = picture + rng.normal(scale=0.01, size=crop.shape)
    return (np.round(255 * np.clip(picture, 0, 1)) / 255).astype(np.float32)[:, :, None]


def _find(images: Sequence[Picture | Callable[[], Picture]]) -> Duplicates:
    loaders = [image if callable(image) else partial(np.asarray, image) for image in images]
    return find_same_part(loaders, rng=np.random.default_rng(7))


def _grouped_share(found: Duplicates) -> float:
    """Fraction of images that share their part with another image."""
    sizes = np.bincount(found.groups)
    return float(sizes[sizes > 1].sum() / len(found.groups))


def _same(labels: Sequence[int]) -> NDArray[np.bool_]:
    array = np.asarray(labels)
    return array[:, None] == array[None, :]


def test_exposures_and_crops_of_one_part_are_grouped() -> None:
    rng = np.random.default_rng(0)
    parts = [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 0, 6, 7]
    surfaces = [_surface(rng) for _ in range(8)]
    found = _find([_photograph(surfaces[part], rng) for part in parts])
    assert np.array_equal(_same(found.groups), _same(parts))
    assert found.groups[:6] == (0, 1, 2, 3, 4, 5)
    assert all(parts[p.first] == parts[p.second] and p.first < p.second for p in found.pairs)
    assert all(p.similarity >= found.threshold for p in found.pairs if p.rotation_deg == 0)
    assert _grouped_share(found) == pytest.approx(17 / 19)
    assert "mirrored" in found.method


def test_one_light_pattern_on_different_parts_is_no_match() -> None:
    rng = np.random.default_rng(1)
    found = _find([_photograph(_surface(rng), rng) for _ in range(24)])
    assert found.groups == tuple(range(24))
    assert found.pairs == ()


def test_parts_in_one_sharp_fixture_are_told_apart() -> None:
    rng = np.random.default_rng(2)
    fixture = np.zeros((120, 120), dtype=np.float32)
    fixture[::30], fixture[:, 17], fixture[60:70, 20:90] = 0.3, -0.3, 0.2
    parts = [*range(30), 4, 9]
    surfaces = [_surface(rng, 120) for _ in range(30)]
    noise = [rng.normal(scale=0.01, size=(120, 120)) for _ in parts]
    images = [0.5 + fixture + 0.04 * surfaces[p] + n for p, n in zip(parts, noise, strict=True)]
    found = _find([np.clip(image, 0, 1).astype(np.float32)[:, :, None] for image in images])
    assert np.array_equal(_same(found.groups), _same(parts))


@pytest.mark.parametrize("noise", [0.0, 0.002, 0.02])
def test_textureless_images_stay_apart(noise: float) -> None:
    rng = np.random.default_rng(3)
    levels = rng.uniform(0.5, 1.2, size=24)
    light = _light(110, 110)
    images = [level * light + rng.normal(scale=noise, size=light.shape) for level in levels]
    found = _find([(np.round(255 * i) / 255).astype(np.float32)[:, :, None] for i in images])
    assert _grouped_share(found) < 0.1


def test_a_turned_part_is_found_with_its_angle(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    surfaces = [_surface(rng, 180) for _ in range(12)]
    images = [_photograph(s, rng) for s in surfaces]
    images += [_photograph(surfaces[3][::-1, ::-1], rng)]
    images += [_photograph(rotate(surfaces[5], 3.0, reshape=False, mode="reflect"), rng)]
    found = _find(images)
    assert np.array_equal(_same(found.groups), _same([*range(12), 3, 5]))
    angles = {pair.first: pair.rotation_deg for pair in found.pairs}
    assert angles[3] == pytest.approx(180, abs=1)
    assert abs(angles[5]) == pytest.approx(3, abs=1)
    monkeypatch.setattr(duplicates, "MOST_TURNED_COMPARISONS", 5)
    stingy = _find(images)
    assert _grouped_share(stingy) == 0
    assert "not looked for" in stingy.method


def test_an_image_of_two_parts_does_not_chain_their_groups() -> None:
    rng = np.random.default_rng(5)
    one, other = _surface(rng), _surface(rng)
    both = np.concatenate([one[:75], other[75:]])
    parts = [one] * 6 + [other] * 6
    found = _find([_photograph(surface, rng) for surface in [*parts, both]])
    assert len(set(found.groups[:6])) == 1
    assert len(set(found.groups[6:12])) == 1
    assert found.groups[0] != found.groups[6]


def test_colour_functions_and_repeatability() -> None:
    rng = np.random.default_rng(6)
    surfaces = [_surface(rng) for _ in range(5)]
    images = [np.repeat(_photograph(surfaces[i % 5], rng), 3, axis=2) for i in range(10)]
    loaders = [lambda image=image: image for image in images]
    found = _find(loaders)
    assert np.array_equal(_same(found.groups), _same([*range(5)] * 2))
    assert found == _find(images)


def test_two_images_and_large_ones() -> None:
    rng = np.random.default_rng(8)
    surface = np.kron(_surface(rng, 200), np.ones((4, 4), dtype=np.float32))
    pair = [_photograph(surface, rng) for _ in range(2)]
    assert _find(pair).groups == (0, 0)
    assert _find([pair[0], _photograph(_surface(rng, 800), rng)]).groups == (0, 1)
    assert _find(pair[:1]).groups == (0,)
    assert _find([]).groups == ()


def test_tiny_images_do_not_crash() -> None:
    images = [np.full((3, 500, 1), 0.5, dtype=np.float32), np.zeros((1, 1, 3), dtype=np.float32)]
    assert _find(images).groups == (0, 1)


def test_tables_against_direct_correlation() -> None:
    rng = np.random.default_rng(9)
    size = 64
    pictures = [p - p.mean() for p in rng.normal(size=(3, size, size))]
    spectra = torch.fft.rfft2(torch.from_numpy(np.stack(pictures)).float())
    spectra[:, 0, 0] = 0
    surface = np.array(
        [
            [(pictures[0] * np.roll(pictures[2], (-y, -x), (0, 1))).sum() for x in range(size)]
            for y in range(size)
        ]
    )
    y, x = np.unravel_index(surface.argmax(), surface.shape)
    rest = np.roll(surface, (-y + size // 2, -x + size // 2), (0, 1))
    rest[size // 2 - 6 : size // 2 + 7, size // 2 - 6 : size // 2 + 7] = -np.inf
    peak, gap = surface.max(), surface.max() - rest.max()
    assert peak_table(spectra, spectra)[0, 2] == pytest.approx(peak / surface.std(), rel=1e-4)
    assert prominence_table(spectra, spectra)[0, 2] == pytest.approx(gap / surface.std(), rel=1e-3)


def test_half_a_turn_is_exact_and_tilts_go_back() -> None:
    rng = np.random.default_rng(10)
    texture = np.round(30 * gaussian_filter(rng.normal(size=(90, 70)), 2) / 0.14).clip(-120, 120)
    texture = texture.astype(np.int8)
    assert np.array_equal(rotated(texture, 180), texture[::-1, ::-1])
    back = rotated(rotated(texture, 184), 176)[15:-15, 15:-15].astype(float)
    assert np.corrcoef(back.ravel(), texture[15:-15, 15:-15].ravel())[0, 1] > 0.98
