"""Parts and splits: which pictures show the same piece, and which pieces serve which purpose.

The unit of a split is the group (the lot where given, else the part), never the picture: pictures
of one piece resemble each other, and a model that has seen one of them is judged too kindly on
the others.
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lineside.core.contract import ROLES, Split
from lineside.core.errors import UserError
from lineside.parts.data.items import GOOD, PartImage, listed

SHARES: Mapping[str, float] = {
    "train": 0.5, "validation": 0.1, "calibration": 0.2, "test": 0.2,
}  # fmt: skip
FEW_GOOD = ("train", "calibration", "test", "validation")
FEW_FAULTY = ("test", "calibration", "train", "validation")
RARE = 3
"""Kinds with fewer groups than this are shared out together."""


def named_parts(items: Sequence[PartImage], pattern: str) -> list[PartImage]:
    """Return items whose part is what a pattern finds in the file name.

    Args:
        items: The items; a part that a table gave them is replaced.
        pattern: Regular expression; its group ``part``, or else its first group, is the part.
            Empty leaves the items as they are.

    Raises:
        UserError: for an invalid pattern, one without a group, or names that it does not match.
    """
    if not pattern:
        return list(items)
    try:
        compiled = re.compile(pattern, re.DOTALL)  # a name may hold a line break
    except re.error as error:
        raise UserError(f"part_pattern {pattern!r} is invalid: {error}") from error
    if not compiled.groups:
        raise UserError(f"part_pattern {pattern!r} has no group", "put brackets round the part")
    matches = [compiled.search(item.path.name) for item in items]
    group = "part" if "part" in compiled.groupindex else 1
    unmatched = [i.path.name for i, m in zip(items, matches, strict=True) if not m or not m[group]]
    if unmatched:
        raise UserError(
            f"part_pattern {pattern!r} finds no part in {len(unmatched)} of {len(items)} names: "
            f"{listed(unmatched)}",
            "correct the pattern",
        )
    return [dataclasses.replace(i, part=m[group]) for i, m in zip(items, matches, strict=True) if m]


def has_parts(items: Sequence[PartImage]) -> bool:
    """Return whether the data say which pictures show the same piece (part, pattern or lot)."""
    return any(item.groups != (item.id,) for item in items)


def groups_of(items: Sequence[PartImage]) -> dict[str, list[PartImage]]:
    """Return items by group; groups in order of name, items in order of id."""
    groups: dict[str, list[PartImage]] = {}
    for item in sorted(items, key=lambda item: (item.groups, item.id)):
        groups.setdefault(item.groups[0], []).append(item)
    return groups


def kind_of_group(items: Sequence[PartImage]) -> str:
    """Return the most frequent kind of defect of a group, or good if it shows none."""
    kinds = Counter(item.label for item in items if item.faulty)
    return min(kinds, key=lambda kind: (-kinds[kind], kind)) if kinds else GOOD


def split(items: Sequence[PartImage], config: Any) -> Split:
    """Split by group, stratified by kind, the same for any order of the items.

    Prescribed roles are kept. Items without one are shared out over the roles that nobody
    prescribed (over train if all are). If every item has a role, roles that are missing are taken
    out of train, so that a data set of train and test gets calibration without touching test.

    With few groups some roles are empty: good groups fill train first, then calibration, test
    (from 3 groups), validation (from 5); a kind of defect with one or two groups goes, together
    with other such kinds, to test first, then calibration, then train.

    Args:
        items: The items.
        config: Its ``seed`` shuffles the groups.

    Raises:
        UserError: if a group has been given two roles, or there are too few groups with good
            pictures to fit and to calibrate on.
    """
    groups = groups_of(items)
    fixed = _prescribed(groups)
    given = set(fixed.values())
    free = [name for name in groups if name not in fixed]
    missing = [role for role in ROLES if role not in given]
    if not free and "train" in given and missing:
        free = [name for name, role in fixed.items() if role == "train"]
        missing = ["train", *missing]
    chosen = {role: SHARES[role] for role in (missing or ["train"])}
    roles = {**fixed, **_share_out({name: groups[name] for name in free}, chosen, config.seed)}
    items_of: dict[str, Any] = {
        role: tuple(item for name in groups if roles[name] == role for item in groups[name])
        for role in ROLES
    }
    if not given:
        _check_good(groups, items_of)
    return Split(**items_of)


def _check_good(
    groups: Mapping[str, Sequence[PartImage]], items_of: Mapping[str, Sequence[PartImage]]
) -> None:
    """Refuse groups that leave a role without good pictures which no model can do without."""
    lacking = [r for r in ("train", "calibration") if all(item.faulty for item in items_of[r])]
    if not lacking:
        return
    holding = [name for name, items in groups.items() if not all(item.faulty for item in items)]
    lots = any(item.lot for items in groups.values() for item in items)
    unit, source = ("lot", "the column lot") if lots else ("part", "the names of the parts")
    units = f"one {unit}" if len(holding) == 1 else f"{len(holding)} {unit}s"
    raise UserError(
        f"all good pictures are of {units} ({listed(holding)}), and a {unit} is never split: "
        f"none are left for {' and '.join(lacking)}",
        f"give good pictures of at least 3 {unit}s, or leave {source} out",
    )


def _prescribed(groups: Mapping[str, Sequence[PartImage]]) -> dict[str, str]:
    """Return the prescribed role of the groups that have one; one picture's role binds all."""
    found = {name: {i.role for i in items if i.role} for name, items in groups.items()}
    torn = [name for name, roles in found.items() if len(roles) > 1]
    if torn:
        raise UserError(
            f"{len(torn)} parts lie in two split roles: {listed(torn)}",
            "all pictures of a part (or lot) belong to one role",
        )
    return {name: next(iter(roles)) for name, roles in found.items() if roles}


def _share_out(
    groups: Mapping[str, Sequence[PartImage]], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Return the role of every group, each kind in the given proportion."""
    strata: dict[str, list[str]] = {}
    for name, items in groups.items():
        strata.setdefault(kind_of_group(items), []).append(name)
    rare = [kind for kind in strata if kind != GOOD and len(strata[kind]) < RARE]
    for kind in sorted(rare):
        strata.setdefault("", []).extend(strata.pop(kind))
    roles: dict[str, str] = {}
    for kind, names in strata.items():
        rng = np.random.default_rng([seed, zlib.crc32(kind.encode())])
        order = [sorted(names)[i] for i in rng.permutation(len(names))]
        counts = _counts(len(order), shares, FEW_GOOD if kind == GOOD else FEW_FAULTY)
        slots = [role for role, count in counts.items() for _ in range(count)]
        roles.update(zip(order, slots, strict=True))
    return roles


def _counts(n: int, shares: Mapping[str, float], priority: Sequence[str]) -> dict[str, int]:
    """Return how many of n groups each role gets: by largest remainder, few ones by priority."""
    order = [role for role in priority if role in shares]
    if n < min(RARE, len(order)):
        return {role: int(order.index(role) < n) for role in order}
    total = sum(shares.values())
    exact = {role: n * shares[role] / total for role in order}
    counts = {role: int(exact[role] + 1e-9) for role in order}
    by_need = sorted(
        order, key=lambda r: (-round(exact[r] - counts[r], 9), counts[r], order.index(r))
    )
    for role in by_need[: n - sum(counts.values())]:
        counts[role] += 1
    return counts
