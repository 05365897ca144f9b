"""Search for images of the same part, from the images alone, by phase correlation of their texture.

An image is reduced to its locally normalised detail, which lighting and exposure leave alone, and
folded onto a small torus (the sum of its tiles). A shift of the part is a circular shift there, so
one small FFT compares two images at all offsets; the fold adds noise only. The correlation peak of
two images of one part stands out of its background, that of two different parts does not. How high
peaks get by chance is measured on mirrored images, which cannot show the same part, and the
threshold follows from it: no number here was fitted to a data set.

Stages: all pairs coarsely -> candidates finely -> average-linkage groups -> turned parts merged.

Sources: phase correlation, Kuglin & Hines, Proc. IEEE Conf. Cybernetics and Society 1975; peak
against background, Bolme et al., CVPR 2010 (MOSSE), section 3.5; exponential tail above a high
quantile, Pickands, Ann. Statist. 3 (1975). Shapes: n images, fold size m, m2 = m // 2 + 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from lineside.parts.models.detector import Image

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
        return _unit_spectra(_whiten(textures, self.gain), self.common, size)


def fit_fingerprints(textures: Sequence[Texture], rng: np.random.Generator) -> Fingerprints:
    """Fit filter and chance level to a sample of at least two textures."""
    chosen = [textures[i] for i in rng.permutation(len(textures))[:_SAMPLE]]
    power = _power(_spectra_of_folds(chosen)).mean(dim=0)
    gain = 1 / (power + 1e-6 * power.mean() + 1e-12).sqrt()
    white = _whiten(chosen, gain)
    common = torch.zeros_like(white[0])
    if len(chosen) >= _ENOUGH:
        part = _clear_parts(white, common)
        # Either parts differ clearly, and what they share is no part; or a fixture links them all.
        if part.max() == 0 or part.max() + 1 >= _ENOUGH:
            weights = torch.from_numpy(1 / np.bincount(part)[part]).float()
            common = (white * (weights / weights.sum())[:, None, None]).sum(dim=0)
    _, different = np.unique(_clear_parts(white, common), return_index=True)
    mirrored = _whiten([m for t in chosen for m in (t[:, ::-1], t[::-1])], gain)
    chance = {
        size: _fit_chance(
            _unit_spectra(white, common, size),
            _unit_spectra(mirrored, common, size),
            different,
            table,
        )
        for size, table in ((COARSE, peak_table), (FINE, prominence_table))
    }
    return Fingerprints(textures=textures, gain=gain, common=common, chance=chance)


def _clear_parts(white: Tensor, common: Tensor) -> NDArray[np.int32]:
    """Return a part index (n,) from clear coarse peaks, chains and all."""
    coarse = _unit_spectra(white, common, COARSE)
    part: NDArray[np.int32] = connected_components(peak_table(coarse, coarse) >= _CLEAR)[1]
    return part


def _fit_chance(
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


def _fold(texture: Texture) -> Grey:
    """Sum all tiles; folding in space keeps every (side / `FINE`)-th spectral line."""
    pads = [(0, -side % FINE) for side in texture.shape]
    padded = np.pad(texture.astype(np.float32), pads)
    tiles: Grey = padded.reshape(-1, FINE, padded.shape[1] // FINE, FINE).sum(axis=(0, 2))
    return tiles


def _spectra_of_folds(textures: Sequence[Texture]) -> Tensor:
    """Return spectra (n, m, m2) of folded textures."""
    spectra: Tensor = torch.fft.rfft2(torch.from_numpy(np.stack([_fold(t) for t in textures])))
    return spectra


def _whiten(textures: Sequence[Texture], gain: Tensor) -> Tensor:
    """Return spectra with mean power (gain) and half of each image's own contrast divided out."""
    spectrum = _spectra_of_folds(textures) * gain
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


def _unit_spectra(spectra: Tensor, common: Tensor, size: int) -> Tensor:
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


