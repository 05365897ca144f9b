"""The Deep Watershed Detector as a fitted model: a page in, symbols and line masks out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lineside.core.run.codec import built_by
from lineside.scores.models.unet import padded
from lineside.scores.models.watershed.decoding import CUTS, Detections, decode
from lineside.scores.models.watershed.network import Dense, WatershedNetwork


@dataclass(frozen=True, kw_only=True)
class WatershedDetector:
    """A trained network, and what decoding needs beside it.

    Attributes:
        interline_px: Staff space of the pages it was trained on.
        widths, last, hidden: Of the network.
        class_sizes: (width, height) in pixels of a typical symbol of each class.
        network: Trained.
        cuts: Of the watershed.
    """

    interline_px: float
    widths: tuple[int, ...]
    last: int
    hidden: int
    class_sizes: NDArray[np.float32]
    network: nn.Module = field(
        metadata=built_by(lambda own: WatershedNetwork(own.widths, own.last, own.hidden))
    )
    cuts: tuple[float, ...] = CUTS

    def detect(self, grey: NDArray[np.uint8]) -> Detections:
        """Return the symbols of a page whose staff space is `interline_px`.

        Args:
            grey: Shape (height, width), 0 black.
        """
        with torch.inference_mode():
            return decode(self._network, self.maps(grey), self.class_sizes, cuts=self.cuts)

    def maps(self, grey: NDArray[np.uint8]) -> Dense:
        """Return what is predicted for every cell; the page is padded with paper."""
        with torch.inference_mode():
            found: Dense = self._network(padded(grey, self._network.trunk.multiple))
        return found

    @property
    def _network(self) -> WatershedNetwork:
        assert isinstance(self.network, WatershedNetwork)
        return self.network
