"""The classical rival: runs against a second formula, lines and stems removed, the whole."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import rotate

from lineside.core.run.codec import decode, encode
from lineside.core.run.progress import Progress
from lineside.scores.average_precision import PageSymbols, average_precisions
from lineside.scores.engraving.page import read_page
from lineside.scores.engraving.page_maker import Settings, find_scores, make_pages
from lineside.scores.models.run_length.detector import (
    NOTHING,
    RunLengthDetector,
    _strongest,
    fit_run_length,
)
from lineside.scores.models.run_length.segmentation import (
    ZOOM,
    candidates,
    enlarged,
    remove_lines,
    remove_stems,
    runs,
)
from lineside.scores.models.watershed.targets import NUMBER
from lineside.scores.training.crops import Pages

SONG = """X:1
L:1/4
M:4/4
K:D
{bars}
"""
BARS = ("[FAd]^c =f z|G,2 A,2|d/ d'/ c B2|", "z2 f g|e/ f/ [ce]3|d3 z|", "A4|[Ac]2 ^g f|_e d c B|")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    folder = tmp_path_factory.mktemp("pages")
    for number in range(2):
        bars = "\n".join(BARS[(number + i) % 3] * 2 for i in range(3))
        (folder / f"song{number}.abc").write_text(SONG.format(bars=bars))
    scores = find_scores([folder / f"song{number}.abc" for number in range(2)])
    make_pages(scores, folder, Settings(), Progress(quiet=True))
    return Pages(folder)


@pytest.fixture(scope="module")
def detector(pages: Pages) -> RunLengthDetector:
    return fit_run_length(pages, rng=np.random.default_rng(0), epochs=15)


def test_runs_by_walking() -> None:
    ink = np.random.default_rng(0).random((17, 23)) < 0.6
    for axis in (0, 1):
        first, last = runs(ink, axis)
        lines, starts, ends = (a if axis else a.T for a in (ink, first, last))
        for line, start, end in zip(lines, starts, ends, strict=True):
            for at in np.flatnonzero(line):
                assert line[start[at] : end[at] + 1].all()
                assert start[at] <= at <= end[at]
                assert start[at] == 0 or not line[start[at] - 1]
                assert end[at] == len(line) - 1 or not line[end[at] + 1]


def test_lines_go_and_symbols_stay(pages: Pages) -> None:
    truth = read_page(pages.paths[0].with_suffix(".json.gz"))
    before = enlarged(pages.image(0))
    after, staves = remove_lines(before, ZOOM * truth.interline_px)
    lines = sorted({round(s.box[1]) for s in truth.symbols if s.name == "staffLine"})
    assert len(staves) == len(lines) / 5
    tops = [staff.top[(staff.left + staff.right) // 2] / ZOOM for staff in staves]
    assert tops == pytest.approx(lines[::5], abs=1.5)
    left = [share(after, s.box) / share(before, s.box) for s in truth.symbols if s.name in LINE]
    assert np.mean(left) < 0.35  # what is left of a line are the symbols on it
    heads = [s.box for s in truth.symbols if s.name == "noteheadBlack"]
    assert min(share(after, box) / share(before, box) for box in heads) > 0.7
    stems = [s.box for s in truth.symbols if s.name == "stem"]
    without = remove_stems(after, ZOOM * truth.interline_px)
    assert np.mean([share(without, box) / share(before, box) for box in stems]) < 0.35


LINE = ("staffLine",)


def share(ink: np.ndarray, box: tuple[float, ...]) -> float:
    left, top, right, bottom = (round(ZOOM * side) for side in box)
    return float(ink[top:bottom, left:right].mean())


def test_what_falls_apart_is_joined_and_what_touches_is_cut() -> None:
    ink = np.zeros((200, 200), bool)
    ink[20:40, 20:40] = ink[20:40, 44:50] = True  # 4 px apart
    ink[100:120, 100:120] = ink[120:140, 104:124] = ink[118:122, 108:112] = True
    found = candidates(ink, 20.0, np.zeros((0, 11, 13), np.float32), 16)
    boxes = {tuple(box) for box in found.boxes.tolist()}
    assert {(20, 20, 40, 40), (44, 20, 50, 40), (20, 20, 50, 40)} <= boxes
    assert (100, 100, 124, 140) in boxes
    assert any(box[3] - box[1] <= 22 and box[0] == 100 and box[2] == 120 for box in boxes)


def test_the_most_certain_of_overlapping_candidates_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [40, 0, 50, 10], [80, 0, 90, 10]])
    confidences = np.array([0.6, 0.9, 0.3, 0.001], np.float32)
    assert _strongest(boxes, confidences).tolist() == [1, 2]


def weighted(detector: RunLengthDetector, pages: Pages, number: int, turned: float = 0.0) -> float:
    """Return the frequency-weighted AP@.5 of a page, turned around its middle."""
    grey, drawing = pages.image(number), pages.drawings[number]
    boxes = drawing.boxes
    if turned:
        grey = rotate(grey, -turned, reshape=False, cval=255, order=1)  # positive: clockwise
        angle, middle = np.deg2rad(turned), np.array(grey.shape[::-1]) / 2
        matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        centres = ((boxes[:, :2] + boxes[:, 2:]) / 2 - middle) @ matrix.T + middle
        half = (boxes[:, 2:] - boxes[:, :2]) / 2
        boxes = np.concatenate([centres - half, centres + half], axis=1)
    found = detector.detect(grey)
    ones = np.ones(len(boxes))
    precisions = average_precisions(
        [
            (
                PageSymbols(
                    boxes=found.boxes(), classes=found.classes, confidences=found.confidences
                ),
                PageSymbols(boxes=boxes, classes=drawing.classes, confidences=ones),
            )
        ],
        0.5,
    )
    return sum(ap * n for ap, n in precisions.values()) / len(boxes)


def test_it_finds_what_it_was_fitted_on(detector: RunLengthDetector, pages: Pages) -> None:
    assert weighted(detector, pages, 0) > 0.9
    assert weighted(detector, pages, 1, turned=2.0) > 0.75


def test_it_is_stored(detector: RunLengthDetector, pages: Pages) -> None:
    again = decode(RunLengthDetector, *encode(detector))
    first, second = (d.detect(pages.image(1)[:600]) for d in (detector, again))
    assert np.array_equal(first.confidences, second.confidences)
    assert np.array_equal(first.boxes(), second.boxes())
    assert NUMBER["noteheadBlack"] in first.classes
    assert first.classes.max() < NOTHING
    assert (first.confidences > 0).all()
    assert (first.confidences <= 1).all()


@pytest.mark.parametrize("shape", [(5, 5), (40, 300), (200, 200)])
def test_a_page_without_music(detector: RunLengthDetector, shape: tuple[int, int]) -> None:
    for value in (0, 255):
        assert not len(detector.detect(np.full(shape, value, np.uint8)).classes)
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert detector.detect(noise).boxes().shape[1] == 4
