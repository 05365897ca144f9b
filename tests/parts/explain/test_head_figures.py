"""What the default method learned: the right patches and places, at no effect on the fit."""

import numpy as np
import pytest
import torch

from lineside.core.report.figures import load_figures
from lineside.core.run.codec import encode
from lineside.core.run.folder import Run
from lineside.parts import fitting
from lineside.parts.config import Config
from lineside.parts.data.dataset import read_items
from lineside.parts.data.grouping import split
from lineside.parts.explain.exemplars import build_library
from lineside.parts.explain.head_figures import (
    cut_patches,
    describe_places,
    head_figures,
    strongest_tiles,
)
from lineside.parts.explain.head_training import (
    GALLERY_CELLS,
    GALLERY_IMAGES,
    HeadOnlooker,
    held_out_answers,
)
from lineside.parts.models.detector import TrainingImage
from lineside.parts.models.feature_head.feature_head import FitWatch, fit_detector
from lineside.parts.models.feature_head.head import train_network

SPOT = (40, 72)
"""Row and column of the middle of the defect."""


def example(number, faulty, masked=True):
    rng = np.random.default_rng(number)
    image = rng.normal(0.5, 0.03, size=(96, 112, 1)).astype(np.float32).clip(0, 1)
    mask = np.zeros((96, 112), bool)
    if faulty:
        mask[SPOT[0] - 8 : SPOT[0] + 8, SPOT[1] - 8 : SPOT[1] + 8] = True
        image[mask] = 0.95
    label = "spot" if faulty else "good"
    return TrainingImage.from_array(image, label, mask=mask if faulty and masked else None)


EXAMPLES = [example(n, n % 3 == 0) for n in range(18)]


def fit(watch=None, examples=EXAMPLES):
    rng = np.random.default_rng(0)
    detector = fit_detector(
        examples, [], rng=rng, watch=watch or FitWatch(), least_steps=60, most_steps=60
    )
    return detector, rng.random()


@pytest.fixture(scope="module")
def fitted():
    onlooker = HeadOnlooker()
    detector, after = fit(onlooker)
    assert not onlooker.failure
    return detector, onlooker, after


def figures(fitted, examples=EXAMPLES):
    library = build_library(examples, np.random.default_rng(0))
    return head_figures(fitted[0], examples, fitted[1], library)


def test_looking_changes_no_bit_of_the_model_and_no_random_stream(fitted):
    detector, after = fit()
    assert after == fitted[2]
    (spec, tensors), (other_spec, others) = encode(detector), encode(fitted[0])
    assert spec == other_spec and tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)


def test_a_member_that_did_not_see_an_image_answers_for_it():
    logits = torch.tensor([[1.0, 3.0, 10.0, 20.0, 30.0]] * 3)
    unseen = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 1, 0, 1]]).bool()
    assert held_out_answers(logits, unseen).tolist() == [2.0, 20.0, 20.0]


def test_good_pictures_are_judged_by_members_that_did_not_see_them(fitted):
    separation = fitted[1].separation
    assert separation.held_out[~separation.faulty].all()
    assert separation.steps[0] == 0 and separation.steps[-1] == 60
    assert separation.auroc(separation.pooled[-1]) > 0.95
    assert set(separation.without) == {"fine features", "coarse features", "contrast", "position"}


def test_the_strongest_patches_show_the_defect(fitted):
    detector, onlooker, _ = fitted
    tiles = strongest_tiles(onlooker.faulty, detector.head, EXAMPLES)
    assert len({tile.number for tile in tiles}) == len(tiles) == 6
    for tile in tiles:
        row, column = tile.place[0] * 96, tile.place[1] * 112
        assert abs(row - SPOT[0]) < 14 and abs(column - SPOT[1]) < 14
        assert tile.text.startswith("spot") and tile.text.endswith("right")
    patches = cut_patches(EXAMPLES, tiles)
    assert all(patch[16:48, 16:48].max() > 230 for patch in patches.values())


