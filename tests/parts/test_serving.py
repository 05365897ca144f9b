"""`predict` and `explain`: exit codes, output, parts, overlays, independence of the batch."""

import dataclasses
import json
import random
import re

import numpy as np
import pytest
from PIL import Image

import lineside
from lineside.cli import main
from lineside.core.contract import Refusal
from lineside.parts.model import PartResult


@pytest.fixture
def good(shop, tmp_path):
    return shop.picture(tmp_path / "new" / "fine_v1.png", seed=90)


@pytest.fixture
def bad(shop, tmp_path):
    return shop.picture(tmp_path / "new" / "spot_v1.png", spot=130, seed=91)


@pytest.fixture
def broken(good, tmp_path):
    path = tmp_path / "new" / "cut_v1.png"
    path.write_bytes(good.read_bytes()[:900])
    return path


def predict(run, *tokens):
    return main(["parts", "predict", *map(str, tokens), "--model", str(run)])


def test_the_exit_code_says_fine_finding_or_unreadable(trained, good, bad, broken, capsys):
    assert predict(trained, good) == 0
    assert predict(trained, good, bad) == 1
    assert predict(trained, bad, broken, good) == 2
    told = capsys.readouterr()
    assert told.out.count("fine_v1.png") == 3, "the rest of the batch is judged"
    assert re.search(r"error: \S+cut_v1.png is damaged or cut off", told.err)


def test_json_is_one_object_per_line_in_order(trained, good, bad, broken, capsys):
    assert predict(trained, "--json", bad, broken, good) == 2
    told = capsys.readouterr()
    rows = [json.loads(line) for line in told.out.splitlines()]
    assert [row["item"] for row in rows] == [str(bad), str(broken), str(good)]
    assert [row.get("verdict") for row in rows] == ["reject", None, "accept"]
    assert rows[0]["findings"][0]["area_px"] > 50
    assert len(rows[0]["sha256"]) == 64
    assert rows[0]["model"] == lineside.load(trained).model.identity
    assert "damaged" in rows[1]["error"]


def test_views_of_one_part_share_the_verdict(trained, shop, tmp_path, capsys):
    views = [shop.picture(tmp_path / f"q_v{v}.png", 130.0 * (v == 2), v) for v in (1, 2, 3)]
    alone = shop.picture(tmp_path / "r_v1.png", seed=5)
    assert predict(trained, "--json", *views, alone) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["verdict"] for row in rows] == ["reject"] * 3 + ["accept"]
    assert {row["part_score"] for row in rows[:3]} == {rows[1]["score"]}
    assert predict(trained, "--json", "--part-pattern", r"(._v\d)", *views) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["verdict"] for row in rows] == ["accept", "reject", "accept"]


def test_a_table_names_the_parts(trained, shop, tmp_path, capsys):
    for view in (1, 2):
        shop.picture(tmp_path / f"{view}.png", 130.0 * (view == 2), view)
    (tmp_path / "list.csv").write_text("Path;part\n1.png;a\n2.png;a\n1.png;b\ngone.png;c\n")
    assert predict(trained, "--json", tmp_path / "list.csv") == 2
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row.get("verdict") for row in rows] == ["reject", "reject", "accept", None]
    assert "does not exist" in rows[3]["error"]


def test_the_rule_every_takes_the_lowest_view(trained):
    model = lineside.load(trained).model
    assert model.decide([1.0, 1e6]) == (1e6, "reject")
    assert model.decide([1.0, float("nan")])[1] == "review"
    settings = dataclasses.replace(model.settings, view_rule="every")
    strict = dataclasses.replace(model, settings=settings)
    assert strict.decide([1.0, 1e6]) == (1.0, "accept")


def test_a_folder_is_judged_with_its_subfolders(trained, shop, good, tmp_path, capsys):
    shop.picture(tmp_path / "new" / "deep" / "x_v1.png", seed=3)
    shop.picture(tmp_path / "new" / ".hidden_v1.png", seed=3)
    (tmp_path / "new" / "notes.txt").write_text("no picture")
    assert predict(trained, tmp_path / "new") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3, "a heading and two pictures"


def test_overlays_are_pictures(trained, bad, broken, tmp_path, capsys):
    assert predict(trained, bad, broken, "--overlay", tmp_path / "maps" / "of today") == 2
    written = list((tmp_path / "maps" / "of today").iterdir())
    assert [path.name for path in written] == ["0000_reject_spot_v1.png"]
    with Image.open(written[0]) as picture:
        assert picture.mode == "RGB"
        assert np.asarray(picture).std() > 5


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([], "no files"),
        (["EMPTY"], "holds no images"),
        (["table.csv"], "no column 'path'"),
        (["none.csv"], "cannot be read"),
        (["a_v1.png", "--part-pattern", "(x"], "not valid"),
        (["a_v1.png", "--part-pattern", "x"], "has no group"),
        (["a_v1.png", "--overlay", "FILE"], "FILE"),
    ],
)
def test_bad_usage_is_one_line(trained, shop, tmp_path, monkeypatch, capsys, tokens, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FILE").write_text("")
    (tmp_path / "table.csv").write_text("file,part\na,b\n")
    shop.picture(tmp_path / "a_v1.png")
    assert predict(trained, *tokens) == 2
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error")]
    assert len(lines) == 1
    assert words in lines[0]


def test_neighbours_and_order_do_not_matter(trained, shop, tmp_path):
    files = [
        shop.picture(tmp_path / f"n{i}_v1.png", 20.0 * (i % 3), 50 + i) for i in range(9)
    ]  # fmt: skip
    model = lineside.load(trained)
    alone = {str(f): model.predict([f])[0] for f in files}
    random.Random(0).shuffle(files)
    together = model.predict(files)
    assert [r.item for r in together] == [str(f) for f in files]
    assert all(result == alone[result.item] for result in together)


def test_results_are_typed(trained, good, broken):
    first, second = lineside.load(trained).predict([str(good), broken])
    assert isinstance(first, PartResult)
    assert (first.part, first.verdict, first.finding) == ("fine", "accept", False)
    assert isinstance(second, Refusal)
    assert lineside.load(trained).predict(str(good)) == [first]


def test_explain_writes_a_page_that_needs_nothing_else(trained, bad, broken, tmp_path, capsys):
    page = tmp_path / "why.html"
    tokens = ["parts", "explain", str(bad), "--model", str(trained), "--out", str(page)]
    assert main(tokens) == 0
    assert "reject. Its score" in capsys.readouterr().out
    text = page.read_text()
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//|url\((?!data:)|@import""", text)
    assert text.count("data:image/") >= 2
    assert "threshold" in text
    tokens[2] = str(broken)
    assert main(tokens) == 2
