"""The detector as a whole: trained on pages of its own, stored, read again, the same result."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from lineside.core.run.codec import decode
from lineside.core.run.progress import Progress
from lineside.scores.engraving.page_maker import Settings, find_scores, make_pages
from lineside.scores.models.watershed.detector import WatershedDetector
from lineside.scores.models.watershed.fitting import ScanModel
from lineside.scores.pretraining import SPEC, TENSORS, main
from lineside.scores.training.crops import Pages


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "song.abc").write_text("X:1\nL:1/4\nM:4/4\nK:G\nGABc|!p!d4|^c2 z2|[GBd]4|]\n")
    make_pages(find_scores([folder / "song.abc"]), folder, Settings(), Progress(quiet=True))
    return folder


def test_pretraining_writes_a_detector_that_detects(folder: Path, tmp_path: Path) -> None:
    arguments = [str(folder), "--out", str(tmp_path), "--steps", "3", "--batch", "1"]
    assert main([*arguments, "--minutes", "0.00001"]) == 130  # stopped before the first step
    assert main(arguments) == 0
    spec = json.loads((tmp_path / SPEC).read_text())
    detector = decode(WatershedDetector, spec, load_file(tmp_path / TENSORS))
    page = Pages(folder).image(0)[:101, :203]
    first, again = detector.detect(page), detector.detect(page)
    assert np.array_equal(first.centres, again.centres)
    assert detector.maps(page).energy.shape[2:] == (56, 104)
    assert (tmp_path / TENSORS).stat().st_size < 10_000_000


def test_a_degraded_crop_stays_where_it_is(folder: Path) -> None:
    crop = Pages(folder).image(0)[60:260, 60:260]
    scan = ScanModel(interline_px=10.5)
    rng = np.random.default_rng(0)
    worse = [scan(crop, rng) for _ in range(12)]
    assert all(image.shape == crop.shape and image.dtype == np.uint8 for image in worse)
    ink = 255.0 - crop
    agreement = [np.corrcoef(ink.ravel(), 255.0 - image.ravel())[0, 1] for image in worse]
    assert min(agreement) > 0.5
    assert np.mean(agreement) < 0.99
