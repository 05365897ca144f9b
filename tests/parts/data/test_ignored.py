"""What is ignored (``--ignore``) cannot change a score, a map or a finding; the model keeps it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

import lineside
from lineside.cli import main
from lineside.core.errors import UserError
from lineside.parts.audit.checks import check_masks
from lineside.parts.audit.survey import survey
from lineside.parts.config import Config
from lineside.parts.data.dataset import read_items
from lineside.parts.data.ignored import IgnoredRegion
from lineside.parts.data.images import decode, ignore_file, mask_of, training_image, visible
from lineside.parts.data.items import PartImage

pytestmark = pytest.mark.adversary("p")
SIDE, FIXTURE = 96, slice(60, 90)
LIGHT = ("gaussian", "texture", "pca", "golden_template", "brightness")
DEEP = ("detector", "memory")


def region() -> IgnoredRegion:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[FIXTURE, FIXTURE] = True
    return IgnoredRegion(mask=mask)


def write_region(path: Path, scale: int = 1) -> Path:
    Pillow.fromarray(np.kron(region().mask, np.ones((scale, scale), bool))).save(path)
    return path


def with_fixture(path: Path, seed: int, target: Path | None = None) -> Path:
    """Put another strong pattern into the ignored region of a picture."""
    values = np.array(Pillow.open(path))
    noise = np.random.default_rng([9, seed]).choice([0, 255], (30, 30))
    values[FIXTURE, FIXTURE] = noise
    Pillow.fromarray(values.astype(np.uint8)).save(target or path)
    return target or path


def same(first: object, second: object) -> bool:
    return first.score == second.score and np.array_equal(first.map, second.map)


# ---- the region


def test_nothing_depends_on_ignored_pixels():
    rng = np.random.default_rng(0)
    for channels in (1, 3):
        one = rng.random((SIDE, SIDE, channels), dtype=np.float32)
        two = one.copy()
        two[region().mask] = rng.random((900, channels), dtype=np.float32)
        seen = region().neutralise(one)
        np.testing.assert_array_equal(seen, region().neutralise(two))
        np.testing.assert_array_equal(seen, region().neutralise(seen))
        np.testing.assert_array_equal(seen[~region().mask], one[~region().mask])
        assert seen.dtype == np.float32 and not np.array_equal(one, two)


def test_a_coloured_label_on_a_grey_picture_leaves_it_grey():
    image = np.repeat(np.random.default_rng(0).random((SIDE, SIDE, 1), dtype=np.float32), 3, axis=2)
    image[70, 70] = (1, 0, 0)
    assert region().neutralise(image).shape == (SIDE, SIDE, 1)
    image[0, 0] = (1, 0, 0)
    assert region().neutralise(image).shape == (SIDE, SIDE, 3)


def test_it_is_scaled_to_pictures_of_the_same_shape_only():
    assert region().at((192, 192)).sum() == 4 * 900
    np.testing.assert_array_equal(region().at((192, 192))[::2, ::2], region().mask)
    with pytest.raises(UserError, match=r"96x96, this one is 120x96: another shape"):
        region().at((96, 120))


@pytest.mark.parametrize("cells", [(12, 12), (96, 96), (5, 7), (1, 1)])
def test_a_map_has_no_evidence_there(cells):
    map_ = np.random.default_rng(0).random(cells, dtype=np.float32) + 5
    quiet = region().suppress(map_, (SIDE, SIDE))
    assert quiet.shape == cells and quiet.dtype == np.float32
    assert quiet.min() in map_ and quiet.max() <= map_.max()
    if SIDE % cells[0] == 0 == SIDE % cells[1]:
        rows, columns = cells
        blocks = region().mask.reshape(rows, SIDE // rows, columns, SIDE // columns)
        hidden = blocks.mean(axis=(1, 3)) >= 0.5
        np.testing.assert_array_equal(quiet[~hidden], map_[~hidden])
        assert (quiet[hidden] == map_[~hidden].min()).all()


# ---- items


@pytest.fixture(scope="module")
def data(shop, tmp_path_factory) -> Path:
    root = shop.data(tmp_path_factory.mktemp("p") / "data", good=10, faulty=6)
    for seed, path in enumerate(sorted(root.rglob("*.png"))):
        with_fixture(path, seed)
    return root


def test_items_audit_and_training_see_the_rest_only(shop, data, tmp_path):
    mask = write_region(tmp_path / "m.png")
    config = Config(part_pattern=shop.pattern, ignore=str(mask))
    item = read_items(data, config)[0]
    np.testing.assert_array_equal(visible(item), region().neutralise(decode(item.path)))
    np.testing.assert_array_equal(training_image(item).image(), visible(item))
    other = with_fixture(item.path, 999, tmp_path / "other.png")
    alike = PartImage(id="o", path=other, label="good", part="o", ignore=item.ignore)
    first, second = survey([item, alike]).images
    assert first.content_sha256 == second.content_sha256 and first.sharpness == second.sharpness
    plain = PartImage(id="o", path=item.path, label="good", part="o")
    assert training_image(plain).digest != training_image(item).digest, "cached features differ"
    assert repr(item) != repr(read_items(data, Config(part_pattern=shop.pattern))[0])


def test_a_defect_where_nothing_counts_is_no_place_and_the_audit_says_so(data, tmp_path):
    mask = write_region(tmp_path / "m.png")
    path = data / "defect" / "spot" / "d00_v1.png"
    item = PartImage(id="d", path=path, label="spot", part="d", mask=mask)
    assert mask_of(item).sum() == 900
    item = dataclasses.replace(item, ignore=ignore_file(mask))
    assert mask_of(item) is None
    (check,) = check_masks([item], survey([item]).images)
    assert (check.name, check.count) == ("defects where nothing counts", 1)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: Pillow.new("L", (SIDE, SIDE)).save(p), "ignores nothing"),
        (lambda p: Pillow.new("L", (SIDE, SIDE), 255).save(p), "ignores everything"),
        (lambda p: write_region(p).rename(p.with_name("gone")), "does not exist"),
        (
            lambda p: Pillow.fromarray(np.eye(50, 99, dtype=bool)).save(p),
            "99x50, this one is 96x96",
        ),
    ],
)
def test_a_region_that_cannot_be_used_is_one_line(data, tmp_path, capsys, make, says):
    make(tmp_path / "m.png")
    command = ["parts", "train", str(data), "--out", str(tmp_path / "run")]
    assert main([*command, "--ignore", str(tmp_path / "m.png")]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error")]
    assert says in line and not (tmp_path / "run").exists()


# ---- models


def train(shop, data: Path, out: Path, methods: tuple[str, ...]) -> Path:
    """Train with a mask of twice the pictures' size, which is gone afterwards."""
    mask = write_region(out.with_suffix(".png"), scale=2)
    flags = [flag for name in methods for flag in ("--methods", name)]
    assert main(["parts", "train", str(data), "--out", str(out), "--no-robustness", "--no-insight",
                 "--part-pattern", shop.pattern, "--ignore", str(mask), *flags]) == 0  # fmt: skip
    mask.unlink()
    return out


