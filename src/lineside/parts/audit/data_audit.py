"""Look for what spoils a data set of pictures, before anything is trained on it.

Every picture is decoded once (`survey`); the checks work on what was kept of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lineside.core.audit import checks
from lineside.core.audit.label_noise import check_labels
from lineside.core.audit.outliers import check_one_value, check_outliers
from lineside.core.audit.shortcuts import check_drift, check_shortcuts
from lineside.core.contract import Check, Refusal, Status
from lineside.core.errors import UserError
from lineside.parts.audit.mask_checks import mask_checks
from lineside.parts.audit.same_part import check_same_part, propose_parts
from lineside.parts.audit.survey import Look, survey
from lineside.parts.data.dataset import read
from lineside.parts.data.grouping import SHARES, kind_of_group, split
from lineside.parts.data.items import GOOD, PartImage

__all__ = ["audit", "propose_parts"]

LEAST_USED_RANGE = 0.25
FEW = 0.05
"""A size that fewer pictures than this share have is odd; many sizes are normal for crops."""
LEAST_SPREAD = {"sharpness": 0.05, "brightness": 0.01, "clipped pixels": 0.01}
"""Standard deviations that matter: log10 units, share of the range, share of the pixels."""
MEASURING_ROLES = ("calibration", "test")


def audit(data: Path | Sequence[PartImage | Refusal], config: Any) -> list[Check]:
    """Return all checks, in the order in which a person would want to read them.

    Args:
        data: A folder or table, or items that have been read, with refusals in the place of
            those that could not be.
        config: Its ``seed`` seeds permutations and bootstraps; ``part_pattern`` as in `read`.

    Raises:
        UserError: if the data cannot be read at all.
    """
    entries = read(data, config) if isinstance(data, str | Path) else tuple(data)
    items = [entry for entry in entries if isinstance(entry, PartImage)]
    refused = [entry for entry in entries if isinstance(entry, Refusal)]
    found = survey(items)
    known = {item.id: item for item in items}
    readable = [known[look.id] for look in found.looks]
    everything = [_unreadable(len(entries), [*refused, *found.refusals]), _balance(items, config)]
    if not readable:
        return everything
    return [
        *everything,
        *_copies(readable, found.looks),
        check_same_part(readable),
        _leakage(readable),
        checks.check_mixed_labels(
            [i.id for i in readable],
            [i.part for i in readable],
            [i.faulty for i in readable],
            unit="parts",
            words=("faulty", GOOD),
        ),
        *mask_checks(readable, found.looks),
        _label_noise(readable, found.looks, config.seed),
        _shortcuts(readable, found.looks, config.seed),
        _raters(readable, config.seed),
        *_storage(found.looks),
        _health(found.looks),
        *_drift(readable, found.looks, config.seed),
    ]


def _rng(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _unit(items: Sequence[PartImage]) -> str:
    return "lots" if any(item.lot for item in items) else "parts"


def _unreadable(number: int, bad: Sequence[Refusal]) -> Check:
    return Check(
        name="unreadable files",
        status="fail" if bad else "ok",
        count=len(bad),
        evidence=f"{len(bad)} of {number} pictures cannot be used: {bad[0].message}"
        if bad
        else f"{number} pictures were decoded to the last byte",
        hint="mend or remove them; they are left out" if bad else "",
        items=tuple(refusal.item for refusal in bad[: checks.MOST_ITEMS]),
    )


def _balance(items: Sequence[PartImage], config: Any) -> Check:
    """Say how many faulty parts there are, and how many each measuring role will get."""
    return checks.check_class_balance(
        [item.label for item in items],
        [item.groups[0] for item in items],
        normal=GOOD,
        shares=_faulty_shares(items, config),
        unit=_unit(items),
        word="faulty",
    )


def _faulty_shares(items: Sequence[PartImage], config: Any) -> dict[str, float]:
    """Return the share of the faulty groups that each measuring role gets by this split."""
    try:
        divided = split(items, config)
    except UserError:
        return {role: SHARES[role] for role in MEASURING_ROLES}
    counts = {}
    for role in MEASURING_ROLES:
        groups: dict[str, list[PartImage]] = {}
        for item in divided.role(role):
            groups.setdefault(item.groups[0], []).append(item)
        counts[role] = sum(kind_of_group(group) != GOOD for group in groups.values())
    total = len({item.groups[0] for item in items if item.faulty})
    return {role: count / max(1, total) for role, count in counts.items()}


def _copies(items: Sequence[PartImage], looks: Sequence[Look]) -> list[Check]:
    columns = (
        [i.label for i in items],
        [i.groups[0] for i in items],
        [i.role for i in items],
    )
    ids = [item.id for item in items]
    files = checks.check_copies(ids, [k.file_sha256 for k in looks], *columns, name="copied files")
    content = checks.check_copies(
        ids, [k.content_sha256 for k in looks], *columns, name="identical pictures"
    )
    # Copied files are identical pictures too: say it once.
    return [content] if files.count == content.count == 0 else [files, content]


def _leakage(items: Sequence[PartImage]) -> Check:
    return checks.check_leakage(
        [i.id for i in items],
        [i.groups[0] for i in items],
        [i.role for i in items],
        unit=_unit(items),
    )


def _label_noise(items: Sequence[PartImage], looks: Sequence[Look], seed: int) -> Check:
    return check_labels(
        [item.id for item in items],
        np.stack([look.features for look in looks]),
        [item.faulty for item in items],
        [item.groups[0] for item in items],
        _rng(seed, "label doubts"),
        names=(GOOD, "faulty"),
    )


def _shortcuts(items: Sequence[PartImage], looks: Sequence[Look], seed: int) -> Check:
    names = ("file size", "width", "height", "brightness")
    features = [[k.file_bytes, k.width, k.height, k.brightness] for k in looks]
    return check_shortcuts(
        features,
        names,
        [item.faulty for item in items],
        [item.groups[0] for item in items],
        _rng(seed, "shortcuts"),
    )


def _raters(items: Sequence[PartImage], seed: int) -> Check:
    """Compare raters with each other and with the label, unless that is one rater's own."""
    names = sorted({name for item in items for name in item.raters})
    ratings = {name: [item.raters.get(name, "") for item in items] for name in names}
    if len(names) == 1:
        ratings = {"the label": [item.label for item in items], **ratings}
    return checks.check_rater_agreement(
        [item.id for item in items],
        ratings,
        [item.groups[0] for item in items],
        _rng(seed, "raters"),
    )


