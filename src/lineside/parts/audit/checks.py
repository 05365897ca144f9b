"""The audit of a data set of pictures, before anything is trained on it.

Every picture is decoded once (`survey`); the checks work on the numbers kept of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from lineside.core.audit import checks
from lineside.core.audit.label_noise import check_labels
from lineside.core.audit.outliers import check_one_value, check_outliers
from lineside.core.audit.shortcuts import check_drift, check_shortcuts
from lineside.core.contract import Check, Refusal, Status
from lineside.core.errors import UserError
from lineside.core.run.folder import rng_of
from lineside.core.statistics.units import Words
from lineside.parts.audit.same_part import check_same_part
from lineside.parts.audit.survey import ImageStatistics, MaskStatistics, survey
from lineside.parts.config import Config
from lineside.parts.data.grouping import SHARES, groups_of, kind_of_group, split
from lineside.parts.data.items import GOOD, PartImage
from lineside.parts.metrics import WORDS

LEAST_USED_RANGE = 0.25
FEW = 0.05
"""A size that fewer pictures than this share have is odd; many sizes are normal for crops."""
LEAST_SPREAD = {"sharpness": 0.05, "brightness": 0.01, "clipped pixels": 0.01}
"""Standard deviations that matter: log10 units, share of the range, share of the pixels."""
MEASURING_ROLES = ("calibration", "test")
TINY_PX = 9
MUCH_GREY = 0.01


def audit(entries: Sequence[PartImage | Refusal], config: Config) -> list[Check]:
    """Return all checks, in the order in which a person would want to read them.

    Args:
        entries: Items, with refusals in the place of those that could not be read.
        config: Its ``seed`` seeds permutations.
    """
    items = [entry for entry in entries if isinstance(entry, PartImage)]
    surveyed = survey(items)
    by_id = {item.id: item for item in items}
    refused = [e for e in entries if isinstance(e, Refusal) and e.item not in by_id]
    readable = [by_id[image.id] for image in surveyed.images]
    bad = [*refused, *surveyed.refusals]
    balance = checks.check_class_balance(
        [item.label for item in items],
        [item.groups[0] for item in items],
        normal=GOOD,
        shares=_faulty_shares(items, config),
        words=_group_words(items),
    )
    everything = [_unreadable(len(items) + len(refused), bad), balance]
    if not readable:
        return everything
    return [*everything, *_check_readable(readable, surveyed.images, config.seed)]


def _check_readable(
    items: Sequence[PartImage], images: Sequence[ImageStatistics], seed: int
) -> list[Check]:
    """Return the checks of pictures that can be decoded."""
    ids, faulty = [item.id for item in items], [item.faulty for item in items]
    groups, roles = [item.groups[0] for item in items], [item.role for item in items]
    names = ("file size", "width", "height", "brightness")
    cheap = [[image.file_bytes, image.width, image.height, image.brightness] for image in images]
    described = np.stack([image.features for image in images])
    return [
        *_copies(ids, ([item.label for item in items], groups, roles), images),
        check_same_part(items),
        checks.check_leakage(ids, groups, roles, words=_group_words(items)),
        checks.check_mixed_labels(ids, [item.part for item in items], faulty, words=WORDS),
        *check_masks(items, images),
        check_labels(ids, described, faulty, groups, rng_of(seed, "label doubts"), words=WORDS),
        check_shortcuts(cheap, names, faulty, groups, rng_of(seed, "shortcuts")),
        _raters(items),
        *_storage(images),
        _health(images),
        *_drift(items, images, seed),
    ]


def _group_words(items: Sequence[PartImage]) -> Words:
    lots = any(item.lot for item in items)
    return dataclasses.replace(WORDS, unit="lot", units="lots") if lots else WORDS


def _unreadable(number: int, bad: Sequence[Refusal]) -> Check:
    return Check(
        name="unreadable files",
        status="fail" if bad else "ok",
        count=len(bad),
        evidence=f"{len(bad)} of {number} pictures cannot be used: {bad[0].message}"
        if bad
        else f"{number} pictures were decoded to the last byte",
        hint="fix or remove them; they are left out" if bad else "",
        items=tuple(refusal.item for refusal in bad[: checks.MOST_ITEMS]),
    )


def _faulty_shares(items: Sequence[PartImage], config: Config) -> dict[str, float]:
    """Return the share of the faulty groups that each measuring role will get by this split."""
    try:
        roles = split(items, config)
    except UserError:
        return {role: SHARES[role] for role in MEASURING_ROLES}
    counts = {}
    for role in MEASURING_ROLES:
        groups = groups_of(roles.role(role)).values()
        counts[role] = sum(kind_of_group(group) != GOOD for group in groups)
    total = len({item.groups[0] for item in items if item.faulty})
    return {role: count / max(1, total) for role, count in counts.items()}


def _copies(
    ids: Sequence[str],
    columns: tuple[Sequence[str], Sequence[str], Sequence[str]],
    images: Sequence[ImageStatistics],
) -> list[Check]:
    """Look for copied files and for equal pixels; the columns are label, group and role."""
    hashes = [image.file_sha256 for image in images]
    files = checks.check_copies(ids, hashes, *columns, name="copied files")
    hashes = [image.content_sha256 for image in images]
    content = checks.check_copies(ids, hashes, *columns, name="identical pictures")
    # Copied files are identical pictures too: say it once.
    return [content] if files.count == content.count == 0 else [files, content]


def _raters(items: Sequence[PartImage]) -> Check:
    """Compare raters with each other and with the label, unless that is one rater's own."""
    names = sorted({name for item in items for name in item.raters})
    ratings = {name: [item.raters.get(name, "") for item in items] for name in names}
    if len(names) == 1:
        ratings = {"the label": [item.label for item in items], **ratings}
    return checks.check_rater_agreement(
        [item.id for item in items],
        ratings,
        [item.groups[0] for item in items],
    )


