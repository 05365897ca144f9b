"""Training crops: image and targets agree, rare classes come often, nothing depends on luck."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lineside.core.errors import UserError
from lineside.core.run.progress import Progress
from lineside.scores.data.normalise import warp
from lineside.scores.engraving.page_maker import Settings, find_scores, make_pages
from lineside.scores.models.watershed.network import WatershedNetwork
from lineside.scores.models.watershed.targets import CLASSES, NUMBER
from lineside.scores.models.watershed.training import (
    WatershedTraining,
    encode,
    train_watershed,
)
from lineside.scores.training.crops import CropSettings, CropSource, Pages


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "song.abc").write_text("X:1\nL:1/4\nM:4/4\nK:G\nGABc|!p!d4|^c2 z2|[GBd]4|]\n")
    make_pages(find_scores([folder / "song.abc"]), folder, Settings(), Progress(quiet=True))
    return Pages(folder)


def test_warping_by_nothing_changes_nothing(pages: Pages) -> None:
    page = pages.image(0)
    same = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    assert np.array_equal(warp(page, same, page.shape), page)
    moved = np.array([[1.0, 0, -7], [0, 1.0, -5]])
    assert np.array_equal(warp(page, moved, (100, 120)), page[5:105, 7:127])


def test_energy_lies_on_ink(pages: Pages) -> None:
    settings = CropSettings(size=128, pasted=(0, 0), turn_degrees=3.0, scale=(0.7, 1.4))
    ink, energy, classes, sizes, _ = CropSource(pages, settings).batch(
        np.random.default_rng(0), 24, encode
    )
    assert ink.shape == (24, 1, 128, 128)
    heads = (classes == NUMBER["noteheadBlack"]) & (energy == 9)
    assert heads.sum() > 20
    cells = torch.nn.functional.avg_pool2d(ink, 2)[:, 0]
    assert cells[heads].min() > 0.3  # a head is black at its centre
    assert cells[heads].mean() > 0.9
    width = sizes[:, 0][heads].exp().mean() * 2
    assert float(width) == pytest.approx(1.25 * 10.5, rel=0.2)


def test_rare_classes_are_drawn_often_and_pasted(pages: Pages) -> None:
    rng = np.random.default_rng(1)
    plain = CropSource(pages, CropSettings(centred=0.0, pasted=(0, 0)))
    rare = CropSource(pages, CropSettings(centred=1.0, pasted=(2, 6)))
    shares = []
    for source in (plain, rare):
        _, energy, classes, *_ = source.batch(rng, 24, encode)
        found = torch.bincount(classes[energy == 9], minlength=len(CLASSES)) > 0
        shares.append(int(found.sum()))
    assert shares[1] > 3 * shares[0]


def test_the_same_stream_gives_the_same_batch(pages: Pages) -> None:
    source = CropSource(pages, CropSettings())
    first, again = (source.batch(np.random.default_rng(3), 2, encode) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_degradation_changes_the_image_only(pages: Pages) -> None:
    settings = CropSettings(degraded=1.0, pasted=(0, 0))
    plain = CropSource(pages, settings).batch(np.random.default_rng(2), 2, encode)
    source = CropSource(pages, settings, degrade=lambda grey, rng: 255 - grey)
    negative = source.batch(np.random.default_rng(2), 2, encode)
    assert torch.allclose(negative[0], 1 - plain[0], atol=1e-6)


def test_no_page_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no page in"):
        Pages(tmp_path)


@pytest.mark.parametrize("options", [{}, {"window": 5, "staged": True}])
def test_training_lowers_the_losses(pages: Pages, options: dict[str, object]) -> None:
    torch.manual_seed(0)
    network = WatershedNetwork(widths=(8, 16, 24), last=12, hidden=16)
    source = CropSource(pages, CropSettings(size=96, pasted=(0, 0)))
    settings = WatershedTraining(steps=80, batch=2, averaged=0.8, **options)  # type: ignore[arg-type]
    train_watershed(
        network, source, settings, np.random.default_rng(0),
        validate=lambda net: {"bias": float(net.dense.bias.detach().abs().sum())},
        validate_every=40,
    )  # fmt: skip
    assert not network.training
    assert all(bool(torch.isfinite(p).all()) for p in network.parameters())
    batch = source.batch(np.random.default_rng(9), 4, encode)
    with torch.inference_mode():
        found = network(batch[0])
    loss = torch.nn.functional.cross_entropy(found.energy, batch[1])
    assert float(loss) < 1.2  # 2.3 at the start
