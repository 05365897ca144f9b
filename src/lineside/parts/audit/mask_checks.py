"""Checks of defect masks: size, emptiness, grey edges, specks, and which defects have none."""

from __future__ import annotations

from collections.abc import Sequence

from lineside.core.audit.checks import MOST_ITEMS
from lineside.core.contract import Check, Status
from lineside.parts.audit.survey import Look, MaskLook
from lineside.parts.data.items import PartImage

TINY_PX = 9
MUCH_GREY = 0.01


def mask_checks(items: Sequence[PartImage], looks: Sequence[Look]) -> list[Check]:
    """Return what is wrong with masks: one check that all is well, or one per finding."""
    masks = [(i, k.mask) for i, k in zip(items, looks, strict=True) if k.mask is not None]
    located = [item for item in items if item.faulty and (item.mask or item.boxes)]
    faulty = [item for item in items if item.faulty]
    if not faulty:
        return []
    without = [item.id for item in faulty if not item.mask and not item.boxes]
    if not located:
        return [
            Check(
                name="masks",
                status="unknown",
                evidence=f"none of {len(faulty)} pictures of defects has a mask or boxes",
                hint="without them the place of a defect cannot be checked",
            )
        ]
    found = [
        *_files(masks),
        *_contents(masks),
        *_finding(
            "boxes on good pictures", "warn", [i.id for i in items if not i.faulty and i.boxes],
            "good pictures carry boxes", "correct the label or the boxes",
        ),
        *_finding(
            "defects without a mask", "info", without,
            f"of {len(faulty)} pictures of defects have neither mask nor boxes",
            "they count for the label only",
        ),
    ]  # fmt: skip
    if found:
        return found
    return [Check(name="masks", status="ok", evidence=f"{len(located)} defects have a usable mask")]


def _finding(name: str, status: Status, ids: Sequence[str], what: str, hint: str) -> list[Check]:
    if not ids:
        return []
    return [
        Check(
            name=name,
            status=status,
            count=len(ids),
            evidence=f"{len(ids)} {what}",
            hint=hint,
            items=tuple(ids[:MOST_ITEMS]),
        )
    ]


def _files(masks: Sequence[tuple[PartImage, MaskLook]]) -> list[Check]:
    wrong = [(item.id, mask.error) for item, mask in masks if mask.error]
    return _finding(
        "unusable masks",
        "fail",
        [name for name, _ in wrong],
        f"masks cannot be used: {wrong[0][1]}" if wrong else "",
        "a mask is a picture of the same size",
    )


def _contents(masks: Sequence[tuple[PartImage, MaskLook]]) -> list[Check]:
    usable = [(item, mask) for item, mask in masks if not mask.error]
    on_defects = [(item.id, mask) for item, mask in usable if item.faulty]
    empty = [(name, mask) for name, mask in on_defects if mask.area_px == 0]
    faint = sum(0 < mask.largest <= 127 for _, mask in empty)
    return [
        *_finding(
            "empty masks on defects", "warn", [name for name, _ in empty],
            f"of {len(on_defects)} masks of defects have no pixel over 127"
            + (f"; {faint} hold small values such as 0 and 1" if faint else ""),
            "save masks as 0 and 255" if faint else "paint the defect, or correct the label",
        ),
        *_finding(
            "masks on good pictures", "warn",
            [item.id for item, mask in usable if not item.faulty and mask.area_px],
            "good pictures have a mask that is not empty", "correct the label or the mask",
        ),
        *_finding(
            "grey edges of masks", "info",
            [name for name, mask in on_defects if mask.grey > MUCH_GREY],
            "masks hold values between black and white (lossy storage, smoothing); over 127 counts",
            "save masks as PNG with 0 and 255",
        ),
        *_finding(
            "specks as masks", "info",
            [name for name, mask in on_defects if 0 < mask.area_px < TINY_PX],
            f"masks of defects are smaller than {TINY_PX} pixels in all",
            "is the mask finished? so few pixels cannot be located well",
        ),
    ]  # fmt: skip
