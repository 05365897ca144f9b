"""Pages of composed music, for a demo and for tests."""

from __future__ import annotations

from pathlib import Path

from lineside.core.run.progress import Progress
from lineside.scores.engraving.page_maker import Settings, compose_scores, find_scores, make_pages


def make_demo(folder: Path, seed: int, songs: int) -> Path:
    """Compose songs, engrave a page of each, and return the folder."""
    scores = folder / "scores"
    compose_scores(scores, songs, seed)
    pages = folder / "pages"
    make_pages(find_scores([scores]), pages, Settings(pages=1, seed=seed), Progress())
    return pages
