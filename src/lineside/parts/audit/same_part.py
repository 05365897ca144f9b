"""Pictures of the same part, found from the pictures alone and compared with the named parts.

The search itself is `duplicates.find_same_part`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from lineside.core.audit.checks import MOST_ITEMS
from lineside.core.contract import Check
from lineside.parts.audit.duplicates import Duplicates, find_same_part
from lineside.parts.audit.survey import survey
from lineside.parts.data.grouping import has_parts
from lineside.parts.data.images import file_state, visible
from lineside.parts.data.items import PartImage

MOST_PICTURES = 6000
"""The search compares all pairs: 6000 pictures take some six minutes on one core."""
FOUND_PREFIX = "like "
"""A part that was found is named after its first picture: ``like good/017.png``."""

_LAST: dict[tuple[object, ...], Duplicates] = {}
"""The last search: reading and the audit ask for the same one."""


def propose_parts(items: Sequence[PartImage]) -> tuple[PartImage, ...]:
    """Return items with the parts that were found where the data name none.

    Items that come with parts, lots or a pattern are returned as they are, as are more pictures
    than can be searched. A found part never spans two prescribed roles: it is one part per role,
    and the audit reports it.

    Args:
        items: The items; unreadable ones stay alone.
    """
    decoded = {image.id for image in survey(items).images}
    readable = sorted((item for item in items if item.id in decoded), key=lambda item: item.id)
    if has_parts(items) or not 2 <= len(readable) <= MOST_PICTURES:
        return tuple(items)
    duplicates = _search(readable)
    sizes = np.bincount(duplicates.groups)
    first: dict[tuple[int, str], str] = {}
    parts: dict[str, str] = {}
    for item, group in zip(readable, duplicates.groups, strict=True):
        if sizes[group] > 1:
            parts[item.id] = FOUND_PREFIX + first.setdefault((group, item.role), item.id)
    return tuple(dataclasses.replace(item, part=parts.get(item.id, item.part)) for item in items)


def check_same_part(items: Sequence[PartImage]) -> Check:
    """Report pictures of different named parts that show the same piece, or the parts found.

    Args:
        items: The items that can be decoded.
    """
    name = "pictures of the same part"
    if not 2 <= len(items) <= MOST_PICTURES:
        return Check(
            name=name,
            status="unknown",
            evidence=f"{len(items)} pictures were not compared with each other "
            f"(2 to {MOST_PICTURES} are)",
            hint="name the parts in a table, or by part_pattern",
        )
    items = sorted(items, key=lambda item: item.id)
    duplicates = _search(items)
    named = any(i.groups[0] != i.id and not i.part.startswith(FOUND_PREFIX) for i in items)
    return _check_named(name, items, duplicates) if named else _check_found(name, items, duplicates)


def _check_found(name: str, items: Sequence[PartImage], duplicates: Duplicates) -> Check:
    """Report found parts where the data name none."""
    members = _members(duplicates.groups)
    several = [indices for indices in members if len(indices) > 1]
    leaking = [indices for indices in several if len({items[i].role for i in indices} - {""}) > 1]
    if not several:
        return Check(
            name=name,
            status="ok",
            evidence=f"no two of {len(items)} pictures show the same part; {duplicates.method}",
        )
    count = sum(len(indices) for indices in several)
    return Check(
        name=name,
        status="fail" if leaking else "warn",
        count=len(several),
        evidence=f"{count} of {len(items)} pictures show a part again: {len(members)} parts in "
        f"all, {len(leaking)} of them in two prescribed split roles; {duplicates.method}",
        hint="make the split by part"
        if leaking
        else "they are kept together; name the parts in a table to be sure",
        items=_listed(items, [*leaking, *several]),
    )


def _check_named(name: str, items: Sequence[PartImage], duplicates: Duplicates) -> Check:
    """Report found pairs that lie in different named groups."""
    across = [
        (pair.first, pair.second)
        for pair in duplicates.pairs
        if items[pair.first].groups[0] != items[pair.second].groups[0]
    ]
    roles = [{items[i].role, items[j].role} - {""} for i, j in across]
    leaking = sum(len(both) > 1 for both in roles)
    names = {frozenset((items[i].groups[0], items[j].groups[0])) for i, j in across}
    share = _recovered_share(items, duplicates)
    recovered = (
        "" if np.isnan(share) else f"the search finds {share:.0%} of the pairs that the data name; "
    )
    evidence = (
        f"{len(across)} pairs of pictures from different groups look like one part "
        f"({len(names)} pairs of groups), {leaking} across split roles; "
        f"{recovered}{duplicates.method}"
    )
    return Check(
        name=name,
        status="fail" if leaking else "warn" if across else "ok",
        count=len(names),
        evidence=evidence,
        hint="is it one part under two names? then give it one" if across else "",
        items=_listed(items, across),
    )


def _recovered_share(items: Sequence[PartImage], duplicates: Duplicates) -> float:
    """Return the share of pairs in one named group that lie in one found group, NaN if none."""
    by_name: dict[str, list[int]] = {}
    for item, group in zip(items, duplicates.groups, strict=True):
        by_name.setdefault(item.groups[0], []).append(group)
    pairs = sum(math.comb(len(groups), 2) for groups in by_name.values())
    together = sum(math.comb(n, 2) for groups in by_name.values() for n in np.bincount(groups))
    return together / pairs if pairs else float("nan")


def _members(groups: Sequence[int]) -> list[list[int]]:
    members: dict[int, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    return list(members.values())


def _listed(items: Sequence[PartImage], sets: Sequence[Sequence[int]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items[i].id for indices in sets for i in indices))[:MOST_ITEMS]


def _search(items: Sequence[PartImage]) -> Duplicates:
    """Search with a seed that is not that of a run, so that all runs find the same parts."""
    key = tuple((file_state(item.path), item.ignore) for item in items)
    if key not in _LAST:
        _LAST.clear()
        loaders = [partial(visible, item) for item in items]
        _LAST[key] = find_same_part(loaders, rng=np.random.default_rng([0, 1]))
    return _LAST[key]
