"""The trivial rival: every dark blob as large as a notehead is a black notehead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lineside.scores.models.watershed.decoding import Detections
from lineside.scores.models.watershed.targets import NUMBER

WIDTH, HEIGHT = 1.25, 1.0  # of a notehead in staff spaces
NARROW = 0.5  # staff spaces: what is thinner (lines, stems) is opened away


@dataclass(frozen=True, kw_only=True)
class Blobs:
    """Finds black noteheads only.

    Attributes:
        interline_px: Staff space of the pages that it is given.
    """

    interline_px: float = 10.5

    def detect(self, grey: NDArray[np.uint8]) -> Detections:
        """Return a black notehead for each blob; the fuller its box, the surer."""
        side = max(2, round(NARROW * self.interline_px))
        blobs = ndimage.binary_opening(grey < 128, np.ones((side, side), bool))
        labels, _ = ndimage.label(blobs)
        rows: list[tuple[float, float, float]] = []
        for number, (down, across) in enumerate(ndimage.find_objects(labels), start=1):
            width, height = across.stop - across.start, down.stop - down.start
            # Between half and twice a notehead.
            if not 0.5 < width / (WIDTH * self.interline_px) < 2.0:
                continue
            if not 0.5 < height / (HEIGHT * self.interline_px) < 2.0:
                continue
            filled = float((labels[down, across] == number).mean())
            middle = ((across.start + across.stop) / 2, (down.start + down.stop) / 2)
            rows.append((*middle, filled))
        table = np.array(rows, np.float32).reshape(-1, 3)
        size = np.array([WIDTH, HEIGHT], np.float32) * np.float32(self.interline_px)
        return Detections(
            centres=table[:, :2], sizes=np.broadcast_to(size, (len(table), 2)),
            classes=np.full(len(table), NUMBER["noteheadBlack"]), confidences=table[:, 2],
        )  # fmt: skip
