"""What people really feed in: one clear line, exit code 2, and no half-made run."""

import errno
import gc
import json
import os
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

import lineside
from lineside.cli import main
from lineside.core.run import model_store

FAST = ("--methods", "brightness", "--no-robustness")


def train(data, out, *flags):
    return main(["parts", "train", str(data), "--out", str(out), *FAST, *flags])


def errors(capsys):
    return [x for x in capsys.readouterr().err.splitlines() if x.startswith("error")]


def bomb(path):
    """A PNG whose header promises 50,000 x 50,000 pixels."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def truncated(path):
    values = np.random.default_rng(0).integers(0, 255, (96, 96)).astype(np.uint8)
    Image.fromarray(values).save(path)
    path.write_bytes(path.read_bytes()[:2000])


BAD = {
    "truncated": (truncated, "damaged or cut off"),
    "empty": (lambda path: path.write_bytes(b""), "0 bytes"),
    "text": (lambda path: path.write_text("not a picture"), "not a picture"),
    "tiny": (lambda path: Image.new("L", (1, 1)).save(path), "too small"),
    "bomb": (bomb, "too large"),
}


@pytest.mark.parametrize("kind", BAD)
def test_only_bad_pictures(kind, tmp_path, capsys):
    (tmp_path / "data" / "good").mkdir(parents=True)
    for i in range(3):
        BAD[kind][0](tmp_path / "data" / "good" / f"{i}.png")
    assert train(tmp_path / "data", tmp_path / "run") == 2
    (line,) = errors(capsys)
    assert BAD[kind][1] in line
    assert not (tmp_path / "run").exists()


def test_bad_pictures_among_good_ones_are_listed_and_the_rest_is_trained(shop, tmp_path, capsys):
    data = shop.data(tmp_path / "data", good=8, faulty=3)
    for kind, (make, _) in BAD.items():
        make(data / "good" / f"{kind}_v1.png")
    (data / "masks").mkdir()
    Image.new("L", (50, 40), 255).save(data / "masks" / "d00_v1.png")
    assert train(data, tmp_path / "run", "--part-pattern", shop.pattern) == 2
    lines = errors(capsys)
    assert len(lines) == len(BAD) + 1
    for kind, (_, words) in BAD.items():
        assert any(f"{kind}_v1.png" in line and words in line for line in lines)
    (mask,) = [line for line in lines if "50x40" in line]
    assert "d00_v1.png" in mask and "only the label counts" in mask, "a mask of another size"
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "finished"
    split = (tmp_path / "run" / "split.csv").read_text()
    assert split.count("_v") == 2 * 8 + 2 * 3


def inverted(path):
    values = np.full((96, 96), 255, np.uint8)
    values[40:50, 40:60] = 0
    Image.fromarray(values).save(path)


PLACES = {
    "inverted": ("masks/{}.png", inverted, "inverted masks"),
    "other size": ("masks/{}.png", lambda p: Image.new("L", (9, 9), 255).save(p), "unusable masks"),
    "not clear": ("masks/{}.png", lambda p: Image.new("L", (96, 96), 7).save(p), "unusable masks"),
    "yolo": ("defect/spot/{}.txt", lambda p: p.write_text("0 nan .5 inf .1\n"), "unusable boxes"),
}


@pytest.mark.adversary("f")
@pytest.mark.parametrize("kind", PLACES)
def test_unusable_places_cost_the_place_and_not_the_defect(shop, tmp_path, kind, capsys):
    """Every mask or box of the set is wrong: training uses the labels, and the audit says why."""
    data = shop.data(tmp_path / "data", good=8, faulty=4)
    (data / "masks").mkdir()
    name, make, check = PLACES[kind]
    for path in (data / "defect" / "spot").glob("*.png"):
        make(data / name.format(path.stem))
    (data / "classes.txt").write_text("spot\n")
    methods = ("--methods", "texture", "--methods", "gaussian", "--no-robustness")
    out = tmp_path / "run"
    code = main(["parts", "train", str(data), "--out", str(out), *methods,
                 "--part-pattern", shop.pattern])  # fmt: skip
    assert code == (0 if kind == "inverted" else 2)
    assert check in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    (found,) = [entry for entry in report["checks"] if entry["name"] == check]
    assert (found["status"], found["count"]) == ("fail", 8) and "d00_v1.png" in found["items"][0]
    assert (out / "split.csv").read_text().count(",spot,") == 8
    with (out / "outcomes.csv").open() as stream:
        assert sum('""label"": 1.0' in line for line in stream) >= 2, "faulty parts are measured"


@pytest.mark.adversary("o")
def test_pictures_in_formats_that_are_not_read_are_said_once_by_every_verb(
    shop, run, tmp_path, capsys
):
    data = shop.data(tmp_path / "data", good=3, faulty=0, seed=5)
    for name in ("a.gif", "b.gif", "c.heic"):
        (data / "good" / name).write_bytes(b"x")
    model = ("--model", str(run))
    for command in (
        ("predict", str(data), *model),
        ("evaluate", str(data), *model),
        ("audit", str(data)),
        ("watch", str(data), *model, "--once", "--trail", str(tmp_path / "t"),
         "--interval-seconds", "0.02"),
        ("train", str(data), "--out", str(tmp_path / "run2"), *FAST),
    ):  # fmt: skip
        assert main(["parts", *command]) in (0, 1)
        notes = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
        assert len(notes) == 1 and notes[0].startswith("note: ")
        assert "3 files skipped: 2 .gif, 1 .heic; readable are .png" in notes[0]
    page = (tmp_path / "run2" / "report.html").read_text()
    audit = page[page.index('<details id="data-audit">') :]
    assert audit[: audit.index("</details>")].count("3 files skipped: 2 .gif, 1 .heic") == 1
    told = json.loads((tmp_path / "run2" / "report.json").read_text())["checks"]
    assert [c["status"] for c in told if c["name"] == "noted while reading"] == ["info"]


@pytest.mark.adversary("m")
def test_one_lot_per_class_is_refused_before_anything_is_trained(shop, tmp_path, capsys):
    data = shop.data(tmp_path / "data", good=6, faulty=4)
    rows = [
        f"{path.relative_to(data).as_posix()},{path.parent.name},{path.parent.name} lot"
        for path in sorted(data.rglob("*.png"))
    ]
    (data / "parts.csv").write_text("\n".join(["path,label,lot", *rows]))
    assert train(data, tmp_path / "run") == 2
    (line,) = errors(capsys)
    assert "one lot (good lot), and a lot is never split" in line
    assert not (tmp_path / "run").exists()


def test_without_defects_it_works_and_promises_nothing(shop, tmp_path, capsys):
    data = shop.data(tmp_path / "data", good=8, faulty=0)
    assert train(data, tmp_path / "run") == 0
    assert "no recall is guaranteed" in capsys.readouterr().out
    picture = data / "good" / "g00_v1.png"
    assert main(["parts", "predict", str(picture), "--model", str(tmp_path / "run")]) in (0, 1)
    assert main(["parts", "explain", str(picture), "--model", str(tmp_path / "run"),
                 "--out", str(tmp_path / "e.html")]) == 0  # fmt: skip


@pytest.mark.parametrize(
    ("good", "faulty", "words"), [(0, 4, "no good parts"), (0, 0, "no pictures"), (1, 0, "one")]
)
def test_too_little(shop, tmp_path, capsys, good, faulty, words):
    data = shop.data(tmp_path / "data", good=good, faulty=faulty)
    data.mkdir(exist_ok=True)
    for second in data.glob("good/*_v2.png"):
        second.unlink()
    assert train(data, tmp_path / "run") == 2
    (line,) = errors(capsys)
    assert words in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("good", [2, 3, 4])
def test_very_few_good_parts_still_train_or_are_refused_in_one_line(shop, tmp_path, capsys, good):
    data = shop.data(tmp_path / "data", good=good, faulty=0)
    code = train(data, tmp_path / "run", "--part-pattern", shop.pattern)
    assert code in (0, 2)
    assert len(errors(capsys)) == code // 2
    if code == 0:
        lineside.load(tmp_path / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder(shop, tmp_path, capsys):
    data = shop.data(tmp_path / "data", good=3, faulty=0)
    data.chmod(0)
    try:
        assert train(data, tmp_path / "run") == 2
    finally:
        data.chmod(0o755)
    (line,) = errors(capsys)
    assert "cannot be read" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("out", ["FILE", "FILE/run", "taken"])
def test_a_place_that_cannot_be_a_run(shop, tmp_path, capsys, out):
    data = shop.data(tmp_path / "data", good=6, faulty=0)
    (tmp_path / "FILE").write_text("mine")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    assert train(data, tmp_path / out) == 2
    assert len(errors(capsys)) == 1
    assert (tmp_path / "FILE").read_text() == "mine"
    assert os.listdir(tmp_path / "taken") == ["thesis.txt"]


class FullDisk:
    """From the n-th sync on, and for ever, there is no space."""

    def __init__(self, after):
        self.after, self.calls, self.sync = after, 0, os.fsync

    def __call__(self, handle):
        self.calls += 1
        if self.calls > self.after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.sync(handle)


def test_a_full_disk_is_one_line_and_the_run_can_be_taken_up(shop, tmp_path, capsys, monkeypatch):
    data = shop.data(tmp_path / "data", good=5, faulty=0)
    counted = FullDisk(10**9)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", counted)
        assert train(data, tmp_path / "whole") == 0
    identity = lineside.load(tmp_path / "whole").model.identity
    capsys.readouterr()
    for after in (0, 4, counted.calls - 1):
        out = tmp_path / f"run{after}"
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", FullDisk(after))
            assert train(data, out) == 2
        (line,) = errors(capsys)
        assert "disk is full" in line
        assert not list(out.glob("**/.*.????????")), "no half-written model or file is left"
        assert out.exists() == (after > 1), "without config.json it never was a run"
        gc.collect()  # a process that ends gives its lock back, this one goes on
        assert train(data, out) == 0
        assert lineside.load(out).model.identity == identity
        capsys.readouterr()


def alter(name, change):
    def make(folder):
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return make


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (alter("model.safetensors", lambda b: b[:-1]), "damaged"),
        (alter("model.json", lambda b: b.replace(b'"any"', b'"every"', 1)), "altered"),
        (alter("model.json", lambda b: b.replace(b'"parts"', b'"faces"', 1)), "faces"),
        (alter("model.json", lambda b: b'{"architectures": ["BertModel"]}'), "not a lineside"),
        (alter("model.json", lambda b: b'["a list"]'), "not a lineside"),
        (alter("model.json", lambda b: b"\x80\x04pickle"), "cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be read"),
        (lambda folder: (folder / "model.json").unlink(), "without a finished model"),
        (shutil.rmtree, "without a finished model"),
    ],
)
def test_a_tampered_or_foreign_model(run, shop, tmp_path, capsys, make, words):
    make(run / "models" / "gaussian")
    picture = shop.picture(tmp_path / "a_v1.png")
    assert main(["parts", "predict", str(picture), "--model", str(run)]) == 2
    (line,) = errors(capsys)
    assert words in line


def test_a_well_signed_model_of_nonsense_is_refused(run, shop, tmp_path, capsys):
    class Nonsense:
        def spec(self):
            return {"method": "gaussian", "detector": {}}

        def tensors(self):
            return {}

        def calibration_block(self):
            return {}

    model_store.save_model(run / "models" / "gaussian", "parts", Nonsense())
    assert (
        main(["parts", "predict", str(shop.picture(tmp_path / "a.png")), "--model", str(run)]) == 2
    )
    (line,) = errors(capsys)
    assert "this version cannot read" in line
