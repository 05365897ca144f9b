"""Generator, critic and encoder with residual blocks (Gulrajani et al. 2017, appendix F).

Shapes are (batch, 1, side, side) for patches of 64 px (as published, width 64) or 32 px (which a
CPU can train, width 8), and (batch, latent) for codes. The critic has layer norm, not batch norm:
its gradient penalty is a matter of single patches.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from lineside.core.errors import UserError
from lineside.parts.models.patch_cnn.patch_cnn import channels_last

_FIRST_PX = 4
_FIRST_CONTRAST = 0.25
_UP = {64: (8, 4, 2, 1), 32: (4, 2, 1)}
_DOWN = {64: (2, 4, 8, 8), 32: (2, 4, 8)}


class Generator(nn.Module):
    """Makes patches of codes: dense 4x4x(8 width), residual up-blocks, convolution, tanh."""

    def __init__(self, *, patch_px: int, width: int, latent: int) -> None:
        super().__init__()
        self.latent, self.width = latent, width
        self._width = 8 * width
        self.dense = nn.Linear(latent, self._width * _FIRST_PX**2)
        blocks: list[nn.Module] = []
        before = self._width
        for share in _shares(_UP, patch_px):
            blocks.append(UpBlock(before, share * width))
            before = share * width
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(
            nn.BatchNorm2d(before), nn.ReLU(), nn.Conv2d(before, 1, 3, padding=1), nn.Tanh()
        )

    def forward(self, codes: Tensor) -> Tensor:
        """Return patches (batch, 1, side, side), values -1..1, of codes (batch, latent)."""
        first = self.dense(codes).view(-1, self._width, _FIRST_PX, _FIRST_PX)
        patches: Tensor = self.last(self.blocks(first))
        return patches


class Critic(nn.Module):
    """Scores how real patches look: convolution, residual down-blocks, one linear unit."""

    def __init__(self, *, patch_px: int, width: int) -> None:
        super().__init__()
        self.trunk = trunk(patch_px, width)
        self.head = nn.Linear(features_of(width), 1)

    def features(self, patches: Tensor) -> Tensor:
        """Return the last maps, flattened: (batch, 16 * 8 * width)."""
        maps: Tensor = self.trunk(patches)
        return maps.flatten(1)

    def forward(self, patches: Tensor) -> Tensor:
        """Return one score per patch, shape (batch,), not bounded."""
        scores: Tensor = self.head(self.features(patches))
        return scores.squeeze(1)


class Encoder(nn.Module):
    """The critic's trunk, then a dense layer to the code; tanh keeps it within -1..1.

    The published encoder ends in tanh although codes are drawn from N(0, 1), of which 68 % lie
    within -1..1; `linear` leaves the tanh out.
    """

    def __init__(self, *, patch_px: int, width: int, latent: int, linear: bool) -> None:
        super().__init__()
        self.trunk = trunk(patch_px, width)
        self.head = nn.Linear(features_of(width), latent)
        self.linear = linear

    def forward(self, patches: Tensor) -> Tensor:
        """Return the code of each patch, shape (batch, latent)."""
        codes: Tensor = self.head(self.trunk(patches).flatten(1))
        return codes if self.linear else codes.tanh()


class Networks(nn.Module):
    """Generator, critic and encoder of one f-AnoGAN."""

    def __init__(self, *, patch_px: int, width: int, latent: int, linear: bool) -> None:
        super().__init__()
        self.generator = Generator(patch_px=patch_px, width=width, latent=latent)
        self.critic = Critic(patch_px=patch_px, width=width)
        self.encoder = Encoder(patch_px=patch_px, width=width, latent=latent, linear=linear)


class UpBlock(nn.Module):
    """Doubles the side: batch norm, ReLU, nearest up, convolution, twice, beside a shortcut."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1),
        )
        # A 1x1 convolution and nearest upsampling commute: the small maps are convolved.
        self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1), nn.Upsample(scale_factor=2))

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (batch, after, 2 side, 2 side)."""
        total: Tensor = self.inner(maps) + self.shortcut(maps)
        return total


class DownBlock(nn.Module):
    """Halves the side: layer norm, ReLU, convolution, twice, mean pooling, beside a shortcut."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            LayerNorm(before),
            nn.ReLU(),
            nn.Conv2d(before, before, 3, padding=1, bias=False),
            LayerNorm(before),
            nn.ReLU(),
            nn.Conv2d(before, after, 3, padding=1),
            nn.AvgPool2d(2),
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(before, after, 1))

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (batch, after, side / 2, side / 2)."""
        total: Tensor = self.inner(maps) + self.shortcut(maps)
        return total


class LayerNorm(nn.Module):
    """Layer norm over channels and places of each patch, with a gain and a bias per channel.

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


def make_networks(patch_px: int, width: int, latent: int, *, linear: bool) -> Networks:
    """Return networks with arbitrary weights, in the memory layout that is fastest on a CPU."""
    with torch.random.fork_rng(devices=[]):
        networks = Networks(patch_px=patch_px, width=width, latent=latent, linear=linear)
    channels_last(networks)
    return networks


def trunk(patch_px: int, width: int) -> nn.Sequential:
    """Return convolution and residual down-blocks, from one channel to 8 width maps of 4x4."""
    blocks: list[nn.Module] = [nn.Conv2d(1, width, 3, padding=1)]
    before = width
    for share in _shares(_DOWN, patch_px):
        blocks.append(DownBlock(before, share * width))
        before = share * width
    return nn.Sequential(*blocks)


def features_of(width: int) -> int:
    """Return the number of features of a trunk: 8192 at the published width 64."""
    return 8 * width * _FIRST_PX**2


def initialise(network: nn.Module, rng: np.random.Generator) -> None:
    """Draw all weights anew: He et al. 2015 (fan-in) where a ReLU comes before, biases zero."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            before = module.weight[0].numel()
            gain = 2.0 if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) else 1.0
            with torch.no_grad():
                module.weight.normal_(0.0, math.sqrt(gain / before), generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
    if isinstance(network, Generator):  # else tanh starts saturated, black and white
        with torch.no_grad():
            network.last.get_parameter("2.weight").mul_(_FIRST_CONTRAST)


def freeze(network: nn.Module) -> nn.Module:
    """Return the network in evaluation mode with fixed weights; gradients pass through it."""
    for weight in network.parameters():
        weight.requires_grad_(False)
    return network.eval()


def _shares(table: dict[int, tuple[int, ...]], patch_px: int) -> tuple[int, ...]:
    if patch_px not in table:
        raise UserError(f"patch_px is {patch_px}", f"it is one of {sorted(table)}")
    return table[patch_px]
