"""Generic checks of the audit: class balance, copies, leakage, mixed groups, rater agreement.

All take plain sequences with one entry per item and return one `Check`. A check without data to
judge returns ``unknown``, never ``ok``. Rare values are checked in `outliers`; checks that fit a
model are in `shortcuts` and `label_noise`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from lineside.core.contract import Check, Status
from lineside.core.statistics.agreement import cohen_kappa
from lineside.core.statistics.proportions import wilson
from lineside.core.statistics.units import NEUTRAL, Words

MOST_ITEMS = 50
LARGEST_RATIO = 10.0
LARGEST_WIDTH = 0.1
NOMINAL_RECALL = 0.9
KAPPA_GOOD = 0.6
"""Landis & Koch (1977) call a kappa above 0.6 substantial."""


def check_class_balance(
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    normal: str,
    shares: Mapping[str, float],
    words: Words = NEUTRAL,
) -> Check:
    """Count classes, and state how precisely the positives of each role can measure a recall.

    Args:
        labels: Label by item; everything but `normal` is positive.
        groups: The independent unit by item.
        normal: The label of the negative class.
        shares: Share of the positive units that each measuring role gets, e.g. ``{"test": 0.2}``.
        words: The application's words for groups.
    """
    positive = {g for g, label in zip(groups, labels, strict=True) if label != normal}
    negative = set(groups) - positive
    counts = Counter(labels)
    text = ", ".join(f"{label} {count}" for label, count in counts.most_common())
    if not positive:
        return Check(
            name="class balance",
            status="info",
            evidence=f"{text}: nothing but {normal} in {len(negative)} {words.units}",
            hint="without positives no recall can be measured or guaranteed",
        )
    ratio = max(len(positive), len(negative)) / max(1, min(len(positive), len(negative)))
    expected = {role: round(len(positive) * share) for role, share in shares.items()}
    widths = {role: _recall_width(n) for role, n in expected.items()}
    precision = "; ".join(
        f"about {expected[role]} {words.positive} in {role}, a recall of {NOMINAL_RECALL} would be "
        f"known within an interval {width:.2f} wide"
        for role, width in widths.items()
    )
    wide = max(widths.values(), default=0.0) > LARGEST_WIDTH
    return Check(
        name="class balance",
        status="warn" if ratio > LARGEST_RATIO or wide else "ok",
        count=len(positive),
        evidence=f"{text}; {len(negative)} {words.units} are {normal}, {len(positive)} "
        f"{words.positive} (1 : {ratio:.1f}); {precision}",
        hint="collect more of the rare class; recall is limited by its number" if wide else "",
    )


def _recall_width(n: int) -> float:
    if n == 0:
        return 1.0
    low, high = wilson(round(n * NOMINAL_RECALL), n)
    return high - low


def check_copies(
    ids: Sequence[str],
    digests: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str],
    roles: Sequence[str],
    *,
    name: str = "exact copies",
) -> Check:
    """Find items with the same digest, contradictory labels among them, copies across roles.

    Copies within one group count once for statistics anyway: they are worth a note only.
    """
    sets = [indices for indices in members_of(digests) if len(indices) > 1]
    contradictory = [s for s in sets if len({labels[i] for i in s}) > 1]
    across_roles = [s for s in sets if len({roles[i] for i in s if roles[i]}) > 1]
    across_groups = [s for s in sets if len({groups[i] for i in s}) > 1]
    extra = sum(len(indices) - 1 for indices in sets)
    if not sets:
        return Check(name=name, status="ok", evidence=f"{len(ids)} items, all different")
    failed = contradictory or across_roles
    status: Status = "fail" if failed else "warn" if across_groups else "info"
    return Check(
        name=name,
        status=status,
        count=extra,
        evidence=f"{extra} of {len(ids)} items are copies of others ({len(sets)} sets); "
        f"{len(contradictory)} sets carry different labels, {len(across_roles)} lie in two split "
        f"roles, {len(across_groups)} in two groups",
        hint="decide on one label, then remove the copies"
        if contradictory
        else "remove the copies",
        items=_ids_of(ids, [*contradictory, *across_roles, *across_groups, *sets]),
    )


def check_leakage(
    ids: Sequence[str], groups: Sequence[str], roles: Sequence[str], *, words: Words = NEUTRAL
) -> Check:
    """Find groups on both sides of a prescribed split."""
    name = "leakage between split roles"
    if len({role for role in roles if role}) < 2:
        return Check(
            name=name,
            status="info",
            evidence="the data prescribe no split; it is made by group, so none can leak",
        )
    shared = [
        indices
        for indices in members_of(groups)
        if len({roles[i] for i in indices if roles[i]}) > 1
    ]
    if shared:
        return Check(
            name=name,
            status="fail",
            count=len(shared),
            evidence=f"{len(shared)} {words.units} lie in more than one split role",
            hint="keep all items of a group in one role",
            items=_ids_of(ids, shared),
        )
    known = len(set(groups)) < len(groups)
    return Check(
        name=name,
        status="ok" if known else "unknown",
        evidence=f"no {words.units} lie in two roles"
        if known
        else "groups are unknown, so leaks between them cannot be found",
        hint="" if known else "name the group of each item",
    )


def check_mixed_labels(
    ids: Sequence[str],
    groups: Sequence[str],
    positive: Sequence[bool],
    *,
    words: Words = NEUTRAL,
) -> Check:
    """Find groups that hold positive and negative items."""
    name = f"mixed {words.units}"
    members = members_of(groups)
    mixed = [m for m in members if len({positive[i] for i in m}) > 1]
    several = sum(len(m) > 1 for m in members)
    if not several:
        evidence = f"all {words.units} consist of one item"
        return Check(name=name, status="unknown", evidence=evidence)
    return Check(
        name=name,
        status="warn" if mixed else "ok",
        count=len(mixed),
        evidence=f"{len(mixed)} of {several} {words.units} with several items hold "
        f"{words.positive} and {words.negative} ones",
        hint="true if the defect shows in some views only; else correct label or group"
        if mixed
        else "",
        items=_ids_of(ids, mixed),
    )


def check_rater_agreement(
    ids: Sequence[str],
    ratings: Mapping[str, Sequence[str]],
    groups: Sequence[str],
) -> Check:
    """Return Cohen's kappa of every pair of raters, and the items that they disagree on.

    Args:
        ids: Item ids.
        ratings: Labels by rater, ``""`` where a rater gave none.
        groups: The independent unit by item; the interval is a jackknife over them.
    """
    name = "rater agreement"
    texts, disputed, values = [], Counter[int](), []
    for a, b in combinations(ratings, 2):
        both = [i for i in range(len(ids)) if ratings[a][i] and ratings[b][i]]
        if not both:
            continue
        first, second = [ratings[a][i] for i in both], [ratings[b][i] for i in both]
        kappa = cohen_kappa(first, second, groups=[groups[i] for i in both])
        interval = "" if kappa.low is None else f" ({kappa.low:.2f} to {kappa.high:.2f})"
        texts.append(f"{a} and {b}: kappa {kappa.value:.2f}{interval} on {len(both)} items")
        values.append(kappa.value)
        disputed.update(i for i, x, y in zip(both, first, second, strict=True) if x != y)
    if not texts:
        return Check(
            name=name,
            status="unknown",
            evidence="no item was judged by two people",
            hint="let a second person label some items: labels limit every model",
        )
    low = min((value for value in values if not np.isnan(value)), default=1.0)
    return Check(
        name=name,
        status="warn" if low < KAPPA_GOOD else "info",
        count=len(disputed),
        evidence="; ".join(texts) + f"; {len(disputed)} items are disputed",
        hint="discuss the disputed items and write down what counts as a defect"
        if disputed
        else "",
        items=tuple(ids[i] for i, _ in disputed.most_common(MOST_ITEMS)),
    )


def members_of(groups: Sequence[str]) -> list[list[int]]:
    """Return the indices of every group, groups in order of appearance."""
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    return list(members.values())


def _ids_of(ids: Sequence[str], sets: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """Return the ids of sets of items, each once, in the order given."""
    return tuple(dict.fromkeys(ids[i] for indices in sets for i in indices))[:MOST_ITEMS]
