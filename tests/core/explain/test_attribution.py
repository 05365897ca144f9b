"""Attributions: against captum in float64, by hand, and without a trace."""

import numpy as np
import pytest
import torch
from benchmarks.core import attribution as measured
from benchmarks.core import cascade as cascading
from benchmarks.core import explanations as cases
from torch import nn

from lineside.core.explain import attribution as ex
from lineside.core.explain import sanity_checks as sanity


def conv_net(seed=0, dimensions=2):
    torch.manual_seed(seed)
    conv = nn.Conv2d if dimensions == 2 else nn.Conv1d
    norm = nn.BatchNorm2d if dimensions == 2 else nn.BatchNorm1d
    pool = nn.AdaptiveAvgPool2d if dimensions == 2 else nn.AdaptiveAvgPool1d
    net = nn.Sequential(
        conv(2, 6, 3, padding=1), norm(6), nn.ReLU(), conv(6, 8, 3, padding=1), nn.ReLU(),
        pool(1), nn.Flatten(), nn.Linear(8, 5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3),
    ).double()  # fmt: skip
    nn.init.uniform_(net[1].running_mean, -0.5, 0.5)
    nn.init.uniform_(net[1].running_var, 0.5, 2.0)
    return net.eval(), torch.randn(3, 2, *(9,) * dimensions, dtype=torch.float64)


@pytest.mark.parametrize("number", range(8))
def test_agrees_with_captum(number):
    """1-D, 2-D, LSTM and GRU networks take turns; all methods, the same settings."""
    pytest.importorskip("captum.attr")
    found = cases.differences(number)
    assert {"saliency", "gradient_times_input", "integrated_gradients", "guided_backprop"} < {
        *found
    }
    assert {"smoothgrad", "grad_cam", "occlusion"} < {*found}
    assert max(found.values()) < 1e-5, found


def test_captum_comparison_can_fail(monkeypatch):
    pytest.importorskip("captum.attr")
    monkeypatch.setattr(ex, "saliency", lambda net, x, target: 1.001 * x)
    assert cases.differences(0)["saliency"] > 1e-3


def test_linear_model_by_hand():
    net = nn.Sequential(nn.Flatten(), nn.Linear(8, 2)).double()
    x = torch.randn(3, 2, 4, dtype=torch.float64)
    expected = x * net[1].weight[1].detach().reshape(2, 4)
    torch.testing.assert_close(measured.gradient_times_input(net, x, 1), expected)
    torch.testing.assert_close(ex.integrated_gradients(net, x, 1), expected)


def test_integrated_gradients_are_complete():
    net, x = conv_net()
    total = ex.integrated_gradients(net, x, 2, baseline=0.3, nodes=200).flatten(1).sum(1)
    expected = (net(x) - net(torch.full_like(x, 0.3)))[:, 2].detach()
    torch.testing.assert_close(total, expected, rtol=0, atol=5e-3)


def test_guided_backprop_by_hand():
    # score = relu(x) . (1, -1, 1): keeps positive input and positive gradient only.
    net = nn.Sequential(nn.ReLU(), nn.Linear(3, 1, bias=False))
    net[1].weight.data = torch.tensor([[1.0, -1.0, 1.0]])
    x = torch.tensor([[2.0, 3.0, -1.0]])
    assert ex.guided_backprop(net, x).tolist() == [[1.0, 0.0, 0.0]]
    assert ex.saliency(net, x).tolist() == [[1.0, -1.0, 0.0]]
    smooth = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    torch.testing.assert_close(ex.guided_backprop(smooth, x), ex.saliency(smooth, x))


def test_grad_cam_of_a_pooled_linear_net_is_its_cam():
    conv, head = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)
    net = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).double()
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    cam = (conv(x) * head.weight[1][None, :, None, None]).sum(1).clamp_min(0)
    torch.testing.assert_close(ex.grad_cam(net, conv, x, 1), cam.detach() / 36)
    assert ex.upsample(cam, (8, 8)).shape == (2, 8, 8)


