"""Does the audit find the tiles' parts from pictures alone?"""

from __future__ import annotations

import time
from itertools import combinations

import numpy as np

from benchmarks import tile
from benchmarks.results import Say, plain
from lineside.core.measures import proportion
from lineside.parts.duplicates import find_same_part

MERGED_GROUPS = ("199", "12")
"""Groups of the reference that hold several tiles: left out of the counts."""


def audit_pairs(say: Say) -> None:
    """Recall and precision of same-part pairs, against the column ``part``."""
    kept = [item for item in tile.items() if item.slices["group"] not in MERGED_GROUPS]
    pictures = {example.id: example for example in tile.examples()}
    start = time.perf_counter()
    found = find_same_part([pictures[i.id].image for i in kept], rng=np.random.default_rng(0))
    seconds = time.perf_counter() - start
    truth = _pairs([item.part for item in kept])
    proposed = _pairs([str(group) for group in found.groups])
    hits = len(truth & proposed)
    say("audit_pair_recall", proportion(hits, len(truth)))
    say("audit_pair_precision", proportion(hits, max(1, len(proposed))))
    say("audit_seconds", plain(seconds, "s", len(kept), "lower"))


def _pairs(groups: list[str]) -> set[tuple[int, int]]:
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    return {pair for indices in members.values() for pair in combinations(indices, 2)}
