"""Symbols by segmentation and a glyph classifier, as before deep learning.

Candidates are cut out by run lengths (see `segmentation`), and a classifier says which class each
is, or none: text, slurs, beams and parts of symbols. Classifier: a network of one hidden layer (as
in Audiveris) on the picture of the candidate, its size and place, and what is around it; its
softmax is the confidence. Of candidates that overlap the most certain one stays.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from lineside.scores.average_precision import iou
from lineside.scores.data.normalise import skew_degrees, warp
from lineside.scores.models.run_length.segmentation import (
    CUT_KIND,
    ZOOM,
    Candidates,
    Staff,
    candidates,
    enlarged,
    remove_lines,
    remove_stems,
)
from lineside.scores.models.watershed.decoding import Detections
from lineside.scores.models.watershed.targets import CLASSES, NUMBER, Drawing
from lineside.scores.training.crops import Pages

SIDE = 16  # of the picture of a candidate
AROUND, REACH = 12, 3.5  # side of the picture of its surroundings; staff spaces to each side
NOTHING = len(CLASSES)
SAME_IOU = 0.5  # with a symbol, from which a candidate is that symbol
OVERLAP = 0.35  # IoU of two candidates of which one is kept
SMALLEST_CONFIDENCE = 0.01
LEAST_SKEW = 0.1  # degrees
HEADS = ("noteheadBlack", "noteheadHalf", "noteheadWhole", "noteheadBlackSmall")
HEAD_SAMPLES = 200
PAGES = 60  # that the classifier is fitted on
HIDDEN, EPOCHS, DECAY = 160, 30, 1e-3


@dataclass(frozen=True, kw_only=True)
class RunLengthDetector:
    """A fitted glyph classifier and the mean noteheads.

    Attributes:
        interline_px: Staff space of the pages it was fitted on.
        heads: Mean noteheads (1 ink), shape (head, height, width).
        mean, scale: Of the features, shape (feature,).
        weights, biases: Of the layers of the classifier.
        classes: Its outputs, numbers in `CLASSES` or `NOTHING`.
    """

    interline_px: float
    heads: NDArray[np.float32]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    weights: tuple[NDArray[np.float32], ...]
    biases: tuple[NDArray[np.float32], ...]
    classes: NDArray[np.int64]

    def detect(self, grey: NDArray[np.uint8]) -> Detections:
        """Return the symbols of a page whose staff space is `interline_px`.

        Args:
            grey: Shape (height, width), 0 black; the page may be turned by a few degrees.
        """
        upright, transform = _upright(grey, self.interline_px)
        found, features = _look(upright, self.interline_px, self.heads)
        probabilities = self.probabilities(features)
        glyphs = self.classes < NOTHING
        best = probabilities[:, glyphs].argmax(axis=1)
        confidences = probabilities[:, glyphs].max(axis=1, initial=0.0)
        kept = _strongest(found.boxes, confidences)
        boxes = found.boxes[kept] / ZOOM
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        inverse = np.linalg.inv(transform[:, :2])
        return Detections(
            centres=((centres - transform[:, 2]) @ inverse.T).astype(np.float32),
            sizes=(boxes[:, 2:] - boxes[:, :2]).astype(np.float32),
            classes=self.classes[glyphs][best[kept]],
            confidences=confidences[kept].astype(np.float32),
        )  # fmt: skip

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability of each of `classes`, shape (candidate, class)."""
        values = (features - self.mean) / self.scale
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = (np.maximum(values, 0.0) if number else values) @ weight + bias
        return softmax(values, axis=1)


