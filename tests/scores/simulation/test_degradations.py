"""Scans and photos: grade 0 touches nothing, the truth moves with the ink, grades get worse."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from lineside.scores.engraving.page import Page
from lineside.scores.engraving.verovio_engraver import Style, engrave
from lineside.scores.simulation.degradations import (
    COMPONENTS,
    FAMILIES,
    MOVES,
    Degradation,
    degrade,
    draw_degradation,
)
from lineside.scores.simulation.warp import Warp

SCORE = """X:1
M:4/4
L:1/8
K:Eb
c2 (^F{a}G) !p![E2G2] !fermata!c2 | d/2e/2d/2c/2 B4 z2 | c'8 | G,2 .G2 {/a}g2 =e2 |
c2 (^F{a}G) [E2G2] c2 | d/2e/2d/2c/2 B4 z2 | c'8 | G,2 .G2 {/a}g2 =e2 |]
"""
STYLE = Style(options={"pageWidth": 900, "pageHeight": 700})
SPACE = 10.5


@pytest.fixture(scope="module")
def engraved(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, Page]:
    path: Path = tmp_path_factory.mktemp("song") / "song.abc"
    path.write_text(SCORE)
    return next(iter(engrave(path, STYLE, SPACE)))


def alone(name: str, grade: int, seed: int = 3) -> Degradation:
    """One component at the amount of a grade."""
    levels = COMPONENTS[name].scan or COMPONENTS[name].photo
    amounts = {name: float(levels[grade - 1])}
    return Degradation(family="scan", grade=grade, seed=seed, amounts=amounts)


def moved(grade: int, seed: int) -> Degradation:
    drawn = draw_degradation(np.random.default_rng(seed), grade, "photo")
    amounts = {name: float(COMPONENTS[name].photo[grade - 1]) for name in MOVES} | drawn.amounts
    return Degradation(family="photo", grade=grade, seed=seed, amounts=amounts).only(*MOVES)


@pytest.mark.parametrize("family", FAMILIES)
def test_grade_0_is_the_identity(engraved, family):
    image, page = engraved
    drawn = draw_degradation(np.random.default_rng(0), 0, family)
    result, warp = degrade(image, SPACE, drawn)
    assert result.tobytes() == image.tobytes()
    assert warp.page(page) == page
    assert drawn.amounts == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stored_record_gives_the_same_bytes(engraved, family):
    image, _ = engraved
    drawn = draw_degradation(np.random.default_rng(4), 3, family)
    assert drawn == draw_degradation(np.random.default_rng(4), 3, family)
    stored = Degradation(**json.loads(json.dumps(asdict(drawn))))
    first, second = degrade(image, SPACE, drawn)[0], degrade(image, SPACE, stored)[0]
    assert first.tobytes() == second.tobytes()
    assert not np.array_equal(first, image)
    other = draw_degradation(np.random.default_rng(5), 3, family)
    assert not np.array_equal(first, degrade(image, SPACE, other)[0])


def test_a_component_alone_does_what_it_does_among_others(engraved):
    image, _ = engraved
    specks = Degradation(family="scan", grade=3, seed=9, amounts={"specks": 60.0})
    both = Degradation(family="scan", grade=3, seed=9, amounts={"fading": 0.01, "specks": 60.0})
    assert both.only("specks") == specks
    blank = np.full_like(image, 255)
    assert np.array_equal(degrade(blank, SPACE, both)[0], degrade(blank, SPACE, specks)[0])


@pytest.mark.parametrize("seed", range(4))
def test_points_move_and_come_back(seed):
    """A black pixel lands where `move` says, whatever the warp."""
    drawn = moved(5, seed)
    image = np.full((240, 300), 255, np.uint8)
    image[100:103, 200:203] = 0
    result, warp = degrade(image, SPACE, drawn)
    ink = 255.0 - result
    rows, columns = np.indices(image.shape) + 0.5
    found = np.array([(ink * columns).sum(), (ink * rows).sum()]) / ink.sum()
    assert found == pytest.approx(warp.move(np.array([201.5, 101.5])), abs=0.1)
    assert np.hypot(*(found - (201.5, 101.5))) > 1


@pytest.mark.parametrize("seed", range(3))
def test_boxes_stay_on_their_ink(engraved, seed):
    image, page = engraved
    result, warp = degrade(image, SPACE, moved(4, seed))
    truth = warp.page(page)
    assert len(truth.symbols) > 0.8 * len(page.symbols)
    assert truth.interline_px == pytest.approx(SPACE * warp.scale)
    was = {id(symbol): symbol.box for symbol in page.symbols}
    assert max(np.abs(np.array(list(was.values()))[0] - truth.symbols[0].box)) > 1
    dark = np.pad(result < 160, 100)
    for symbol in truth.symbols:
        left, top, right, bottom = symbol.box
        if left < 0 or top < 0 or right > truth.width or bottom > truth.height:
            continue
        rows = slice(int(top) + 100, int(np.ceil(bottom)) + 100)
        columns = slice(int(left) + 100, int(np.ceil(right)) + 100)
        assert dark[rows, columns].any(), symbol
        if symbol.name == "noteheadBlack":
            middle = dark[rows, columns][2:-2, 3:-3]
            assert middle.mean() > 0.85, symbol


def test_a_bent_staff_line_follows_its_ink(engraved):
    image, page = engraved
    result, warp = degrade(image, SPACE, alone("curl", 5))
    lines = [symbol for symbol in warp.page(page).symbols if symbol.name == "staffLine"]
    assert len(lines) == sum(symbol.name == "staffLine" for symbol in page.symbols)
    ups = []
    for line in lines:
        points = np.array(line.points)
        assert len(points) > 20
        middle = points[len(points) // 2]
        assert line.box[1] <= middle[1] <= line.box[3]
        ups.append(np.ptp(points[:, 1]))
        rows = np.clip(np.round(points[1:-1, 1] - 0.5).astype(int), 1, len(image) - 2)
        columns = np.round(points[1:-1, 0] - 0.5).astype(int)
        near = np.minimum(result[rows - 1, columns], result[rows, columns])
        near = np.minimum(near, result[rows + 1, columns])
        assert (near < 200).mean() > 0.98
    assert min(ups) > 2


def test_what_leaves_the_image_leaves_the_truth(engraved):
    image, page = engraved
    warp = Warp(width=image.shape[1], height=image.shape[0], scale=2.0)
    truth = warp.page(page)
    assert 0 < len(truth.symbols) < len(page.symbols)
    assert {note.id for note in truth.notes} <= {symbol.owner for symbol in truth.symbols}
    assert 0 < len(truth.notes) < len(page.notes)


@pytest.mark.parametrize("family", FAMILIES)
def test_ink_is_harder_to_see_at_higher_grades(engraved, family):
    """F-measure of the pixels that are darker than grey, against the ink of the page."""
    image, _ = engraved
    ink = image < 128

    def f_measure(grade: float, seed: int) -> float:
        drawn = draw_degradation(np.random.default_rng(seed), grade, family)
        kept = drawn.only(*(set(COMPONENTS) - set(MOVES)))
        dark = degrade(image, SPACE, kept)[0] < 128
        return float(2 * (dark & ink).sum() / (dark.sum() + ink.sum()))

    means = [np.mean([f_measure(grade, seed) for seed in range(16)]) for grade in range(6)]
    assert all(low < high for high, low in itertools.pairwise(means)), means
    assert means[0] == 1.0
    assert means[5] < 0.7, means


@pytest.mark.parametrize("name", [name for name in COMPONENTS if name not in MOVES])
def test_each_component_changes_the_page_and_more_at_grade_5(engraved, name):
    image, _ = engraved

    def change(grade: int) -> float:
        results = [degrade(image, SPACE, alone(name, grade, seed))[0] for seed in range(6)]
        assert all(result.dtype == np.uint8 and result.shape == image.shape for result in results)
        return float(np.mean([np.abs(result.astype(int) - image).mean() for result in results]))

    assert 0 < change(1) < change(5)


def test_ink_that_bleeds_closes_the_gap_between_beams():
    image = np.full((64, 64), 255, np.uint8)
    image[20:25, 8:56] = image[28:33, 8:56] = 0  # beams half a space thick, a quarter apart
    result = degrade(image, SPACE, alone("bleed", 5))[0]
    assert (result[25:28, 12:52] < 128).mean() > 0.9
    assert (result[40:, :] == 255).all()


def test_one_bit_makes_two_values_but_for_smooth_edges(engraved):
    image, _ = engraved
    result = degrade(image, SPACE, alone("one_bit", 2))[0]
    assert len(np.unique(result)) <= 5  # four bits to a pixel
    assert np.isin(result, (0, 255)).mean() > 0.85


def test_broken_lines_leave_heads_alone(engraved):
    image, page = engraved
    result = degrade(image, SPACE, alone("line_breaks", 5))[0]
    for symbol in page.symbols:
        if symbol.name == "noteheadBlack":
            left, top, right, bottom = (round(value) for value in symbol.box)
            assert np.array_equal(
                result[top + 3 : bottom - 3, left + 4 : right - 4],
                image[top + 3 : bottom - 3, left + 4 : right - 4],
            )
    lost = (result.astype(int) - image) > 64
    lines = [symbol for symbol in page.symbols if symbol.name == "staffLine"]
    rows = np.concatenate([np.arange(int(s.box[1]), int(np.ceil(s.box[3]))) for s in lines])
    assert lost.any()
    assert lost[rows].sum() > 0.8 * lost.sum()


def test_the_back_shines_through_mirrored():
    front, back = np.full((80, 120), 255, np.uint8), np.full((80, 120), 255, np.uint8)
    back[:, :20] = 0
    degradation = alone("show_through", 5)
    result = degrade(front, 1.0, degradation, back)[0]  # a small space: nearly no shift
    assert result[:, 110].mean() < 200 < result[:, 40].mean()
    assert (degrade(front, 1.0, degradation)[0] == 255).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [(32, 32), (33, 70), (1, 1)])
@pytest.mark.parametrize("grey", [0, 128, 255])
def test_small_and_empty_images(family, shape, grey):
    image = np.full(shape, grey, np.uint8)
    full = draw_degradation(np.random.default_rng(1), 5, family)
    every = {name: levels[4] for name, c in COMPONENTS.items() if (levels := getattr(c, family))}
    for degradation in (full, Degradation(family=family, grade=5, seed=2, amounts=every)):
        result, _ = degrade(image, SPACE, degradation)
        assert result.shape == shape
        assert result.dtype == np.uint8


def test_the_back_may_have_another_size():
    back = np.zeros((50, 20), np.uint8)
    result, _ = degrade(np.full((32, 48), 255, np.uint8), SPACE, alone("show_through", 5), back)
    assert result.shape == (32, 48)


@pytest.mark.parametrize(("grade", "family"), [(6, "scan"), (-1, "photo"), (2, "fax")])
def test_what_cannot_be_drawn_is_refused(grade, family):
    with pytest.raises(ValueError, match="take"):
        draw_degradation(np.random.default_rng(0), grade, family)
