"""Figures of a fit: they come back as they were, cost the fit nothing, and never end a run."""

import dataclasses
import time
from types import SimpleNamespace

import pytest

from lineside.core.contract import Figure
from lineside.core.report.chapters import features
from lineside.core.report.figures import Onlooker, draw_figures, load_figures, save_figures
from lineside.core.report.headline import _learned
from lineside.core.report.render import render
from lineside.core.run.folder import Run, Stopped

FIGURE = Figure(title="a", image=b"\x00\xff", mime="image/png", caption="b", wide=True)


@pytest.fixture
def run(tmp_path):
    run = Run.begin(tmp_path / "run", {}, 0)
    yield run
    run.close("finished")


def chapter(run, seconds=10.0):
    study = SimpleNamespace(run=run, methods=[SimpleNamespace(name="m", fit_seconds=seconds)])
    return features(study)


def test_lines_and_figures_come_back_in_order(tmp_path):
    save_figures(tmp_path, "m", ["first", FIGURE])
    assert load_figures(tmp_path, "m") == ["first", FIGURE]


def test_the_chapter_says_what_its_figures_cost_and_the_fit_does_not_pay(run):
    def draw():
        time.sleep(0.05)
        return [FIGURE, "said"]

    draw_figures(run, "m", draw, Onlooker(seconds=1.0))
    assert 0.05 <= run.shared_seconds < 0.5  # what looking took before is in the fit's time
    (section,) = chapter(run)
    assert section.blocks[0].title == "m: a" and section.blocks[1] == "m: said"
    assert "took 1." in section.blocks[2] and "of the fit's 10.0 s" in section.blocks[2]
    assert "11%" in section.blocks[2] or "10%" in section.blocks[2]


def test_what_a_figure_calls_suspicious_is_open_and_comes_before_it(run):
    advice = "Look for x. Suspicious: marks pile up."
    fired = "SUSPICIOUS: 0.25 less on unseen; by heart. SUSPICIOUS: most at the border. " + advice
    save_figures(run.folder, "m", [FIGURE, dataclasses.replace(FIGURE, caption=fired), advice])
    (opened, folded) = chapter(run)
    assert [(check.name, check.status, check.evidence) for check in opened.blocks] == [
        ("m: a", "warn", "0.25 less on unseen; by heart"),
        ("m: a", "warn", "most at the border"),
    ]
    page = render(title="t", kicker="", summary=[], sections=[folded, opened])
    assert page.index("by heart") < page.index("<details") and folded.folded
    study = SimpleNamespace(run=run, methods=[SimpleNamespace(name="m", fit_seconds=10.0)])
    (fact,) = _learned(study)
    assert fact.status == "warn" and f'<section id="{fact.anchor}"' in page
    save_figures(run.folder, "m", [FIGURE, advice])
    assert [section.title for section in chapter(run)] == ["What was learned"]
    assert _learned(study) == []


def test_an_error_is_one_line_of_the_chapter(run):
    def draw():
        raise RuntimeError("several\nlines")

    draw_figures(run, "m", draw)
    assert chapter(run)[0].blocks[0] == (
        "m: What it learned could not be shown (RuntimeError: several lines)."
    )


def test_what_failed_during_the_fit_is_not_drawn(run):
    onlooker = Onlooker()
    with onlooker.looking():
        raise KeyError("cell")
    draw_figures(run, "m", lambda: [FIGURE], onlooker)
    assert load_figures(run.folder, "m") == [
        "What it learned could not be shown (KeyError: 'cell')."
    ]


def test_a_stop_is_no_error_of_the_figures(run):
    def draw():
        raise Stopped

    with pytest.raises(Stopped):
        draw_figures(run, "m", draw)


def test_a_run_without_figures_has_no_chapter(run):
    assert chapter(run) == []
