"""Objects as points: a heat map of centres per class, with a regressed size at each.

Zhou, Wang and Krähenbühl, "Objects as Points", 2019 (CenterNet): the anchor-free detector in
general use, with the trunk and the training budget of the Deep Watershed Detector. The heat maps
have the resolution of its maps, so that no offset is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lineside.core.run.codec import built_by
from lineside.core.training.loop import NO_HOOKS, Hooks, Training, train
from lineside.core.training.step_function import supervised_step
from lineside.scores.models.unet import STRIDE, UNet, padded
from lineside.scores.models.watershed.decoding import Detections
from lineside.scores.models.watershed.targets import CLASSES
from lineside.scores.training.crops import Crop, CropSettings, CropSource, Degrade, Pages

WIDTHS, LAST = (20, 40, 80, 120), 32
PRIOR = 0.01  # probability of a centre before anything is learned (Lin et al. 2017)
SPREAD = 1 / 6  # standard deviation of a peak as a share of the side of its box
LEAST_SPREAD = 0.6  # cells
SIZE_WEIGHT = 0.1
MOST_PER_PAGE = 4000
LEAST_SCORE = 0.05
ROWS_AT_ONCE = 128  # of the heat maps: 120 classes of a whole page take a quarter of a gigabyte


class CentrePointNetwork(nn.Module):
    """U-Net with two heads: class heat maps, and log of width and height in cells."""

    def __init__(self, widths: tuple[int, ...], last: int) -> None:
        super().__init__()
        self.trunk = UNet(widths, last)
        self.heat = nn.Conv2d(last, len(CLASSES), 1)
        self.sizes = nn.Conv2d(last, 2, 1)
        nn.init.constant_(self.heat.bias, float(np.log(PRIOR / (1 - PRIOR))))  # type: ignore[arg-type]

    def forward(self, pages: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of the heat maps and log sizes, (batch, class or 2, rows, columns)."""
        features = self.trunk(pages)
        return self.heat(features), self.sizes(features)


