"""Which kind a dot or a rest block is, told by what is around it.

Detectors know one class `dot` and one `restBlock` (see `targets.MERGED`): the glyphs are alike.

| kind | by |
|---|---|
| restWhole, restHalf | a whole rest hangs from a line, a half rest sits on one |
| repeatDot | another dot one staff space above or below, a thick bar line beside |
| augmentationDot | a notehead, rest or dot on its left, at about its height |
| articStaccato | a notehead above or below |
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from lineside.scores.models.watershed.decoding import Detections
from lineside.scores.models.watershed.targets import CLASSES, NUMBER

# All lengths in staff spaces.
LINE_FROM_CENTRE = (-0.25, 0.25)  # of a whole and a half rest, down
LINE_TOLERANCE = 0.1
LINES = np.arange(-3, 4)  # lines that are looked at
FLANK = (0.1, 1.6)  # beside a rest, where its line is seen
TWIN = (0.25, 0.25)  # tolerance across and down of the other repeat dot
BAR = 0.3  # width of a thick bar line, at least
BAR_REACH, BAR_HALF_HEIGHT = 1.7, 1.7
BAR_INK = 0.85
AUGMENTATION_GAP, LEAST_GAP, GAP_SCALE, DOWN_SCALE = 0.3, -0.7, 0.6, 0.5
SLACK = (0.5, 0.8)  # by which a dot may be above or below the middle of a head, of a rest
ACROSS_SCALE, NEAR, FAR_SCALE = 0.35, 1.5, 3.0
LEAST_DOWN = 0.55  # of a staccato dot from the middle of its head


def kinds(found: Detections, grey: NDArray[np.uint8], interline_px: float) -> tuple[str, ...]:
    """Return the name of every symbol (as in `vocabulary`), dots and rest blocks told apart.

    Args:
        found: Symbols of a page.
        grey: The page, upright, shape (height, width), 0 black.
        interline_px: Its staff space.
    """
    names = [CLASSES[c] for c in found.classes]
    boxes = found.boxes().astype(np.float64) / interline_px
    ink = 1.0 - grey / 255.0
    dots = np.flatnonzero(found.classes == NUMBER["dot"])
    heads = boxes[[name.startswith("notehead") for name in names]]
    rests = boxes[[name.startswith("rest") for name in names]]
    for row in np.flatnonzero(found.classes == NUMBER["restBlock"]):
        names[row] = _rest(ink, boxes[row], interline_px)
    for row in dots:
        others = boxes[dots[dots != row]]
        if _repeats(ink, boxes[row], others, heads, interline_px):
            names[row] = "repeatDot"
        elif _augmentation(boxes[row], heads, rests) <= _staccato(boxes[row], heads):
            names[row] = "augmentationDot"
        else:
            names[row] = "articStaccato"
    # A second dot is as far from the first as that is from the head.
    first = boxes[[row for row in dots if names[row] == "augmentationDot"]]
    for row in dots:
        if names[row] == "articStaccato" and (
            _augmentation(boxes[row], first, first[:0]) < _staccato(boxes[row], heads)
        ):
            names[row] = "augmentationDot"
    return tuple(names)


def _rest(ink: NDArray[np.float64], box: NDArray[np.float64], interline_px: float) -> str:
    """Compare the ink where lines are if it hangs from one, and if it sits on one."""
    left, top, right, bottom = box
    height, width = ink.shape
    across = np.concatenate([
        np.arange((left - FLANK[1]) * interline_px, (left - FLANK[0]) * interline_px),
        np.arange((right + FLANK[0]) * interline_px, (right + FLANK[1]) * interline_px),
    ])  # fmt: skip
    columns = np.clip(across.astype(int), 0, width - 1)
    profile = np.median(ink[:, columns], axis=1)  # stems and heads are in few of the columns
    profile = maximum_filter1d(profile, 2 * round(LINE_TOLERANCE * interline_px) + 1)
    lines = ((top + bottom) / 2 + np.add.outer(LINE_FROM_CENTRE, LINES)) * interline_px
    on = np.interp(lines - 0.5, np.arange(height), profile, left=0.0, right=0.0)
    # The line beside the rest counts as much as the others together: a ledger line is short.
    at = int(np.flatnonzero(LINES == 0)[0])
    hangs, sits = on.sum(axis=1) + len(LINES) * on[:, at]
    return "restWhole" if hangs >= sits else "restHalf"


def _repeats(
    ink: NDArray[np.float64], dot: NDArray[np.float64], others: NDArray[np.float64],
    heads: NDArray[np.float64], interline_px: float,
) -> bool:  # fmt: skip
    """Say whether a dot has a twin one staff space away and a thick bar line beside both."""
    if not len(others):
        return False
    x, y = _centre(dot)
    across, down = others[:, [0, 2]].mean(axis=1) - x, others[:, [1, 3]].mean(axis=1) - y
    twins = (abs(across) < TWIN[0]) & (abs(abs(down) - 1.0) < TWIN[1])
    for apart in down[twins]:
        middle = y + apart / 2
        rows = [middle - BAR_HALF_HEIGHT, middle + BAR_HALF_HEIGHT]
        columns = [x - BAR_REACH, x + BAR_REACH]
        top, bottom = (max(0, round(n * interline_px)) for n in rows)
        left, right = (max(0, round(n * interline_px)) for n in columns)
        window = ink[top:bottom, left:right]
        if not window.size:
            continue
        # A bar line is black from top to bottom; a stem is thinner; chords are no bar line.
        black = np.percentile(window, 10, axis=0) > BAR_INK
        beside = heads[(heads[:, 1] < rows[1]) & (heads[:, 3] > rows[0])] * interline_px - left
        for start, stop in np.clip(beside[:, [0, 2]], 0, len(black)).round().astype(int):
            black[start:stop] = False
        edges = np.flatnonzero(np.diff(np.pad(black.astype(int), 1)))
        if len(edges) and (edges[1::2] - edges[::2]).max() >= BAR * interline_px:
            return True
    return False


def _augmentation(
    dot: NDArray[np.float64], heads: NDArray[np.float64], rests: NDArray[np.float64]
) -> float:
    """Return how far a dot is from where it would lengthen a head or rest, in tolerances."""
    owners = np.concatenate([heads, rests])
    if not len(owners):
        return np.inf
    gaps = dot[0] - owners[:, 2]
    down = abs(owners[:, [1, 3]].mean(axis=1) - _centre(dot)[1])
    slack = np.repeat(SLACK, (len(heads), len(rests)))
    costs = abs(gaps - AUGMENTATION_GAP) / GAP_SCALE
    costs += np.maximum(down - slack, 0.0) / DOWN_SCALE
    return float(costs[gaps > LEAST_GAP].min(initial=np.inf))


def _staccato(dot: NDArray[np.float64], heads: NDArray[np.float64]) -> float:
    """Return how far a dot is from where it would shorten a note, in tolerances."""
    x, y = _centre(dot)
    across = abs(heads[:, [0, 2]].mean(axis=1) - x)
    down = abs(heads[:, [1, 3]].mean(axis=1) - y)
    costs = across / ACROSS_SCALE + np.maximum(down - NEAR, 0.0) / FAR_SCALE
    return float(costs[down > LEAST_DOWN].min(initial=np.inf))


def _centre(box: NDArray[np.float64]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
