"""The pages that decide: rates are those of predict, sheets are sorted, nothing is "nan"."""

import csv
import json
import re
from collections import Counter
from types import SimpleNamespace

import pytest
from tests.browser import CHROMIUM, opened, printed_pages

import lineside
from lineside.cli import main
from lineside.core.contract import Outcome
from lineside.core.statistics.operating_points import operating_point
from lineside.core.statistics.units import Words, unit_scores
from lineside.parts.config import Config
from lineside.parts.report.cases import sorted_cases
from lineside.parts.report.chapters import _next_step, decision_of


def words_of(page):
    """The text of a report without pictures, drawings and style."""
    page = re.sub(r"<style.*?</style>|<svg.*?</svg>", " ", page, flags=re.S)
    return re.sub(r"<[^>]*>", " ", page)


def table(shop, root, rows):
    """Write pictures and a CSV that gives each part its role; rows: label, role, count, light."""
    root.mkdir()
    path = root / "parts.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "part", "split"])
        number = 0
        for label, role, count, light in rows:
            for _ in range(count):
                number += 1
                name = f"p{number:03}.png"
                spot = 0.0 if label == "good" else 20.0 + number % 7
                shop.picture(root / name, spot, number, light)
                writer.writerow([name, label, f"p{number:03}", role])
    return path


FLAGS = ("--methods", "gaussian", "--methods", "brightness", "--no-robustness")


@pytest.fixture(scope="module")
def bright(shop, tmp_path_factory):
    """A run of which some test parts are photographed far too bright."""
    root = tmp_path_factory.mktemp("bright")
    rows = [("good", "train", 14, 0), ("good", "calibration", 12, 0), ("spot", "calibration", 8, 0),
            ("good", "test", 8, 0), ("good", "test", 4, 70), ("spot", "test", 7, 0),
            ("spot", "train", 3, 0), ("spot", "test", 1, 70)]  # fmt: skip
    data = table(shop, root / "data", rows)
    assert main(["parts", "train", str(data), "--out", str(root / "run"), *FLAGS]) == 0
    return data, root / "run"


def test_rates_of_the_report_are_those_of_predict(bright):
    data, run = bright
    with data.open(newline="") as stream:
        test = [row for row in csv.DictReader(stream) if row["split"] == "test"]
    results = lineside.load(run).predict([data.parent / row["path"] for row in test])
    verdicts = Counter(
        (row["label"], result.verdict) for row, result in zip(test, results, strict=True)
    )
    assert sum(bool(result.health) for result in results) == 5, "the bright ones are unusual"
    good = sum(n for (label, _), n in verdicts.items() if label == "good")
    held = good - verdicts["good", "accept"]
    escaped = verdicts["spot", "accept"]
    assert held >= 4
    page = words_of((run / "report.html").read_text())
    counts = re.search(r"seen, (\d+) of (\d+) \(.*?faulty ones escaped and (\d+) of (\d+)", page)
    assert [int(n) for n in counts.groups()] == [escaped, 8, held, good]
    assert f"held back: {verdicts['good', 'reject']} rejected, {verdicts['good', 'review']}" in page
    used = next(
        row for row in json.loads((run / "report.json").read_text())["decision"]["thresholds"]
        if row["in_use"]
    )  # fmt: skip
    assert used["held_negative"]["value"] == held / good
    assert used["miss"]["value"] == escaped / 8


def test_the_first_line_decides(bright):
    _, run = bright
    told = json.loads((run / "report.json").read_text())
    assert re.match(r"(Use it|Do not use it)\b.* because ", told["summary"][0])
    assert any(line.startswith("What to do next: ") for line in told["summary"][1:3])
    page = (run / "report.html").read_text()
    assert page.index('id="decision"') < page.index('id="verdicts"') < page.index("<details")
    before = page[: page.index("<details")]
    for folded in ("Leaderboard", "Operating point", "Data audit", "Reproduction"):
        assert f"{folded}</h2>" not in before and f"<h2>{folded}</h2>" in page


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_what_decides_fits_two_screens_and_two_printed_pages(bright, tmp_path):
    page = (bright[1] / "report.html").read_text()
    measured, complaints = opened(page, tmp_path, 1280)
    assert 1000 < measured["open_px"] < 2 * 1400
    assert measured["outside"] == [] and measured["overlapping"] == [] and complaints == []
    assert printed_pages(page, tmp_path) == 2
    phone, complaints = opened(page.replace("<details", "<details open"), tmp_path, 390)
    assert phone["wide"] <= phone["room"] == 390
    assert phone["outside"] == [] and phone["overlapping"] == [] and complaints == []


@pytest.fixture(scope="module")
def good_only(shop, tmp_path_factory):
    root = tmp_path_factory.mktemp("good")
    rows = [("good", "train", 14, 0), ("good", "calibration", 12, 0), ("good", "test", 8, 0)]
    data = table(shop, root / "data", rows)
    assert main(["parts", "train", str(data), "--out", str(root / "run"), *FLAGS]) == 0
    return root / "run"


