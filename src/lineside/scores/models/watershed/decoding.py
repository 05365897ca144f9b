"""From energy to symbols: the watershed cut, connected components, and a size for each class.

Tuggener et al. (ISMIR 2018), section 3.3: cells above an energy level form connected components,
and each is a symbol. Differences: a second, higher cut divides a component whose peaks are apart;
the size is that of the class (Elezi et al., WoRMS 2018: regressed boxes shrink to the mean); and
every symbol has a confidence, its highest energy times the probability of its class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from lineside.scores.models.watershed.network import Dense, WatershedNetwork
from lineside.scores.models.watershed.targets import CLASSES, LEVELS, STRIDE

CUTS = (0.3, 0.6)
SMALLEST_CELLS = 2
NEIGHBOURS = np.ones((3, 3), int)


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Symbols that were found on a page.

    Attributes:
        centres: (x, y) in pixels, shape (symbol, 2).
        sizes: (width, height) in pixels.
        classes: Numbers in `CLASSES`.
        confidences: Between 0 and 1.
    """

    centres: NDArray[np.float32]
    sizes: NDArray[np.float32]
    classes: NDArray[np.int64]
    confidences: NDArray[np.float32]

    def boxes(self) -> NDArray[np.float32]:
        """Return left, top, right and bottom, shape (symbol, 4)."""
        return np.concatenate([self.centres - self.sizes / 2, self.centres + self.sizes / 2], 1)


def decode(
    network: WatershedNetwork,
    found: Dense,
    class_sizes: NDArray[np.float32] | None,
    *,
    cuts: tuple[float, ...] = CUTS,
) -> Detections:
    """Return the symbols of one page.

    Args:
        network: For what it predicts locally.
        found: Of one page: batch size 1.
        class_sizes: (width, height) of each class in pixels; None takes the regressed ones.
        cuts: Energy of the cut, and of a second one that divides components; one for no second.
    """
    energy = expected_energy(found.energy)[0].numpy()
    labels, count = components(energy, cuts)
    rows, columns = np.nonzero(labels)
    if not count:
        return _nothing()
    owner = labels[rows, columns] - 1
    local = network.at(found.features[0][:, rows, columns].T)
    weight = energy[rows, columns]
    total = np.bincount(owner, weight, count)
    probabilities = np.zeros((count, len(CLASSES)), np.float32)
    np.add.at(probabilities, owner, weight[:, None] * local.classes.float().softmax(1).numpy())
    probabilities /= total[:, None]
    classes = probabilities.argmax(1)
    centres = np.stack(
        [np.bincount(owner, weight * (at + 0.5), count) / total for at in (columns, rows)], axis=1
    )
    if class_sizes is None:
        logs = local.sizes.float().numpy()
        sizes = np.stack([np.bincount(owner, weight * logs[:, i], count) for i in (0, 1)], axis=1)
        sizes = STRIDE * np.exp(sizes / total[:, None])
    else:
        sizes = class_sizes[classes]
    highest = ndimage.maximum(energy, labels, np.arange(1, count + 1))
    return Detections(
        centres=(STRIDE * centres).astype(np.float32), sizes=sizes.astype(np.float32),
        classes=classes,
        confidences=(highest * probabilities.max(1)).astype(np.float32),
    )  # fmt: skip


def expected_energy(logits: Tensor) -> Tensor:
    """Return the mean of the predicted levels, 0 to 1, shape (batch, rows, columns)."""
    levels = torch.arange(LEVELS, dtype=torch.float32) / (LEVELS - 1)
    return (logits.float().softmax(1) * levels[:, None, None]).sum(1)


def components(
    energy: NDArray[np.float32], cuts: tuple[float, ...] = CUTS
) -> tuple[NDArray[np.int32], int]:
    """Return a label per cell (0: background) and the number of symbols.

    Each component of the lower cut is divided among the components of the higher cut in it, each
    cell going to the nearest; one without any stays whole.
    """
    labels, count = ndimage.label(energy >= cuts[0], NEIGHBOURS)
    if len(cuts) > 1 and count:
        peaks, peak_count = ndimage.label(energy >= cuts[1], NEIGHBOURS)
        nearest = ndimage.distance_transform_edt(
            peaks == 0, return_distances=False, return_indices=True
        )
        near = peaks[tuple(nearest)] if peak_count else np.zeros_like(labels)
        # A peak's number counts only in the component that the peak lies in.
        home = np.zeros(peak_count + 1, np.int32)
        home[peaks[peaks > 0]] = labels[peaks > 0]
        own = (labels > 0) & (near > 0) & (home[near] == labels)
        divided = np.where(own, count + near, labels)
        values, divided = np.unique(divided, return_inverse=True)
        labels, count = divided.reshape(labels.shape).astype(np.int32), len(values) - 1
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    keep = sizes >= SMALLEST_CELLS
    keep[0] = False
    renumbered = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return renumbered[labels], int(keep.sum())


def _nothing() -> Detections:
    return Detections(
        centres=np.zeros((0, 2), np.float32), sizes=np.zeros((0, 2), np.float32),
        classes=np.zeros(0, np.int64), confidences=np.zeros(0, np.float32),
    )  # fmt: skip
