"""Fits the Deep Watershed Detector on engraved pages that are made to look scanned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lineside.core.training.loop import NO_HOOKS, Hooks
from lineside.scores.models.watershed.detector import WatershedDetector
from lineside.scores.models.watershed.network import WatershedNetwork
from lineside.scores.models.watershed.targets import CLASSES, Drawing
from lineside.scores.models.watershed.training import WatershedTraining, train_watershed
from lineside.scores.simulation.degradations import (
    COMPONENTS,
    FAMILIES,
    MOVES,
    degrade,
    draw_degradation,
)
from lineside.scores.training.crops import CropSettings, CropSource, Pages

GRADES = (0.0, 3.5)  # of degraded crops
WIDTHS, LAST, HIDDEN = (20, 40, 80, 120), 32, 96


def fit_watershed(
    pages: Pages,
    *,
    rng: np.random.Generator,
    training: WatershedTraining | None = None,
    crops: CropSettings | None = None,
    hooks: Hooks = NO_HOOKS,
    network: WatershedNetwork | None = None,
) -> WatershedDetector:
    """Train a detector on pages.

    Args:
        pages: Engraved pages of one staff space.
        rng: All randomness.
        training: How; `WatershedTraining` says what is usual.
        crops: How crops are drawn.
        hooks: Checkpoint, log and stop.
        network: Weights to continue from; new ones if None.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        network = network or WatershedNetwork(WIDTHS, LAST, HIDDEN)
    source = CropSource(pages, crops or CropSettings(), ScanModel(interline_px=pages.interline_px))
    train_watershed(network, source, training or WatershedTraining(), rng, hooks)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return WatershedDetector(
        interline_px=pages.interline_px, widths=network.widths, last=network.dense.in_channels,
        hidden=network.classes.in_features, class_sizes=class_sizes(pages.drawings),
        network=network,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ScanModel:
    """Degrades crops as scans and photos of grades drawn between `GRADES`; nothing is moved."""

    interline_px: float

    def __call__(self, grey: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return a degraded crop."""
        family = str(rng.choice(FAMILIES, p=(0.7, 0.3)))
        drawn = draw_degradation(rng, float(rng.uniform(*GRADES)), family)
        still = drawn.only(*(name for name in COMPONENTS if name not in MOVES))
        return degrade(grey, self.interline_px, still)[0]


def class_sizes(drawings: Sequence[Drawing]) -> NDArray[np.float32]:
    """Return the median width and height of each class in pixels; of an absent one of all."""
    boxes = np.concatenate([drawing.boxes for drawing in drawings])
    classes = np.concatenate([drawing.classes for drawing in drawings])
    sizes = boxes[:, 2:] - boxes[:, :2]
    everything = np.median(sizes, axis=0)
    return np.array(
        [
            np.median(sizes[classes == c], axis=0) if (classes == c).any() else everything
            for c in range(len(CLASSES))
        ],
        np.float32,
    )
