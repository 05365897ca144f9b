"""Attributions: against captum in float64, by hand, and without a trace."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from lineside.core import explanation as ex


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


@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_captum(seed, dimensions):
    attr = pytest.importorskip("captum.attr")
    warnings.simplefilter("ignore")
    net, x = conv_net(seed, dimensions)
    target, layer = seed % 3, net[4]
    close = {"rtol": 0, "atol": 1e-5}
    expected = attr.Saliency(net).attribute(x.clone(), target=target, abs=False)
    torch.testing.assert_close(ex.saliency(net, x, target), expected, **close)
    expected = attr.InputXGradient(net).attribute(x.clone(), target=target)
    torch.testing.assert_close(ex.gradient_times_input(net, x, target), expected, **close)
    expected = attr.GuidedBackprop(net).attribute(x.clone(), target=target)
    torch.testing.assert_close(ex.guided_backprop(net, x, target), expected, **close)
    expected = attr.IntegratedGradients(net).attribute(
        x.clone(), target=target, n_steps=50, method="gausslegendre"
    )
    torch.testing.assert_close(ex.integrated_gradients(net, x, target), expected, **close)
    cam = attr.LayerGradCam(net, layer).attribute(x.clone(), target=target, relu_attributions=True)
    torch.testing.assert_close(ex.grad_cam(net, layer, x, target), cam[:, 0].detach(), **close)
    mode = "bilinear" if dimensions == 2 else "linear"
    expected = attr.GuidedGradCam(net, layer).attribute(
        x.clone(), target=target, interpolate_mode=mode
    )
    expected_cam = ex.guided_grad_cam(net, layer, x, target)
    torch.testing.assert_close(expected_cam, expected.detach(), **close)
    window = (2,) + (4,) * dimensions
    expected = attr.Occlusion(net).attribute(
        x.clone(), target=target, sliding_window_shapes=window, strides=(2,) + (3,) * dimensions
    )
    ours = ex.occlusion(net, x, target, window=4, stride=3)
    torch.testing.assert_close(ours, expected[:, 0].detach().double(), **close)


def test_linear_model_by_hand():
    net = nn.Sequential(nn.Flatten(), nn.Linear(8, 2)).double()
    x = torch.randn(3, 2, 4, dtype=torch.float64)
    expected = x * net[1].weight[1].detach().reshape(2, 4)
    torch.testing.assert_close(ex.gradient_times_input(net, x, 1), expected)
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
        ex.guided_grad_cam(net, net[4], x)
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
    learned = ex.agreement_with_random(net, lambda n: ex.saliency(n, x))
    edges = ex.agreement_with_random(net, lambda n: x)
    assert abs(learned) < 0.2
    assert edges == pytest.approx(1.0)
    assert np.isclose(ex.agreement_with_random(net, lambda n: torch.ones(3)), 0.0)