Indices = NDArray[np.int64]
Pairs = NDArray[np.int64]  # (n, 2)

EXPECTED_FALSE_PAIRS = 0.1
"""Pairs of different parts expected among all accepted pairs."""
MOST_TURNED_COMPARISONS = 15_000_000
"""Tilts, or even half turns, are left out where looking for them among the groups would take more
coarse comparisons than this (five minutes)."""
_WORKING_PX = 160  # median long side after reduction: finer is noise, coarser is lighting
_TILE = 64  # pairs per FFT batch, so that a batch stays in the processor's cache
_LINK = 0.5  # least mean excess within a group: 0 is chance, 1 the threshold, pairs count up to 2
_LARGE = 300  # members of a cluster up to which all its pairs are compared
_TILTS_DEG = (-4.0, -2.0, 0.0, 2.0, 4.0)  # of a part put back by hand; a match survives 1 degree


@dataclass(frozen=True, kw_only=True)
class SamePair:
    """Two images that show the same part.

    Attributes:
        first: Index of one image.
        second: Index of the other, larger than `first`.
        similarity: By how many standard deviations the correlation peak exceeds the next one.
        rotation_deg: Angle at which they match, in degrees; 0 unless the part was turned.
    """

    first: int
    second: int
    similarity: float
    rotation_deg: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """The proposed parts.

    Attributes:
        groups: Group index per image, numbered in order of appearance; a lone image has its own.
        pairs: Direct evidence, strongest first; groups imply more pairs than are listed here.
        threshold: Smallest `similarity` that counts for pairs that are not turned.
        method: How the threshold was obtained and what was searched, for a report.
    """

    groups: tuple[int, ...]
    pairs: tuple[SamePair, ...]
    threshold: float
    method: str


def find_same_part(
    images: Sequence[Callable[[], Image]], *, rng: np.random.Generator
) -> Duplicates:
    """Propose groups of images that show the same physical part.

    Invariant to exposure, smooth lighting, crop offset, half a turn and tilts up to 5 degrees; not
    to scale: one camera at one distance is assumed. Time grows with the square of the number of
    images (about 20 us per pair on one core), memory linearly (about 60 kB per image).

    Args:
        images: Functions that load one; what they return is not kept, and at most 32 are called
            twice.
        rng: Draws the sample that sets filter and chance level.
    """
    textures = _texture_of_each(images, rng)
    count = len(textures)
    if count < 2:
        return Duplicates(groups=(0,) * count, pairs=(), threshold=np.inf, method="no pair")
    prints = fit_fingerprints(textures, rng)
    comparisons = count * (count - 1) / 2
    threshold = _threshold(prints, comparisons)
    candidates = _candidates(prints)
    accepted = candidates[_fine_peaks(prints, candidates) >= threshold]
    groups, pairs = _group_by_linkage(prints, accepted, threshold)
    turned, note = _find_turned_parts(prints, groups, pairs)
    pairs = sorted(pairs + turned, key=lambda pair: (-pair.similarity, pair.first, pair.second))
    fine = prints.chance[FINE]
    return Duplicates(
        groups=_merge_turned_groups(groups, turned),
        pairs=tuple(pairs),
        threshold=threshold,
        method=f"the correlation peak exceeds the next one by {threshold:.1f} deviations, so that "
        f"chance yields {EXPECTED_FALSE_PAIRS:g} pairs in {comparisons:.0f} (exponential tail of "
        f"mirrored pairs, median {fine.middle:.2f}; of real pairs {fine.typical:.2f}); {note}",
    )


def _texture_of_each(
    images: Sequence[Callable[[], Image]], rng: np.random.Generator
) -> list[Texture]:
    """Return the textures of all images, reduced to about `_WORKING_PX`."""
    chosen = rng.permutation(len(images))[:32]
    long_sides = [max(_grey(images[i]).shape) for i in chosen]
    # One factor for all: with one camera a pixel must mean the same length in every image.
    factor = max(1, round(float(np.median(long_sides)) / _WORKING_PX)) if long_sides else 1
    return [texture(reduced(_grey(images[i]), factor)) for i in range(len(images))]


