"""The report: everything escaped, nothing from elsewhere, readable at every width."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from tests.browser import CHROMIUM, opened

from lineside.core.contract import (
    Check,
    Estimate,
    Explanation,
    Figure,
    Outcome,
    Section,
    Table,
)
from lineside.core.report import plots, render
from lineside.core.report.chapters import leaderboard, training_blocks
from lineside.core.report.decision import decide, decision_facts, decision_section, next_steps
from lineside.core.report.headline import Fact
from lineside.core.statistics.costs import Prices
from lineside.core.statistics.operating_points import operating_point
from lineside.core.statistics.units import Words, unit_scores

RATE = Estimate(value=0.8, low=0.6, high=0.9, n=12)
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def page():
    x = np.linspace(0.0, 1.0, 20)
    picture = Figure(title="Picture", image=b"\x89PNG", caption="A picture.")
    wide = tuple(f"a rather long column title {i}" for i in range(14))
    blocks = (
        HOSTILE,
        Check(name="copies", status="warn", evidence=HOSTILE, hint="look"),
        Table(
            title="Wide",
            columns=wide,
            rows=((HOSTILE, *wide[1:]),),
            caption="Caption.",
            marked=(0,),
        ),
        plots.lines("Curve", "Falls.", {"a": (x, 1 - x), "b": (x, x)}, x_label="x", y_label="y"),
        plots.histogram("Scores", "Two groups.", {"good": x, "faulty": x + 1}, x_label="s"),
        plots.forest("Forest", "Long.", {"a": RATE, "b": RATE}, x_label="AUROC", marked="b"),
        plots.bars("Bars", "Kinds.", {"crack": RATE}, y_label="recall"),
        Explanation(item="a.png", text="Because.", figures=(picture,), facts={"score": "1.0"}),
        "$ lineside parts train " + "very-long-path/" * 30,
        "a-very-long-word" * 30,
    )
    folded = tuple(b for b in blocks if b != HOSTILE)
    sections = [
        Section(title="Folded chapter", lead="Also.", blocks=folded, folded=True),
        Section(title="First chapter", lead="Lead.", blocks=blocks),
    ]
    sections += [Section(title=f"A longer title of chapter {i}", folded=True) for i in range(12)]
    facts = [Fact(label="a fact " * 4, value="0 of 24", note="note " * 9, anchor="first-chapter")]
    return render(title="T", kicker="k", summary=["In short."], sections=sections, facts=facts * 7)


def test_text_is_escaped_and_nothing_is_loaded_from_elsewhere(page):
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;") == 5
    named = re.sub(r'xmlns(:\w+)?="[^"]*"|"http://www.w3.org/[^"]*"', "", page)
    assert not re.findall(r"(?:https?:)?//[a-z]", named)
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', named)


def test_every_picture_has_words_and_every_chapter_a_link(page):
    assert page.count("<img") == len(re.findall(r'<img [^>]*alt="[^"]+"', page))
    assert page.count("<svg") == page.count('role="img"')
    assert 'href="#first-chapter"' in page
    assert 'id="first-chapter"' in page


def test_a_metric_that_no_method_has_is_no_column():
    nothing = Estimate(value=float("nan"))
    metrics = [SimpleNamespace(name=name, better="higher") for name in ("auroc", "recall", "none")]
    methods = [
        SimpleNamespace(
            name=name, kind="deep", differences={}, fit_seconds=1.0,
            outcomes={"calibration": [], "test": []},
            estimates={"auroc": nothing, "recall": recall, "none": nothing},
        )
        for name, recall in (("a", nothing), ("b", RATE))
    ]  # fmt: skip
    study = SimpleNamespace(
        application=SimpleNamespace(metrics=metrics),
        methods=methods,
        chosen="a",
        best=methods[0],
        failures=(),
    )
    table = leaderboard(study).blocks[0]
    titles = ("method", "kind", "AUROC", "recall")
    assert table.columns[:5] == (*titles, "difference to predicting")
    assert {len(row) for row in table.rows} == {len(table.columns)}


def test_facts_link_to_their_chapters():
    fact = Fact(label=HOSTILE, value="0.9", note="n", anchor="first-chapter", status="warn")
    page = render(title="T", kicker="", summary=[], sections=[], facts=[fact])
    assert HOSTILE not in page
    assert '<li class="warn"><a href="#first-chapter">' in page


def test_flags_in_the_summary_stay_whole_and_all_else_is_escaped():
    line = f"{HOSTILE} --model a (--max-escape 0.2); a--b"
    page = render(title="T", kicker="", summary=[line], sections=[])
    assert HOSTILE not in page and "a--b" in page
    assert re.findall(r'<span class="flag">(.*?)</span>', page) == ["--model", "--max-escape"]


def test_folded_chapters_come_last_and_are_closed(page):
    assert page.index("<section") < page.index('<details id="folded-chapter">')
    assert "<details open" not in page and page.count("<details") == 13
    assert 'href="#folded-chapter"' in page
    assert "<tr class=marked>" in page


# ---- the decision

WORDS = Words(positive="faulty", negative="good", unit="part", units="parts")


def units(good, faulty, unusual=()):
    scored = [(s, 0.0) for s in good] + [(s, 1.0) for s in faulty]
    return unit_scores(
        [
            Outcome(item=f"{i:04}", groups=(f"{i:04}",), unit=f"{i:04}", slices={"kind": "crack"},
                    value={"score": s, "label": label, "usual": float(i not in unusual)})
            for i, (s, label) in enumerate(scored)
        ]
    )  # fmt: skip


def decided(test, calibration=None, **prices):
    calibration = calibration or units(np.linspace(0, 1, 40), np.linspace(2, 3, 60))
    point = operating_point(calibration, recall=0.95, words=WORDS)
    prices = {"prevalence": 0.005, "miss": 100, "review": 0.2, **prices}
    return decide(calibration, test, point, Prices(**prices))


@pytest.mark.adversary("b")
def test_a_model_that_costs_no_less_than_none_is_not_to_be_used():
    """All good parts rejected: 0.995 a part, or a look at each, as without a model."""
    found = decided(units(np.full(40, 2.5), np.full(24, 2.5)))
    assert found.status == "fail"
    assert found.sentence.startswith("Do not use it, because it costs no less than no model")
    for number in ("0.995", "0.200", "0.500"):
        assert number in found.sentence
    facts = decision_facts(found)
    assert (facts[0].value, facts[0].status) == ("do not use it", "fail")
    assert [fact.value for fact in facts[1:]] == ["0 of 24", "40 of 40"]


@pytest.mark.adversary("b")
def test_a_model_that_is_cheaper_beyond_its_bound_is_to_be_used():
    found = decided(units(np.linspace(0, 1, 80), np.full(60, 2.5)))
    assert (found.status, found.sentence[:6]) == ("ok", "Use it")
    assert found.policies["as decided"].cost == 0.0
    assert 0 < found.policies["as decided"].high < 0.2


@pytest.mark.adversary("b")
def test_too_few_parts_to_tell_say_how_many_would():
    few = decided(units(np.linspace(0, 1, 80), np.full(4, 2.5)))
    assert few.status == "warn"
    assert few.sentence.startswith("Do not use it yet, because 4 faulty and 80 good")
    (step,) = next_steps(few)
    more = int(step.split("label about ")[1].split()[0])
    assert decided(units(np.linspace(0, 1, 80), np.full(4 + more, 2.5))).status == "ok"


@pytest.mark.adversary("b")
def test_a_suspended_guarantee_takes_the_bounds_of_the_cost_with_it():
    test, calibration = (
        units(np.linspace(0, 1, 80), np.full(60, 2.5)),
        units([0.0, 1.0], [2.0] * 60),
    )
    point = operating_point(calibration, recall=0.95, words=WORDS).suspend(
        "parts of a lot are alike"
    )
    found = decide(calibration, test, point, Prices(prevalence=0.005, miss=100, review=0.2))
    assert found.status == "warn"
    assert found.sentence.startswith(
        "Do not use it yet, because its guarantee is suspended (parts of"
    )
    assert next_steps(found) == []


@pytest.mark.adversary("b")
def test_without_a_class_nothing_is_known_and_said_so():
    for test, word in ((units([0.1, 0.2], []), "missed"), (units([], [2.5, 2.6]), "held back")):
        found = decided(test)
        assert found.status == "fail" and found.sentence.startswith("Do not use it yet")
        assert f"are {word}" in found.sentence and found.policies == {}
        page = render(title="T", kicker="", summary=[found.sentence, *next_steps(found)],
                      sections=[decision_section(found)], facts=decision_facts(found))  # fmt: skip
        assert "nan" not in page.lower()


@pytest.mark.adversary("b")
def test_the_table_of_thresholds_marks_the_one_in_use_and_a_cheaper_one_is_named():
    """Three odd faulty parts look like good ones: at the lowest score everything is held back."""
    calibration = units(np.linspace(0, 1, 60), [0.1, 0.2, 0.3, *np.linspace(2, 3, 57)])
    test = units(np.linspace(0, 1, 60), [0.15, *np.linspace(2, 3, 59)])
    found = decided(test, calibration)
    table = decision_section(found).blocks[-1]
    (used,) = table.marked
    assert "in use" in table.rows[used][0] and sum("in use" in row[0] for row in table.rows) == 1
    assert table.rows[used][1].startswith("0 of 60 (at most")
    assert table.rows[used][2].endswith(" %)") and " % to " in table.rows[used][2]
    assert "two-sided (95 %), one-sided where none or all" in table.caption
    steps = " ".join(next_steps(found))
    assert "accept that 1.7 % of 60 faulty parts escape (at most " in steps
    assert "for 0.0 % of 60 good ones held back" in steps


def test_later_rows_of_a_step_replace_earlier_ones_and_warnings_are_told():
    rows = [{"step": i, "loss": 9.0} for i in range(3)]
    rows += [{"step": i, "loss": 1.0 / (i + 1)} for i in range(3)]
    healthy = training_blocks("net", rows)
    assert healthy[0].status == "ok"
    ill = training_blocks("net", [*rows, {"step": 2, "warning": "dead", "text": "layer 4 is dead"}])
    assert (ill[0].status, ill[0].evidence) == ("warn", "layer 4 is dead")
    assert training_blocks("net", []) == []


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("width_px", [390, 800, 1280])
def test_no_sideways_scrolling_and_no_complaint_in_a_real_browser(page, tmp_path, width_px):
    for shown in (page, page.replace("<details", "<details open")):
        measured, complaints = opened(shown, tmp_path, width_px)
        assert measured["wide"] <= measured["room"] == width_px
        assert measured["outside"] == [] and measured["overlapping"] == []
        assert complaints == []


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_page_that_is_too_wide_or_broken_is_noticed(page, tmp_path):
    bad = page.replace("</body>", "<p style='width:2000px'>x<script>nothing()</script></body>")
    measured, complaints = opened(bad, tmp_path, 390)
    assert measured["wide"] > measured["room"]
    assert measured["outside"] == ["P"]
    assert any("nothing is not defined" in line for line in complaints)
    bad = page.replace("</body>", "<p>x<p style='margin-top:-3rem'>y</body>")
    measured, _ = opened(bad, tmp_path, 390)
    assert measured["overlapping"] == ["P P"]
