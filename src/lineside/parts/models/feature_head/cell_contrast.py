"""Hand-made contrast of 8-px cells: what a frozen network trained on objects averages away.

Small blobs (difference of Gaussians), lines and edges at three scales of a pyramid, on the
logarithm of brightness, so that exposure is an offset. Every filter comes with both signs and in
both directions, and a cell keeps its strongest response: nothing is tuned to one material.
Sources: Marr & Hildreth 1980 (blobs), Burt & Adelson 1983 (binomial pyramid).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lineside.parts.models.detector import Image

CELL_PX = 8
CONTRASTS = 25
"""Features per cell."""
TILE_CELLS = 96
HALO_CELLS = 8
_DARK = 8 / 255
"""Added to brightness before the logarithm: noise of black pixels must not dominate."""


@torch.inference_mode()
def contrast_cells(image: Image) -> Tensor:
    """Return the contrast of all cells, shape (ceil(height / 8), ceil(width / 8), 25), float32.

    Large images are worked on in tiles with a halo, so that memory stays bounded.
    """
    grey = torch.from_numpy(np.ascontiguousarray(image.mean(2, dtype=np.float32)))[None, None]
    rows, columns = -(-image.shape[0] // CELL_PX), -(-image.shape[1] // CELL_PX)
    padding = (0, columns * CELL_PX - image.shape[1], 0, rows * CELL_PX - image.shape[0])
    grey = F.pad(grey, padding, mode="replicate")
    result = torch.empty(rows, columns, CONTRASTS)
    for top in range(0, rows, TILE_CELLS):
        for left in range(0, columns, TILE_CELLS):
            above, before = max(0, top - HALO_CELLS), max(0, left - HALO_CELLS)
            bottom, right = min(top + TILE_CELLS, rows), min(left + TILE_CELLS, columns)
            window = grey[
                ...,
                above * CELL_PX : (bottom + HALO_CELLS) * CELL_PX,
                before * CELL_PX : (right + HALO_CELLS) * CELL_PX,
            ]
            found = _window(window)[top - above : bottom - above, left - before : right - before]
            result[top:bottom, left:right] = found
    return result


def _window(grey: Tensor) -> Tensor:
    """Return (rows, columns, 25) of a picture (1, 1, 8 * rows, 8 * columns)."""
    log = torch.log(grey + _DARK)
    mean = F.avg_pool2d(log, CELL_PX)
    around = F.avg_pool2d(_padded(mean, 3, 3), 7, 1)
    found = [mean, mean - around]
    level = log
    for octave in range(3):
        if octave:
            level = F.avg_pool2d(level, 2)
        maps = [*_blobs_and_lines(level), *(_edges(level) if octave == 2 else ())]
        size = CELL_PX >> octave
        for response in maps:
            found += [F.max_pool2d(response, size), F.max_pool2d(-response, size)]
    rest = F.avg_pool2d((log - _blurred(log, 1)) ** 2, CELL_PX)
    found.append((rest + 1e-6).log())
    return torch.cat(found, 1)[0].permute(1, 2, 0)


def _padded(x: Tensor, rows: int, columns: int) -> Tensor:
    return F.pad(x, (columns, columns, rows, rows), mode="replicate")


def _blurred(x: Tensor, dilation: int) -> Tensor:
    """Binomial blur, standard deviation 1 px times the dilation."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    reach = 2 * dilation
    x = F.conv2d(_padded(x, 0, reach), taps.view(1, 1, 1, 5), dilation=(1, dilation))
    return F.conv2d(_padded(x, reach, 0), taps.view(1, 1, 5, 1), dilation=(dilation, 1))


def _blobs_and_lines(level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return blob, upright-line and lying-line responses; lines are averaged along 7 px."""
    fine = _blurred(level, 1)
    blob = fine - _blurred(fine, 2)
    wide = _padded(fine, 2, 2)
    upright = wide[:, :, 2:-2, 4:] + wide[:, :, 2:-2, :-4] - 2 * fine
    lying = wide[:, :, 4:, 2:-2] + wide[:, :, :-4, 2:-2] - 2 * fine
    return (
        blob,
        F.avg_pool2d(_padded(upright, 3, 0), (7, 1), 1),
        F.avg_pool2d(_padded(lying, 0, 3), (1, 7), 1),
    )


def _edges(level: Tensor) -> tuple[Tensor, Tensor]:
    """Return steps downwards and to the right between pairs of pixels, averaged along 9 px."""
    rows, columns = level.shape[2:]
    pairs = F.avg_pool2d(_padded(level, 2, 0), (2, 1), 1)
    down = (pairs[:, :, 3:] - pairs[:, :, :-3])[:, :, :rows]
    pairs = F.avg_pool2d(_padded(level, 0, 2), (1, 2), 1)
    right = (pairs[..., 3:] - pairs[..., :-3])[..., :columns]
    return (
        F.avg_pool2d(_padded(down, 0, 4), (1, 9), 1),
        F.avg_pool2d(_padded(right, 4, 0), (9, 1), 1),
    )
