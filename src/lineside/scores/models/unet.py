"""The trunk that the deep detectors share: a U-Net whose last map has half the image's resolution.

Ronneberger, Fischer and Brox, "U-Net", MICCAI 2015, with batch norm and nearest upsampling. The
first step folds 2 x 2 pixels into channels instead of looking at every pixel.
"""

from __future__ import annotations

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

STRIDE = 2  # pixels of the image to a cell of the last map


class UNet(nn.Module):
    """Takes ink to features.

    Args:
        widths: Channels at strides 2, 4, 8, 16 ...
        last: Channels of the last map.
    """

    def __init__(self, widths: tuple[int, ...], last: int) -> None:
        super().__init__()
        inward = [STRIDE**2, *widths[:-1]]
        self.multiple = STRIDE * 2 ** (len(widths) - 1)
        self.down = nn.ModuleList(_block(a, b) for a, b in zip(inward, widths, strict=True))
        steps = list(enumerate(zip(widths[1:], widths[:-1], strict=True)))
        self.up = nn.ModuleList(
            _block(deep + flat, flat if level else last) for level, (deep, flat) in reversed(steps)
        )

    def forward(self, pages: Tensor) -> Tensor:
        """Return features, shape (batch, channel, height / 2, width / 2).

        Args:
            pages: Ink, shape (batch, 1, height, width), 0 paper to 1 black; sides are multiples
                of `multiple`.
        """
        x = functional.pixel_unshuffle(pages, STRIDE)
        kept = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)
            kept.append(x)
        for block, flat in zip(self.up, reversed(kept[:-1]), strict=True):
            x = block(torch.cat([functional.interpolate(x, scale_factor=2.0), flat], dim=1))
        return x


def padded(grey: NDArray, multiple: int) -> Tensor:
    """Return a page as ink, padded with paper, shape (1, 1, height, width), channels last.

    Args:
        grey: Shape (height, width), 0 black to 255 paper.
        multiple: Of the sides.
    """
    height, width = grey.shape
    ink = 1.0 - torch.from_numpy(grey.astype("float32"))[None, None] / 255.0
    page = functional.pad(ink, (0, -width % multiple, 0, -height % multiple))
    return page.contiguous(memory_format=torch.channels_last)


def _block(inward: int, outward: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inward, outward, 3, padding=1, bias=False),
        nn.BatchNorm2d(outward),
        nn.ReLU(inplace=True),
        nn.Conv2d(outward, outward, 3, padding=1, bias=False),
        nn.BatchNorm2d(outward),
        nn.ReLU(inplace=True),
    )