def test_occlusion_of_a_sum_is_the_window_mean():
    net = nn.Flatten()
    total = nn.Linear(16, 1, bias=False)
    nn.init.ones_(total.weight)
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    ours = ex.occlusion(nn.Sequential(net, total), x, window=2, stride=2)
    blocks = x[0, 0].reshape(2, 2, 2, 2).sum((1, 3))
    expected = blocks.repeat_interleave(2, 0).repeat_interleave(2, 1)
    torch.testing.assert_close(ours[0], expected)


def test_leaves_no_trace():
    net, x = conv_net()
    net.train()
    net[3].eval()
    modes = [module.training for module in net.modules()]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net[0].weight.grad = torch.ones_like(net[0].weight)
    state = torch.get_rng_state()
    with torch.inference_mode():
        measured.guided_grad_cam(net, net[4], x)
        ex.occlusion(net, x, window=3, stride=3)
    with pytest.raises(IndexError):
        ex.guided_backprop(net, x, target=9)
    assert torch.equal(state, torch.get_rng_state())
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert torch.equal(net[0].weight.grad, torch.ones_like(net[0].weight))
    assert all(p.grad is None for p in list(net.parameters())[1:])
    hooks = [(m._forward_hooks, m._backward_hooks, m._forward_pre_hooks) for m in net.modules()]
    assert not any(any(kinds) for kinds in hooks)


def test_agreement_with_random_weights():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(400, 1))
    x = torch.randn(1, 1, 20, 20)
    learned = sanity.agreement_with_random(net, lambda n: ex.saliency(n, x))
    edges = sanity.agreement_with_random(net, lambda n: x)
    assert abs(learned) < 0.2
    assert edges == pytest.approx(1.0)
    assert np.isclose(sanity.agreement_with_random(net, lambda n: torch.ones(3)), 0.0)


def test_smoothgrad_by_hand_and_alone():
    # S = sum of x^3: the mean gradient is 3 x^2 + 3 sigma^2.
    class Cubes(nn.Module):
        def forward(self, inputs):
            return (inputs**3).flatten(1).sum(1)

    x = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(1, 1, 8)
    plain = measured.smoothgrad(Cubes(), x, share=0.0, samples=3)
    torch.testing.assert_close(plain, ex.saliency(Cubes(), x))
    smooth = measured.smoothgrad(Cubes(), x, share=0.15, samples=4000)
    torch.testing.assert_close(smooth, 3 * x**2 + 3 * 0.3**2, rtol=0, atol=0.08)
    batch = torch.cat([5 * x, x, x.flip(2)])
    alone = measured.smoothgrad(Cubes(), x)
    torch.testing.assert_close(measured.smoothgrad(Cubes(), batch)[1:2], alone)
    first, again, other = (measured.smoothgrad(Cubes(), x, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_networks_without_dropout_and_without_trace(kind):
    torch.manual_seed(0)
    net = cases.Recurrent(kind, 4, 3).double()
    x = torch.randn(2, 9, 4, dtype=torch.float64)
    seen = []
    handle = net.memory.register_forward_hook(lambda m, i, o: seen.append((m.training, m.dropout)))
    first, second = ex.saliency(net, x), ex.saliency(net, x)
    handle.remove()
    assert seen == [(True, 0.0)] * 2  # cuDNN differentiates recurrent layers only like this
    assert torch.equal(first, second)
    assert net.memory.training and net.memory.dropout == 0.5 and net.rectifier.training
    alone = ex.integrated_gradients(net, x[1:], 2)
    torch.testing.assert_close(ex.integrated_gradients(net, x, 2)[1:], alone)
    complete = (net.eval()(x[1:]) - net(torch.zeros_like(x[1:])))[:, 2].detach()
    torch.testing.assert_close(alone.sum((1, 2)), complete, rtol=0, atol=1e-3)


def test_occlusion_of_a_sequence_by_hand():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 1, bias=False)).double()
    nn.init.ones_(net[1].weight)
    x = torch.arange(12.0, dtype=torch.float64).reshape(1, 4, 3)
    by_time = ex.occlusion(net, x, window=1, stride=1, whole_axis=2)
    torch.testing.assert_close(by_time, x.sum(2))
    cells = ex.occlusion(net, x, window=1, stride=1, whole_axis=None)
    torch.testing.assert_close(cells, x)