def encode_centres(crop: Crop) -> tuple[NDArray[np.generic], ...]:
    """Return the targets of a crop.

    Returns:
        heat: A Gaussian peak of height 1 at each centre, shape (class, rows, columns), float16.
        sizes: Log of width and height in cells where a centre is, shape (2, rows, columns).
        centres: 1 where a centre is, shape (rows, columns).
    """
    placed = crop.placed
    rows, columns = (side // STRIDE for side in crop.grey.shape)
    heat = np.zeros((len(CLASSES), rows, columns), np.float16)
    sizes = np.zeros((2, rows, columns), np.float32)
    centres = np.zeros((rows, columns), np.uint8)
    for (x, y), (width, height), c in zip(
        placed.centres / STRIDE, placed.sizes / STRIDE, placed.classes, strict=True
    ):
        column, row = min(int(x), columns - 1), min(int(y), rows - 1)
        spread = np.maximum(SPREAD * np.array([width, height]), LEAST_SPREAD)
        reach = np.ceil(3 * spread).astype(int)
        across = np.arange(max(0, column - reach[0]), min(columns, column + reach[0] + 1))
        down = np.arange(max(0, row - reach[1]), min(rows, row + reach[1] + 1))
        peak = np.exp(
            -(((across - column) / spread[0]) ** 2 + ((down[:, None] - row) / spread[1]) ** 2) / 2
        )
        window = (c, slice(down[0], down[-1] + 1), slice(across[0], across[-1] + 1))
        heat[window] = np.maximum(heat[window], peak)
        sizes[:, row, column] = np.log(np.maximum([width, height], 0.25))
        centres[row, column] = 1
    return heat, sizes, centres


def centre_losses(network: CentrePointNetwork, batch: tuple[Tensor, ...]) -> Mapping[str, Tensor]:
    """Return the penalty-reduced focal loss and the size loss (equations 1 and 4 of the paper).

    Args:
        network: In training mode.
        batch: Ink, and what `encode_centres` returns, stacked.
    """
    ink, heat, sizes, centres = batch
    logits, found = network(ink)
    wanted = heat.float()
    sure = logits.float().sigmoid().clamp(1e-4, 1 - 1e-4)
    at_peak = wanted == 1
    count = max(1, int(at_peak.sum()))
    positive = (((1 - sure) ** 2) * sure.log())[at_peak].sum()
    negative = ((1 - wanted) ** 4 * sure**2 * (1 - sure).log())[~at_peak].sum()
    there = centres > 0
    size = functional.l1_loss(
        found.movedim(1, -1)[there], sizes.movedim(1, -1)[there], reduction="sum"
    ) / max(1, int(there.sum()))
    focal = -(positive + negative) / count
    return {"loss": focal + SIZE_WEIGHT * size, "focal": focal, "sizes": size}


@dataclass(frozen=True, kw_only=True)
class CentrePoints:
    """A trained network.

    Attributes:
        interline_px: Staff space of the pages it was trained on.
        widths, last: Of the network.
        network: Trained.
    """

    interline_px: float
    widths: tuple[int, ...]
    last: int
    network: nn.Module = field(
        metadata=built_by(lambda own: CentrePointNetwork(own.widths, own.last))
    )

    def detect(self, grey: NDArray[np.uint8]) -> Detections:
        """Return the peaks of the heat maps: cells that none of their eight neighbours exceeds."""
        network: Any = self.network
        with torch.inference_mode():
            features = network.trunk(padded(grey, network.trunk.multiple))
            found = [
                _peaks(network, features, top) for top in range(0, features.shape[2], ROWS_AT_ONCE)
            ]
            joined = [torch.cat(parts) for parts in zip(*found, strict=True)]
            best = joined[0].topk(min(MOST_PER_PAGE, len(joined[0]))).indices
            scores, classes, rows, columns = (part[best] for part in joined)
            sizes = network.sizes(features)[0][:, rows, columns].exp().T * STRIDE
        return Detections(
            centres=STRIDE * (torch.stack([columns, rows], 1).float() + 0.5).numpy(),
            sizes=sizes.float().numpy(), classes=classes.numpy(), confidences=scores.numpy(),
        )  # fmt: skip


def _peaks(network: Any, features: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return score, class, row and column of the peaks of a strip, looking one row further."""
    low = max(0, top - 1)
    heat = network.heat(features[:, :, low : top + ROWS_AT_ONCE + 1])[0].float().sigmoid()
    highest = functional.max_pool2d(heat[None], 3, stride=1, padding=1)[0]
    peaks = (heat == highest) & (heat > LEAST_SCORE)
    first = top - low
    own = peaks[:, first : first + ROWS_AT_ONCE]
    classes, rows, columns = own.nonzero(as_tuple=True)
    return heat[classes, rows + first, columns], classes, rows + top, columns


def fit_centre_points(
    pages: Pages,
    *,
    rng: np.random.Generator,
    steps: int = 20_000,
    batch: int = 8,
    learning_rate: float = 2e-3,
    crops: CropSettings | None = None,
    degrade: Degrade | None = None,
    hooks: Hooks = NO_HOOKS,
) -> CentrePoints:
    """Train a detector on pages; arguments as of `fit_watershed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        network = CentrePointNetwork(WIDTHS, LAST)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    source = CropSource(pages, crops or CropSettings(), degrade)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps + 1)
    step = supervised_step(
        lambda rng: source.batch(rng, batch, encode_centres), centre_losses, clip_norm=5.0
    )
    train(
        Training(
            network=network, optimizers={"adamw": optimizer}, step=step, steps=steps, rng=rng,
            schedulers=(schedule,),
        ),
        hooks,
    )  # fmt: skip
    return CentrePoints(interline_px=pages.interline_px, widths=WIDTHS, last=LAST, network=network)
