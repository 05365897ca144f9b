"""The network of the Deep Watershed Detector: one trunk, dense and local heads.

Energy and line masks are predicted for every cell. Class, box and the attributes of a notehead are
predicted only where there is energy, from the same features: a page has half a million cells, and
a map of 120 classes would take a quarter of a gigabyte.

Notation: (batch, channel, rows, columns); rows and columns of the maps are half those of the image.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from lineside.scores.models.unet import UNet
from lineside.scores.models.watershed.targets import CLASSES, LEVELS, MASKS


class Dense(NamedTuple):
    """What is predicted for every cell: features, logits of energy levels and of masks."""

    features: Tensor
    energy: Tensor
    masks: Tensor


class Local(NamedTuple):
    """What is predicted for chosen cells: class logits, and log of width and height in cells."""

    classes: Tensor
    sizes: Tensor


class WatershedNetwork(nn.Module):
    """U-Net with the heads of the Deep Watershed Detector.

    Args:
        widths: Channels of the trunk at strides 2, 4, 8, 16 ...
        last: Channels of its last map.
        hidden: Channels between the last map and the local heads.
    """

    def __init__(
        self, widths: tuple[int, ...] = (16, 32, 64, 96), last: int = 24, hidden: int = 64
    ) -> None:
        super().__init__()
        self.widths = widths
        self.trunk = UNet(widths, last)
        self.dense = nn.Conv2d(last, LEVELS + len(MASKS), 1)
        self.local = nn.Sequential(nn.Linear(last, hidden), nn.ReLU(inplace=True))
        self.classes = nn.Linear(hidden, len(CLASSES))
        self.sizes = nn.Linear(hidden, 2)

    def forward(self, pages: Tensor) -> Dense:
        """Return what is predicted for every cell.

        Args:
            pages: Ink, shape (batch, 1, height, width), 0 paper to 1 black; sides are multiples
                of ``self.trunk.multiple``.
        """
        features = self.trunk(pages)
        dense = self.dense(features)
        return Dense(features, dense[:, :LEVELS], dense[:, LEVELS:])

    def at(self, features: Tensor) -> Local:
        """Return what is predicted for chosen cells.

        Args:
            features: Shape (cell, channel).
        """
        hidden = self.local(features)
        return Local(self.classes(hidden), self.sizes(hidden))
