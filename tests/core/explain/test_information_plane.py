"""Estimates of information against cases that can be worked out by hand."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lineside.core.errors import UserError
from lineside.core.explain import information_plane as info
from lineside.core.explain.information_plots import plane_figures

EXAMPLE_FILE = Path(__file__).resolve().parents[3] / "examples" / "information_plane.py"
SPEC = importlib.util.spec_from_file_location("plane_estimators", EXAMPLE_FILE)
EXAMPLE = sys.modules["plane_estimators"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(EXAMPLE)

TWO = np.repeat([0, 1], 50)
NOISE = info.Estimator(name="noise", measure=lambda x, y: info.kernel_information(x, y, 1e-3))
EVERY = [EXAMPLE.FIXED_BINS, info.quantile_bins(), NOISE, info.relative_kernel()]
one_estimator = pytest.mark.parametrize("estimator", EVERY, ids=lambda e: e.name)


@one_estimator
def test_identical_points_tell_nothing(estimator):
    found = estimator.measure(np.full((100, 3), 0.4), TWO)
    assert found.input_bits == pytest.approx(0, abs=1e-9)
    assert found.label_bits == pytest.approx(0, abs=1e-9)


def test_far_points_reach_the_ceiling():
    points = np.arange(64.0)[:, None] * 10
    labels = np.arange(64) % 2
    for estimator in (EXAMPLE.FIXED_BINS, info.quantile_bins(64), NOISE):
        found = estimator.measure(points, labels)
        assert found.input_bits == pytest.approx(6)
        assert found.label_bits == pytest.approx(1)


@one_estimator
def test_two_far_clusters_of_equal_size_are_one_bit(estimator):
    found = estimator.measure(np.repeat([[0.0, 5.0], [9.0, 5.0]], 50, axis=0), np.arange(100) % 2)
    assert found.input_bits == pytest.approx(1, abs=2e-3)
    assert found.label_bits == pytest.approx(0, abs=2e-3)


@one_estimator
def test_a_one_hot_label_tells_all_about_the_label(estimator):
    labels = np.repeat([0, 1, 2], [20, 30, 50])
    entropy = -sum(p * np.log2(p) for p in (0.2, 0.3, 0.5))
    found = estimator.measure(np.eye(3)[labels], labels)
    assert found.label_bits == pytest.approx(entropy, abs=2e-3)
    assert info.entropy(labels) == pytest.approx(entropy)


def test_binning_never_exceeds_the_entropy_of_the_label():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 1 + seed % 4 + 1, 200)
        values = rng.normal(size=(200, 1 + seed % 5)) * 10 ** rng.uniform(-2, 2)
        for estimator in EVERY[:2]:
            found = estimator.measure(values, labels)
            assert found.label_bits <= info.entropy(labels) + 1e-9
            assert found.label_bits <= found.input_bits + 1e-9


def test_the_kernel_bound_against_its_formula_term_by_term():
    x = np.random.default_rng(0).normal(size=(7, 3))
    bits = 0.0
    for a in x:
        bits -= np.log2(np.mean([np.exp(-((a - b) ** 2).sum() / (2 * 0.3)) for b in x])) / 7
    found = info.kernel_information(x, np.zeros(7, int), 0.3)
    assert found.input_bits == pytest.approx(bits)
    assert found.label_bits == pytest.approx(0, abs=1e-12)


def test_the_kernel_bound_does_not_depend_on_the_block(monkeypatch):
    x = np.random.default_rng(0).normal(size=(50, 3))
    whole = info.kernel_information(x, np.zeros(50, int), 0.1)
    monkeypatch.setattr(info, "BLOCK", 7)
    assert info.kernel_information(x, np.zeros(50, int), 0.1).input_bits == pytest.approx(
        whole.input_bits
    )


def test_fixed_bins_are_thirty_over_the_range_of_tanh():
    grid = np.linspace(-1, 1, 30 * 40 + 1)[:-1, None]
    assert len(np.unique(EXAMPLE.fixed_codes(grid + 1e-9))) == 30


def test_equal_quantiles_of_a_rectified_unit_are_merged():
    values = np.concatenate([np.zeros(700), np.linspace(1, 2, 300)])[:, None]
    counts = np.bincount(info.quantile_codes(values, 10))
    assert counts[0] == 700 and len(counts) == 4 and (counts[1:] == 100).all()


def test_growth_alone_changes_fixed_bins_but_not_the_relative_estimators():
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(300, 2)), rng.integers(0, 2, 300)
    before = [e.measure(values * 0.1, labels).input_bits for e in EVERY]
    after = [e.measure(values, labels).input_bits for e in EVERY]
    assert after[0] > before[0] + 1 and after[2] > before[2] + 1
    assert after[1] == before[1] and after[3] == pytest.approx(before[3])


def snapshots(items=60, units=40, grid=()):
    rng = np.random.default_rng(0)
    for step in (0, 1, 10):
        yield step, {"a": rng.normal(size=(items, 2)), "b": rng.normal(size=(items, units, *grid))}


def test_a_plane_has_a_value_for_each_snapshot_layer_and_estimator():
    found = info.estimate_plane(snapshots(grid=(3, 4)), np.array(["x", "y"] * 30))
    assert found.steps == (0, 1, 10) and found.layers == ("a", "b")
    assert found.input_bits.shape == found.label_bits.shape == (3, 2, 2)
    assert found.ceiling_bits == pytest.approx(np.log2(60))
    assert found.projected == {"b": 40}
    assert (found.input_bits <= found.ceiling_bits + 1e-9).all()


def test_grids_are_averaged_and_the_projection_keeps_distances_on_average():
    wide = np.random.default_rng(1).normal(size=(500, 200))
    small = info._project(wide, 16, 0)
    assert small.shape == (500, 16)
    assert (small**2).sum() / (wide**2).sum() == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(small[3:4], info._project(wide[3:4], 16, 0))
    grid = np.broadcast_to(wide[:, :5, None, None], (500, 5, 2, 3))
    np.testing.assert_allclose(info._flat("x", grid, 500), wide[:, :5])


def test_a_plane_needs_snapshots_and_matching_labels():
    with pytest.raises(UserError, match="No snapshot"):
        info.estimate_plane([], [0, 1])
    with pytest.raises(UserError, match="60 items"):
        info.estimate_plane(snapshots(), [0, 1])


def test_the_probe_keeps_proportions_and_rare_classes():
    labels = np.repeat([0, 1, 2], [900, 98, 2])
    chosen = info.stratified_probe(labels, n=100, rng=np.random.default_rng(0))
    again = info.stratified_probe(labels, n=100, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(chosen, again)
    counts = np.bincount(labels[chosen])
    assert len(set(chosen.tolist())) == len(chosen) == 100
    assert counts[2] == 1 and abs(counts[0] - 90) <= 1
    np.testing.assert_array_equal(
        info.stratified_probe([1, 0], rng=np.random.default_rng(0)), [0, 1]
    )


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(1, 3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
        nn.Linear(18, 5), nn.Tanh(), nn.Linear(5, 2),
    )  # fmt: skip


def test_activations_are_those_of_evaluation_and_leave_no_trace():
    net, inputs = convolutional(), torch.randn(10, 1, 8)
    net.train()
    net[3].eval()
    modes = [m.training for m in net.modules()]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    chance = torch.random.get_rng_state()
    found = info.activations(net, inputs, ["2", "7"], batch_size=4)
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.equal(chance, torch.random.get_rng_state())
    assert not any(m._forward_hooks for m in net.modules())
    net.eval()
    with torch.no_grad():
        np.testing.assert_allclose(found["7"], net(inputs).numpy(), atol=1e-6)
        np.testing.assert_allclose(found["2"], net[:3](inputs).mean(2).numpy(), atol=1e-6)


def test_activations_leave_no_trace_after_an_error_either():
    net = convolutional().train()
    with pytest.raises(RuntimeError):
        info.activations(net, torch.randn(4, 2, 8), ["2"])
    assert net.training and not any(m._forward_hooks for m in net.modules())
    with pytest.raises(UserError, match="no layer"):
        info.activations(net, torch.randn(4, 1, 8), ["nine"])


def test_default_layers_are_spread_and_end_at_the_output():
    assert info.default_layers(convolutional()) == ["2", "6", "7"]
    deep = nn.Sequential(*[layer for _ in range(10) for layer in (nn.Linear(2, 2), nn.ReLU())])
    assert info.default_layers(deep, 4) == ["1", "7", "13", "19"]
    assert info.default_layers(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))) == ["0", "1"]
    assert info.default_layers(nn.Identity()) == []


def test_figures_name_units_estimators_ceiling_and_what_not_to_conclude():
    found = info.estimate_plane(snapshots(), [0, 1] * 30)
    first, second = plane_figures(found, unit="epoch")
    text = first.image.decode()
    assert "estimated I(X;T) [bits], 30 quantile bins, N = 60" in text
    assert "currentColor" in text and "nothing about generalisation" in first.caption
    assert "log2 N = 5.91" in first.caption and "random projection" in first.caption
    assert "ceiling" in first.caption and "epochs" in second.caption
