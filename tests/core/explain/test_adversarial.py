"""Attacks and their trace on tiny networks, against hand-computed values and second formulas."""

import math

import numpy as np
import pytest
import torch
from benchmarks.core.one_pixel_attack import Search, change_points
from torch import nn

from lineside.core.errors import UserError
from lineside.core.explain import adversarial_attacks as attacks
from lineside.core.explain import adversarial_trace as trace


class Linear(nn.Module):
    """One logit: a weighted sum of the pixels."""

    def __init__(self, weights, bias=0.0):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights))
        self.bias = bias

    def forward(self, x):
        return (x * self.weights).flatten(1).sum(1) + self.bias


def small_network(seed=0, classes=None):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()]
    head = nn.Linear(4, classes or 1)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.head = nn.Sequential(*layers), head

        def forward(self, x):
            logits = self.head(self.layers(x).mean((2, 3)))
            return logits if classes else logits.squeeze(1)

    return Net().eval()


def pictures(count=12, side=12, seed=1):
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(seed))


def test_margin_is_the_log_odds_of_the_label():
    logits = torch.tensor([[2.0, 0.5, -1.0], [0.0, 3.0, 1.0]])
    labels = torch.tensor([0, 2])
    p = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    assert torch.allclose(attacks.margin(logits, labels), (p / (1 - p)).log(), atol=1e-5)
    single = torch.tensor([1.5, -0.5])
    assert attacks.margin(single, torch.tensor([0, 1])).tolist() == [-1.5, -0.5]
    two = torch.stack([torch.zeros(2), single], 1)
    assert torch.allclose(attacks.margin(two, torch.tensor([0, 1])), torch.tensor([-1.5, -0.5]))


def test_confidence_and_class_of_one_logit_are_those_of_two():
    single = torch.tensor([3.0, -1.0])
    two = torch.stack([torch.zeros(2), single], 1)
    assert np.allclose(attacks.confidence(single), attacks.confidence(two))
    assert np.allclose(attacks.confidence(single), [1 / (1 + math.exp(-3)), 1 / (1 + math.exp(-1))])
    assert attacks.predicted_class(single).tolist() == attacks.predicted_class(two).tolist()


def test_fgsm_on_a_linear_network_moves_against_the_weights():
    network = Linear([[[1.0, -2.0], [0.5, 0.0]]])
    x = torch.full((2, 1, 2, 2), 0.5)
    moved = attacks.fgsm(network, x, torch.tensor([1, 0]), 0.1)
    assert torch.allclose(moved[0], torch.tensor([[[0.4, 0.6], [0.4, 0.5]]]))
    assert torch.allclose(moved[1], torch.tensor([[[0.6, 0.4], [0.6, 0.5]]]))


def test_fgsm_is_the_sign_of_the_gradient_of_cross_entropy():
    network, x = small_network(classes=3), pictures(4)
    labels = torch.tensor([0, 1, 2, 1])
    given = x.clone().requires_grad_(True)
    nn.functional.cross_entropy(network(given), labels, reduction="sum").backward()
    expected = (x + 0.03 * given.grad.sign()).clamp(0, 1)
    assert torch.equal(attacks.fgsm(network, x, labels, 0.03), expected)


def test_fgsm_works_where_the_probability_is_saturated():
    network = Linear([[[200.0, -200.0], [200.0, 200.0]]], bias=300.0)
    x = torch.full((1, 1, 2, 2), 0.5)
    assert attacks.confidence(network(x).detach())[0] == 1.0
    moved = attacks.fgsm(network, x, torch.tensor([1]), 0.1)
    assert (moved != x).all()


@pytest.mark.parametrize("epsilon", [2 / 255, 0.1])
def test_pgd_stays_in_its_cube_and_hurts_no_less_than_noise(epsilon):
    network, x = small_network(), pictures()
    labels = attacks.predicted_class(attacks.outputs(network, x))

    def seeded():
        return torch.Generator().manual_seed(3)

    moved = attacks.pgd(network, x, labels, epsilon, generator=seeded())
    noisy = attacks.sign_noise(x, epsilon, generator=seeded())
    for changed in (moved, noisy):
        assert (changed - x).abs().max() <= epsilon + 1e-6
        assert changed.min() >= 0 and changed.max() <= 1
    before = [attacks.margin(attacks.outputs(network, v), labels) for v in (x, moved, noisy)]
    assert (before[1] < before[0]).all()
    assert (before[1] < before[2]).all()
    again = attacks.pgd(network, x, labels, epsilon, generator=seeded())
    assert torch.equal(again, moved)