def test_no_number_is_nan_in_any_report(bright, good_only, trained):
    for run in (bright[1], good_only, trained):
        page = (run / "report.html").read_text()
        assert not re.search(r"\bnan\b", words_of(page), re.IGNORECASE), run
    text = words_of((good_only / "report.html").read_text())
    assert "Do not use it yet, because nothing is known about faulty parts" in text


@pytest.mark.adversary("g")
def test_evaluate_of_a_good_only_model_judges_no_promise_that_was_not_made(
    good_only, shop, tmp_path, capsys
):
    new = table(shop, tmp_path / "new", [("good", "", 5, 3), ("spot", "", 6, 3)])
    capsys.readouterr()
    assert main(["parts", "evaluate", str(new), "--model", str(good_only)]) == 0
    out = capsys.readouterr().out
    assert "No promise with a confidence was made about faulty parts" in out
    assert "on average at most" in out.lower()
    assert re.search(r"Escaped: \d of 6 \(.*sided 95 %\) of the faulty parts", out)
    assert re.search(r"Held back: \d of 5 \(.*sided 95 %\) of the good parts", out)
    assert "compatible" not in out and "calibrate again" not in out


@pytest.mark.adversary("c")
def test_escapes_per_million_begin_with_their_upper_bound(bright):
    _, run = bright
    page = words_of((run / "report.html").read_text())
    found = re.search(r"escapes per million shipped\s+(.*)", page).group(1)
    assert re.match(r"at most [\d,]+ \(one-sided|nothing is shipped|[\d,]+ \([\d,]+ to", found)


def study_of(scores):
    """A study of test parts with these (score, label)."""
    outcomes = [
        Outcome(item=f"{i}", groups=(f"{i}",), unit=f"{i}", slices={"kind": "crack"},
                value={"score": score, "label": float(label)})
        for i, (score, label) in enumerate(scores)
    ]  # fmt: skip
    point = operating_point(unit_scores(outcomes), recall=0.9)
    model = SimpleNamespace(operating=SimpleNamespace(point=point))
    return SimpleNamespace(best=SimpleNamespace(model=model, outcomes={"test": outcomes})), point


def test_cases_are_sorted_and_none_missed_is_said():
    scores = [(0.3, 1), (0.1, 1), (0.9, 1), (0.7, 1), (0.2, 0), (0.8, 0), (0.6, 0), (0.4, 0)]
    study, point = study_of(scores)
    point = study.best.model.operating.point = type(point)(
        **{**point.__dict__, "threshold": 0.5, "reject_threshold": 0.7}
    )
    missed, held, found, passed = sorted_cases(study)
    shown = [[o.value["score"] for o in cases.views] for cases in (missed, held, found, passed)]
    assert shown == [[0.1, 0.3], [0.8, 0.6], [0.7, 0.9], [0.4, 0.2]]
    assert missed.verdicts == ["accept"] * 2 and held.verdicts == ["reject", "review"]
    assert missed.title == "Missed: 2 of 4 faulty parts"
    study, _ = study_of([(0.1, 0), (0.2, 0), (0.8, 1), (0.9, 1)])
    missed, held, found, passed = sorted_cases(study)
    assert missed.views == [] and missed.none == "None of the 2 faulty test parts was missed."
    assert held.none == "None of the 2 good test parts was held back."


def study_by_lot(lots_of_test):
    """A study of 60 calibration parts, one a lot, and of test parts of these lots."""
    config = Config(max_escape=0.2, confidence=0.9)

    def parts(lots):
        return [
            Outcome(item=f"{i}", groups=(lot,), unit=f"{i}", slices={"kind": "x", "lot": lot},
                    value={"score": 2.0 * (i % 2) + i / 1000, "label": float(i % 2),
                           "peak": 1.0, "middle": 0.0})
            for i, lot in enumerate(lots)
        ]  # fmt: skip

    outcomes = {"calibration": parts([f"c{i}" for i in range(60)]), "test": parts(lots_of_test)}
    point = operating_point(
        unit_scores(outcomes["calibration"]),
        recall=0.8,
        confidence=0.9,
        words=Words(unit="part", units="parts"),
    )
    model = SimpleNamespace(operating=SimpleNamespace(point=point))
    best = SimpleNamespace(model=model, outcomes=outcomes)
    return SimpleNamespace(best=best, config=config, run=SimpleNamespace(folder="run"))


def test_lots_are_counted_where_each_gives_one_part_and_else_nothing_is_bounded():
    one_each = decision_of(study_by_lot([f"t{i}" for i in range(120)]))
    assert one_each.status == "ok" and "at most" in one_each.sentence
    study = study_by_lot([f"t{i % 4}" for i in range(120)])  # the same scores
    alike = decision_of(study)
    assert alike.status == "warn" and "come from one lot" in alike.sentence
    steps = _next_step(study, alike, serious=False)
    assert "one part of each lot" in steps and "recalibrate" not in steps
