"""Compare the fine texture of images at all offsets at once, whatever their exposure.

An image is reduced to its locally normalised detail, which lighting and exposure leave alone, and
folded onto a small torus (the sum of its tiles). A shift of the part is a circular shift there, so
one small FFT compares two images at all offsets, and what the fold adds is noise: the correlation
peak of a matching pair stands out of its own background, that of two different parts does not.

Sources: phase correlation, Kuglin & Hines, Proc. IEEE Conf. Cybernetics and Society 1975; peak
against background, Bolme et al., CVPR 2010 (MOSSE), section 3.5; exponential tail above a high
quantile, Pickands, Ann. Statist. 3 (1975). Shapes: n images, fold size m, m2 = m // 2 + 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.sparse.csgraph import connected_components
from torch import Tensor

Grey = NDArray[np.float32]
Texture = NDArray[np.int8]
Table = NDArray[np.float32]

FINE, COARSE = 128, 64  # fold sizes; the coarse spectrum is every second line of the fine one
_SAMPLE = 128  # images behind the whitening, the common pattern and the chance level
_ENOUGH = 8  # images needed before what they share can be told from what a part looks like
_NEAR_PX = 6  # width of a correlation peak, for the next one to be another
_SIGMA_PX = 3.0  # detail finer than this makes the texture
_CLEAR = 8.0  # peak ratio far above chance, to weigh each part once in the common pattern


@dataclass(frozen=True, kw_only=True)
class Chance:
    """Peak ratios (coarse) or prominences (fine) of images that cannot show the same part.

    Attributes:
        size: Fold size.
        tail: Highest ratios of mirrored pairs, ascending.
        rate: Fraction of the mirrored pairs in the tail.
        middle: Median ratio of mirrored pairs.
        shift: By how much the median of real pairs is higher: a fixed pattern common to all.
        stretch: How much wider real pairs scatter below their median, at least 1.
    """

    size: int
    tail: NDArray[np.float64]
    rate: float
    middle: float
    shift: float = 0.0
    stretch: float = 1.0

    @property
    def typical(self) -> float:
        """Median ratio of different parts."""
        return self.middle + self.shift

    def level(self, comparisons: float, expected: float) -> float:
        """Return the ratio that `expected` out of `comparisons` pairs of different parts exceed."""
        scale = float(np.mean(self.tail) - self.tail[0])
        chance = self.tail[0] + scale * np.log(max(1.0, comparisons * self.rate / expected))
        return float(self.typical + self.stretch * (chance - self.middle))

    def noise_level(self, comparisons: float, expected: float) -> float:
        """Return the same for white noise, no threshold belongs below it: prominence of fine peaks.

        The gap between the two largest of m^2 Gaussians is exponential with rate sqrt(2 ln m^2).
        """
        rate = np.sqrt(2 * np.log(self.size**2))
        return float(np.log(max(1.0, comparisons / expected)) / rate)


@dataclass(frozen=True, kw_only=True)
class Fingerprints:
    """Textures with the filter that fits them.

    Attributes:
        textures: One per image, any size.
        gain: (m, m2) reciprocal root of the mean power: whitens streaks, grids and grain.
        common: (m, m2) pattern at a fixed place in all images (fixture, dirt on the lens).
        chance: Chance level by fold size.
    """

    textures: Sequence[Texture]
    gain: Tensor
    common: Tensor
    chance: dict[int, Chance]

    def spectra(self, textures: Sequence[Texture], size: int) -> Tensor:
        """Return unit-energy spectra (n, m, m2) of textures."""
        return _level(_whitened(textures, self.gain), self.common, size)


def fingerprints(textures: Sequence[Texture], rng: np.random.Generator) -> Fingerprints:
    """Fit filter and chance level to a sample of at least two textures."""
    chosen = [textures[i] for i in rng.permutation(len(textures))[:_SAMPLE]]
    power = _power(_raw(chosen)).mean(dim=0)
    gain = 1 / (power + 1e-6 * power.mean() + 1e-12).sqrt()
    white = _whitened(chosen, gain)
    common = torch.zeros_like(white[0])
    if len(chosen) >= _ENOUGH:
        part = _clear_parts(white, common)
        # Either parts differ clearly, and what they share is no part; or a fixture links them all.
        if part.max() == 0 or part.max() + 1 >= _ENOUGH:
            weights = torch.from_numpy(1 / np.bincount(part)[part]).float()
            common = (white * (weights / weights.sum())[:, None, None]).sum(dim=0)
    _, different = np.unique(_clear_parts(white, common), return_index=True)
    mirrored = _whitened([m for t in chosen for m in (t[:, ::-1], t[::-1])], gain)
    chance = {
        size: _chance(_level(white, common, size), _level(mirrored, common, size), different, table)
        for size, table in ((COARSE, peak_table), (FINE, prominence_table))
    }
    return Fingerprints(textures=textures, gain=gain, common=common, chance=chance)


def _clear_parts(white: Tensor, common: Tensor) -> NDArray[np.int32]:
    """Return a part index (n,) from clear coarse peaks, chains and all."""
    coarse = _level(white, common, COARSE)
    part: NDArray[np.int32] = connected_components(peak_table(coarse, coarse) >= _CLEAR)[1]
    return part


def _chance(
    plain: Tensor,
    mirrored: Tensor,
    different: NDArray[np.int64],
    table: Callable[[Tensor, Tensor], Table],
) -> Chance:
    """Measure mirrored pairs, and how far real pairs of (probably) different parts lie higher."""
    null = _off_diagonal(table(plain[:64], mirrored), 2)
    tail = null[-min(max(50, len(null) // 200), max(1, len(null) // 2)) :]
    low, middle = np.quantile(null, [0.25, 0.5])
    shift, stretch = 0.0, 1.0
    if len(different) >= _ENOUGH:
        real = _off_diagonal(table(plain[different[:64]], plain[different]), 1)
        real_low, real_middle = np.quantile(real, [0.25, 0.5])  # above, parts may be the same
        shift = max(0.0, float(real_middle - middle))
        stretch = max(1.0, float((real_middle - real_low) / max(1e-9, middle - low)))
    return Chance(
        size=plain.shape[1],
        tail=tail,
        rate=len(tail) / len(null),
        middle=float(middle),
        shift=shift,
        stretch=stretch,
    )


def _off_diagonal(table: Table, repeats: int) -> NDArray[np.float64]:
    """Return sorted values of pairs of different images; the columns hold `repeats` of each."""
    rows, columns = np.indices(table.shape)
    return np.sort(table[rows != columns // repeats]).astype(np.float64)


def reduced(grey: Grey, factor: int) -> Grey:
    """Average blocks of factor x factor pixels; an image smaller than a block stays as it is."""
    height, width = (side // factor for side in grey.shape)
    if height == 0 or width == 0:
        return grey
    blocks = grey[: height * factor, : width * factor].reshape(height, factor, width, factor)
    means: Grey = blocks.mean(axis=(1, 3))
    return means


def texture(grey: Grey) -> Texture:
    """Return detail finer than sigma in units of its local deviation, 42 steps each, clipped at 3.

    Saturated pixels count as missing. One grey level of 255 is added to the deviation, so that
    quantisation noise of an even area is not blown up. The border fades out over six pixels.
    """
    valid = (grey < 0.985).astype(np.float32)
    mean = gaussian_filter(grey * valid, _SIGMA_PX, mode="constant")
    detail = (grey - mean / (gaussian_filter(valid, _SIGMA_PX, mode="constant") + 1e-3)) * valid
    area = gaussian_filter(valid, 2 * _SIGMA_PX, mode="constant") + 1e-3
    variance = gaussian_filter(detail**2, 2 * _SIGMA_PX, mode="constant") / area
    scaled = np.clip(detail / np.sqrt(variance + (1 / 255) ** 2), -3, 3)
    scaled[variance < (0.4 / 255) ** 2] = 0  # rounding alone gives 0.3: its contours are no texture
    fade = [
        np.clip((np.minimum(np.arange(n), np.arange(n)[::-1]) - 1) / 6, 0, 1) for n in grey.shape
    ]
    steps: Texture = np.round(42 * scaled * fade[0][:, None] * fade[1][None, :]).astype(np.int8)
    return steps


def _folded(texture: Texture, size: int = FINE) -> NDArray[np.float32]:
    """Sum all size x size tiles; folding in space keeps every (side / size)-th spectral line."""
    height, width = texture.shape
    rows, columns = -(-height // size), -(-width // size)
    padded = np.zeros((rows * size, columns * size), dtype=np.float32)
    padded[:height, :width] = texture
    tiles: Grey = padded.reshape(rows, size, columns, size).sum(axis=(0, 2))
    return tiles


def _raw(textures: Sequence[Texture]) -> Tensor:
    folds = torch.from_numpy(np.stack([_folded(t) for t in textures]))
    spectra: Tensor = torch.fft.rfft2(folds)
    return spectra


def _whitened(textures: Sequence[Texture], gain: Tensor) -> Tensor:
    """Return spectra with mean power (gain) and half of each image's own contrast divided out."""
    spectrum = _raw(textures) * gain
    spectrum = spectrum / (spectrum.abs().sqrt() + 1e-6)
    spectrum[:, 0, 0] = 0
    return spectrum