@pytest.fixture(scope="module")
def run(shop, data, tmp_path_factory) -> Path:
    return train(shop, data, tmp_path_factory.mktemp("p") / "run", LIGHT)


@pytest.fixture(scope="module")
def deep(shop, data, tmp_path_factory) -> Path:
    """Of a few good pictures only, which is quick."""
    few = tmp_path_factory.mktemp("p") / "few"
    for path in sorted(data.glob("good/*_v1.png"))[:6]:
        (few / "good").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, few / "good")
    return train(shop, few, few.parent / "run", DEEP)


@pytest.mark.parametrize("method", LIGHT + DEEP)
def test_no_method_answers_to_what_is_ignored(shop, request, tmp_path, method):
    trained = request.getfixturevalue("deep" if method in DEEP else "run")
    model = lineside.load(trained / "models" / method).model
    picture = shop.picture(tmp_path / "a_v1.png", spot=60, seed=4242)
    other = with_fixture(picture, 7, tmp_path / "b_v1.png")
    first, second = (model.predict_image(decode(path)) for path in (picture, other))
    assert same(first, second)
    raw = [model.detector.predict(decode(path)) for path in (picture, other)]
    assert not same(*raw), "without the region it would"
    quiet = model.ignored.suppress(first.map, (SIDE, SIDE))
    np.testing.assert_array_equal(quiet, first.map)


