"""What a run makes once: each picture is opened, hashed, decoded and judged no more than needed."""

import builtins
import collections
import io
import json
import time

import numpy as np
import pytest
from PIL import Image

import lineside
from lineside.cli import main
from lineside.core.run import files
from lineside.core.run.codec import encode
from lineside.core.run.trail import iter_rows
from lineside.parts import fitting
from lineside.parts.audit import survey
from lineside.parts.data import images
from lineside.parts.models.classical.gaussian import Gaussian


@pytest.fixture
def opened(monkeypatch):
    """Counts how often each picture file is opened for reading."""
    counts = collections.Counter()
    real = io.open

    def counting(file, *arguments, **options):
        if str(file).endswith(".png"):
            counts[str(file)] += 1
        return real(file, *arguments, **options)

    monkeypatch.setattr(builtins, "open", counting)
    monkeypatch.setattr(io, "open", counting)
    return counts


@pytest.fixture
def forgetful(monkeypatch):
    """Nothing is known of any file, as in a new process."""
    monkeypatch.setattr(images, "CACHE", images.PictureCache(most_bytes=2**28))
    monkeypatch.setattr(survey, "CACHE", images.CACHE)
    monkeypatch.setattr(survey, "_MEASURED", {})
    monkeypatch.setattr(files, "_HASHES", {})


def test_a_training_opens_each_picture_at_most_twice(shop, tmp_path, forgetful, opened):
    data = shop.data(tmp_path / "data", good=12, faulty=5)
    flags = [flag for flag in shop.train_flags if flag != "--no-robustness"]
    opened.clear()
    assert main(["parts", "train", str(data), "--out", str(tmp_path / "run"), *flags]) == 0
    assert len(opened) == 34
    assert sum(opened.values()) / len(opened) <= 2


def test_references_are_made_once_and_are_not_fit_time(shop, tmp_path, monkeypatch):
    made = []
    real = fitting.fit_references

    def slow(train, rng):
        made.append(len(train))
        return real(train, rng)

    monkeypatch.setattr(fitting, "fit_references", slow)
    data = shop.data(tmp_path / "data", good=12, faulty=5)
    run = tmp_path / "run"
    assert main(["parts", "train", str(data), "--out", str(run), *shop.train_flags]) == 0
    assert len(made) == 1
    first, second = (
        lineside.load(run / "models" / name).model for name in ("gaussian", "brightness")
    )
    assert first.library.sources == second.library.sources
    assert encode(first.health)[0] == encode(second.health)[0]


def test_a_run_does_not_count_shared_work_as_fit_time(shop, tmp_path, monkeypatch):
    real = fitting.fit_references

    def slow(train, rng):
        time.sleep(3)
        return real(train, rng)

    monkeypatch.setattr(fitting, "fit_references", slow)
    data, run = shop.data(tmp_path / "data", good=12, faulty=5), tmp_path / "run"
    tokens = [t for t in shop.train_flags if t != "gaussian"][1:]
    assert main(["parts", "train", str(data), "--out", str(run), *tokens]) == 0
    fitted = [row for row in iter_rows(run / "metrics.jsonl") if row.get("event") == "fitted"]
    assert len(fitted) == 1 and fitted[0]["seconds"] < 3


def test_overlay_and_zoom_take_one_decode_and_one_pass(
    trained, shop, tmp_path, capsys, forgetful, opened, monkeypatch
):
    spot = shop.picture(tmp_path / "new" / "spot_v1.png", spot=130, seed=91)
    fine = shop.picture(tmp_path / "new" / "fine_v1.png", seed=90)
    passes = []
    real = Gaussian.predict

    def counted(self, image):
        passes.append(image.shape)
        return real(self, image)

    monkeypatch.setattr(Gaussian, "predict", counted)
    opened.clear()
    tokens = ["--model", trained, "--overlay", tmp_path / "maps", "--zoom", tmp_path / "zooms"]
    assert main(["parts", "predict", *map(str, [spot, fine, *tokens])]) == 1
    assert opened[str(spot)] == opened[str(fine)] == 1, "hash and pixels come from one reading"
    # a model that is read is tried on noise of another size
    assert len([shape for shape in passes if shape == (96, 96, 1)]) == 2
    for folder in ("maps", "zooms"):
        names = [path.name for path in sorted((tmp_path / folder).iterdir())]
        assert names == ["0000_reject_spot_v1.png", "0001_accept_fine_v1.png"]


def test_drawing_changes_no_result_and_no_order(trained, shop, tmp_path, capsys):
    views = [shop.picture(tmp_path / f"q_v{v}.png", 130.0 * (v == 2), v) for v in (1, 2)]
    mixed = [views[0], shop.picture(tmp_path / "r_v1.png", seed=5), tmp_path / "gone.png", views[1]]
    tokens = ["parts", "predict", "--json", "--model", str(trained), *map(str, mixed)]
    assert main(tokens) == 2
    plain = capsys.readouterr().out
    assert main([*tokens, "--overlay", str(tmp_path / "maps")]) == 2
    assert capsys.readouterr().out == plain
    assert [json.loads(line)["item"] for line in plain.splitlines()] == [str(p) for p in mixed]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16", "1"])
def test_a_cached_picture_is_the_decoded_one(mode, tmp_path):
    rng = np.random.default_rng(0)
    shape = {"RGB": (20, 30, 3), "RGBA": (20, 30, 4)}.get(mode, (20, 30))
    kind = np.uint16 if mode == "I;16" else np.uint8
    values = rng.integers(0, np.iinfo(kind).max, shape, dtype=kind)
    path = tmp_path / "a.png"
    Image.fromarray(values > 127 if mode == "1" else values).save(path)
    picture = images.read_picture(path)
    cache = images.PictureCache(most_bytes=10**6)
    cache.put(images.file_state(path), picture)
    known = cache.get(images.file_state(path))
    assert known.image.dtype == np.float32 and np.array_equal(known.image, picture.image)
    known.image[:] = 0
    assert np.array_equal(cache.get(images.file_state(path)).image, picture.image)
    sizes = {"L": 600, "RGB": 1800, "1": 600}
    assert cache.bytes == sizes.get(mode, picture.image.nbytes)


def test_the_cache_keeps_its_bound(tmp_path):
    cache = images.PictureCache(most_bytes=1500)
    for number in range(4):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.full((20, 30), number, np.uint8)).save(path)
        cache.put(images.file_state(path), images.read_picture(path))
    assert len(cache.pictures) == 2 and cache.bytes == 1200


def test_a_file_is_hashed_once_until_it_changes(tmp_path, opened):
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    opened.clear()
    assert files.sha256_of_file(path) == files.sha256(b"one")
    assert files.sha256_of_file(path) == files.sha256(b"one")
    assert opened[str(path)] == 1
    path.write_bytes(b"two")
    assert files.sha256_of_file(path) == files.sha256(b"two")
    path.write_bytes(b"three")
    assert files.read_and_hash(path) == b"three"
    opened.clear()
    assert files.sha256_of_file(path) == files.sha256(b"three")
    assert not opened