def _storage(images: Sequence[ImageStatistics]) -> list[Check]:
    """Check that all pictures are stored alike, and that they use their range of values."""
    ids = [image.id for image in images]
    modes = check_one_value(
        "storage of the pictures",
        [
            f"{image.mode} {image.bits}-bit, {image.channels} channel{'s' * (image.channels > 1)}"
            for image in images
        ],
        ids,
        hint="export all pictures in the same way: another storage may mean another camera",
    )
    return [modes, _sizes(images), _range(images)]


def _sizes(images: Sequence[ImageStatistics]) -> Check:
    sizes = [f"{image.width}x{image.height}" for image in images]
    usual = max(sizes.count(size) for size in set(sizes)) if len(set(sizes)) < 20 else 0
    status: Status = "warn" if 1 - FEW < usual / len(sizes) < 1 else "info"
    return check_one_value(
        "size of the pictures",
        sizes,
        [image.id for image in images],
        status=status,
        hint="a few pictures of another size may come from another setting of the camera"
        if status == "warn"
        else "sizes differ: pictures are judged unscaled, maps are as large as the picture",
    )


def _range(images: Sequence[ImageStatistics]) -> Check:
    """Check that the values fill the range that the file format offers."""
    used = np.array([image.used for image in images])
    bits = max(image.bits for image in images)
    typical = float(np.median(used))
    low = [images[i].id for i in np.argsort(used, kind="stable") if used[i] < LEAST_USED_RANGE]
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


def _health(images: Sequence[ImageStatistics]) -> Check:
    return check_outliers(
        "acquisition health",
        {
            "sharpness": [image.sharpness for image in images],
            "brightness": [image.brightness for image in images],
            "clipped pixels": [image.clipped for image in images],
        },
        [image.id for image in images],
        smallest=LEAST_SPREAD,
        hint="check focus, light and exposure of these; no model makes up for a bad picture",
    )


def _drift(items: Sequence[PartImage], images: Sequence[ImageStatistics], seed: int) -> list[Check]:
    """Compare good pictures of prescribed training and test data; nothing if none are."""
    pairs = [(i, image) for i, image in zip(items, images, strict=True) if not i.faulty]
    sides = [[pair for pair in pairs if pair[0].role == role] for role in ("train", "test")]
    if not all(sides):
        return []
    names = ("brightness", "contrast", "sharpness", "width", "height")
    old, new = ([[getattr(image, name) for name in names] for _, image in side] for side in sides)
    old_groups, new_groups = ([item.groups[0] for item, _ in side] for side in sides)
    rng, name = rng_of(seed, "drift"), "drift from train to test"
    return [check_drift(old, new, names, old_groups, new_groups, rng, name=name)]


