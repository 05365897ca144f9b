"""The default detector: zero, few or many defects, masks or image labels, feedback, storing."""

import dataclasses

import numpy as np
import pytest
import torch

from lineside.core.errors import UserError
from lineside.core.run.codec import decode, encode
from lineside.parts.models import backbone
from lineside.parts.models.detector import TrainingImage
from lineside.parts.models.feature_head import cell_features, feature_head
from lineside.parts.models.feature_head.cell_features import (
    CellFeatures,
    head_inputs,
    inputs_at,
    resample_map,
    row_bands,
)
from lineside.parts.models.feature_head.cell_sampling import (
    FeatureSpool,
    StoredFeatures,
    inner_folds,
    join_inputs,
    pass_backbone,
    prepare_image,
)
from lineside.parts.models.feature_head.feature_head import (
    FeatureHead,
    fit_detector,
    parts_by_kind,
    pool_logits,
)
from lineside.parts.models.feature_head.fusion import slope_for
from lineside.parts.models.feature_head.head import CellNetwork, fit_head, make_head
from lineside.parts.models.feature_head.image_features import stack
from lineside.parts.models.feature_head.incremental import STEP

SIZE = (64, 80)
FAST = {"hidden": 16, "least_steps": 120, "most_steps": 120}


def picture(number: int, kind: str):
    """Grey noise with a dark square (spot) or a bright line (scratch), and its mask."""
    rng = np.random.default_rng(number)
    image = 0.5 + 0.03 * rng.standard_normal((*SIZE, 1))
    mask = np.zeros(SIZE, bool)
    row, column = rng.integers(10, 45), rng.integers(10, 60)
    if kind == "spot":
        mask[row : row + 10, column : column + 10] = True
        image[mask] -= 0.25
    if kind == "scratch":
        mask[row : row + 3, 5:75] = True
        image[mask] += 0.2
    return image.clip(0, 1).astype(np.float32), mask


def example(number: int, kind: str = "good", masked: bool = True) -> TrainingImage:
    image, mask = picture(number, kind)
    return TrainingImage(
        id=f"{kind}{number}",
        label=kind,
        part=f"{kind}{number // 2}",
        digest="",
        image=lambda: image,
        mask=lambda: mask if masked and kind != "good" else None,
    )


def fitted(defects=(), **settings):
    goods = [example(i) for i in range(12)]
    return fit_detector(
        [*goods, *defects],
        [],
        rng=np.random.default_rng(0),
        log=lambda record: None,
        **{**FAST, **settings},
    )


@pytest.fixture(scope="module")
def good_only():
    return fitted()


@pytest.fixture(scope="module")
def labelled():
    return fitted([example(100 + i, "spot") for i in range(6)])


def scores(detector, kind, numbers=range(200, 206)):
    return np.array([detector.predict(picture(i, kind)[0]).score for i in numbers])


def test_without_defects_it_is_the_good_only_model(good_only):
    prediction = good_only.predict(picture(200, "spot")[0])
    assert good_only.head is None
    assert list(prediction.contributions) == ["normal model"]
    assert scores(good_only, "spot").min() > scores(good_only, "good").max()


def test_without_a_head_no_cell_is_computed(good_only, monkeypatch):
    image = picture(200, "spot")[0]
    expected = good_only.predict(image)
    monkeypatch.setattr(feature_head, "cell_features", None)
    np.testing.assert_array_equal(good_only.predict(image).map, expected.map)
    assert expected.map.shape == (8, 10)


def test_shares_add_up_and_the_map_shows_the_defect(labelled):
    image, mask = picture(201, "spot")
    prediction = labelled.predict(image)
    assert sum(prediction.contributions.values()) == pytest.approx(prediction.score)
    assert prediction.map.shape == (8, 10)
    assert prediction.map.dtype == np.float32
    row, column = np.unravel_index(prediction.map.argmax(), prediction.map.shape)
    near = mask[max(0, row * 8 - 8) : row * 8 + 16, max(0, column * 8 - 8) : column * 8 + 16]
    assert near.any()


def test_labels_help_the_kind_they_name_and_do_not_hurt_another(good_only, labelled):
    def margin(detector, kind):
        return scores(detector, kind).min() - scores(detector, "good").max()

    assert margin(labelled, "spot") > margin(good_only, "spot")
    goods = [labelled.predict(picture(i, "good")[0]) for i in range(200, 206)]
    scratches = [labelled.predict(picture(i, "scratch")[0]) for i in range(200, 206)]
    assert all(r.contributions["known defects"] >= 0 for r in [*goods, *scratches])
    assert min(r.score for r in scratches) > max(r.score for r in goods)


def test_image_labels_are_enough(good_only):
    detector = fitted([example(100 + i, "spot", masked=False) for i in range(6)])
    known = [
        detector.predict(picture(i, "spot")[0]).contributions["known defects"]
        for i in range(200, 206)
    ]
    good = [
        detector.predict(picture(i, "good")[0]).contributions["known defects"]
        for i in range(200, 206)
    ]
    assert min(known) > max(good)


