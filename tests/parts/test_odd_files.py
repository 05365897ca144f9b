"""Pipes, sockets, folders, 40 GB of nothing and deeply nested JSON: one line each, at once."""

import json

import pytest
from PIL import Image
from tests.odd_files import ODD, no_longer_than

import lineside
from lineside.cli import main
from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.core.run.folder import iter_rows

pytestmark = pytest.mark.adversary("l")
DEEP = "[" * 100_000 + "]" * 100_000
LOW = "[" * 900 + "]" * 900  # json reads it, what walks over it may not
FAST = ("--methods", "brightness", "--no-robustness")


def errors(capsys):
    return [x for x in capsys.readouterr().err.splitlines() if x.startswith("error")]


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_file_as_a_picture(kind, trained, shop, tmp_path):
    make, words = ODD[kind]
    make(tmp_path / "odd_v1.png")
    shop.picture(tmp_path / "fine_v1.png", 130.0)
    files = sorted(tmp_path.glob("*.png"))
    if kind == "folder":
        (tmp_path / "odd_v1.png" / "inner.png").mkdir()
        files = [tmp_path / "fine_v1.png", tmp_path / "odd_v1.png" / "inner.png"]
        with pytest.raises(UserError, match="holds no images"):
            lineside.load(trained).predict(files)
        return
    with no_longer_than(60):
        fine, odd = lineside.load(trained).predict(files)
    assert isinstance(odd, Refusal) and words in odd.message and "\n" not in odd.message
    assert fine.verdict == "reject"


def test_forty_gigabytes_behind_the_header_of_a_picture(trained, shop, tmp_path):
    path = shop.picture(tmp_path / "huge_v1.png")
    with path.open("r+b") as stream:
        stream.truncate(40 * 2**30)
    with no_longer_than(60):
        (odd,) = lineside.load(trained).predict(path)
    assert isinstance(odd, Refusal) and "too large: 40960 MB" in odd.message


@pytest.mark.parametrize("kind", ["pipe", "sparse"])
def test_an_odd_file_among_the_pictures_to_learn_from(kind, shop, tmp_path, capsys):
    data = shop.data(tmp_path / "data", good=8, faulty=4)
    ODD[kind][0](data / "good" / "odd_v1.png")
    ODD[kind][0](data / "good" / "g00_v1_mask.png")
    ODD[kind][0](data / "odd.json")
    with no_longer_than(120):
        assert main(["parts", "audit", str(data), "--part-pattern", shop.pattern]) == 2
    (line,) = errors(capsys)
    assert ODD[kind][1] in line and "odd.json" in line  # annotations first: they label the rest
    (data / "odd.json").unlink()
    with no_longer_than(120):
        code = main(["parts", "train", str(data), "--out", str(tmp_path / "run"), *FAST])
    lines = errors(capsys)
    assert code == 2 and any(ODD[kind][1] in line and "odd_v1.png" in line for line in lines)
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("place", ["", "model.json", "model.safetensors"])
def test_an_odd_file_as_a_model(kind, place, run, tmp_path, capsys):
    model = run / "models" / "gaussian"
    where = model / place if place else tmp_path / "odd"
    where.unlink(missing_ok=True)
    ODD[kind][0](where)
    with no_longer_than(60):
        assert main(["parts", "predict", "a.png", "--model", str(model if place else where)]) == 2
    (line,) = errors(capsys)
    assert str(where) in line or "holds no model" in line


@pytest.mark.parametrize("text", [DEEP, LOW])
@pytest.mark.parametrize("name", ["status.json", "models/gaussian/model.json"])
def test_deeply_nested_json_in_a_run(text, name, run, capsys):
    (run / name).write_text(text)
    assert main(["parts", "predict", "a.png", "--model", str(run)]) == 2
    (line,) = errors(capsys)
    assert "nested in more than 64 levels" in line


@pytest.mark.parametrize("text", [DEEP, LOW])
def test_deeply_nested_json_within_a_model(text, run, capsys):
    path = run / "models" / "gaussian" / "model.json"
    content = json.loads(path.read_text())
    for key in ("spec", "calibration"):
        content[key] = "HERE"
        path.write_text(json.dumps(content).replace('"HERE"', text))
        assert main(["parts", "predict", "a.png", "--model", str(run)]) == 2
        (line,) = errors(capsys)
        assert "nested in more than 64 levels" in line


@pytest.mark.parametrize("text", [DEEP, LOW, '{"images": ' + LOW + ', "annotations": []}'])
def test_deeply_nested_json_beside_the_pictures(text, shop, tmp_path, capsys):
    data = shop.data(tmp_path / "data", good=6, faulty=3)
    (data / "coco.json").write_text(text)
    assert main(["parts", "audit", str(data)]) == 2
    (line,) = errors(capsys)
    assert "coco.json" in line and "nested in more than 64 levels" in line


def test_deeply_nested_settings_and_log_rows(tmp_path, capsys):
    (tmp_path / "deep.json").write_text(DEEP)
    assert main(["parts", "train", "data", "--config", str(tmp_path / "deep.json")]) == 2
    assert "nested in more than 64 levels" in errors(capsys)[0]
    (tmp_path / "metrics.jsonl").write_text(f'{DEEP}\n{{"a": {LOW}}}\n{{"step": 1}}\n')
    assert list(iter_rows(tmp_path / "metrics.jsonl")) == [{"step": 1}]


@pytest.mark.parametrize("kind", ["pipe", "sparse", "folder"])
def test_an_odd_file_as_a_table_or_settings(kind, trained, tmp_path, capsys):
    for name in ("table.csv", "settings.json"):
        ODD[kind][0](tmp_path / name)
    with no_longer_than(60):
        code = main(["parts", "train", str(tmp_path / "table.csv"), "--out", str(tmp_path / "r")])
        assert code == 2
        settings = str(tmp_path / "settings.json")
        assert main(["parts", "train", "data", "--config", settings]) == 2
    assert len(errors(capsys)) == 2


def test_a_picture_with_an_ordinary_name_is_still_read(trained, tmp_path):
    Image.new("L", (96, 96), 120).save(tmp_path / "a_v1.png")
    (result,) = lineside.load(trained).predict(tmp_path / "a_v1.png")
    assert not isinstance(result, Refusal)