# ---- masks


def check_masks(items: Sequence[PartImage], images: Sequence[ImageStatistics]) -> list[Check]:
    """Check the defect masks: one check that all is well, or one per finding."""
    masks = [
        (i, image.mask) for i, image in zip(items, images, strict=True) if image.mask is not None
    ]
    faulty = [item for item in items if item.faulty]
    if not faulty:
        return []
    without = [item.id for item in faulty if not item.mask and not item.boxes]
    if len(without) == len(faulty) and not masks:
        evidence = f"none of {len(faulty)} pictures of defects has a mask or boxes"
        hint = "without them the place of a defect cannot be checked"
        return [Check(name="masks", status="unknown", evidence=evidence, hint=hint)]
    findings = [
        *_mask_contents(masks),
        *_check_if_any(
            "unusable boxes", "fail", [i.id for i in items if not all(b.usable for b in i.boxes)],
            "pictures have boxes with coordinates that are not numbers",
            "correct the annotation; until then only the label counts",
        ),
        *_check_if_any(
            "boxes on good pictures", "warn", [i.id for i in items if not i.faulty and i.boxes],
            "good pictures carry boxes", "correct the label or the boxes",
        ),
        *_check_if_any(
            "defects without a mask", "info", without,
            f"of {len(faulty)} pictures of defects have neither mask nor boxes",
            "they count for the label only",
        ),
    ]  # fmt: skip
    evidence = f"{len(faulty) - len(without)} defects have a usable mask"
    return findings or [Check(name="masks", status="ok", evidence=evidence)]


def _check_if_any(
    name: str, status: Status, ids: Sequence[str], what: str, hint: str
) -> list[Check]:
    if not ids:
        return []
    return [
        Check(
            name=name,
            status=status,
            count=len(ids),
            evidence=f"{len(ids)} {what}",
            hint=hint,
            items=tuple(ids[: checks.MOST_ITEMS]),
        )
    ]


def _mask_contents(masks: Sequence[tuple[PartImage, MaskStatistics]]) -> list[Check]:
    wrong = [(item.id, mask.error) for item, mask in masks if mask.error]
    usable = [(item, mask) for item, mask in masks if not mask.error]
    of_defects = [(item.id, mask) for item, mask in usable if item.faulty]
    empty = [(name, mask) for name, mask in of_defects if mask.area_px == 0]
    faint = sum(0 < mask.largest <= 127 for _, mask in empty)
    return [
        *_check_if_any(
            "unusable masks", "fail", [name for name, _ in wrong],
            f"masks cannot be used: {wrong[0][1]}" if wrong else "",
            "a mask is a picture of the same size, 0 and 255; until then only the label counts",
        ),
        *_check_if_any(
            "inverted masks", "fail", [name for name, mask in of_defects if mask.inverted],
            "masks are white on most of the picture", 
            "white is the defect: invert them; until then only the label counts",
        ),
        *_check_if_any(
            "empty masks on defects", "warn", [name for name, _ in empty],
            f"of {len(of_defects)} masks of defects have no pixel over 127"
            + (f"; {faint} hold small values such as 0 and 1" if faint else ""),
            "save masks as 0 and 255" if faint else "paint the defect, or correct the label",
        ),
        *_check_if_any(
            "defects where nothing counts", "warn", [n for n, mask in of_defects if mask.ignored],
            "defects lie in the ignored region, and their pictures are labelled as defects",
            "label these good, or ignore less",
        ),
        *_check_if_any(
            "masks on good pictures", "warn",
            [item.id for item, mask in usable if not item.faulty and mask.area_px],
            "good pictures have a mask that is not empty", "correct the label or the mask",
        ),
        *_check_if_any(
            "grey edges of masks", "info",
            [name for name, mask in of_defects if mask.grey > MUCH_GREY],
            "masks hold values between black and white (lossy storage, smoothing); over 127 counts",
            "save masks as PNG with 0 and 255",
        ),
        *_check_if_any(
            "specks as masks", "info",
            [name for name, mask in of_defects if 0 < mask.area_px < TINY_PX],
            f"masks of defects are smaller than {TINY_PX} pixels in all",
            "is the mask finished? so few pixels cannot be located well",
        ),
    ]  # fmt: skip
