"""VGG19 with batch norm at four widths, trained from scratch.

Simonyan and Zisserman 2015, table 1, column E: sixteen 3x3 convolutions in five blocks, each
followed by batch norm and ReLU, 2x2 max pooling after each block. Instead of the three dense
layers (80 % of the original's weights) the last maps are averaged and one linear layer gives
the logit, so that crops of any size from 32 px on fit.

Shapes of a crop of side s at full width: blocks (64, s/2, s/2), (128, s/4, s/4), (256, s/8, s/8),
(512, s/16, s/16), (512, s/32, s/32); the last is averaged to (512,).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_CONVOLUTIONS = (2, 2, 4, 4, 4)
_WIDTHS = (64, 128, 256, 512, 512)
DIVISORS = {"vgg19_full": 1, "vgg19_half": 2, "vgg19_quarter": 4, "vgg19_eighth": 8}
"""Of the published width, by architecture."""

LAST_MAPS = "blocks.4.11"
"""The last ReLU, at 1/16 of the input's size: the layer for Grad-CAM."""


class VGG(nn.Module):
    """VGG19-BN with global average pooling and one logit.

    Args:
        channels: Input channels, 1 (grey) or 3 (RGB).
        widths: Feature maps of the five blocks.
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        before = channels
        for count, width in zip(_CONVOLUTIONS, widths, strict=True):
            blocks.append(_block(before, width, count))
            before = width
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(before, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return defect logits, shape (batch,), of images (batch, channel, height, width)."""
        logits: Tensor = self.head(self.pool(self.blocks(images)).flatten(1))
        return logits.squeeze(1)


def vgg19(architecture: str, channels: int = 1) -> VGG:
    """Return VGG19-BN at one of four widths.

    Weights: 20.0 million as published, 5.0 at half, 1.25 at a quarter, 0.31 at an eighth.
    """
    return VGG(channels, [width // DIVISORS[architecture] for width in _WIDTHS])


def initialise(network: nn.Module, seed: int) -> None:
    """Draw all weights from a seed: He et al. 2015, eq. 10, for convolutions (fan-out).

    Batch norm becomes the identity, biases zero, linear layers uniform within 1/sqrt(fan-in).
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
        elif isinstance(module, nn.Linear):
            bound = 1.0 / math.sqrt(module.in_features)
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            nn.init.ones_(module.weight)
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d) and module.bias is not None:
            nn.init.zeros_(module.bias)


def _block(before: int, width: int, count: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(count):
        # No bias: batch norm subtracts it again.
        layers.append(nn.Conv2d(before if index == 0 else width, width, 3, padding=1, bias=False))
        layers.append(nn.BatchNorm2d(width))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.MaxPool2d(2))
