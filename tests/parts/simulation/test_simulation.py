"""The demo data: the same bytes for a seed, masks that fit, areas and errors as documented."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from lineside.core.errors import UserError
from lineside.parts.data.dataset import read
from lineside.parts.data.grouping import split
from lineside.parts.data.items import GOOD
from lineside.parts.simulation import dataset, demo
from lineside.parts.simulation.dataset import make_part, simulate_labels
from lineside.parts.simulation.defects import KIND_SHARES, add_defect, draw_areas
from lineside.parts.simulation.scene import (
    SECTIONS,
    blurred,
    display,
    make_lamps,
    make_scene,
    radiance,
)

SMALL = {"good_parts": 6, "faulty_parts": 5, "exposures": 2, "size_px": 96}


class Config:
    seed = 0
    part_pattern = ""


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return demo(tmp_path_factory.mktemp("made") / "demo", 3, **SMALL)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "parts.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def content(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Pillow.open(path))


# ---- the folder


def test_same_seed_same_bytes_other_seed_other_pictures(small, tmp_path):
    again = demo(tmp_path / "again", 3, **SMALL)
    assert content(again) == content(small)
    other = content(demo(tmp_path / "other", 4, **SMALL))
    same = [name for name, digest in content(small).items() if other.get(name) == digest]
    assert not [name for name in same if name.startswith("images/")]


def test_the_folder_can_be_read_and_split_by_part(small):
    items = read(small, Config())
    assert len(items) == 22
    assert len({item.groups[0] for item in items}) == 11
    assert all(not item.lot for item in items)  # a lot would replace the part as the unit
    assert set(items[0].slices) == {"batch", "section", "exposure", "truth"}
    assert set(items[0].raters) == {"1", "2"}
    assert {item.slices["exposure"] for item in items} == {"1", "2"}
    parts = split(items, Config())
    groups = [{item.groups[0] for item in parts.role(name)} for name in ("train", "test")]
    assert groups[0]
    assert not groups[0] & groups[1]


def test_masks_lie_where_the_label_says_so_and_have_the_size_of_their_picture(small):
    named = set()
    for row in table(small):
        assert bool(row["mask"]) == (row["label"] != GOOD)
        picture = pixels(small / row["path"])
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        if row["mask"]:
            named.add(Path(row["mask"]).name)
            mask = pixels(small / row["mask"])
            assert mask.shape == picture.shape[:2]
            assert set(np.unique(mask)) == {0, 255}
    assert {path.name for path in (small / "masks").iterdir()} == named


def test_exposures_of_a_part_get_brighter_and_differ_in_place(small):
    rows = table(small)
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert first["part"] == second["part"]
        assert pixels(small / first["path"]).mean() * 1.2 < pixels(small / second["path"]).mean()
    assert len({pixels(small / row["path"]).shape for row in rows}) > 8


def test_source_says_that_it_is_simulated(small):
    text = (small / "SOURCE.txt").read_text()
    assert "SIMULATED" in text
    assert "seed 3" in text
    assert "6 good" in text


def test_default_numbers_are_small_and_cannot_promise_much():
    defaults = demo.__kwdefaults__
    parts = defaults["good_parts"] + defaults["faulty_parts"]
    assert parts * defaults["exposures"] <= 300
    assert 0.2 * defaults["faulty_parts"] < 29  # a fifth calibrates; 29 promise 0.9 at 95 %


def test_an_interrupted_demo_leaves_nothing(tmp_path, monkeypatch):
    seen = []

    def stop(*args):
        seen.append(args)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return make_part(*args)

    monkeypatch.setattr(dataset, "make_part", stop)
    with pytest.raises(KeyboardInterrupt):
        demo(tmp_path / "demo", 0, **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_full_folder_is_kept_and_an_empty_one_used(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="not empty"):
        demo(tmp_path, 0, **SMALL)
    assert (tmp_path / "mine.txt").read_text() == "keep"
    (tmp_path / "empty").mkdir()
    one = {**SMALL, "good_parts": 1, "faulty_parts": 0, "exposures": 1}
    assert len(table(demo(tmp_path / "empty", 0, **one))) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"good_parts": 0, "faulty_parts": 0},
        {"faulty_parts": -1},
        {"exposures": 0},
        {"size_px": 40},
        {"seed": -1},
    ],
)
def test_impossible_numbers_are_refused(tmp_path, wrong):
    options = {"seed": 0, **SMALL, **wrong}
    with pytest.raises(UserError):
        demo(tmp_path / "demo", **options)
    assert list(tmp_path.iterdir()) == []


# ---- parts and defects


def test_areas_have_the_published_distribution():
    areas = draw_areas(np.random.default_rng(0), 40_000)
    counts, edges = np.histogram(areas, bins=np.arange(0, 0.0201, 0.0005))
    mode = edges[counts.argmax()] + 0.00025
    assert 0.002 <= mode <= 0.004
    assert 0.93 < (areas < 0.01).mean() < 0.97
    assert 0.05 < areas.max() <= 0.1
    assert areas.min() >= 0.0005
    # the same from the formula: P(log-normal with mode m < 1 %) = Phi(ln(1 % / m) / s - s)
    from scipy.stats import norm

    usual, large = norm.cdf(np.log(0.01 / 0.003) / 0.45 - 0.45), norm.cdf(np.log(1 / 3) / 0.6)
    assert (areas < 0.01).mean() == pytest.approx(0.96 * usual + 0.04 * large, abs=0.004)


@pytest.mark.parametrize("kind", sorted(KIND_SHARES))
def test_a_defect_has_its_area_lies_on_the_part_and_can_be_seen(kind):
    for section in SECTIONS:
        rng = np.random.default_rng([5, SECTIONS.index(section)])
        scene = make_scene(rng, (150, 150), section, make_lamps(rng))
        clean = blurred(scene, radiance(scene))
        defect = add_defect(rng, scene, clean, kind, 90, 20)
        assert defect.mask.sum() == pytest.approx(90, abs=2)
        assert (np.abs(scene.across[defect.mask]) < 1).all()
        assert not defect.mask[:20].any()
        assert not defect.mask[:, -20:].any()
        change = np.abs(display(defect.light) - display(clean)).mean(axis=2)
        assert change[defect.mask].mean() == pytest.approx(defect.contrast, rel=1e-3)
        assert 0.03 < defect.contrast < 0.26
        far = np.ones_like(defect.mask)
        rows, columns = np.nonzero(defect.mask)
        far[max(rows.min() - 25, 0) : rows.max() + 25, max(columns.min() - 25, 0) :] = False
        assert change[far].max(initial=0) < 0.01  # only the defect differs


def test_a_good_part_has_no_mask_and_a_faulty_one_shows_it_in_every_shot():
    rng = np.random.default_rng(1)
    lamps = make_lamps(rng)
    good, good_pictures = make_part(rng, lamps, GOOD, 0.0, 2, 96)
    assert good.visibility == 0
    assert not any(mask.any() for mask in good.masks)
    faulty, pictures = make_part(rng, lamps, "bubble", 0.02, 3, 96)
    sizes = {int(mask.sum()) for mask in faulty.masks}
    assert len(sizes) == 1  # never cut off
    shares = [mask.mean() for mask in faulty.masks]
    assert shares == pytest.approx([0.02] * 3, rel=0.1)
    for part, shots in ((good, good_pictures), (faulty, pictures)):
        for mask, (row, column), picture in zip(part.masks, part.highlights, shots, strict=True):
            assert mask.shape == picture.shape[:2]
            assert 0 <= row < mask.shape[0]
            assert 0 <= column < mask.shape[1]


def test_background_is_dark_and_the_part_is_not():
    rng = np.random.default_rng(2)
    scene = make_scene(rng, (120, 160), "balloon", make_lamps(rng))
    light = radiance(scene).mean(axis=2)
    inside = np.abs(scene.across) < 0.9
    assert np.median(light[inside]) > 5 * np.median(light[np.abs(scene.across) > 1.1])
    assert light.min() >= 0


# ---- people


def test_labels_on_record_are_wrong_for_three_percent_mostly_missed_defects():
    truths = ["good"] * 600 + ["bubble", "scratch", "fold", "crack"] * 100
    said = simulate_labels(np.random.default_rng(0), truths, [1.0] * 1000)
    wrong = [(t, o.label) for t, o in zip(truths, said, strict=True) if t != o.label]
    assert len(wrong) == 30
    assert sum(label == GOOD for _, label in wrong) == 20


def test_raters_disagree_as_real_ones_do_and_miss_faint_defects_more_often():
    truths = ["good"] * 1000 + ["scratch"] * 1000
    visibility = [0.0] * 1000 + [0.5] * 500 + [2.0] * 500
    said = simulate_labels(np.random.default_rng(1), truths, visibility)
    alarms = [np.mean([o.raters[i] != GOOD for o in said[:1000]]) for i in (0, 1)]
    assert alarms == pytest.approx([0.02, 0.05], abs=0.02)
    missed = [
        np.mean([o.raters[0] == GOOD for o in part]) for part in (said[1000:1500], said[1500:])
    ]
    assert missed[0] > 3 * missed[1] > 0
    kinds = Counter(o.raters[1] for o in said[1000:])
    assert 0.02 < kinds["crack"] / 1000 < 0.1
    agree = np.mean([(o.raters[0] == GOOD) == (o.raters[1] == GOOD) for o in said])
    assert 0.8 < agree < 0.97
