"""The audit's generic checks: counts, copies, leaks, contradictions, disagreement of raters.

All take plain sequences with one entry per item and answer with one `Check`. A check that has
nothing to look at says ``unknown``, never ``ok``. Odd values are found in `oddities`, checks that
fit a small model are in `doubts` and `label_doubts`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from lineside.core.contract import Check, Status
from lineside.core.statistics import cohen_kappa, wilson

MOST_ITEMS = 50
LARGEST_RATIO = 10.0
LARGEST_WIDTH = 0.1
NOMINAL_RECALL = 0.9
KAPPA_GOOD = 0.6
"""Landis & Koch (1977) call a kappa above 0.6 substantial."""


def class_balance(
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    normal: str,
    shares: Mapping[str, float],
    unit: str = "units",
    word: str = "positive",
) -> Check:
    """Count classes, and say how well the recall can be known from the positives of each role.

    Args:
        labels: Label by item; everything but `normal` is positive.
        groups: The independent unit by item.
        normal: The label of the negative class.
        shares: Share of the positive units that each measuring role gets, e.g. ``{"test": 0.2}``.
        unit: What a group is called.
        word: What the positive class is called.
    """
    positive = {g for g, label in zip(groups, labels, strict=True) if label != normal}
    negative = set(groups) - positive
    counts = Counter(labels)
    text = ", ".join(f"{label} {count}" for label, count in counts.most_common())
    if not positive:
        return Check(
            name="class balance",
            status="info",
            evidence=f"{text}: nothing but {normal} in {len(negative)} {unit}",
            hint="without positives no recall can be measured or promised",
        )
    ratio = max(len(positive), len(negative)) / max(1, min(len(positive), len(negative)))
    expected = {role: round(len(positive) * share) for role, share in shares.items()}
    widths = {role: _recall_width(n) for role, n in expected.items()}
    tells = "; ".join(
        f"about {expected[role]} {word} in {role}, a recall of {NOMINAL_RECALL} would be known "
        f"within an interval {width:.2f} wide"
        for role, width in widths.items()
    )
    wide = max(widths.values(), default=0.0) > LARGEST_WIDTH
    return Check(
        name="class balance",
        status="warn" if ratio > LARGEST_RATIO or wide else "ok",
        count=len(positive),
        evidence=f"{text}; {len(negative)} {unit} are {normal}, {len(positive)} {word} "
        f"(1 : {ratio:.1f}); {tells}",
        hint="collect more of the rare class; recall is limited by its number" if wide else "",
    )


def _recall_width(n: int) -> float:
    if n == 0:
        return 1.0
    low, high = wilson(round(n * NOMINAL_RECALL), n)
    return high - low


def copies(
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
    same = [places for places in _places(digests).values() if len(places) > 1]
    torn = [p for p in same if len({labels[i] for i in p}) > 1]
    across = [p for p in same if len({roles[i] for i in p if roles[i]}) > 1]
    apart = [p for p in same if len({groups[i] for i in p}) > 1]
    extra = sum(len(places) - 1 for places in same)
    if not same:
        return Check(name=name, status="ok", evidence=f"{len(ids)} items, all different")
    status: Status = "fail" if torn or across else "warn" if apart else "info"
    return Check(
        name=name,
        status=status,
        count=extra,
        evidence=f"{extra} of {len(ids)} items are copies of others ({len(same)} sets); "
        f"{len(torn)} sets carry different labels, {len(across)} lie in two split roles, "
        f"{len(apart)} in two groups",
        hint="remove the copies" if not torn else "decide on one label, then remove the copies",
        items=_listed(ids, [*torn, *across, *apart, *same]),
    )


def leakage(
    ids: Sequence[str], groups: Sequence[str], roles: Sequence[str], *, unit: str = "units"
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
        places
        for places in _places(groups).values()
        if len({roles[i] for i in places if roles[i]}) > 1
    ]
    if shared:
        return Check(
            name=name,
            status="fail",
            count=len(shared),
            evidence=f"{len(shared)} {unit} lie in more than one split role",
            hint="keep all items of a group in one role",
            items=_listed(ids, shared),
        )
    known = len(set(groups)) < len(groups)
    return Check(
        name=name,
        status="ok" if known else "unknown",
        evidence=f"no {unit} lie in two roles"
        if known
        else f"nothing says which items belong together, so leaks between {unit} cannot be seen",
        hint="" if known else "name the group of each item",
    )


def mixed_labels(
    ids: Sequence[str],
    groups: Sequence[str],
    positive: Sequence[bool],
    *,
    unit: str = "units",
    words: tuple[str, str] = ("positive", "negative"),
) -> Check:
    """Find groups that hold positive and negative items, which `words` name."""
    places = _places(groups).values()
    mixed = [p for p in places if len({positive[i] for i in p}) > 1]
    several = sum(len(p) > 1 for p in places)
    if not several:
        return Check(
            name=f"mixed {unit}", status="unknown", evidence=f"all {unit} consist of one item"
        )
    return Check(
        name=f"mixed {unit}",
        status="warn" if mixed else "ok",
        count=len(mixed),
        evidence=f"{len(mixed)} of {several} {unit} with several items hold {words[0]} "
        f"and {words[1]} ones",
        hint="true if the defect shows in some views only; else correct label or group"
        if mixed
        else "",
        items=_listed(ids, mixed),
    )


def agreement(
    ids: Sequence[str],
    ratings: Mapping[str, Sequence[str]],
    groups: Sequence[str],
    rng: np.random.Generator,
) -> Check:
    """Return Cohen's kappa of every pair of raters, and the items that they disagree on.

    Args:
        ids: Item ids.
        ratings: Labels by rater, ``""`` where a rater did not look.
        groups: The independent unit by item; the interval is a bootstrap over them.
        rng: Random stream of the bootstrap.
    """
    name = "rater agreement"
    texts, disputed, values = [], Counter[int](), []
    for a, b in combinations(ratings, 2):
        both = [i for i in range(len(ids)) if ratings[a][i] and ratings[b][i]]
        if not both:
            continue
        first, second = [ratings[a][i] for i in both], [ratings[b][i] for i in both]
        kappa = cohen_kappa(first, second, groups=[groups[i] for i in both], rng=rng)
        interval = "" if kappa.low is None else f" ({kappa.low:.2f} to {kappa.high:.2f})"
        texts.append(f"{a} and {b}: kappa {kappa.value:.2f}{interval} on {len(both)} items")
        values.append(kappa.value)
        disputed.update(i for i, x, y in zip(both, first, second, strict=True) if x != y)
    if not texts:
        return Check(
            name=name,
            status="unknown",
            evidence="no item was judged by two people",
            hint="let a second person label some items: no model can be surer than the labels",
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


def _places(keys: Sequence[str]) -> dict[str, list[int]]:
    places: defaultdict[str, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        places[key].append(i)
    return dict(places)


def _listed(ids: Sequence[str], sets: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """Return the ids of sets of items, each once, in the order given."""
    return tuple(dict.fromkeys(ids[i] for places in sets for i in places))[:MOST_ITEMS]
