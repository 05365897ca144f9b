"""From a page to pieces of ink: staff lines and stems removed by run lengths, components, heads.

1. Staff lines are thin: pixels in vertical black runs no longer than twice a line. A staff is where
   five such lines lie a staff space apart over a wide window (Fujinaga 2004).
2. Staff and ledger lines are removed: vertical runs at a line no longer than its thickness and a
   tolerance (Dalitz, Droettboom, Pranzas and Fujinaga, "A Comparative Study of Staff Removal
   Algorithms", TPAMI 2008, section III: the line-track method). Symbols that cross a line stay.
3. Stems are long vertical runs of pixels in short horizontal runs; they are removed through heads
   and beams, which fall apart into heads, flags and beams.
4. What is left has components. A glyph may be several (bass clef, fermata): components of ink
   that is joined over gaps of several widths are all candidates; a classifier chooses.
5. Heads of chords touch. Where the ink is like a mean notehead is a candidate too.

All at twice the resolution of the page, where lines are about three pixels thick.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.signal import oaconvolve

ZOOM = 2
INK = 0.35  # from paper to black: a line between two rows of pixels is grey
LEAST_CONTRAST = 24  # of a page with something on it
LINES = 5
WINDOW = 6.0  # staff spaces over which a line must go on
LEAST_STAFF = 8.0  # staff spaces: of the width of a staff
LEDGERS = 6  # ledger lines above and below that are looked for
TOLERANCE_PX = 2  # by which a line may be thicker
STEM_WIDTH, STEM_HEIGHT = 0.3, 2.7  # staff spaces: widest, shortest (flats are 2.5 high)
GAPS = (0.0, 0.15, 0.3, 0.5)  # staff spaces over which ink is joined
SMALLEST, WIDEST, TALLEST = 0.15, 6.0, 9.0  # staff spaces: of a candidate
HEAD_LIKENESS = 0.5  # of a candidate to the mean notehead, correlation
HEAD_KIND, CUT_KIND = len(GAPS), len(GAPS) + 1  # kinds of candidates that are no component
CUT_SIZE = 1.5  # staff spaces: components longer than that are cut where they are thinnest


@dataclass(frozen=True, kw_only=True)
class Staff:
    """A staff: row of its first line by column (at `ZOOM`), and the columns where it is."""

    top: NDArray[np.int64]
    left: int
    right: int


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Pieces of ink that may be symbols.

    Attributes:
        boxes: Left, top, right, bottom at `ZOOM`, shape (candidate, 4).
        kinds: Number in `GAPS`, or `HEAD_KIND` or `CUT_KIND`.
        pictures: 0 paper to 1 ink, each stretched to a square, shape (candidate, side, side).
        areas: Black pixels.
    """

    boxes: NDArray[np.int64]
    kinds: NDArray[np.int64]
    pictures: NDArray[np.float32]
    areas: NDArray[np.float32]


