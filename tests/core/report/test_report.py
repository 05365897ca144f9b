"""The report: everything escaped, nothing from elsewhere, readable at every width."""

import html
import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from lineside.core.contract import Check, Estimate, Explanation, Figure, Section, Table
from lineside.core.report import plots, render
from lineside.core.report.chapters import leaderboard, training_blocks
from lineside.core.report.headline import Fact

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
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
        Table(title="Wide", columns=wide, rows=((HOSTILE, *wide[1:]),), caption="Caption."),
        plots.lines("Curve", "Falls.", {"a": (x, 1 - x), "b": (x, x)}, x_label="x", y_label="y"),
        plots.histogram("Scores", "Two groups.", {"good": x, "faulty": x + 1}, x_label="s"),
        plots.forest("Forest", "Long.", {"a": RATE, "b": RATE}, x_label="AUROC", marked="b"),
        plots.bars("Bars", "Kinds.", {"crack": RATE}, y_label="recall"),
        Explanation(item="a.png", text="Because.", figures=(picture,), facts={"score": "1.0"}),
        "$ lineside parts train " + "very-long-path/" * 30,
        "a-very-long-word" * 30,
    )
    sections = [Section(title="First chapter", lead="Lead.", blocks=blocks)]
    return render(title="T", kicker="k", summary=["In short."], sections=sections)


def test_text_is_escaped_and_nothing_is_loaded_from_elsewhere(page):
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;") == 3
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
        application=SimpleNamespace(metrics=metrics), methods=methods, chosen="a", best=methods[0]
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
    measured, complaints = opened(page, tmp_path, width_px)
    assert measured["wide"] <= measured["room"] == width_px
    assert complaints == []


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_page_that_is_too_wide_or_broken_is_noticed(page, tmp_path):
    bad = page.replace("</body>", "<p style='width:2000px'>x<script>nothing()</script></body>")
    measured, complaints = opened(bad, tmp_path, 390)
    assert measured["wide"] > measured["room"]
    assert any("nothing is not defined" in line for line in complaints)


def opened(page, folder, width_px):
    """Open a page in a frame of a given width (a window cannot be as narrow as a phone).

    Returns what it measures, and what the browser's console complains of.
    """
    probe = (
        "<script>addEventListener('load', () => { const d = document.documentElement;"
        "parent.postMessage({wide: d.scrollWidth, room: d.clientWidth}, '*') })</script></body>"
    )
    (folder / "report.html").write_text(page.replace("</body>", probe))
    (folder / "frame.html").write_text(
        "<!doctype html><title>-</title><script>addEventListener('message', e => {"
        "document.title = JSON.stringify(e.data) })</script>"
        f"<iframe src='report.html' style='border:0' width='{width_px}' height='3000'></iframe>"
    )
    run = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--hide-scrollbars", "--enable-logging=stderr", "--v=0", "--window-size=1400,900",
            "--virtual-time-budget=5000", f"--user-data-dir={folder}/profile", "--dump-dom",
            (folder / "frame.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    told = html.unescape(re.search(r"<title>(.*?)</title>", run.stdout).group(1))
    return json.loads(told), [line for line in run.stderr.splitlines() if "CONSOLE" in line]