def _grey(image: Callable[[], Image]) -> Grey:
    grey: Grey = image().mean(axis=2, dtype=np.float32)
    return grey


def _threshold(prints: Fingerprints, comparisons: float) -> float:
    fine, expected = prints.chance[FINE], EXPECTED_FALSE_PAIRS
    return max(fine.level(comparisons, expected), fine.noise_level(comparisons, expected))


def _coarse(prints: Fingerprints, members: Indices, tilt_deg: float = 0.0) -> Tensor:
    """Return coarse spectra (n, m, m2), made tile by tile to bound memory."""
    tiles = np.split(members, range(_TILE, len(members), _TILE))
    return torch.cat(
        [
            prints.spectra([rotated(prints.textures[i], tilt_deg) for i in tile], COARSE)
            for tile in tiles
        ]
    )


def _pairs_above(first: Tensor, second: Tensor, level: float) -> Pairs:
    """Return row pairs i < j of two tables of spectra (n, m, m2) with a ratio above the level."""
    count, found = len(first), [np.zeros((0, 2), dtype=np.int64)]
    for top in range(0, count, _TILE):
        for left in range(top, count, _TILE):
            table = peak_table(first[top : top + _TILE], second[left : left + _TILE])
            rows = np.add(np.argwhere(table > level), (top, left))
            found.append(rows[rows[:, 0] < rows[:, 1]])
    return np.concatenate(found)


def _candidates(prints: Fingerprints) -> Pairs:
    count = len(prints.textures)
    spectra = _coarse(prints, np.arange(count))
    # Two chance candidates per image cost less than the coarse stage itself.
    level = prints.chance[COARSE].level(count * (count - 1) / 2, 2 * count)
    return _pairs_above(spectra, spectra, level)


def _fine_peaks(prints: Fingerprints, pairs: Pairs, angle_deg: float = 0.0) -> NDArray[np.float64]:
    """Return the fine ratio of each pair (n, 2), the second image turned by the angle."""
    ratios = np.zeros(len(pairs))
    for first in np.unique(pairs[:, 0]):
        one = prints.spectra([prints.textures[first]], FINE)
        rows = np.flatnonzero(pairs[:, 0] == first)
        for some in np.split(rows, range(16, len(rows), 16)):
            others = [rotated(prints.textures[j], angle_deg) for j in pairs[some, 1]]
            ratios[some] = prominence_table(one, prints.spectra(others, FINE))[0]
    return ratios


def _excess(
    prints: Fingerprints, ratios: NDArray[np.float64], threshold: float
) -> NDArray[np.float64]:
    typical = prints.chance[FINE].typical
    return np.clip((ratios - typical) / (threshold - typical), 0, 2)


