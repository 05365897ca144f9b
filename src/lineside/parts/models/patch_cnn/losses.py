"""Class-weighted binary cross-entropy: the few defects count as much as the many good crops.

loss = sum w_i bce_i / sum w_i with w = N_neg / N_pos for a defect and 1 for a good item.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def positive_weight(labels: Tensor) -> float:
    """Return N_neg / N_pos, the weight at which both classes count alike.

    Args:
        labels: 0 (good) and 1 (defect), any shape.

    Raises:
        ValueError: if one class is absent.
    """
    positives = int((labels > 0.5).sum())
    negatives = labels.numel() - positives
    if not positives or not negatives:
        raise ValueError(f"need both classes, got {negatives} good and {positives} defect labels")
    return negatives / positives


def balanced_bce(logits: Tensor, labels: Tensor, pos_weight: float) -> Tensor:
    """Return the binary cross-entropy whose defect terms weigh `pos_weight`, averaged.

    The sum is divided by the sum of weights, so that the value is comparable between class
    ratios (0.693 at logit 0).

    Args:
        logits: Shape (item,).
        labels: Shape (item,), 0 or 1.
        pos_weight: Weight of a defect term relative to a good term.
    """
    return weighted_bce(logits, labels, class_weights(labels, pos_weight))


def class_weights(labels: Tensor, pos_weight: float) -> Tensor:
    """Return `pos_weight` for each defect and 1 for each good item, shape (item,)."""
    return torch.where(labels > 0.5, pos_weight, 1.0)


def weighted_bce(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of the binary cross-entropy; all arguments have shape (item,)."""
    losses = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (weights * losses).sum() / weights.sum()