def _power(spectra: Tensor) -> Tensor:
    return spectra.real.square() + spectra.imag.square()


def _weights(size: int) -> Tensor:
    """Multiplicity of each stored line of a real spectrum, divided so that energy is a mean."""
    weights = torch.full((size // 2 + 1,), 2.0)
    weights[0] = weights[-1] = 1.0
    return weights / size**2


def _level(spectra: Tensor, common: Tensor, size: int) -> Tensor:
    """Thin to one fold size, project the common pattern out, scale to unit energy."""
    step = FINE // size
    thin, pattern = spectra[:, ::step, ::step], common[::step, ::step]
    weights = _weights(size)
    energy = (_power(pattern) * weights).sum()
    if energy > 0:
        share = ((pattern.conj() * thin).real * weights).sum(dim=(1, 2)) / energy
        thin = thin - share[:, None, None] * pattern
    norm = (_power(thin) * weights).sum(dim=(1, 2)).sqrt()
    return thin / torch.where(norm > 1e-6, norm, torch.inf)[:, None, None]


def peak_table(first: Tensor, second: Tensor) -> Table:
    """Return the highest correlation (n_first, n_second) over all shifts, in deviations."""
    return _table(first, second, lambda surfaces: surfaces.flatten(1).amax(dim=1))


def prominence_table(first: Tensor, second: Tensor) -> Table:
    """Return how far the highest peak (n_first, n_second) exceeds the next, in deviations.

    A repeated structure (bars, grids, edges of a frame) matches at several shifts, and its peaks
    cancel; a part matches at one.
    """
    return _table(first, second, _prominence)


def _table(first: Tensor, second: Tensor, statistic: Callable[[Tensor], Tensor]) -> Table:
    size = first.shape[1]
    step = max(1, 2**18 // size**2)  # 1 MiB of surfaces stays in the cache
    values = torch.empty(len(first), len(second))
    for row, spectrum in enumerate(first.conj()):
        for start in range(0, len(second), step):
            some = slice(start, start + step)
            surfaces = torch.fft.irfft2(spectrum * second[some], s=(size, size))
            values[row, some] = statistic(surfaces)
    weights = _weights(size)
    power = (_power(first) * weights).flatten(1) @ _power(second).flatten(1).T
    deviation = (power / size**2).sqrt()  # Parseval; the mean is zero without the zero frequency
    return (values / torch.where(deviation > 1e-9, deviation, torch.inf)).numpy()


def _prominence(surfaces: Tensor) -> Tensor:
    """Return highest minus next highest value (n,) of surfaces (n, m, m), a neighbourhood apart."""
    count, size, _ = surfaces.shape
    highest, place = surfaces.flatten(1).max(dim=1)
    near = torch.arange(-_NEAR_PX, _NEAR_PX + 1)
    rows = (place[:, None] // size + near) % size
    columns = (place[:, None] % size + near) % size
    surfaces[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]] = -torch.inf
    return highest - surfaces.flatten(1).amax(dim=1)


def rotated(texture: Texture, angle_deg: float) -> Texture:
    """Turn about the centre within the frame, by a small angle or half a turn plus one."""
    if angle_deg >= 90:
        return rotated(texture[::-1, ::-1], angle_deg - 180)
    if angle_deg == 0:
        return texture
    angle = np.deg2rad(angle_deg)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = (np.array(texture.shape) - 1) / 2
    turned = affine_transform(texture.astype(np.float32), matrix, centre - matrix @ centre, order=1)
    steps: Texture = np.round(turned).astype(np.int8)
    return steps