def test_every_verb_uses_the_models_region(shop, data, run, tmp_path, capsys):
    folder = tmp_path / "new"
    for number in range(3):
        picture = shop.picture(folder / f"n{number}_v1.png", spot=60.0 * number, seed=4300 + number)
        with_fixture(picture, number, folder / f"m{number}_v1.png")
    model = ("--model", str(run))
    assert main(["parts", "predict", str(folder), *model, "--json", "--overlay",
                 str(tmp_path / "o")]) in (0, 1)  # fmt: skip
    rows = {Path(r["item"]).name: r for r in map(json.loads, capsys.readouterr().out.splitlines())}
    for number in range(3):
        one, two = rows[f"n{number}_v1.png"], rows[f"m{number}_v1.png"]
        assert one["score"] == two["score"] and one["findings"] == two["findings"]
        for finding in one["findings"]:
            x, y = (round(value) for value in finding["centroid"])
            assert not region().mask[y, x]
    drawn = [Pillow.open(path) for path in sorted((tmp_path / "o").iterdir())]
    assert len(drawn) == 6 and len({picture.tobytes() for picture in drawn}) == 3
    assert main(["parts", "explain", str(folder / "m2_v1.png"), *model,
                 "--out", str(tmp_path / "e.html")]) == 0  # fmt: skip
    assert main(["parts", "watch", str(folder), *model, "--once", "--trail", str(tmp_path / "t"),
                 "--interval-seconds", "0.02"]) in (0, 1)  # fmt: skip
    trail = [json.loads(line) for line in (tmp_path / "t").read_text().splitlines()]
    assert {r["score"] for r in trail if "score" in r} == {r["score"] for r in rows.values()}
    fresh = shop.data(tmp_path / "fresh", good=4, faulty=3, seed=8)
    assert main(["parts", "evaluate", str(fresh), *model]) in (0, 1)
    assert (
        main(["parts", "evaluate", str(fresh), *model, "--config", str(run / "config.json")]) == 2
    )
    assert main(["parts", "recalibrate", str(fresh), "--model", str(run / "models/pca")]) == 0


def test_feedback_learns_without_what_is_ignored(shop, deep, tmp_path, monkeypatch):
    picture = shop.picture(tmp_path / "a_v1.png", spot=30, seed=5151)
    other = with_fixture(picture, 7, tmp_path / "b_v1.png")
    seen = []

    def update(detector, examples, *, rng):
        seen.extend(example.image() for example in examples)
        return detector

    model = lineside.load(deep).model
    monkeypatch.setattr(type(model.detector), "update", update)
    missed = ["--missed", str(picture), str(other), "--model", str(deep)]
    assert main(["parts", "feedback", *missed]) == 0
    assert np.array_equal(*seen) and np.array_equal(seen[0], model.visible(decode(picture)))
    derived = lineside.load(deep / "models" / "detector-taught1").model
    np.testing.assert_array_equal(derived.ignored.mask, model.ignored.mask)


def test_pictures_of_another_shape_are_refused_and_scaled_ones_are_judged(
    shop, run, tmp_path, capsys
):
    picture = Pillow.open(shop.picture(tmp_path / "a_v1.png", seed=6))
    picture.resize((192, 192)).save(tmp_path / "b_v1.png")
    picture.resize((192, 96)).save(tmp_path / "c_v1.png")
    assert main(["parts", "predict", str(tmp_path), "--model", str(run)]) == 2
    out, err = capsys.readouterr()
    (line,) = [x for x in err.splitlines() if x.startswith("error")]
    assert "c_v1.png" in line and "another shape" in line and len(out.splitlines()) == 3


def test_models_without_a_region_are_what_they_were(trained):
    model = lineside.load(trained).model
    assert model.ignored is None and "ignored" not in model.spec()
    image = np.random.default_rng(0).random((96, 96, 1), dtype=np.float32)
    assert model.visible(image) is image
    assert same(model.predict_image(image), model.detector.predict(image))
