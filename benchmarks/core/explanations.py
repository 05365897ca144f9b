"""Attributions: against captum on random networks, and the sanity check on a trained one.

Numbers go to ``docs/results/core.json``. Everything is made here, in float64, from seeds.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.core import attribution
from benchmarks.core.cascade import cascade
from benchmarks.results import Say, plain
from lineside.core.explain import attribution as explain
from lineside.core.explain.sanity_checks import MapOf

NETS = 20
SAMPLES, SHARE = 5, 0.15
CASCADE_SEEDS = 3


@dataclass(frozen=True)
class Case:
    """A random network with inputs and the settings under which both sides must agree."""

    network: nn.Module
    inputs: Tensor
    target: int
    rows_first: nn.Module
    """A layer with an output (batch, channel, *grid)."""
    ours: nn.Module
    """The same layer for us; its output may have the channels last."""
    channel_axis: int
    whole_axis: int
    time_axis: int | None


class Recurrent(nn.Module):
    """A recurrent layer over (batch, time, feature), read out by the mean over time."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], features: int, outputs: int) -> None:
        super().__init__()
        self.memory: nn.Module = kind(features, 7, num_layers=2, dropout=0.5, batch_first=True)
        self.rows = nn.Identity()
        self.hidden = nn.Linear(7, 6)
        self.rectifier = nn.ReLU()
        self.head = nn.Linear(6, outputs)

    def forward(self, sequences: Tensor) -> Tensor:
        rows = self.rows(self.memory(sequences)[0].transpose(1, 2))
        scores: Tensor = self.head(self.rectifier(self.hidden(rows.mean(2))))
        return scores


