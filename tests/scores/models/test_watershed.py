"""The Deep Watershed Detector: targets, network, losses and decoding against second formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from lineside.scores.engraving.page import Symbol
from lineside.scores.models.watershed.decoding import components, decode, expected_energy
from lineside.scores.models.watershed.network import Dense, WatershedNetwork
from lineside.scores.models.watershed.targets import (
    CLASSES,
    LEVELS,
    MASK_OF,
    MASKS,
    NUMBER,
    STRIDE,
    Drawing,
    cones,
)
from lineside.scores.models.watershed.training import Balance, watershed_losses

IDENTITY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def test_a_cone_is_highest_at_its_centre_and_ends_at_its_radius() -> None:
    energy, owner = cones(np.array([[10.41, 8.63]]), np.array([[6.0, 40.0]]), (20, 24))
    rows, columns = np.mgrid[:20, :24] + 0.5
    distance = np.hypot(columns - 10.41, rows - 8.63)
    expected = np.ceil(np.clip(1 - (distance - 0.7072) / 3.0, 0, 1) * (LEVELS - 1))
    assert np.array_equal(energy, expected)
    assert np.array_equal(owner >= 0, energy > 0)


def test_overlapping_cones_take_the_maximum_and_the_nearer_owner() -> None:
    centres = np.array([[6.5, 6.5], [10.5, 6.5]])
    both, owner = cones(centres, np.full((2, 2), 8.0), (14, 18))
    alone = [cones(centres[[i]], np.full((1, 2), 8.0), (14, 18))[0] for i in range(2)]
    assert np.array_equal(both, np.maximum(*alone))
    assert (owner[6, 7], owner[6, 9]) == (0, 1)


def test_a_turned_crop_keeps_symbols_and_lines_in_place() -> None:
    head = Symbol(name="noteheadBlack", box=(30.0, 40.0, 42.0, 50.0))
    dot = Symbol(name="augmentationDot", box=(50.0, 44.0, 53.0, 47.0))
    stem = Symbol(
        name="stem", box=(41.0, 10.0, 43.0, 45.0), points=((42, 10), (42, 45)), thickness=2
    )
    drawing = Drawing([head, dot, stem])
    quarter = np.array([[0.0, 1.0, 5.0], [-1.0, 0.0, 80.0]])  # (x, y) -> (y + 5, 80 - x)
    placed = drawing.glyphs(quarter, (96, 96))
    assert placed.centres.tolist() == [[50.0, 44.0], [50.5, 28.5]]
    assert [CLASSES[c] for c in placed.classes] == ["noteheadBlack", "dot"]
    rows, columns = np.nonzero(drawing.masks(quarter, (96, 96))[MASKS.index("stem")])
    assert rows.min() == rows.max() == pytest.approx((80 - 42) / STRIDE, abs=1)
    assert (columns.min(), columns.max()) == pytest.approx((15 / STRIDE, 50 / STRIDE), abs=1.5)


def test_every_line_has_a_mask() -> None:
    assert {*MASK_OF.values()} == {*MASKS}


def small_network() -> WatershedNetwork:
    torch.manual_seed(0)
    return WatershedNetwork(widths=(4, 8), last=6, hidden=8)


def test_shapes_and_seeded_values() -> None:
    network = small_network().eval()
    with torch.inference_mode():
        found = network(torch.linspace(0, 1, 64 * 96).reshape(1, 1, 64, 96))
        local = network.at(found.features[0, :, 3, :5].T)
    assert found.energy.shape == (1, LEVELS, 32, 48)
    assert found.masks.shape == (1, len(MASKS), 32, 48)
    assert (local.classes.shape, local.sizes.shape) == ((5, len(CLASSES)), (5, 2))


def batch() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    ink = torch.rand(2, 1, 32, 32, generator=generator)
    energy = torch.zeros(2, 16, 16, dtype=torch.long)
    classes = torch.full((2, 16, 16), -1)
    energy[0, 4:6, 4:6], classes[0, 4:6, 4:6] = 9, 3
    energy[1, 8, 8], classes[1, 8, 8] = 5, 7
    masks = (torch.rand(2, len(MASKS), 16, 16, generator=generator) < 0.1).to(torch.uint8)
    return ink, energy, classes, torch.ones(2, 2, 16, 16), masks


def test_losses_are_those_of_the_paper() -> None:
    network = small_network().eval()
    ink, energy, classes, sizes, masks = batch()
    losses = watershed_losses(network, (ink, energy, classes, sizes, masks), 3.0)
    with torch.no_grad():
        found = network(ink)
    weight = torch.where(energy > 0, 3.0, 1.0)
    wanted = found.energy.log_softmax(1).gather(1, energy[:, None])[:, 0]
    assert float(losses[0].detach()) == pytest.approx(float((-wanted * weight).mean()))
    at = [(0, 4, 4), (0, 4, 5), (0, 5, 4), (0, 5, 5), (1, 8, 8)]
    local = network.at(torch.stack([found.features[b, :, y, x] for b, y, x in at]))
    labels = torch.tensor([3, 3, 3, 3, 7])
    assert float(losses[1].detach()) == pytest.approx(
        float(functional.cross_entropy(local.classes.detach(), labels))
    )
    assert float(losses[2].detach()) == pytest.approx(
        float(((local.sizes.detach() - 1.0) ** 2).mean()), rel=1e-5
    )


def test_a_crop_without_symbols_has_no_class_loss() -> None:
    ink, energy, classes, sizes, masks = batch()
    losses = watershed_losses(
        small_network(), (ink, torch.zeros_like(energy), classes.fill_(-1), sizes, masks)
    )
    assert losses[1:3].tolist() == [0.0, 0.0]
    assert bool(torch.isfinite(losses).all())


def test_balance_is_the_mean_of_the_last_values() -> None:
    balance = Balance(2)
    assert balance.means(torch.full((4,), 8.0)).tolist() == [8.0] * 4
    balance.means(torch.full((4,), 2.0))
    assert balance.means(torch.full((4,), 4.0)).tolist() == [3.0] * 4  # of 2 and 4
    assert balance.means(torch.zeros(4)).tolist() == [2.0] * 4


def test_the_network_learns_a_few_crops_by_heart() -> None:
    network = small_network().train()
    ink, energy, classes, sizes, masks = batch()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-2)
    for _ in range(120):
        losses = watershed_losses(network, (ink, energy, classes, sizes, masks))
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
    assert losses[0] < 0.02
    assert losses[1] < 0.1


def test_expected_energy_is_the_mean_level() -> None:
    logits = torch.zeros(1, LEVELS, 1, 2)
    logits[0, 9, 0, 1] = 100.0
    assert expected_energy(logits).flatten().tolist() == pytest.approx([0.5, 1.0])


def hill(columns: int, *peaks: tuple[int, float]) -> np.ndarray:
    x = np.arange(columns)
    row = np.max([np.clip(h - 0.12 * abs(x - at), 0, 1) for at, h in peaks], axis=0)
    return np.repeat(row[None], 3, axis=0).astype(np.float32)


def test_a_second_cut_divides_neighbours_that_touch() -> None:
    energy = hill(40, (10, 0.95), (16, 0.9), (30, 0.5))
    one_cut, count = components(energy, (0.3,))
    assert count == 2
    labels, count = components(energy, (0.3, 0.7))
    assert count == 3
    assert labels[1, 10] != labels[1, 16]
    assert np.array_equal(labels > 0, one_cut > 0)  # nothing is lost, nothing is added
    assert set(np.unique(labels)) == {0, 1, 2, 3}


def test_no_energy_no_symbol() -> None:
    labels, count = components(np.zeros((8, 8), np.float32))
    assert (labels.max(), count) == (0, 0)


def test_decoding_finds_what_the_targets_say() -> None:
    centres, sizes = np.array([[20.0, 30.0], [70.0, 31.0]]), np.array([[12.0, 10.0], [10.0, 26.0]])
    level, owner = cones(centres / STRIDE, sizes / STRIDE, (32, 48))
    network = WatershedNetwork(widths=(4, 8), last=6, hidden=8)
    heads, rests = NUMBER["noteheadBlack"], NUMBER["restQuarter"]
    features = torch.zeros(1, 6, 32, 48)
    features[0, 0][torch.from_numpy(owner == 0)] = 1.0
    features[0, 1][torch.from_numpy(owner == 1)] = 1.0
    with torch.no_grad():  # feature 0 says notehead, feature 1 says rest
        for layer in (network.local[0], network.classes, network.sizes):
            layer.weight.zero_()
            layer.bias.zero_()
        network.local[0].weight[0, 0] = network.local[0].weight[1, 1] = 30.0
        network.classes.weight[heads, 0] = network.classes.weight[rests, 1] = 1.0
        network.sizes.weight[0, 0] = np.log(5.0) / 30.0
    logits = 50.0 * functional.one_hot(torch.from_numpy(level).long(), LEVELS).movedim(-1, 0)[None]
    class_sizes = np.ones((len(CLASSES), 2), np.float32)
    class_sizes[heads], class_sizes[rests] = (12, 10), (10, 26)
    with torch.inference_mode():
        found = decode(network, Dense(features, logits, logits), class_sizes)
        regressed = decode(network, Dense(features, logits, logits), None)
    assert [CLASSES[c] for c in found.classes] == ["noteheadBlack", "restQuarter"]
    assert found.centres == pytest.approx(centres, abs=0.7)
    assert found.boxes()[1] == pytest.approx([65, 18, 75, 44], abs=0.7)
    assert regressed.sizes[0] == pytest.approx([10.0, 2.0], rel=1e-3)
    assert (found.confidences > 0.85).all()