def fit_run_length(
    pages: Pages, *, rng: np.random.Generator, most_pages: int = PAGES, epochs: int = EPOCHS
) -> RunLengthDetector:
    """Fit the classifier on engraved pages of one staff space.

    Args:
        pages: Engraved pages.
        rng: Which pages, and the classifier.
        most_pages: Of them that are used.
        epochs: Of the classifier.
    """
    chosen = rng.permutation(len(pages.paths))[:most_pages]
    heads = _mean_heads(pages, chosen)
    features, labels = [], []
    for number in chosen:
        found, rows = _look(pages.image(int(number)), pages.interline_px, heads)
        features.append(rows)
        labels.append(_labels(found.boxes / ZOOM, pages.drawings[number]))
    table, wanted = np.concatenate(features), np.concatenate(labels)
    mean, scale = table.mean(axis=0), np.maximum(table.std(axis=0), 0.05)
    classifier = MLPClassifier(
        (HIDDEN,), alpha=DECAY, batch_size=min(256, len(table)), max_iter=epochs,
        random_state=int(rng.integers(2**31)),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopped early on purpose
        classifier.fit((table - mean) / scale, wanted)
    weights, biases = classifier.coefs_, classifier.intercepts_
    if len(classifier.classes_) == 2:  # one output, of the second class: make it two
        weights[-1] = np.column_stack([np.zeros_like(weights[-1]), weights[-1]])
        biases[-1] = np.concatenate([np.zeros_like(biases[-1]), biases[-1]])
    return RunLengthDetector(
        interline_px=pages.interline_px, heads=heads, mean=mean, scale=scale,
        weights=tuple(w.astype(np.float32) for w in weights),
        biases=tuple(b.astype(np.float32) for b in biases),
        classes=classifier.classes_.astype(np.int64),
    )  # fmt: skip


def _upright(
    grey: NDArray[np.uint8], interline_px: float
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Turn a page until its staff lines are level; also return the transform, shape (2, 3)."""
    angle = skew_degrees(grey, interline_px) if grey.max() > grey.min() else 0.0
    if abs(angle) < LEAST_SKEW:
        return grey, np.eye(2, 3)
    turn = np.deg2rad(-angle)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    height, width = grey.shape
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]]) @ matrix.T
    offset = -corners.min(axis=0)
    across, down = np.ceil(corners.max(axis=0) + offset).astype(int)
    transform = np.column_stack([matrix, offset])
    return warp(grey, transform, (down, across)), transform


def _look(
    grey: NDArray[np.uint8], interline_px: float, heads: NDArray[np.float32]
) -> tuple[Candidates, NDArray[np.float32]]:
    """Return the candidates of an upright page and their features, shape (candidate, feature)."""
    space = ZOOM * interline_px
    without_lines, staves = remove_lines(enlarged(grey), space)
    found = candidates(remove_stems(without_lines, space), space, heads, SIDE)
    return found, _features(grey, found, staves, space)


def _features(
    grey: NDArray[np.uint8], found: Candidates, staves: Sequence[Staff], space: float
) -> NDArray[np.float32]:
    """Return picture, surroundings, size, place and kind of candidates."""
    boxes = found.boxes.astype(np.float64)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    sizes = np.maximum((boxes[:, 2:] - boxes[:, :2]) / space, 0.01)
    y, x = np.full(len(boxes), 9.0), np.full(len(boxes), 9.0)
    for staff in staves:  # the nearest one: rows from its middle, columns from its left end
        column = np.clip(centres[:, 0].astype(int), 0, len(staff.top) - 1)
        row = (centres[:, 1] - staff.top[column]) / space - 2
        nearer = abs(row) < abs(y)
        y = np.where(nearer, row, y)
        x = np.where(nearer, (centres[:, 0] - staff.left) / space, x)
    place = np.column_stack([
        np.log(sizes), sizes, found.areas / (space**2), np.log(sizes[:, 0] / sizes[:, 1]),
        found.areas / (sizes.prod(axis=1) * space**2), y, abs(y), np.clip(x, -4, 16),
        np.cos(2 * np.pi * y), np.sin(2 * np.pi * y), abs(y) < 2.2,
        found.kinds[:, None] == np.arange(CUT_KIND + 1),
    ])  # fmt: skip
    around = _surroundings(grey, centres / ZOOM, space / ZOOM)
    return np.column_stack([found.pictures.reshape(len(boxes), SIDE**2), around, place]).astype(
        np.float32
    )


def _surroundings(
    grey: NDArray[np.uint8], centres: NDArray[np.float64], interline_px: float
) -> NDArray[np.float64]:
    """Return the ink in squares around points (x, y), shape (point, AROUND * AROUND)."""
    sums = np.pad(1 - grey / 255.0, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    steps = np.linspace(-REACH, REACH, AROUND + 1) * interline_px
    columns, rows = (
        np.clip(np.round(centres[:, i, None] + steps), 0, sums.shape[1 - i] - 1).astype(int)
        for i in (0, 1)
    )
    corners = sums[rows[:, :, None], columns[:, None, :]]
    ink = np.diff(np.diff(corners, axis=1), axis=2)
    return ink.reshape(len(centres), AROUND**2) / (steps[1] - steps[0]) ** 2


def _labels(boxes: NDArray[np.float64], drawing: Drawing) -> NDArray[np.int64]:
    """Return the class of the symbol that each candidate is, else `NOTHING`."""
    if not len(drawing.boxes) or not len(boxes):
        return np.full(len(boxes), NOTHING)
    common = iou(boxes, drawing.boxes)
    return np.where(common.max(axis=1) >= SAME_IOU, drawing.classes[common.argmax(axis=1)], NOTHING)


def _mean_heads(pages: Pages, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the mean picture of each kind of notehead without lines, stems and neighbours."""
    height, width = round(pages.interline_px) + 2, round(1.3 * pages.interline_px) + 2
    means = []
    for name in HEADS:
        samples = []
        for number in chosen:
            drawing = pages.drawings[number]
            for box in drawing.boxes[drawing.classes == NUMBER[name]][:20]:
                left, top = np.round((box[:2] + box[2:] - (width, height)) / 2).astype(int)
                crop = pages.image(int(number))[
                    max(top, 0) : top + height, max(left, 0) : left + width
                ]
                if crop.shape == (height, width):
                    samples.append(1 - crop / 255.0)
            if len(samples) > HEAD_SAMPLES:
                break
        if samples:
            # The median leaves out the lines, which are at one height in some of them only.
            means.append(np.median(samples, axis=0))
    return np.array(means, np.float32).reshape(-1, height, width)


def _strongest(boxes: NDArray[np.int64], confidences: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the rows that stay: the most certain of those that overlap."""
    order = np.argsort(-confidences, kind="stable")
    order = order[confidences[order] >= SMALLEST_CONFIDENCE]
    kept: list[int] = []
    if not len(order):
        return np.zeros(0, np.int64)
    overlap = iou(boxes[order].astype(np.float32), boxes[order].astype(np.float32)) > OVERLAP
    gone = np.zeros(len(order), bool)
    for at, row in enumerate(order):
        if not gone[at]:
            kept.append(int(row))
            gone |= overlap[at]
    return np.array(kept, np.int64)