def test_good_cells_come_with_their_place(fitted):
    detector, onlooker, _ = fitted
    places = onlooker.good.standardised(detector.head).places(detector.head)
    rows, columns = places[:, 0] * 12, places[:, 1] * 14  # cells of 8 px; centres at one half
    assert np.abs(rows % 1 - 0.5).max() < 0.05 and np.abs(columns % 1 - 0.5).max() < 0.05
    assert places.min() < 0.2 and places.max() > 0.8


def test_the_figures_are_the_same_each_time_and_say_what_is_suspicious(fitted):
    blocks = figures(fitted)
    assert blocks == figures(fitted)
    titles = [block.title for block in blocks]
    assert titles[:3] == [
        "Faulty, strongest answers", "Good, strongest answers", "Where the head answers",
    ]  # fmt: skip
    assert {"Map of good and faulty cells", "How the head learned"} <= set(titles)
    assert all("uspicious" in block.caption or "SUSPICIOUS" in block.caption for block in blocks)
    assert "6 of 6 pictures with a marked defect" in blocks[0].caption


def test_pictures_without_masks_are_shown_too():
    examples = [example(n, n % 3 == 0, masked=False) for n in range(12)]
    onlooker = HeadOnlooker()
    detector, _ = fit(onlooker, examples)
    blocks = figures((detector, onlooker), examples)
    assert not onlooker.failure and "in the mark" not in blocks[0].caption
    assert np.isnan(onlooker.separation.cells).all()


def test_a_good_only_training_says_that_no_label_was_learned():
    examples = [example(n, False) for n in range(8)]
    onlooker = HeadOnlooker()
    detector, _ = fit(onlooker, examples)
    line, unusual, places = figures((detector, onlooker), examples)
    assert line.startswith("nothing was learned from labels")
    assert unusual.title == "Most unusual good pictures" and "deviate" in places.title
    scores = [each.score for each in onlooker.unusual]
    assert scores == sorted(scores, reverse=True)


def test_what_is_kept_is_bounded(fitted):
    assert len(fitted[1].faulty.image) <= GALLERY_IMAGES * GALLERY_CELLS
    assert fitted[1].faulty.inputs.dtype == torch.float16


def test_places_are_suspicious_only_where_they_pile_up():
    rng = np.random.default_rng(0)
    assert "SUSPICIOUS" not in describe_places("good", rng.random((40, 2)))
    frame = rng.random((40, 2))
    frame[:, 0] = 0.03  # the upper edge
    assert "40 of 40 in the border. SUSPICIOUS: most lie in the border" in describe_places(
        "good", frame
    )
    spot = 0.5 + 0.05 * rng.random((40, 2))
    assert "SUSPICIOUS: 40 lie in one of 25 fields" in describe_places("faulty", spot)
    assert "SUSPICIOUS" not in describe_places("good", frame[:9])


@pytest.mark.parametrize("where", ["head_figures.cell_map", "head_training.held_out_answers"])
def test_an_error_of_the_figures_is_a_line_and_the_model_is_there(
    where, shop, tmp_path, monkeypatch
):
    def broken(*arguments):
        raise ValueError("no luck")

    monkeypatch.setattr(f"lineside.parts.explain.{where}", broken)
    monkeypatch.setattr(
        train_network, "__kwdefaults__",
        {**train_network.__kwdefaults__, "least_steps": 20, "most_steps": 20},
    )  # fmt: skip
    config = Config(methods=("detector",))
    parted = split(read_items(shop.data(tmp_path / "data", good=6, faulty=6), config), config)
    run = Run.begin(tmp_path / "run", {}, 0)
    model = fitting.fit("detector", parted, config, run)
    run.close("finished")
    assert model.detector.head is not None
    assert load_figures(run.folder, "detector") == [
        "What it learned could not be shown (ValueError: no luck)."
    ]