def _group_by_linkage(
    prints: Fingerprints, accepted: Pairs, threshold: float
) -> tuple[NDArray[np.int64], list[SamePair]]:
    """Group by average linkage, so that one chance pair cannot chain two parts together."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    count = len(prints.textures)
    edges = coo_array((np.ones(len(accepted)), tuple(accepted.T)), shape=(count, count))
    _, cluster = connected_components(edges, directed=False)
    groups, pairs = np.arange(count), []
    for label in np.flatnonzero(np.bincount(cluster) > 1):
        members = np.flatnonzero(cluster == label)
        inside = members[np.stack(np.triu_indices(len(members), 1), axis=1)]
        if len(members) > _LARGE:
            inside = accepted[cluster[accepted[:, 0]] == label]
        ratios = _fine_peaks(prints, inside)
        similarity = np.zeros((len(members), len(members)))
        where = np.searchsorted(members, inside)
        similarity[where[:, 0], where[:, 1]] = _excess(prints, ratios, threshold)
        distance = squareform(
            2 - similarity - similarity.T - 2 * np.eye(len(members)), checks=False
        )
        inner = fcluster(linkage(distance, "average"), 2 - _LINK, "distance")
        groups[members] = members[np.unique(inner, return_index=True)[1]][inner - 1]
        for (i, j), ratio in zip(inside, ratios, strict=True):
            if ratio >= threshold and groups[i] == groups[j]:
                pairs.append(SamePair(first=int(i), second=int(j), similarity=float(ratio)))
    return groups, pairs


def _find_turned_parts(
    prints: Fingerprints, groups: NDArray[np.int64], pairs: Sequence[SamePair]
) -> tuple[list[SamePair], str]:
    """Compare one image of every group with those of the others at half a turn and small tilts."""
    support = np.zeros(len(groups))
    for pair in pairs:
        support[[pair.first, pair.second]] += pair.similarity
    order = np.argsort(-support, kind="stable")
    members = {int(g): order[groups[order] == g] for g in np.unique(groups)}
    heads = np.sort(np.array([some[0] for some in members.values()]))
    tilts: tuple[float, ...] = _TILTS_DEG
    once = len(heads) * (len(heads) - 1) / 2
    if once * (2 * len(tilts) - 1) > MOST_TURNED_COMPARISONS:
        tilts = (0.0,)
    if once > MOST_TURNED_COMPARISONS or not once:
        return [], "turned parts were not looked for"
    comparisons = once * (2 * len(tilts) - 1)
    threshold = _threshold(prints, 3 * comparisons)  # the angle is refined in three steps
    best: dict[tuple[int, int], SamePair] = {}
    for angle, found in _candidates_turned(prints, heads, tilts, comparisons):
        for step in (angle - 1, angle, angle + 1):
            for (i, j), ratio in zip(found, _fine_peaks(prints, found, step), strict=True):
                known = best.get((i, j))
                if ratio >= threshold and (known is None or known.similarity < ratio):
                    best[i, j] = SamePair(
                        first=int(i), second=int(j), similarity=float(ratio), rotation_deg=step
                    )
    kept = []
    for (i, j), pair in best.items():
        ours, theirs = members[int(groups[i])][:3], members[int(groups[j])][:3]
        cross = np.array([(a, b) for a in ours for b in theirs])
        ratios = _fine_peaks(prints, cross, pair.rotation_deg)
        if _excess(prints, ratios, threshold).mean() >= _LINK:
            kept.append(pair)
    what = "half a turn and tilts up to 5 degrees" if len(tilts) > 1 else "half a turn"
    return kept, f"after {what} by {threshold:.1f} deviations"


def _candidates_turned(
    prints: Fingerprints, heads: Indices, tilts: Sequence[float], comparisons: float
) -> Iterator[tuple[float, Pairs]]:
    level = prints.chance[COARSE].level(comparisons, 2 * len(heads))
    upright = _coarse(prints, heads)
    for tilt in tilts:
        spectra = _coarse(prints, heads, tilt)
        if tilt:
            yield tilt, heads[_pairs_above(upright, spectra, level)]
        # Half a turn of a real image is the complex conjugate of its spectrum, up to a shift.
        yield 180 + tilt, heads[_pairs_above(upright, spectra.conj(), level)]


def _merge_turned_groups(groups: NDArray[np.int64], turned: Sequence[SamePair]) -> tuple[int, ...]:
    """Merge groups of turned pairs and number them in order of appearance."""
    count = len(groups)
    links = np.array([(groups[p.first], groups[p.second]) for p in turned]).reshape(-1, 2)
    edges = coo_array((np.ones(len(links)), tuple(links.T)), shape=(count, count))
    _, label = connected_components(edges, directed=False)
    _, first, index = np.unique(label[groups], return_index=True, return_inverse=True)
    return tuple(int(g) for g in np.argsort(np.argsort(first))[index])
