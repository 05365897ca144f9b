"""Which images show the same physical part? Found from the pictures alone, without names or labels.

How high correlation peaks get by chance is measured on mirrored images, which cannot show the same
part, and the threshold follows from it: no number here was fitted to a data set.

Stages: all pairs coarsely -> candidates finely -> average-linkage groups -> turned parts merged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform
from torch import Tensor

from lineside.parts.audit.fingerprints import (
    COARSE,
    FINE,
    Fingerprints,
    Grey,
    Texture,
    fingerprints,
    peak_table,
    prominence_table,
    reduced,
    rotated,
    texture,
)

Picture = NDArray[np.float32]
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
    images: Sequence[Picture] | Sequence[Callable[[], Picture]], *, rng: np.random.Generator
) -> Duplicates:
    """Propose groups of images that show the same physical part.

    Invariant to exposure, smooth lighting, crop offset, half a turn and tilts up to 5 degrees; not
    to scale: one camera at one distance is assumed. Time grows with the square of the number of
    images (about 20 us per pair on one core), memory linearly (about 60 kB per image).

    Args:
        images: Arrays `(height, width, channel)` float32 in 0..1 with 1 or 3 channels, or functions
            that load one; what they return is not kept, and at most 32 are called twice.
        rng: Draws the sample that sets filter and chance level.
    """
    textures = _textures(images, rng)
    count = len(textures)
    if count < 2:
        return Duplicates(groups=(0,) * count, pairs=(), threshold=np.inf, method="no pair")
    prints = fingerprints(textures, rng)
    comparisons = count * (count - 1) / 2
    threshold = _threshold(prints, comparisons)
    candidates = _candidates(prints)
    accepted = candidates[_fine_peaks(prints, candidates) >= threshold]
    groups, pairs = _linked(prints, accepted, threshold)
    turned, note = _turned(prints, groups, pairs)
    pairs = sorted(pairs + turned, key=lambda pair: (-pair.similarity, pair.first, pair.second))
    fine = prints.chance[FINE]
    return Duplicates(
        groups=_joined(groups, turned),
        pairs=tuple(pairs),
        threshold=threshold,
        method=f"the correlation peak exceeds the next one by {threshold:.1f} deviations, so that "
        f"chance yields {EXPECTED_FALSE_PAIRS:g} pairs in {comparisons:.0f} (exponential tail of "
        f"mirrored pairs, median {fine.middle:.2f}; of real pairs {fine.typical:.2f}); {note}",
    )


def _textures(
    images: Sequence[Picture] | Sequence[Callable[[], Picture]], rng: np.random.Generator
) -> list[Texture]:
    chosen = rng.permutation(len(images))[:32]
    long_sides = [max(_grey(images[i]).shape) for i in chosen]
    # One factor for all: with one camera a pixel must mean the same length in every image.
    factor = max(1, round(float(np.median(long_sides)) / _WORKING_PX)) if long_sides else 1
    return [texture(reduced(_grey(images[i]), factor)) for i in range(len(images))]


def _grey(image: Picture | Callable[[], Picture]) -> Grey:
    picture = image() if callable(image) else image
    grey: Grey = np.asarray(picture, dtype=np.float32).mean(axis=2, dtype=np.float32)
    return grey


def _threshold(prints: Fingerprints, comparisons: float) -> float:
    fine, expected = prints.chance[FINE], EXPECTED_FALSE_PAIRS
    return max(fine.level(comparisons, expected), fine.noise_level(comparisons, expected))


def _coarse(prints: Fingerprints, members: Indices, tilt_deg: float = 0.0) -> Tensor:
    """Return coarse spectra (n, m, m2), made tile by tile to bound memory."""
    tiles = [
        prints.spectra([rotated(prints.textures[i], tilt_deg) for i in members[some]], COARSE)
        for some in _slices(len(members), _TILE)
    ]
    return torch.cat(tiles)


def _slices(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, start + size)


def _above(first: Tensor, second: Tensor, level: float) -> Pairs:
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
    return _above(spectra, spectra, level)


def _fine_peaks(prints: Fingerprints, pairs: Pairs, angle_deg: float = 0.0) -> NDArray[np.float64]:
    """Return the fine ratio of each pair (n, 2), the second image turned by the angle."""
    ratios = np.zeros(len(pairs))
    for first in np.unique(pairs[:, 0]):
        one = prints.spectra([prints.textures[first]], FINE)
        rows = np.flatnonzero(pairs[:, 0] == first)
        for some in (rows[part] for part in _slices(len(rows), 16)):
            others = [rotated(prints.textures[j], angle_deg) for j in pairs[some, 1]]
            ratios[some] = prominence_table(one, prints.spectra(others, FINE))[0]
    return ratios


def _excess(
    prints: Fingerprints, ratios: NDArray[np.float64], threshold: float
) -> NDArray[np.float64]:
    typical = prints.chance[FINE].typical
    return np.clip((ratios - typical) / (threshold - typical), 0, 2)


def _linked(
    prints: Fingerprints, accepted: Pairs, threshold: float
) -> tuple[NDArray[np.int64], list[SamePair]]:
    """Group by average linkage, so that one chance pair cannot chain two parts together."""
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


def _turned(
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
    for angle, found in _turned_candidates(prints, heads, tilts, comparisons):
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


def _turned_candidates(
    prints: Fingerprints, heads: Indices, tilts: Sequence[float], comparisons: float
) -> Iterator[tuple[float, Pairs]]:
    level = prints.chance[COARSE].level(comparisons, 2 * len(heads))
    upright = _coarse(prints, heads)
    for tilt in tilts:
        spectra = _coarse(prints, heads, tilt)
        if tilt:
            yield tilt, heads[_above(upright, spectra, level)]
        # Half a turn of a real image is the complex conjugate of its spectrum, up to a shift.
        yield 180 + tilt, heads[_above(upright, spectra.conj(), level)]


def _joined(groups: NDArray[np.int64], turned: Sequence[SamePair]) -> tuple[int, ...]:
    """Merge groups of turned pairs and number them in order of appearance."""
    count = len(groups)
    links = np.array([(groups[p.first], groups[p.second]) for p in turned]).reshape(-1, 2)
    edges = coo_array((np.ones(len(links)), tuple(links.T)), shape=(count, count))
    _, label = connected_components(edges, directed=False)
    _, first, index = np.unique(label[groups], return_index=True, return_inverse=True)
    return tuple(int(g) for g in np.argsort(np.argsort(first))[index])