def test_one_defect_is_enough_to_learn(good_only):
    detector = fitted([example(100, "spot")])
    assert detector.kinds == {"spot": 1}
    assert scores(detector, "spot").min() > scores(detector, "good").max()


def test_the_weight_of_the_head_is_learned_from_parts_that_it_has_not_seen():
    """Good parts labelled as faulty: a head knows those it was shown, and says nothing of others.

    Judged on parts that it has seen it would look perfect.
    """
    mislabelled = [
        TrainingImage(
            id=f"x{i}", label="odd", part=f"x{i}", digest="",
            image=lambda i=i: picture(400 + i, "good")[0], mask=lambda: None,
        )
        for i in range(12)
    ]  # fmt: skip
    stages = []
    detector = fit_detector(
        [*(example(i) for i in range(24)), *mislabelled], [],
        rng=np.random.default_rng(0), log=stages.append, **FAST,
    )  # fmt: skip
    real = fitted([example(100 + i, "spot") for i in range(12)])
    assert detector.fusion.slope < 0.6 * slope_for(12)
    assert real.fusion.slope >= slope_for(6)
    assert {"stage": "weight of the head", "slope": detector.fusion.slope} in stages


def test_a_missed_defect_counts_even_where_the_head_had_lost_its_weight(labelled):
    silent = dataclasses.replace(labelled, fusion=dataclasses.replace(labelled.fusion, slope=0.0))
    child = silent.update([example(300, "scratch")], rng=np.random.default_rng(0))
    assert child.fusion.slope == slope_for(sum(labelled.kinds.values()) + 1)
    assert silent.update([example(301)], rng=np.random.default_rng(0)).fusion.slope == 0


@pytest.mark.parametrize("parent", ["good_only", "labelled"])
def test_a_missed_defect_can_be_learned_by_its_image_label(parent, request, monkeypatch):
    monkeypatch.setattr("lineside.parts.models.feature_head.incremental.STEPS_FRESH", 150)
    detector = request.getfixturevalue(parent)
    before = detector.predict(picture(300, "scratch")[0]).score
    child = detector.update([example(300, "scratch", masked=False)], rng=np.random.default_rng(0))
    assert child.predict(picture(300, "scratch")[0]).score > before
    assert scores(child, "scratch").min() > scores(child, "good").max()
    assert detector.predict(picture(300, "scratch")[0]).score == before
    assert child.kinds["scratch"] == 1


def test_a_false_reject_can_be_learned(labelled):
    rejected = example(301, "scratch")
    accepted = TrainingImage(
        id="x", label="good", part="x", digest="", image=rejected.image, mask=lambda: None
    )
    before = labelled.predict(rejected.image()).score
    child = labelled.update([accepted], rng=np.random.default_rng(0))
    assert child.predict(rejected.image()).score < before
    assert child.kinds == labelled.kinds


def test_reads_the_same_after_storing(labelled):
    stored = decode(FeatureHead, *encode(labelled))
    again = decode(FeatureHead, *encode(stored))
    image = picture(200, "spot")[0]
    one, two = stored.predict(image), again.predict(image)
    assert one.score == two.score
    assert one.score == pytest.approx(labelled.predict(image).score, rel=1e-5)
    np.testing.assert_array_equal(one.map, two.map)


def test_scores_are_the_same_without_onnx_runtime(labelled, monkeypatch):
    image = picture(200, "spot")[0]
    fast = labelled.predict(image)
    monkeypatch.setattr(backbone, "_runner", lambda blocks, threads: None)
    slow = labelled.predict(image)
    assert slow.score == pytest.approx(fast.score, abs=1e-3)
    np.testing.assert_allclose(slow.map, fast.map, atol=1e-2)


def test_refuses_other_backbone_weights(labelled):
    with pytest.raises(UserError, match="backbone weights"):
        dataclasses.replace(labelled, backbone="0" * 64)


def test_training_cells_are_in_memory_once(monkeypatch):
    seen = []

    def spy(cells, **settings):
        seen.append(join_inputs(cells).base is cells[0].inputs.base)
        return fit_head(cells, **settings)

    monkeypatch.setattr(feature_head, "fit_head", spy)
    fitted([example(100, "spot"), example(102, "spot", masked=False)])
    assert seen == [True]


def test_needs_good_images():
    with pytest.raises(UserError, match="good image"):
        fit_detector(
            [example(1), example(100, "spot")], [], rng=np.random.default_rng(0), log=print
        )


def test_same_seed_same_detector():
    one, two = (fitted([example(100, "spot")]) for _ in range(2))
    assert scores(one, "spot").tolist() == scores(two, "spot").tolist()


def test_the_replay_buffer_is_bounded_and_holds_standardised_cells(labelled):
    replay = labelled.replay
    assert replay.inputs.dtype == torch.int8
    assert replay.training_cells(2, 0).inputs.abs().max() <= 127 * STEP + 1e-6
    assert set(replay.target.tolist()) == {0, 1}
    assert (replay.fold[replay.target == 1] == -1).all()