def enlarged(grey: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return where ink is, shape (ZOOM * height, ZOOM * width)."""
    height, width = grey.shape
    paper, black = np.median(grey), np.percentile(grey, 0.1)
    if paper - black < LEAST_CONTRAST:
        return np.zeros((ZOOM * height, ZOOM * width), bool)
    large = Image.fromarray(grey).resize((ZOOM * width, ZOOM * height), Image.Resampling.BICUBIC)
    return np.asarray(large) < max(paper - INK * (paper - black), 1)


def runs(ink: NDArray[np.bool_], axis: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return for each black pixel the first and the last index of its run along an axis."""
    index = np.arange(ink.shape[axis], dtype=np.int32)
    index = index[:, None] if axis == 0 else index[None]
    black = np.pad(ink, [(1, 1) if a == axis else (0, 0) for a in (0, 1)])
    before, after = (black.take(np.arange(i, i + ink.shape[axis]), axis=axis) for i in (0, 2))
    first = np.where(ink & ~before, index, 0)
    last = np.where(ink & ~after, index, ink.shape[axis])
    first = np.maximum.accumulate(first, axis=axis)
    last = np.flip(np.minimum.accumulate(np.flip(last, axis), axis=axis), axis)
    return first, last


def find_staves(thin: NDArray[np.bool_], space: float) -> list[Staff]:
    """Return the staves of an upright page.

    Args:
        thin: Pixels in short vertical runs.
        space: Staff space in pixels of `thin`.
    """
    thick = ndimage.maximum_filter1d(thin.view(np.uint8), 3, axis=0).astype(np.float32)
    strength = ndimage.uniform_filter1d(thick, round(WINDOW * space), axis=1)
    reach = round((LINES - 1) * space)
    rows = strength.shape[0] - reach
    if rows < 1:
        return []
    comb = sum(
        strength[round(k * space) : round(k * space) + rows] for k in range(LINES)
    ) / np.float32(LINES)
    profile = (comb > 0.5).mean(axis=1) + 0.1 * comb.mean(axis=1)
    highest = ndimage.maximum_filter1d(profile, 2 * round(reach * 0.9) + 1)
    found: list[Staff] = []
    for row in np.flatnonzero(
        (profile == highest) & (profile > LEAST_STAFF * space / thin.shape[1])
    ):
        if found and row - found[-1].top.mean() < reach:
            continue  # equally high rows
        low, high = max(0, row - round(space / 2)), min(rows, row + round(space / 2) + 1)
        near = comb[low:high]
        # Among equally strong rows the one in the middle: the lines were thickened above.
        top = low + (near.argmax(axis=0) + near.shape[0] - 1 - near[::-1].argmax(axis=0)) // 2
        there = np.flatnonzero(near.max(axis=0) > 0.5)
        middle = ndimage.median_filter(top[there[0] : there[-1] + 1], round(WINDOW * space))
        left, right = int(there[0]), int(there[-1]) + 1
        whole = np.interp(np.arange(thin.shape[1]), np.arange(left, right), middle)
        left, right = max(0, left - round(2 * space)), min(len(whole), right + round(2 * space))
        found.append(Staff(top=np.round(whole).astype(np.int64), left=left, right=right))
    return found


def remove_lines(ink: NDArray[np.bool_], space: float) -> tuple[NDArray[np.bool_], list[Staff]]:
    """Return ink without staff and ledger lines, and the staves."""
    first, last = runs(ink, 0)
    lengths = np.where(ink, last - first + 1, 0)
    pixels = np.bincount(lengths[ink], minlength=2)[: round(space / 2)]
    counts = pixels / np.maximum(np.arange(len(pixels)), 1)
    thickness = int(counts[1:].argmax()) + 1
    longest = thickness + TOLERANCE_PX
    staves = find_staves(ink & (lengths <= 2 * thickness), space)
    short = ink & (lengths <= longest)
    # A ledger line is also wide, unlike the thin strokes of other symbols.
    beside = runs(short, 1)
    wide = short & (beside[1] - beside[0] + 1 >= 0.25 * space)
    # Column by column: 1 where a line may be, then all of its run.
    erase = np.zeros_like(ink)
    for number, staff in enumerate(staves):
        above = staves[number - 1].top + 6 * space if number else np.zeros_like(staff.top)
        below = staves[number + 1].top - 2 * space if number + 1 < len(staves) else ink.shape[0]
        for k in range(-LEDGERS, LINES + LEDGERS):
            inside = 0 <= k < LINES
            columns = np.arange(staff.left, staff.right)
            rows = staff.top[columns] + round(k * space)
            for offset in (0, -1, 1, -2, 2):
                y = rows + offset
                ok = (y >= 0) & (y < ink.shape[0])
                if not inside:
                    high = np.broadcast_to(below, staff.top.shape)[columns]
                    ok &= (y > above[columns]) & (y < high)
                y, x = y[ok], columns[ok]
                hit = (short if inside else wide)[y, x]
                erase[first[y[hit], x[hit]], x[hit]] = True
    starts = np.where(short, first, 0)
    gone = np.take_along_axis(erase, starts, axis=0) & short
    return ink & ~gone, staves


def remove_stems(ink: NDArray[np.bool_], space: float) -> NDArray[np.bool_]:
    """Return ink without stems and bar lines."""
    left, right = runs(ink, 1)
    thin = ink & (right - left + 1 <= STEM_WIDTH * space)
    top, bottom = runs(thin, 0)
    seeds = thin & (bottom - top + 1 >= STEM_HEIGHT * space)
    # The blurred edge of a stem is black only here and there.
    seeds = thin & ndimage.maximum_filter1d(seeds.view(np.uint8), 3, axis=1).view(bool)
    # All of the black run that a seed is part of: the stem goes on through heads and beams.
    first, _ = runs(ink, 0)
    marked = np.zeros_like(ink)
    rows, columns = np.nonzero(seeds)
    marked[first[rows, columns], columns] = True
    return ink & ~(np.take_along_axis(marked, np.where(ink, first, 0), axis=0) & ink)


def candidates(
    ink: NDArray[np.bool_], space: float, heads: NDArray[np.float32], side: int
) -> Candidates:
    """Return components at all gaps, and where the ink is like a notehead.

    Args:
        ink: Without lines and stems.
        space: Staff space in its pixels.
        heads: Mean noteheads at half its resolution, shape (head, height, width).
        side: Of the pictures.
    """
    found: dict[tuple[int, ...], tuple[int, NDArray[np.float32], float]] = {}

    def add(mask: NDArray[np.bool_], left: int, top: int, kind: int) -> None:
        if not mask.any():
            return
        x0, y0, x1, y1 = _ink_box(mask)
        if min(x1 - x0, y1 - y0) < SMALLEST * space or x1 - x0 > WIDEST * space:
            return
        cut = mask[y0:y1, x0:x1]
        place = (left + x0, top + y0, left + x1, top + y1)
        found.setdefault(place, (kind, _stretched(cut, side), float(cut.sum())))
        if kind == 0:
            for part, x, y in _halves(cut, space):
                add(part, left + x0 + x, top + y0 + y, CUT_KIND)

    for kind, gap in enumerate(GAPS):
        width = 2 * round(gap * space / 2) + 1
        joined = ink
        if width > 1:
            joined = ndimage.maximum_filter(ink.view(np.uint8), width).view(bool)
        labels, _ = ndimage.label(joined, np.ones((3, 3), int))
        for number, window in enumerate(ndimage.find_objects(labels), 1):
            if max(s.stop - s.start for s in window) <= TALLEST * space + width:
                mask = (labels[window] == number) & ink[window]
                add(mask, window[1].start, window[0].start, kind)
    for left, top, right, bottom in _heads(ink, heads):
        add(ink[top:bottom, left:right], left, top, HEAD_KIND)
    kinds, pictures, areas = zip(*found.values(), strict=True) if found else ((), (), ())
    return Candidates(
        boxes=np.array(list(found), np.int64).reshape(-1, 4), kinds=np.array(kinds, np.int64),
        pictures=np.array(pictures, np.float32).reshape(-1, side, side),
        areas=np.array(areas, np.float32),
    )  # fmt: skip


def _halves(mask: NDArray[np.bool_], space: float) -> Iterator[tuple[NDArray[np.bool_], int, int]]:
    """Yield a long piece of ink cut in two where it is thinnest, with the left and top of each.

    Digits of a time signature and accidentals of a key signature touch.
    """
    for axis in (0, 1):
        length = mask.shape[axis]
        if CUT_SIZE * space <= length <= WIDEST * space:
            low = round(0.3 * length)
            middle = mask.sum(axis=1 - axis)[low : length - low]
            # Of equally thin places the one nearest to the middle.
            order = middle + 0.01 * abs(np.arange(len(middle)) - len(middle) / 2)
            at = low + int(order.argmin())
            if axis == 0:
                yield from ((mask[:at], 0, 0), (mask[at:], 0, at))
            else:
                yield from ((mask[:, :at], 0, 0), (mask[:, at:], at, 0))


def _heads(ink: NDArray[np.bool_], heads: NDArray[np.float32]) -> list[tuple[int, ...]]:
    """Return boxes where the correlation with a mean notehead is at a peak."""
    rows, columns = (n // ZOOM for n in ink.shape)
    small = ink[: ZOOM * rows, : ZOOM * columns].reshape(rows, ZOOM, columns, ZOOM)
    small = small.mean(axis=(1, 3), dtype=np.float32)
    found = []
    for head in heads:
        height, width = head.shape
        mean = ndimage.uniform_filter(small, (height, width), mode="constant")
        square = ndimage.uniform_filter(small**2, (height, width), mode="constant")
        spread = np.sqrt(np.maximum(square - mean**2, 1e-3) * head.size)
        pattern = head - head.mean()
        pattern /= np.linalg.norm(pattern)
        likeness = oaconvolve(small, pattern[::-1, ::-1], mode="same") / spread
        peaks = (likeness == ndimage.maximum_filter(likeness, 5)) & (likeness > HEAD_LIKENESS)
        for y, x in zip(*np.nonzero(peaks), strict=True):
            # Where `same` puts the middle of an odd pattern.
            top, left = y - height // 2, x - width // 2
            if top >= 0 and left >= 0 and top + height <= rows and left + width <= columns:
                found.append(tuple(ZOOM * n for n in (left, top, left + width, top + height)))
    return [tuple(int(n) for n in box) for box in found]


def _ink_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _stretched(mask: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    small = np.asarray(image.resize((side, side), Image.Resampling.BOX))
    return small.astype(np.float32) / np.float32(255)
