"""Generator, critic and encoder with residual blocks (Gulrajani et al. 2017, appendix F).

Shapes are (batch, 1, 32, 32) for patches and (batch, latent) for codes. Published: patches of 64 px
with one block more and width 64; 32 px and width 8 can be trained on a CPU. The critic has layer
norm, not batch norm: the gradient penalty is defined for single patches.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from lineside.parts.models.patch_cnn.patch_cnn import channels_last

_START_PX = 4
_START_CONTRAST = 0.25
_UP, _DOWN = (4, 2, 1), (2, 4, 8)
"""Channels after each block, in multiples of the width."""


class Generator(nn.Module):
    """Makes patches of codes: dense 4x4x(8 width), residual up-blocks, convolution, tanh."""

    def __init__(self, *, width: int, latent: int) -> None:
        super().__init__()
        self.latent, self.width = latent, width
        self._width = 8 * width
        self.dense = nn.Linear(latent, self._width * _START_PX**2)
        blocks: list[nn.Module] = []
        channels = self._width
        for multiple in _UP:
            blocks.append(UpBlock(channels, multiple * width))
            channels = multiple * width
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 1, 3, padding=1), nn.Tanh()
        )

    def forward(self, codes: Tensor) -> Tensor:
        """Return patches (batch, 1, side, side), values -1..1, of codes (batch, latent)."""
        # (batch, latent) -> (batch, 8 width * 16) -> (batch, 8 width, 4, 4) -> patches
        maps = self.dense(codes).view(-1, self._width, _START_PX, _START_PX)
        patches: Tensor = self.last(self.blocks(maps))
        return patches


class Critic(nn.Module):
    """Scores how real patches look: convolution, residual down-blocks, one linear unit."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.backbone = backbone(width)
        self.head = nn.Linear(feature_count(width), 1)

    def features(self, patches: Tensor) -> Tensor:
        """Return the last maps, flattened: (batch, 16 * 8 * width)."""
        maps: Tensor = self.backbone(patches)
        return maps.flatten(1)

    def forward(self, patches: Tensor) -> Tensor:
        """Return one score per patch, shape (batch,), not bounded."""
        scores: Tensor = self.head(self.features(patches))
        return scores.squeeze(1)


class Encoder(nn.Module):
    """The critic's backbone, then a dense layer to the code; tanh keeps it within -1..1.

    The published encoder ends in tanh although codes are drawn from N(0, 1), of which 68 % lie
    within -1..1; `linear` leaves the tanh out.
    """

    def __init__(self, *, width: int, latent: int, linear: bool) -> None:
        super().__init__()
        self.backbone = backbone(width)
        self.head = nn.Linear(feature_count(width), latent)
        self.linear = linear

    def forward(self, patches: Tensor) -> Tensor:
        """Return the code of each patch, shape (batch, latent)."""
        codes: Tensor = self.head(self.backbone(patches).flatten(1))
        return codes if self.linear else codes.tanh()


class Networks(nn.Module):
    """Generator, critic and encoder of one f-AnoGAN."""

    def __init__(self, *, width: int, latent: int, linear: bool) -> None:
        super().__init__()
        self.generator = Generator(width=width, latent=latent)
        self.critic = Critic(width=width)
        self.encoder = Encoder(width=width, latent=latent, linear=linear)


class UpBlock(nn.Module):
    """Doubles the side: batch norm, ReLU, nearest up, convolution, twice, beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        # A 1x1 convolution and nearest upsampling commute: the small maps are convolved.
        self.shortcut = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1), nn.Upsample(scale_factor=2)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (batch, out_channels, 2 side, 2 side)."""
        out: Tensor = self.inner(maps) + self.shortcut(maps)
        return out


class DownBlock(nn.Module):
    """Halves the side: layer norm, ReLU, convolution, twice, mean pooling, beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            LayerNorm(in_channels),
            nn.ReLU(),
            nn.Conv2d(in_channels, in_channels, 3, padding=1, bias=False),
            LayerNorm(in_channels),
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.AvgPool2d(2),
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(in_channels, out_channels, 1))

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (batch, out_channels, side / 2, side / 2)."""
        out: Tensor = self.inner(maps) + self.shortcut(maps)
        return out


class LayerNorm(nn.Module):
    """Layer norm over channels and positions of each patch, with a gain and a bias per channel.

    Written out: the gradient penalty differentiates it twice.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of mean 0 and variance 1 per patch, times gain, plus bias."""
        centred = maps - maps.mean((1, 2, 3), keepdim=True)
        variance = centred.square().mean((1, 2, 3), keepdim=True)
        return centred * (self.gain * (variance + 1e-5).rsqrt()) + self.bias


def make_networks(width: int, latent: int, *, linear: bool) -> Networks:
    """Return networks with arbitrary weights, in the memory layout that is fastest on a CPU."""
    with torch.random.fork_rng(devices=[]):
        networks = Networks(width=width, latent=latent, linear=linear)
    channels_last(networks)
    return networks


def backbone(width: int) -> nn.Sequential:
    """Return convolution and residual down-blocks, from one channel to 8 width maps of 4x4."""
    blocks: list[nn.Module] = [nn.Conv2d(1, width, 3, padding=1)]
    channels = width
    for multiple in _DOWN:
        blocks.append(DownBlock(channels, multiple * width))
        channels = multiple * width
    return nn.Sequential(*blocks)


def feature_count(width: int) -> int:
    """Return the number of features of a backbone: 8192 at the published width 64."""
    return 8 * width * _START_PX**2


def initialise(network: nn.Module, rng: np.random.Generator) -> None:
    """Draw weights of variance 2 / fan-in after a ReLU (He et al. 2015), else 1 / fan-in."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            gain = 2.0 if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) else 1.0
            with torch.no_grad():
                module.weight.normal_(0.0, math.sqrt(gain / fan_in), generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
    if isinstance(network, Generator):  # else tanh starts saturated, black and white
        with torch.no_grad():
            network.last.get_parameter("2.weight").mul_(_START_CONTRAST)


def freeze(network: nn.Module) -> nn.Module:
    """Return the network in evaluation mode with fixed weights; gradients pass through it."""
    for weight in network.parameters():
        weight.requires_grad_(False)
    return network.eval()
