"""The record of `scores` that core works with."""

from pathlib import Path

from lineside.core.contract import Application
from lineside.scores.audit.checks import audit
from lineside.scores.config import Config
from lineside.scores.data.dataset import read, sources, split
from lineside.scores.methods import methods
from lineside.scores.metrics import METRICS
from lineside.scores.model import load, probe
from lineside.scores.outcomes import calibrate, outcomes
from lineside.scores.report.chapters import numbers, sections, summary


def demo(folder: Path, seed: int, *, songs: int = 30) -> Path:
    """Compose songs, engrave a page of each, and return the folder of the pages."""
    from lineside.scores.simulation.demo import make_demo

    return make_demo(folder, seed, songs)


APPLICATION = Application(
    name="scores",
    config=Config,
    metrics=METRICS,
    read=read,
    sources=sources,
    audit=audit,
    split=split,
    methods=methods,
    outcomes=outcomes,
    independent_groups=True,
    load=load,
    probe=probe,
    calibrate=calibrate,
    columns=f"{'symbols':>7} {'noteheads':>9} {'staff space':>11}  page",
    summary=summary,
    sections=sections,
    numbers=numbers,
    demo=demo,
)
"""What ``lineside scores`` runs."""
