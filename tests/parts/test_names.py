"""File names as they come from cameras, archives and adversaries: one line each, nothing forged."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pytest

import lineside
from lineside.cli import main
from lineside.core.errors import UserError, printable
from lineside.parts.data.items import PartImage

BELL = "\x1b]0;owned\x07\x1b[2K"
NAMES = {
    "latin": os.fsdecode(b"sch\xe4den_v1.png"),
    "long": "l" * 233 + "_v1.png",
    "line": "x\naccept     0.001  forged_v1.png",
    "escape": f"{BELL}e_v1.png",
    "backwards": "b\u202egnp_v1.png",
    "quote": "q\",'<b>_v1.png",
}
SHOWN = {
    "latin": r"sch\xe4den_v1.png",
    "long": NAMES["long"],
    "line": r"x\naccept     0.001  forged_v1.png",
    "escape": r"\x1b]0;owned\x07\x1b[2Ke_v1.png",
    "backwards": r"b\u202egnp_v1.png",
    "quote": NAMES["quote"],
}

pytestmark = pytest.mark.adversary("k")


@pytest.fixture
def odd(shop, tmp_path) -> Path:
    """A folder with one picture of each name."""
    folder = tmp_path / "odd"
    for seed, name in enumerate(NAMES.values()):
        try:
            shop.picture(folder / "made.png", seed=100 + seed).rename(folder / name)
        except OSError:
            pytest.skip("the file system does not take these names")
    return folder


def is_clean(text: str) -> bool:
    text.encode()
    return not any(sign in text for sign in ("\x1b", "\x07", "\u202e", "\r"))


@pytest.mark.parametrize("kind", NAMES)
def test_printable(kind):
    assert printable(NAMES[kind]) == printable(SHOWN[kind]) == SHOWN[kind]
    item = PartImage(id=NAMES[kind], path=Path(NAMES[kind]), label="", part=NAMES[kind])
    assert item.id == item.part == SHOWN[kind] and item.path.name == NAMES[kind]
    error = UserError(f"{NAMES[kind]} is damaged", NAMES[kind])
    assert str(error) == f"{SHOWN[kind]} is damaged - {SHOWN[kind]}"
    assert printable("größe 日本 a\u00a0b.png") == "größe 日本 a\u00a0b.png"


def test_predict_says_one_line_each_and_draws_all(odd, run, tmp_path, capfd):
    assert main(["parts", "predict", str(odd), "--model", str(run), "--overlay",
                 str(tmp_path / "o"), "--zoom", str(tmp_path / "z")]) in (0, 1)  # fmt: skip
    out, err = capfd.readouterr()
    assert is_clean(out) and is_clean(err)
    lines = out.splitlines()[1:]
    assert len(lines) == len(NAMES)
    for shown in SHOWN.values():
        assert sum(shown in line for line in lines) == 1
    for folder in ("o", "z"):
        drawn = [path.name for path in (tmp_path / folder).iterdir()]
        assert len(drawn) == len(NAMES)
        assert all(is_clean(name) and "\n" not in name for name in drawn)


def test_predict_as_json_and_with_a_journal(odd, run, tmp_path, capfd):
    command = ["parts", "predict", str(odd), "--model", str(run), "--json", "--journal"]
    for _ in range(2):
        assert main([*command, str(tmp_path / "j.jsonl")]) in (0, 1)
        out = capfd.readouterr().out
        assert is_clean(out)
        rows = [json.loads(line) for line in out.splitlines()]
        assert {Path(row["item"]).name for row in rows} == set(SHOWN.values())
    assert len((tmp_path / "j.jsonl").read_text().splitlines()) == len(NAMES)


def test_unreadable_files_are_one_line_each(odd, run, capfd):
    for path in odd.iterdir():
        path.write_bytes(b"")
    assert main(["parts", "predict", str(odd), "--model", str(run)]) == 2
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("error")]
    assert is_clean(out) and is_clean(err) and len(lines) == len(err.splitlines()) == len(NAMES)


def test_explain(odd, run, tmp_path, capfd):
    for kind, name in NAMES.items():
        page = tmp_path / "page.html"
        assert main(["parts", "explain", str(odd / name), "--model", str(run),
                     "--out", str(page)]) == 0  # fmt: skip
        out, _ = capfd.readouterr()
        assert is_clean(out) and out.startswith(SHOWN[kind])
        assert is_clean(page.read_text(encoding="utf-8"))


def test_watch_writes_a_trail_that_no_name_can_forge(odd, run, tmp_path, capfd):
    trail = tmp_path / "trail.jsonl"
    command = ["parts", "watch", str(odd), "--model", str(run), "--trail", str(trail), "--once",
               "--interval-seconds", "0.02"]  # fmt: skip
    assert main(command) in (0, 1)
    out, err = capfd.readouterr()
    assert is_clean(out) and is_clean(err) and len(out.splitlines()) == len(NAMES)
    rows = [json.loads(line) for line in trail.read_text(encoding="ascii").splitlines()]
    verdicts = [row for row in rows if "verdict" in row]
    assert {row["file"] for row in verdicts} == set(NAMES.values()), "as the file system has them"
    before = trail.read_bytes()
    main(command)
    assert trail.read_bytes().startswith(before)
    assert capfd.readouterr().out == "", "each is inspected once"


def test_train_evaluate_and_report(shop, odd, tmp_path, capfd):
    data = shop.data(tmp_path / "data", good=8, faulty=4)
    for name in NAMES.values():
        shutil.copy(odd / name, data / "good" / name)
    (data / "good" / "broken\n_v1.png").write_bytes(b"")
    run = tmp_path / "run"
    assert main(["parts", "train", str(data), "--out", str(run), *shop.train_flags]) == 2
    out, err = capfd.readouterr()
    assert is_clean(out) and is_clean(err)
    (line,) = [line for line in err.splitlines() if line.startswith("error")]
    assert r"broken\n_v1.png" in line
    for name in ("report.html", "report.json", "split.csv", "outcomes.csv"):
        assert is_clean((run / name).read_text(encoding="utf-8"))
    with (run / "split.csv").open(newline="", encoding="utf-8") as stream:
        items = {row["item"] for row in csv.DictReader(stream)}
    assert {f"good/{shown}" for shown in SHOWN.values()} <= items
    fresh = shop.data(tmp_path / "fresh", good=4, faulty=2, seed=7)
    for name in NAMES.values():
        shop.picture(fresh / "made.png", seed=len(name)).rename(fresh / "good" / name)
    assert main(["parts", "evaluate", str(fresh), "--model", str(run)]) in (0, 1)
    assert main(["parts", "audit", str(data)]) == 2
    out, err = capfd.readouterr()
    assert is_clean(out) and is_clean(err)


def test_names_in_a_table(shop, odd, run, tmp_path, capfd):
    table = tmp_path / "parts.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        rows = [(f"odd/{NAMES[kind]}", f"part\n{BELL}") for kind in NAMES if kind != "latin"]
        csv.writer(stream).writerows([("path", "part"), *rows, ("odd/" + "y" * 5000, "z")])
    assert main(["parts", "predict", str(table), "--model", str(run)]) == 2
    out, err = capfd.readouterr()
    assert is_clean(out) and is_clean(err)
    assert len(out.splitlines()) == 1 + len(rows)
    assert sum(r"part\n" in line for line in out.splitlines()) == len(rows)
    assert len(err.splitlines()) == 1 and "File name too long" in err


def test_labelled_tables_and_feedback(shop, odd, run, tmp_path, capfd):
    table = odd / "parts.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        rows = [(NAMES[kind], "good", f"l\n{kind}", BELL) for kind in NAMES if kind != "latin"]
        csv.writer(stream).writerows([("path", "label", "lot", "line"), *rows])
    assert main(["parts", "audit", str(table)]) in (0, 1)
    code = main(["parts", "feedback", "--missed", *map(str, odd.glob("*.png")),
                 "--model", str(run)])  # fmt: skip
    assert code == 2, "this method cannot be updated"
    assert all(map(is_clean, capfd.readouterr()))


def test_a_name_that_no_file_system_takes_is_one_line(run, tmp_path, capfd):
    endless, model = "n" * 5000 + ".png", ("--model", str(run))
    for command in (
        ("predict", endless, *model),
        ("explain", endless, *model),
        ("evaluate", endless, *model),
        ("watch", endless, *model),
        ("train", endless),
        ("predict", str(tmp_path), "--model", endless),
    ):
        assert main(["parts", *command]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith("error: ") and ("too long" in line or "not a folder" in line)


def test_python_gets_the_same(odd, run):
    results = lineside.load(run).predict(odd)
    assert {Path(result.item).name for result in results} == set(SHOWN.values())
