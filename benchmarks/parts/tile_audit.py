"""Does the audit find the tiles' parts from pictures alone?"""

from __future__ import annotations

import time
from itertools import combinations

import numpy as np

from benchmarks.parts import tiles as tile
from benchmarks.results import Say, plain
from lineside.core.contract import Estimate
from lineside.parts.audit.duplicates import find_same_part

MERGED_GROUPS = ("199", "12")
"""Groups of the reference that are known to hold several tiles: left out of all counts."""
MERGED_PARTS = ("122", "133", "182", "192")
"""Parts of the reference that hold 2 or 3 tiles each, found by this search and confirmed by eye:
their surfaces differ plainly. Left out of the numbers named ``_checked``."""


def audit_pairs(say: Say) -> None:
    """Recall and precision of same-part pairs, against the column ``part``."""
    pictures = [example.image for example in tile.examples()]
    start = time.perf_counter()
    found = find_same_part(pictures, rng=np.random.default_rng(0))
    seconds = time.perf_counter() - start
    known = [item.slices["group"] not in MERGED_GROUPS for item in tile.items()]
    checked = [k and i.part not in MERGED_PARTS for k, i in zip(known, tile.items(), strict=True)]
    for kept, suffix in ((known, ""), (checked, "_checked")):
        chosen = np.flatnonzero(kept)
        truth = _pairs([tile.items()[i].part for i in chosen])
        proposed = _pairs([str(found.groups[i]) for i in chosen])
        hits = len(truth & proposed)
        say(f"audit_pair_recall{suffix}", _share(hits, len(truth)))
        say(f"audit_pair_precision{suffix}", _share(hits, len(proposed)))
    say("audit_seconds", plain(seconds, "s", len(pictures), "lower"))


def _share(hits: int, pairs: int) -> Estimate:
    reason = "pairs of one part are not independent"
    return plain(hits / max(1, pairs), "fraction", pairs, reason=reason)


def _pairs(groups: list[str]) -> set[tuple[int, int]]:
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    return {pair for indices in members.values() for pair in combinations(indices, 2)}