def _storage(looks: Sequence[Look]) -> list[Check]:
    """Check that all pictures are stored alike, and that they use their range of values."""
    ids = [look.id for look in looks]
    modes = check_one_value(
        "storage of the pictures",
        [f"{k.mode} {k.bits}-bit, {k.channels} channel{'s' * (k.channels > 1)}" for k in looks],
        ids,
        hint="export all pictures in the same way: another storage may mean another camera",
    )
    return [modes, _sizes(looks), _range(looks)]


def _sizes(looks: Sequence[Look]) -> Check:
    sizes = [f"{look.width}x{look.height}" for look in looks]
    usual = max(sizes.count(size) for size in set(sizes)) if len(set(sizes)) < 20 else 0
    status: Status = "warn" if 1 - FEW < usual / len(sizes) < 1 else "info"
    return check_one_value(
        "size of the pictures",
        sizes,
        [look.id for look in looks],
        status=status,
        hint="a few pictures of another size may come from another setting of the camera"
        if status == "warn"
        else "sizes differ: pictures are judged unscaled, maps are as large as the picture",
    )


def _range(looks: Sequence[Look]) -> Check:
    """Check that the values fill the range that the file format offers."""
    used = np.array([look.used for look in looks])
    bits = max(look.bits for look in looks)
    typical = float(np.median(used))
    low = [looks[i].id for i in np.argsort(used, kind="stable") if used[i] < LEAST_USED_RANGE]
    thin = typical < LEAST_USED_RANGE
    return Check(
        name="use of the value range",
        status="warn" if thin else "info" if low else "ok",
        count=len(low),
        evidence=f"the typical picture uses {typical:.0%} of its {bits}-bit range; "
        f"{len(low)} pictures use less than {LEAST_USED_RANGE:.0%}",
        hint="raise exposure or gain, or export a 12-bit camera shifted to 16 bits" if thin else "",
        items=tuple(low[: checks.MOST_ITEMS]),
    )


def _health(looks: Sequence[Look]) -> Check:
    return check_outliers(
        "acquisition health",
        {
            "sharpness": [k.sharpness for k in looks],
            "brightness": [k.brightness for k in looks],
            "clipped pixels": [k.clipped for k in looks],
        },
        [look.id for look in looks],
        smallest=LEAST_SPREAD,
        hint="check focus, light and exposure of these; no model mends a bad picture",
    )


def _drift(items: Sequence[PartImage], looks: Sequence[Look], seed: int) -> list[Check]:
    """Compare good pictures of prescribed training and test data; nothing if none are."""
    sides = {
        role: [(i, k) for i, k in zip(items, looks, strict=True) if i.role == role and not i.faulty]
        for role in ("train", "test")
    }
    if not all(sides.values()):
        return []
    names = ("brightness", "contrast", "sharpness", "width", "height")
    features = {
        role: [[k.brightness, k.contrast, k.sharpness, k.width, k.height] for _, k in side]
        for role, side in sides.items()
    }
    return [
        check_drift(
            features["train"],
            features["test"],
            names,
            [i.groups[0] for i, _ in sides["train"]],
            [i.groups[0] for i, _ in sides["test"]],
            _rng(seed, "drift"),
            name="drift from train to test",
        )
    ]
