"""The generic detector: targets, loss and peaks against second formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lineside.core.run.codec import decode, encode
from lineside.scores.models.centre_points import centre_points
from lineside.scores.models.centre_points.centre_points import (
    CentrePointNetwork,
    CentrePoints,
    centre_losses,
    encode_centres,
)
from lineside.scores.models.watershed.targets import CLASSES, Placed
from lineside.scores.training.crops import Crop


def crop() -> Crop:
    placed = Placed(
        centres=np.array([[20.0, 30.0], [40.0, 11.0]]),
        sizes=np.array([[24.0, 12.0], [6.0, 6.0]]),
        classes=np.array([3, 7]),
    )
    return Crop(grey=np.full((48, 64), 255, np.uint8), placed=placed, masks=np.zeros(0, np.uint8))


def test_a_peak_is_a_gaussian_as_wide_as_its_box() -> None:
    heat, sizes, centres = encode_centres(crop())
    assert heat.shape == (len(CLASSES), 24, 32)
    assert (heat[3, 15, 10], heat[7, 5, 20]) == (1.0, 1.0)
    assert heat[3, 15, 12] == pytest.approx(np.exp(-0.5), abs=1e-3)  # 2 cells are one deviation
    assert heat[3, 16, 10] == pytest.approx(np.exp(-0.5), abs=1e-3)
    assert centres.sum() == 2
    assert np.exp(sizes[:, 15, 10]) == pytest.approx([12.0, 6.0])


def test_the_loss_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    network = CentrePointNetwork((4, 8), 6).eval()
    targets = [torch.from_numpy(np.asarray(part))[None] for part in encode_centres(crop())]
    ink = torch.rand(1, 1, 48, 64)
    losses = centre_losses(network, (ink, *targets))
    with torch.no_grad():
        logits, _ = network(ink)
    sure, wanted = torch.sigmoid(logits)[0].double(), targets[0][0].double()
    total = 0.0
    for p, y in zip(sure.flatten().tolist(), wanted.flatten().tolist(), strict=True):
        total -= (1 - p) ** 2 * np.log(p) if y == 1 else (1 - y) ** 4 * p**2 * np.log(1 - p)
    assert float(losses["focal"].detach()) == pytest.approx(total / 2, rel=1e-3)


def test_peaks_do_not_depend_on_the_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    network = CentrePointNetwork((4, 8), 6).eval()
    with torch.no_grad():
        network.heat.bias.fill_(-1.0)
    detector = CentrePoints(interline_px=10.5, widths=(4, 8), last=6, network=network)
    page = np.random.default_rng(0).integers(0, 256, (90, 70)).astype(np.uint8)
    whole = detector.detect(page)
    assert 0 < len(whole.classes) <= centre_points.MOST_PER_PAGE
    monkeypatch.setattr(centre_points, "ROWS_AT_ONCE", 7)
    strips = detector.detect(page)
    assert sorted(map(tuple, strips.centres)) == sorted(map(tuple, whole.centres))
    again = decode(CentrePoints, *encode(detector))
    assert np.array_equal(again.detect(page).confidences, strips.confidences)
