"""The network of the Deep Watershed Detector: one trunk, dense and local heads.

Energy and line masks are predicted for every cell. Class, box and the attributes of a notehead are
predicted only where there is energy, from the same features: a page has half a million cells, and
a map of 120 classes would take a quarter of a gigabyte.

Notation: (batch, channel, rows, columns); rows and columns of the maps are half those of the image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from lineside.scores.models.watershed.targets import CLASSES, LEVELS, MASKS, STRIDE

MULTIPLE = 32  # pixels; images are padded to a multiple of it


class Dense(NamedTuple):
    """What is predicted for every cell: features, logits of energy levels and of masks."""

    features: Tensor
    energy: Tensor
    masks: Tensor


class Local(NamedTuple):
    """What is predicted for chosen cells: class logits, and log of width and height in cells."""

    classes: Tensor
    sizes: Tensor


def _block(inward: int, outward: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inward, outward, 3, padding=1, bias=False),
        nn.BatchNorm2d(outward),
        nn.ReLU(inplace=True),
        nn.Conv2d(outward, outward, 3, padding=1, bias=False),
        nn.BatchNorm2d(outward),
        nn.ReLU(inplace=True),
    )


class WatershedNetwork(nn.Module):
    """U-Net (Ronneberger et al. 2015) with the heads of the Deep Watershed Detector.

    Args:
        widths: Channels at strides 2, 4, 8, 16 ...
        last: Channels of the last map.
        hidden: Channels between the last map and the local heads.
    """

    def __init__(
        self, widths: tuple[int, ...] = (16, 32, 64, 96), last: int = 24, hidden: int = 64
    ) -> None:
        super().__init__()
        self.widths = widths
        inward = [STRIDE**2, *widths[:-1]]
        self.down = nn.ModuleList(_block(a, b) for a, b in zip(inward, widths, strict=True))
        self.up = nn.ModuleList(
            _block(deep + flat, flat if level else last)
            for level, (deep, flat) in reversed(
                list(enumerate(zip(widths[1:], widths[:-1], strict=True)))
            )
        )
        self.dense = nn.Conv2d(last, LEVELS + len(MASKS), 1)
        self.local = nn.Sequential(nn.Linear(last, hidden), nn.ReLU(inplace=True))
        self.classes = nn.Linear(hidden, len(CLASSES))
        self.sizes = nn.Linear(hidden, 2)

    def forward(self, pages: Tensor) -> Dense:
        """Return what is predicted for every cell.

        Args:
            pages: Ink, shape (batch, 1, height, width), 0 paper to 1 black; sides are multiples
                of `MULTIPLE`.
        """
        x = functional.pixel_unshuffle(pages, STRIDE)
        kept = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)
            kept.append(x)
        for block, flat in zip(self.up, reversed(kept[:-1]), strict=True):
            x = block(torch.cat([functional.interpolate(x, scale_factor=2.0), flat], dim=1))
        dense = self.dense(x)
        return Dense(x, dense[:, :LEVELS], dense[:, LEVELS:])

    def at(self, features: Tensor) -> Local:
        """Return what is predicted for chosen cells.

        Args:
            features: Shape (cell, channel).
        """
        hidden = self.local(features)
        return Local(self.classes(hidden), self.sizes(hidden))