def case(number: int) -> Case:
    """Return one of the random networks: 1-D, 2-D, LSTM and GRU take turns."""
    kinds: tuple[Callable[[int], Case], ...] = (
        functools.partial(_convolutional, dimensions=1),
        functools.partial(_convolutional, dimensions=2),
        functools.partial(_recurrent, kind=nn.LSTM),
        functools.partial(_recurrent, kind=nn.GRU),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        return kinds[number % len(kinds)](number)


def differences(number: int) -> dict[str, float]:
    """Return the largest difference from captum by method, for one random network.

    Absolute, or relative to the largest absolute value of captum's map where that exceeds 1.
    """
    warnings.simplefilter("ignore")
    it = case(number)
    theirs, ours = _theirs(it), _ours(it)
    found = {}
    for name, mine in ours.items():
        expected = theirs[name].detach().to(mine.dtype)
        scale = max(1.0, float(expected.abs().max()))
        if mine.shape != expected.shape:
            raise ValueError(f"{name}: shape {tuple(mine.shape)}, captum {tuple(expected.shape)}")
        found[name] = float((mine - expected).abs().max()) / scale
    return found


def captum_parity(say: Say, nets: int = NETS) -> None:
    """The largest difference from captum over random networks, all methods, in float64."""
    found = [differences(number) for number in range(nets)]
    worst: dict[str, float] = {}
    for name in sorted({name for each in found for name in each}):
        values = [each[name] for each in found if name in each]
        worst[name] = max(values)
        say(f"captum_difference_{name}", _largest(worst[name], len(values)))
    say("captum_max_difference", _largest(max(worst.values()), nets))


def sanity_cascade(say: Say, seeds: int = CASCADE_SEEDS, steps: int = 150) -> None:
    """What is left of each map of a trained net when its upper half, or all of it, is redrawn."""
    network, inputs = trained_network(steps)
    pixels, labels = _shapes(500, np.random.default_rng(99))
    with torch.inference_mode():
        right = (network(pixels.double())[:, 0] > 0) == (labels > 0)
    say("sanity_net_accuracy", plain(float(right.double().mean()), "fraction", len(labels)))
    for name, explainer in explainers(inputs).items():
        rows = [cascade(network, explainer, seed=seed) for seed in range(seeds)]
        half = len(rows[0]) // 2 - 1
        for stage, place in (("half", half), ("all", -1)):
            for kind in ("absolute", "signed", "ssim"):
                mean = float(np.mean([getattr(row[place], kind) for row in rows]))
                reason = f"mean over {len(inputs)} items and {seeds} draws"
                number = plain(mean, "correlation", seeds, "lower", reason)
                say(f"sanity_{name}_{stage}_{kind}", number)


def explainers(inputs: Tensor, target: int = 0) -> dict[str, MapOf]:
    """Return every method that makes a 2-D map of `trained_network`, summed over channels."""
    maps: dict[str, Callable[..., Tensor]] = {
        "gradient": explain.saliency,
        "gradient_times_input": attribution.gradient_times_input,
        "integrated_gradients": explain.integrated_gradients,
        "smoothgrad": attribution.smoothgrad,
        "guided_backprop": explain.guided_backprop,
    }

    def signed(network: nn.Module, of: Callable[..., Tensor]) -> Tensor:
        return of(network, inputs, target).sum(1)

    def cam(network: nn.Module) -> Tensor:
        layer = network.get_submodule("8")
        return explain.upsample(explain.grad_cam(network, layer, inputs, target), inputs.shape[2:])

    def covered(network: nn.Module) -> Tensor:
        return explain.occlusion(network, inputs, target, window=4, stride=4)

    found = {name: functools.partial(signed, of=of) for name, of in maps.items()}
    return {**found, "grad_cam": cam, "occlusion": covered}


def trained_network(steps: int, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """Return a small convolutional net that tells scratches from spots in noise, and 8 items.

    Both classes have the same mean and energy, so that only the shape decides.
    """
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 12, 3, padding=1, stride=2), nn.BatchNorm2d(12), nn.ReLU(),
            nn.Conv2d(12, 16, 3, padding=1, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 1),
        )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(steps):
        pixels, labels = _shapes(32, rng)
        loss = nn.functional.binary_cross_entropy_with_logits(network(pixels)[:, 0], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.double().eval(), _shapes(8, rng)[0].double()


def _shapes(count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Noise of spread 0.5 with a scratch (1) or a spot (0) of 16 pixels of height 2."""
    pixels = 0.5 * rng.standard_normal((count, 1, 32, 32)).astype(np.float32)
    labels = rng.integers(0, 2, count)
    for picture, label in zip(pixels[:, 0], labels, strict=True):
        top, left = rng.integers(2, 14, 2)
        if label:
            along = np.arange(16)
            picture[top + along, left + along if rng.random() < 0.5 else left + 15 - along] += 2
        else:
            picture[top : top + 4, left : left + 4] += 2
    return torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.float32))


def _convolutional(number: int, *, dimensions: int) -> Case:
    conv: Any = nn.Conv2d if dimensions == 2 else nn.Conv1d
    norm: Any = nn.BatchNorm2d if dimensions == 2 else nn.BatchNorm1d
    pool: Any = nn.AdaptiveAvgPool2d if dimensions == 2 else nn.AdaptiveAvgPool1d
    net = nn.Sequential(
        conv(2, 6, 3, padding=1), norm(6), nn.ReLU(), conv(6, 8, 3, padding=1), nn.ReLU(),
        pool(1), nn.Flatten(), nn.Linear(8, 5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3),
    ).double()  # fmt: skip
    nn.init.uniform_(net[1].running_mean, -0.5, 0.5)  # type: ignore[arg-type]
    nn.init.uniform_(net[1].running_var, 0.5, 2.0)  # type: ignore[arg-type]
    x = torch.randn(3, 2, *(11,) * dimensions, dtype=torch.float64)
    return Case(net.eval(), x, number % 3, net[4], net[4], 1, 1, 2 if dimensions == 1 else None)


def _recurrent(number: int, *, kind: type[nn.LSTM] | type[nn.GRU]) -> Case:
    net = Recurrent(kind, 4, 3).double().eval()
    x = torch.randn(3, 11, 4, dtype=torch.float64)
    return Case(net, x, number % 3, net.rows, net.memory, 2, 2, 1)


def _ours(it: Case) -> dict[str, Tensor]:
    net, x, target = it.network, it.inputs, it.target
    found = {
        "saliency": explain.saliency(net, x, target),
        "gradient_times_input": attribution.gradient_times_input(net, x, target),
        "integrated_gradients": explain.integrated_gradients(net, x, target),
        "guided_backprop": explain.guided_backprop(net, x, target),
        "smoothgrad": attribution.smoothgrad(net, x, target, samples=SAMPLES, share=SHARE),
        "grad_cam": explain.grad_cam(net, it.ours, x, target, channel_axis=it.channel_axis),
        "occlusion": explain.occlusion(
            net, x, target, window=4, stride=3, whole_axis=it.whole_axis, baseline=0.2
        ),
    }
    if it.channel_axis == 1:
        found["guided_grad_cam"] = attribution.guided_grad_cam(net, it.ours, x, target)
    if it.time_axis is not None:
        found["spectral_gradient_times_input"] = attribution.spectral_gradient_times_input(
            net, x, target, axis=it.time_axis
        )
    return found


def _theirs(it: Case) -> Mapping[str, Tensor]:
    from captum import attr

    net, x, target = it.network, it.inputs, it.target
    whole = it.whole_axis
    window = tuple(x.shape[a] if a == whole else 4 for a in range(1, x.ndim))
    strides = tuple(x.shape[a] if a == whole else 3 for a in range(1, x.ndim))
    cam = attr.LayerGradCam(net, it.rows_first)
    found = {
        "saliency": attr.Saliency(net).attribute(x.clone(), target=target, abs=False),
        "gradient_times_input": attr.InputXGradient(net).attribute(x.clone(), target=target),
        "integrated_gradients": attr.IntegratedGradients(net).attribute(
            x.clone(), target=target, n_steps=50, method="gausslegendre"
        ),
        "guided_backprop": attr.GuidedBackprop(net).attribute(x.clone(), target=target),
        "smoothgrad": torch.cat([_noise_tunnel(net, item[None], target) for item in x]),
        "grad_cam": cam.attribute(x.clone(), target=target, relu_attributions=True)[:, 0],
        "occlusion": attr.Occlusion(net)
        .attribute(
            x.clone(), target=target, sliding_window_shapes=window, strides=strides, baselines=0.2
        )
        .select(whole, 0),
    }
    if it.channel_axis == 1:
        mode = "bilinear" if x.ndim == 4 else "linear"
        found["guided_grad_cam"] = attr.GuidedGradCam(net, it.rows_first).attribute(
            x.clone(), target=target, interpolate_mode=mode
        )
    if it.time_axis is not None:
        found["spectral_gradient_times_input"] = _by_coefficient(it, it.time_axis)
    return found


def _noise_tunnel(net: nn.Module, item: Tensor, target: int) -> Tensor:
    """SmoothGrad of one item (1, ...) by captum, fed with the noise that we draw."""
    from captum import attr

    spread = SHARE * float(item.max() - item.min())
    noise = spread * attribution.standard_noise(item, SAMPLES, 0)[:, 0]
    with mock.patch("torch.normal", lambda mean, spread: noise):
        found: Tensor = attr.NoiseTunnel(attr.Saliency(net)).attribute(
            item.clone(), nt_type="smoothgrad", nt_samples=SAMPLES, stdevs=spread,
            target=target, abs=False,
        )  # fmt: skip
    return found


def _by_coefficient(it: Case, axis: int) -> Tensor:
    """Gradient times input by captum of the network fed with real and imaginary parts."""
    from captum import attr

    class FromCoefficients(nn.Module):
        def forward(self, parts: Tensor) -> Tensor:
            whole = torch.view_as_complex(parts.contiguous())
            signal = torch.fft.irfft(whole, n=it.inputs.shape[axis], dim=axis)
            scores: Tensor = it.network(signal)
            return scores

    parts = torch.view_as_real(torch.fft.rfft(it.inputs, dim=axis))
    shares = attr.InputXGradient(FromCoefficients()).attribute(parts, target=it.target)
    total: Tensor = shares.sum(-1)
    return total


def _largest(value: float, nets: int) -> Any:
    reason = "a maximum over networks; relative to the map's scale where that exceeds 1"
    return plain(value, "score", nets, "lower", reason)