def test_pgd_reaches_the_corner_of_the_cube_for_a_linear_network():
    network = Linear([[[1.0, -2.0], [0.5, -0.1]]])
    x, labels = torch.full((1, 1, 2, 2), 0.5), torch.tensor([1])
    moved = attacks.pgd(network, x, labels, 0.1, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(moved, attacks.fgsm(network, x, labels, 0.1))


def test_change_points_finds_the_pixel_that_decides():
    weights = np.full((1, 6, 6), 0.01, dtype=np.float32)
    weights[0, 2, 4] = 5.0
    network = Linear(weights.tolist(), bias=-2.0)
    item = torch.full((1, 6, 6), 0.5)
    search = Search(points=1, population=40, generations=30)
    moved = change_points(network, item, 1, search, np.random.default_rng(0))
    assert torch.nonzero(moved != item).tolist() == [[0, 2, 4]]
    logits = network(torch.stack([item, moved]))
    assert logits[0] > 0 > logits[1]
    again = change_points(network, item, 1, search, np.random.default_rng(0))
    assert torch.equal(again, moved)


def test_change_points_changes_all_channels_of_no_more_than_its_points():
    torch.manual_seed(0)
    network = Linear(torch.randn(3, 5, 5).tolist(), bias=100.0)
    item = torch.full((3, 5, 5), 0.5)
    search = Search(points=3, population=8, generations=3)
    moved = change_points(network, item, 1, search, np.random.default_rng(0))
    assert 1 <= (moved != item).any(0).sum() <= 3
    assert moved.min() >= 0 and moved.max() <= 1


def test_the_search_is_bounded_and_ends_at_the_first_flip():
    seen = []

    class Counting(Linear):
        def forward(self, x):
            seen.append(len(x))
            return super().forward(x)

    item = torch.full((1, 6, 6), 0.5)
    hopeless = Counting(np.ones((1, 6, 6)).tolist(), bias=1000.0)
    search = Search(points=1, population=10, generations=4)
    change_points(hopeless, item, 1, search, np.random.default_rng(0))
    assert sum(seen) <= 10 * 5 + 2
    seen.clear()
    easy = Counting(np.ones((1, 6, 6)).tolist(), bias=-17.99)
    change_points(easy, item, 1, search, np.random.default_rng(0))
    assert sum(seen) <= 2 * 10 + 2


def by_hand(grey, window):
    """The definition, window by window."""
    found = []
    for picture in grey:
        values = []
        for row in range(picture.shape[0] - window + 1):
            for column in range(picture.shape[1] - window + 1):
                cut = picture[row : row + window, column : column + window]
                share = np.bincount(cut.ravel()) / window**2
                values.append(-sum(h * math.log2(h) for h in share if h))
        found.append(np.mean(values))
    return found


@pytest.mark.parametrize("window", [2, 3, 5])
def test_local_entropy_follows_its_definition(window):
    grey = np.random.default_rng(0).integers(0, 5, (3, 8, 9)).astype(np.uint8)
    assert np.allclose(trace.mean_local_entropy(grey, window), by_hand(grey, window))


def test_local_entropy_of_constant_and_of_all_different():
    grey = np.stack([np.full((4, 4), 7), np.arange(16).reshape(4, 4)]).astype(np.uint8)
    assert np.allclose(trace.mean_local_entropy(grey), [0.0, math.log2(9)])


def test_levels_are_cut_and_rounded():
    maps = np.array([[[0.0, 0.1, 0.5, 1.0, 7.0]]], dtype=np.float32)
    assert trace.levels(maps, 1.0).tolist() == [[[0, 26, 128, 255, 255]]]
    assert trace.levels(maps, 2.0, 5).tolist() == [[[0, 0, 1, 2, 4]]]


def test_own_scale_ignores_the_strength_of_a_map_and_the_common_one_does_not():
    maps = np.random.default_rng(0).random((1, 10, 10)).astype(np.float32)
    found = trace.entropies(np.concatenate([maps, 4 * maps]), peak=1.0)
    assert np.isclose(found[0, 0], found[1, 0])
    assert found[1, 1] > found[0, 1] + 0.3


def test_response_is_guided_backprop_of_the_summed_layer_as_captum_has_it():
    captum = pytest.importorskip("captum.attr")
    network, x = small_network(2), pictures(5)

    class Total(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = network.layers

        def forward(self, v):
            return self.layers(v).flatten(1).sum(1)

    expected = captum.GuidedBackprop(Total()).attribute(x).abs().mean(1)
    found = trace.response(network, network.layers[3], x)
    assert np.abs(found - expected.detach().numpy()).max() < 1e-5
    assert found.max() > 0
    assert not network.layers[3]._forward_hooks


def test_distance_is_that_of_mahalanobis_by_class():
    rng = np.random.default_rng(0)
    clean = rng.normal(size=(400, 2)) @ np.array([[1.0, 0.4], [0.0, 0.3]])
    classes = np.repeat([0, 1], 200)
    clean[classes == 1] += 3.0
    centre, precision = trace.clean_entropies(clean, classes, 2)
    found = trace.distance(clean, classes, centre, precision)
    for label in (0, 1):
        own = clean[classes == label]
        away = own - own.mean(0)
        expected = np.sqrt((away @ np.linalg.inv(np.cov(own.T)) * away).sum(1))
        assert np.allclose(found[classes == label], expected, rtol=0.02)
    swapped = trace.distance(clean, 1 - classes, centre, precision)
    assert np.median(swapped) > 2 * np.median(found)


def balanced():
    """A network, and pictures of which it calls half each class."""
    network, x = small_network(4), pictures(40)
    with torch.no_grad():
        network.head.bias -= attacks.outputs(network, x).median()
    return network, x


def test_fitted_trace_finds_responses_unlike_the_clean_ones():
    network, x = balanced()
    fitted = trace.fit_trace(network, network.layers[3], x)
    clean = fitted.score(x)
    assert clean.shape == (40,) and (clean >= 0).all()
    # The mean squared distance of the data that it was fitted on is about the dimension.
    assert 1.5 < (clean**2).mean() < 2.1
    flat = fitted.score(torch.full((3, 1, 12, 12), 0.5))
    assert flat.min() > clean.max()


def test_the_trace_of_an_item_does_not_depend_on_its_company():
    network, x = balanced()
    fitted = trace.fit_trace(network, network.layers[3], x)
    alone = np.concatenate([fitted.score(item[None]) for item in x[:5]])
    assert np.allclose(alone, fitted.score(x)[:5], atol=1e-6)


def test_a_class_that_is_hardly_predicted_is_told():
    network, x = balanced()
    with torch.no_grad():
        network.head.bias += 100.0
    with pytest.raises(UserError, match="class 0 is predicted for 0 of 40"):
        trace.fit_trace(network, network.layers[3], x)


def test_total_variation_of_known_pictures():
    x = torch.tensor([[[[0.0, 1.0], [0.5, 0.0]]], [[[0.3, 0.3], [0.3, 0.3]]]])
    assert np.allclose(trace.total_variation(x), [(0.5 + 1.0) / 2 + (1.0 + 0.5) / 2, 0.0])


def test_the_network_is_left_as_it_was():
    network, x = balanced()
    network.train()
    state = {k: v.clone() for k, v in network.state_dict().items()}
    noise = torch.get_rng_state()
    labels = torch.zeros(len(x), dtype=torch.long)
    attacks.fgsm(network, x, labels, 0.1)
    attacks.pgd(network, x, labels, 0.1, generator=torch.Generator().manual_seed(0))
    trace.fit_trace(network, network.layers[3], x).score(x)
    assert network.training and torch.equal(noise, torch.get_rng_state())
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
