"""The cell head: which cells it learns from, what it computes, what it can learn."""

import dataclasses

import numpy as np
import pytest
import torch

from lineside.core.run.codec import decode, encode
from lineside.parts.models.feature_head.cell_sampling import (
    BAG_CELLS,
    UNKNOWN,
    ImageCells,
    choose_cells,
    image_weights,
    join_inputs,
    mask_coverage,
    positive_cells,
)
from lineside.parts.models.feature_head.head import (
    CellNetwork,
    Head,
    fit_head,
    join_cells,
    mean_std,
    train_network,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cells_of(rng, kind, fold=0, masked=True, count=40, defects=10):
    """Cells of one image: 4 features, feature 0 is high where the defect is."""
    inputs = rng.normal(0, 1, (count, 4))
    target = np.zeros(count, np.float32)
    if kind != "good":
        inputs[:defects, 0] += 6
        target[:defects] = 1
        if not masked:
            target[:] = UNKNOWN
    return ImageCells(
        inputs=inputs.astype(np.float16),
        target=target,
        suspicion=rng.normal(0, 1, count).astype(np.float32),
        kind=kind,
        fold=fold,
    )


def test_coverage_counts_pixels_of_each_cell_and_the_ragged_border():
    mask = np.zeros((12, 20), bool)
    mask[0:4, 6:10] = True  # 2 of 8 columns in each of two cells
    mask[11, 19] = True
    shares = mask_coverage(mask, 2, 3)
    expected = np.zeros((2, 3))
    expected[0, 0] = expected[0, 1] = 8 / 64
    expected[1, 2] = 1 / 64
    np.testing.assert_allclose(shares, expected)


def test_only_the_band_of_a_wide_region_is_positive():
    coverage = np.zeros((20, 20), np.float32)
    coverage[4:16, 4:16] = 1
    found = positive_cells(coverage)
    assert found.sum() == 12 * 12 - 8 * 8
    assert not found[8, 8]
    assert found[4, 4]


def test_a_region_that_fills_the_image_is_positive_somewhere():
    assert positive_cells(np.ones((6, 6), np.float32)).any()


def test_a_speck_is_positive_although_it_covers_little():
    coverage = np.zeros((5, 5), np.float32)
    coverage[2, 3] = 0.02
    coverage[2, 2] = 0.01
    assert np.argwhere(positive_cells(coverage)).tolist() == [[2, 3]]


def test_choice_of_cells():
    rng = np.random.default_rng(0)
    suspicion = np.arange(100, dtype=np.float32).reshape(10, 10)
    coverage = np.zeros((10, 10), np.float32)
    coverage[0, :3] = 1
    coverage[1, 0] = 0.1  # touched but not covered: neither positive nor negative
    places, target = choose_cells(coverage, suspicion, True, rng)
    assert sorted(places[target == 1]) == [0, 1, 2]
    assert (target == 0).sum() == 40
    assert 10 not in places
    places, target = choose_cells(None, suspicion, True, rng)
    assert places.tolist() == list(range(99, 39, -1))
    assert (target == UNKNOWN).all()
    places, target = choose_cells(None, np.zeros((20, 10), np.float32), False, rng)
    assert len(set(places.tolist())) == 100
    assert not target.any()


def test_weights_of_positives_and_bags():
    target = np.array([1, 1, 1, 1, 0, 0], np.float32)
    np.testing.assert_allclose(image_weights(target, target), [0.5] * 4 + [1, 1])
    bag = np.full(20, UNKNOWN, np.float32)
    suspicion = np.arange(20, dtype=np.float32)
    weight = image_weights(bag, suspicion)
    assert not weight[:-BAG_CELLS].any()
    np.testing.assert_allclose(weight[-BAG_CELLS:], 1 / np.sqrt(BAG_CELLS))


def test_members_are_separate_perceptrons():
    network = CellNetwork(5, 3, 7).initialise(generator())
    x = torch.randn(11, 5, generator=generator(1))
    together = network(x)
    for member in range(3):
        rows = slice(member * 7, member * 7 + 7)
        hidden = (x @ network.first[rows].T + network.first_bias[rows]).clamp(min=0)
        alone = hidden @ network.second[member] + network.second_bias[member]
        torch.testing.assert_close(together[:, member], alone)


def test_a_member_does_not_see_good_parts_of_its_fold_but_all_defects():
    rng = np.random.default_rng(0)
    joined, _, _ = join_cells([cells_of(rng, "good", 1), cells_of(rng, "scratch", 1)], 1, 2)
    assert joined.weight[:40, :2].all()
    assert not joined.weight[:40, 2].any()
    assert joined.weight[40:].all()


def test_a_member_does_not_see_defects_of_its_fold_where_they_are_hidden_too():
    rng = np.random.default_rng(0)
    cells = [cells_of(rng, "good", 1), cells_of(rng, "scratch", 1)]
    joined, _, _ = join_cells(cells, 1, 2, hide_faulty=True)
    assert joined.weight[:, :2].all()
    assert not joined.weight[:, 2].any()


def test_some_members_compute_what_they_computed_among_all():
    network = CellNetwork(5, 3, 7).initialise(generator())
    x = torch.randn(11, 5, generator=generator(1))
    torch.testing.assert_close(network.subset(1, 3)(x), network(x)[:, 1:])


@pytest.mark.parametrize("masked", [True, False])
def test_learns_defects_with_masks_and_from_image_labels_alone(masked):
    rng = np.random.default_rng(0)
    cells = [cells_of(rng, "good", i % 2) for i in range(20)]
    cells += [cells_of(rng, "scratch", i % 2, masked) for i in range(10)]
    head, judge = fit_head(
        cells,
        whole=1,
        folds=2,
        generator=generator(),
        hidden=8,
        noise=0.3,
        least_steps=300,
        most_steps=300,
    )
    defect = np.zeros((1, 4)) + np.array([6, 0, 0, 0])
    scores = head.logits(torch.from_numpy(np.concatenate([defect, np.zeros((1, 4))])))
    assert scores.shape == (2, 1)
    assert (scores[0] > scores[1] + 2).all()
    assert judge.network.members == 2


def test_same_seed_same_network_whatever_the_global_state():
    rng = np.random.default_rng(0)
    cells = [cells_of(rng, "good"), cells_of(rng, "scratch")]
    joined, _, _ = join_cells(cells, 2, 0)
    torch.manual_seed(1)
    one = train_network(joined, generator=generator(), hidden=4, least_steps=20, most_steps=20)
    torch.manual_seed(2)
    two = train_network(joined, generator=generator(), hidden=4, least_steps=20, most_steps=20)
    torch.testing.assert_close(one.first, two.first, rtol=0, atol=0)


def test_batches_standardised_one_by_one_give_the_network_of_all_at_once():
    rng = np.random.default_rng(0)
    cells = [cells_of(rng, "good", i % 2) for i in range(6)]
    cells += [cells_of(rng, "scratch", masked=masked) for masked in (True, False)]
    joined, mean, std = join_cells(cells, 2, 0)
    assert joined.inputs.dtype == torch.float16
    standardised = ((joined.inputs.float() - mean) / std).clamp(-8, 8)
    at_once = dataclasses.replace(joined, inputs=standardised, mean=None, std=None)
    one, two = (
        train_network(c, generator=generator(), hidden=8, least_steps=60, most_steps=60)
        for c in (joined, at_once)
    )
    for name, weights in one.state_dict().items():
        assert torch.equal(weights, two.state_dict()[name]), name


def test_mean_and_std_are_those_of_each_feature():
    inputs = torch.randn(50, 541, generator=generator()).half()
    mean, std = mean_std(inputs)
    torch.testing.assert_close(mean, inputs.float().mean(0))
    torch.testing.assert_close(std, inputs.float().std(0) + 1e-3)


def test_cells_that_lie_in_one_array_are_joined_without_a_copy():
    rng = np.random.default_rng(0)
    together = np.empty((200, 4), np.float16)
    cells = [cells_of(rng, "good") for _ in range(3)]
    for number, each in enumerate(cells):
        together[40 * number : 40 * number + 40] = each.inputs
    views = [
        dataclasses.replace(c, inputs=together[40 * i : 40 * i + 40]) for i, c in enumerate(cells)
    ]
    assert join_inputs(views).base is together
    for some in (views, views[1:], views[::-1], [*views[:2], cells[2]], cells):
        np.testing.assert_array_equal(
            join_inputs(some), np.concatenate([each.inputs for each in some])
        )


def test_training_on_leaves_the_parent_alone():
    rng = np.random.default_rng(0)
    joined, _, _ = join_cells([cells_of(rng, "good"), cells_of(rng, "scratch")], 2, 0)
    parent = CellNetwork(4, 2, 4).initialise(generator())
    before = parent.first.clone()
    child = train_network(
        joined, generator=generator(), hidden=4, least_steps=5, most_steps=5, start=parent
    )
    torch.testing.assert_close(parent.first, before, rtol=0, atol=0)
    assert not torch.equal(child.first, before)


def test_survives_spec_and_tensors():
    rng = np.random.default_rng(0)
    cells = [cells_of(rng, "good"), cells_of(rng, "scratch")]
    head, _ = fit_head(cells, whole=2, folds=0, generator=generator(), hidden=4, least_steps=5)
    again = decode(Head, *encode(head))
    x = torch.randn(3, 4)
    torch.testing.assert_close(head.logits(x), again.logits(x), rtol=0, atol=0)
