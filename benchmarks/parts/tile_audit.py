"""Does the audit find the tiles' parts from pictures alone?"""

from __future__ import annotations

import time
from itertools import combinations

import numpy as np

from benchmarks.parts import tiles as tile
from benchmarks.results import Say, plain
from lineside.core.contract import Estimate
from lineside.parts.audit.duplicates import find_same_part

UNRESOLVED_PARTS = ("199", "12")
"""Parts of the reference that hold several tiles which nobody has told apart: not counted."""


def audit_pairs(say: Say) -> None:
    """Recall and precision of same-part pairs, against the column ``piece`` (one tile each)."""
    pictures = [example.image for example in tile.examples()]
    start = time.perf_counter()
    found = find_same_part(pictures, rng=np.random.default_rng(0))
    seconds = time.perf_counter() - start
    counted = [i for i, item in enumerate(tile.items()) if item.part not in UNRESOLVED_PARTS]
    truth = _pairs([tile.items()[i].slices["piece"] for i in counted])
    proposed = _pairs([str(found.groups[i]) for i in counted])
    hits = len(truth & proposed)
    say("audit_pair_recall", _share(hits, len(truth)))
    say("audit_pair_precision", _share(hits, len(proposed)))
    say("audit_seconds", plain(seconds, "s", len(pictures), "lower"))


def _share(hits: int, pairs: int) -> Estimate:
    reason = "pairs of one part are not independent"
    return plain(hits / max(1, pairs), "fraction", pairs, reason=reason)


def _pairs(groups: list[str]) -> set[tuple[int, int]]:
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    return {pair for indices in members.values() for pair in combinations(indices, 2)}