@pytest.mark.parametrize("length", [16, 15])
def test_spectral_maps_find_the_band(length):
    # S = correlation with a sine of frequency 3: only that coefficient matters.
    time = torch.arange(length, dtype=torch.float64)
    wave = torch.sin(2 * torch.pi * 3 * time / length + 0.4)
    net = nn.Sequential(nn.Flatten(), nn.Linear(length, 1, bias=False)).double()
    net[1].weight.data = wave[None] / length
    x = (2 * wave + torch.randn(length, dtype=torch.float64))[None, None]
    steep = measured.spectral_saliency(net, x)
    assert steep.shape == (1, 1, length // 2 + 1)
    assert steep[0, 0].argmax() == 3
    # A sine of amplitude a changes S by a / 2 and has |c| = a / 2.
    torch.testing.assert_close(steep[0, 0, 3], torch.tensor(1.0, dtype=torch.float64))
    assert float(steep.sum()) == pytest.approx(1.0)
    shares = measured.spectral_gradient_times_input(net, x)
    torch.testing.assert_close(shares.sum(), measured.gradient_times_input(net, x).sum())
    turned = measured.spectral_gradient_times_input(net, x.transpose(1, 2), axis=1)
    torch.testing.assert_close(turned.transpose(1, 2), shares)


@pytest.fixture(scope="module")
def trained():
    return cases.trained_network(100)


def test_full_randomisation_destroys_the_maps(trained):
    network, inputs = trained
    with torch.inference_mode():
        pixels, labels = cases._shapes(200, np.random.default_rng(5))
        right = (network(pixels.double())[:, 0] > 0) == (labels > 0)
    assert right.double().mean() > 0.9
    explainers = cases.explainers(inputs)
    for name in ("gradient", "grad_cam", "integrated_gradients"):
        rows = [cascading.cascade(network, explainers[name], seed=s, most=1)[0] for s in range(3)]
        assert abs(np.mean([row.signed for row in rows])) < 0.25, name
    gradient = [
        cascading.cascade(network, explainers["gradient"], seed=s, most=1)[0] for s in range(3)
    ]
    assert abs(np.mean([row.absolute for row in gradient])) < 0.25
    guided = cascading.cascade(network, explainers["guided_backprop"], most=1)[0]
    print("guided backprop", guided)  # reported, not promised


def test_cascade_goes_from_the_top_and_changes_nothing(trained):
    network, inputs = trained
    before = {k: v.clone() for k, v in network.state_dict().items()}
    rows = cascading.cascade(network, lambda net: ex.saliency(net, inputs))
    assert [row.layer for row in rows] == ["11", "6", "3", "0"]
    assert [row.layers for row in rows] == [1, 2, 3, 4]
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    bottom = cascading.cascade(network, lambda net: (net(inputs), net.get_submodule("0").weight)[1])
    assert [row.signed for row in bottom[:3]] == pytest.approx([1, 1, 1])
    assert bottom[3].signed < 0.5
    with pytest.raises(ValueError, match="not run"):
        cascading.cascade(network, lambda net: inputs)
    twin = sanity.randomise_weights(network)
    assert torch.equal(twin.get_submodule("1").running_var, torch.ones(8).double())


def test_agreements_by_hand():
    one = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    other = torch.tensor([[2.0, 4.0, 9.0], [3.0, 2.0, 1.0]])
    assert sanity.rank_agreement(one, other) == pytest.approx(0.0)
    picture = torch.rand(2, 12, 10, generator=torch.Generator().manual_seed(0))
    assert cascading.structural_similarity(picture, -2 * picture) == pytest.approx(1.0)
    a, b = picture[:1, :7, :7].double().numpy(), picture[1:, :7, :7].double().numpy()
    a, b = a / a.max(), b / b.max()
    covariance = (a * b).mean() - a.mean() * b.mean()
    expected = (2 * a.mean() * b.mean() + 1e-4) * (2 * covariance + 9e-4)
    expected /= (a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (a.var() + b.var() + 9e-4)
    ours = cascading.structural_similarity(picture[:1, :7, :7], picture[1:, :7, :7])
    assert ours == pytest.approx(expected)
