"""Made inputs: they reach what the unit looks for, in range, seeded, without a trace."""

import numpy as np
import pytest
import torch
from torch import nn

from lineside.core.explain import feature_visualisation as vis
from lineside.core.explain.feature_visualisation import Unit


def edges():
    """Channel 0 answers vertical stripes of period 4, channel 1 horizontal ones."""
    net = nn.Sequential(nn.Conv2d(1, 2, 4, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    wave = torch.tensor([1.0, 1.0, -1.0, -1.0])
    net[0].weight.data = torch.stack([wave.expand(4, 4), wave.expand(4, 4).T])[:, None]
    return nn.Sequential(net, nn.Flatten()).eval()


def stripes(picture):
    """Energy of the changes along rows and along columns."""
    return np.abs(np.diff(picture, axis=1)).mean(), np.abs(np.diff(picture, axis=0)).mean()


def test_made_pictures_show_what_the_channels_look_for():
    net = edges()
    net.train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    units = [Unit(layer="0.1"), Unit(layer="0.1", channel=1), Unit(layer="", channel=1)]
    made = vis.maximise_activation(net, units, (1, 24, 24), low=-1.0, high=1.0, steps=120)
    assert made.inputs.shape == (3, 1, 24, 24)
    assert made.inputs.min() >= -1 and made.inputs.max() <= 1
    across, down = stripes(made.inputs[0, 0])
    assert across > 1.5 * down
    for turned in made.inputs[1:, 0]:
        across, down = stripes(turned)
        assert down > 1.5 * across
    noise = torch.rand(50, 1, 24, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    answers = vis.unit_activations(net, units, [noise])
    assert (made.activations > np.quantile(answers, 0.99, axis=0)).all()
    checked = vis.unit_activations(net, units, [torch.from_numpy(made.inputs)])
    assert np.allclose(checked.diagonal(), made.activations, rtol=1e-4)
    assert net.training and all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())


def test_seed_and_sign():
    net = edges()
    unit = [Unit(layer="0.0")]
    options = {"low": 0.0, "high": 1.0, "steps": 10}
    state = torch.get_rng_state()
    first = vis.maximise_activation(net, unit, (1, 12, 12), seed=3, **options)
    again = vis.maximise_activation(net, unit, (1, 12, 12), seed=3, **options)
    other = vis.maximise_activation(net, unit, (1, 12, 12), seed=4, **options)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(first.inputs, again.inputs)
    assert not np.array_equal(first.inputs, other.inputs)
    lowered = vis.maximise_activation(net, [Unit(layer="0.0", sign=-1)], (1, 12, 12), **options)
    value = vis.unit_activations(net, unit, [torch.from_numpy(lowered.inputs)])
    assert value.item() == pytest.approx(-lowered.activations.item(), rel=1e-4)
    assert value.item() < first.activations.item()


def test_signals_show_the_band():
    # The unit answers the energy at 5 cycles of 64 samples.
    time = torch.arange(64.0)
    waves = torch.stack(
        [torch.sin(2 * torch.pi * 5 * time / 64), torch.cos(2 * torch.pi * 5 * time / 64)]
    )

    class Band(nn.Module):
        def __init__(self):
            super().__init__()
            self.waves = nn.Parameter(waves)

        def forward(self, signals):
            return ((signals[:, 0] @ self.waves.T) ** 2).sum(1)

    made = vis.maximise_activation(Band(), [Unit(layer="")], (1, 64), low=-1.0, high=1.0, steps=60)
    spectrum = np.abs(np.fft.rfft(made.inputs[0, 0]))
    assert spectrum[1:].argmax() + 1 == 5


def test_range_centre_and_colour():
    net = nn.Sequential(nn.Conv2d(3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    pixels = np.random.default_rng(0).random((40, 1, 6, 1)) @ np.ones((1, 6))
    pixels = np.concatenate(
        [pixels, pixels, 0.1 * np.random.default_rng(1).random(pixels.shape)], 1
    )
    basis = vis.colour_basis(pixels)
    covariance = np.cov(np.moveaxis(pixels, 1, 0).reshape(3, -1))
    ratio = (basis @ basis.T) / covariance
    assert np.allclose(ratio[:2, :2], ratio[0, 0], rtol=1e-3)
    assert vis.colour_basis(pixels[:, :1]) is None
    options = {"low": 0.0, "high": 1.0, "steps": 0, "centre": [0.2, 0.5, 0.7], "basis": basis}
    start = vis.maximise_activation(net, [Unit(layer="")], (3, 8, 8), **options)
    assert np.allclose(start.inputs.mean((0, 2, 3)), [0.2, 0.5, 0.7], atol=0.03)
    centred = start.inputs[0] - np.array([0.2, 0.5, 0.7])[:, None, None]
    assert np.corrcoef(centred[0].ravel(), centred[1].ravel())[0, 1] > 0.9


def test_most_activating_spreads_over_groups():
    values = np.array([9.0, 8, 7, 6, 5, 4])
    groups = np.array(["a", "a", "a", "b", "b", "c"])
    assert vis.most_activating(values, 3, np.arange(len(values))).tolist() == [0, 1, 2]
    assert vis.most_activating(values, 3, groups).tolist() == [0, 3, 5]
    assert vis.most_activating(values, 4, groups).tolist() == [0, 1, 3, 5]
    assert len(vis.most_activating(values, 9, groups)) == 6


def test_first_filters():
    net = edges()
    assert vis.first_filters(net).shape == (2, 1, 4, 4)
    with pytest.raises(ValueError, match="no convolution"):
        vis.first_filters(nn.Linear(2, 2))
