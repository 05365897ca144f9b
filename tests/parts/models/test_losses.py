"""The class-weighted cross-entropy against second formulas."""

import math

import pytest
import torch
from torch.nn import functional

from lineside.parts.models.patch_cnn.training import balanced_bce, positive_weight


def test_by_hand():
    logits, labels = torch.tensor([0.0, 2.0, -1.0]), torch.tensor([0.0, 1.0, 0.0])
    good = math.log(2) + math.log(1 + math.exp(-1))
    defect = math.log(1 + math.exp(-2))
    expected = (good + 2 * defect) / 4
    assert float(balanced_bce(logits, labels, 2.0)) == pytest.approx(expected, rel=1e-6)


def test_is_torch_pos_weight_up_to_the_norm():
    logits, labels = torch.randn(50), (torch.arange(50) % 7 == 0).float()
    weight = positive_weight(labels)
    theirs = functional.binary_cross_entropy_with_logits(
        logits, labels, pos_weight=torch.tensor(weight), reduction="sum"
    )
    norm = (labels == 0).sum() + weight * (labels == 1).sum()
    torch.testing.assert_close(balanced_bce(logits, labels, weight), theirs / norm)


def test_is_the_mean_of_both_class_means():
    logits, labels = torch.randn(50), (torch.arange(50) % 7 == 0).float()
    means = [functional.softplus(s * logits[labels == c]).mean() for c, s in ((0, 1), (1, -1))]
    ours = balanced_bce(logits, labels, positive_weight(labels))
    torch.testing.assert_close(ours, (means[0] + means[1]) / 2)


def test_positive_weight():
    assert positive_weight(torch.tensor([0.0] * 9 + [1.0])) == 9.0
    for labels in (torch.zeros(3), torch.ones(3)):
        with pytest.raises(ValueError, match="both classes"):
            positive_weight(labels)