def test_inner_folds_keep_parts_together_and_deal_out_kinds():
    examples = [example(i) for i in range(20)] + [example(i, "spot") for i in range(100, 108)]
    folds = inner_folds(examples, 4, np.random.default_rng(0))
    by_part = {}
    for e, fold in zip(examples, folds, strict=True):
        by_part.setdefault(e.part, set()).add(fold)
    assert all(len(found) == 1 for found in by_part.values())
    assert {f for e, f in zip(examples, folds, strict=True) if e.faulty} == {0, 1, 2, 3}


def test_parts_are_counted_not_images():
    examples = [example(100, "spot"), example(101, "spot"), example(102, "spot"), example(1)]
    assert parts_by_kind(examples) == {"spot": 2}


def test_pooled_is_the_mean_of_the_five_highest():
    assert pool_logits(torch.tensor([1.0, 9, 8, 7, 6, 5, -100])) == pytest.approx(7.0)
    assert pool_logits(torch.tensor([1.0, 3.0])) == pytest.approx(2.0)


def test_the_spool_reads_what_was_written(tmp_path):
    with open(tmp_path / "spool", "w+b") as file:
        spool = FeatureSpool(file)
        seen = [
            CellFeatures(
                native=torch.randn(3, 4, 5),
                half=torch.randn(2, 2, 5),
                contrast=torch.randn(3, 4, 2),
            )
            for _ in range(3)
        ]
        offsets = [spool.write(one) for one in seen]
        for offset, one in reversed(list(zip(offsets, seen, strict=True))):
            got = spool.read(offset)
            for name in ("native", "half", "contrast"):
                expected = getattr(one, name).half().float()
                torch.testing.assert_close(getattr(got, name), expected, rtol=0, atol=0)


def test_features_of_images_wait_in_the_spool(tmp_path):
    rng = np.random.default_rng(0)
    with open(tmp_path / "spool", "w+b") as file:
        spool = FeatureSpool(file)
        passed = [pass_backbone(example(i)) for i in range(3)]
        images = [prepare_image(example(i), passed[i], 0, spool, i == 1, rng) for i in range(3)]
        found = stack(StoredFeatures(images))
    for name in ("near", "far", "whole", "lines", "size"):
        expected = torch.stack([getattr(features, name) for _, features in passed])
        assert torch.equal(getattr(found, name), expected)


def test_head_inputs_align_the_two_scales_and_know_the_place():
    native = torch.zeros(5, 6, 2)
    half = torch.arange(3.0)[:, None, None].expand(3, 3, 2)
    seen = CellFeatures(native=native, half=half, contrast=torch.ones(5, 6, 1))
    x = head_inputs(seen).view(5, 6, 9)
    # half-scale rows 0, 1, 2 sit at native rows 0.5, 2.5, 4.5
    torch.testing.assert_close(x[:, 0, 2], torch.tensor([0, 0.25, 0.75, 1.25, 1.75]))
    torch.testing.assert_close(x[0, 0, 5:], torch.tensor([0.1, 1 / 12, 0.1, 1 / 12]))
    torch.testing.assert_close(x[4, 5, 5:], torch.tensor([0.9, 11 / 12, 0.1, 1 / 12]))
    torch.testing.assert_close(head_inputs(seen, 2, 4).view(2, 6, 9), x[2:4])


def random_cells(rows, columns):
    return CellFeatures(
        native=torch.randn(rows, columns, 6),
        half=torch.randn(-(-rows // 2), -(-columns // 2), 5),
        contrast=torch.randn(rows, columns, 3),
    )


@pytest.mark.parametrize("grid", [(5, 6), (1, 1), (7, 2)])
def test_inputs_of_chosen_cells_are_those_of_all_cells(grid):
    cells = random_cells(*grid)
    index = torch.randperm(grid[0] * grid[1])
    assert torch.equal(inputs_at(cells, index), head_inputs(cells)[index])


@pytest.mark.parametrize("grid", [(9, 12), (1, 1), (8, 3)])
@pytest.mark.parametrize("clipped", [False, True])
def test_a_layer_before_interpolation_gives_the_logits_of_interpolated_inputs(
    grid, clipped, monkeypatch
):
    monkeypatch.setattr(cell_features, "BAND_CELLS", 24)  # several bands of rows
    cells = random_cells(*grid)
    assert grid != (9, 12) or len(list(row_bands(cells))) == 5
    if clipped:
        cells.half[0, 0, 3] = 40.0
        cells.native[0, 0, 0] = -40.0
    count = head_inputs(cells).shape[1]
    network = CellNetwork(count, 3, 4).initialise(torch.Generator().manual_seed(0))
    head = make_head(network, torch.randn(count), torch.rand(count) + 0.5)
    expected = head.logits(head_inputs(cells))
    torch.testing.assert_close(head.cell_logits(cells), expected, atol=1e-5, rtol=1e-5)
    alone = torch.cat([member.cell_logits(cells) for member in head.alone()], 1)
    torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)


def test_maps_of_the_same_grid_are_left_as_they_are():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert resample_map(values, 2, 3) is values
    assert resample_map(values, 4, 6).shape == (4, 6)
