"""The audit of engraved pages before anything is trained on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lineside.core.audit.checks import check_copies
from lineside.core.contract import Check, Refusal
from lineside.core.errors import UserError
from lineside.core.run.files import sha256_of_file
from lineside.scores.config import Config
from lineside.scores.data.dataset import PageItem, split
from lineside.scores.engraving.page import read_page

RARE = 30
"""Symbols of a class below which it is learned from pasted glyphs only."""


def audit(entries: Sequence[PageItem | Refusal], config: Config) -> list[Check]:
    """Return all checks, in the order in which a person would want to read them."""
    items = [entry for entry in entries if isinstance(entry, PageItem)]
    refused = [entry for entry in entries if isinstance(entry, Refusal)]
    counts: Counter[str] = Counter()
    damaged: list[str] = [refusal.item for refusal in refused]
    unknown = 0
    for item in items:
        try:
            page = read_page(item.truth)
        except (UserError, OSError, ValueError, KeyError, TypeError):
            damaged.append(item.id)
            continue
        counts.update(symbol.name for symbol in page.symbols)
        unknown += page.unknown
    checks = [_unreadable(len(entries), damaged), _balance(counts)]
    checks.append(_unnamed(unknown, sum(counts.values())))
    hashes = [sha256_of_file(item.source.path) for item in items]
    roles = {item.id: role for role, item in split(items, config).rows()}
    checks.append(
        check_copies(
            [item.id for item in items], hashes, [item.label for item in items],
            [item.groups[0] for item in items], [roles[item.id] for item in items],
        )
    )  # fmt: skip
    return checks


def _unreadable(total: int, damaged: Sequence[str]) -> Check:
    return Check(
        name="unreadable pages", status="fail" if damaged else "ok", count=len(damaged),
        evidence=f"{len(damaged)} of {total} pages or their symbols cannot be read",
        hint="make them again" if damaged else "", items=tuple(damaged),
    )  # fmt: skip


def _balance(counts: Counter[str]) -> Check:
    rare = sorted(name for name, number in counts.items() if number < RARE)
    common = ", ".join(f"{name} {number}" for name, number in counts.most_common(3))
    return Check(
        name="class imbalance", status="warn" if rare else "ok", count=len(rare),
        evidence=(
            f"{sum(counts.values())} symbols of {len(counts)} classes; most are {common}; "
            f"{len(rare)} classes have fewer than {RARE}"
        ),
        hint="rare classes are pasted into training pages; add songs that use them" if rare else "",
        items=tuple(rare),
    )  # fmt: skip


def _unnamed(unknown: int, total: int) -> Check:
    return Check(
        name="glyphs without a name", status="warn" if unknown else "ok", count=unknown,
        evidence=f"{unknown} glyphs were drawn but not named, beside {total} symbols",
        hint="they count as background" if unknown else "",
    )  # fmt: skip
