"""Read a folder of pictures: its sub-folders say what is good, and which kind of defect.

Understood are ``good/`` beside ``defect/`` or ``defect/KIND/`` or folders named after the kinds;
``train/good test/KIND ground_truth/KIND`` (roles prescribed); and pictures with COCO, VOC or YOLO
annotations. ok, normal, nok, bad and the like are known. A mask is a PNG of the same name beside
a picture of another format, ``NAME_mask.png`` beside it, or either name in ``masks/`` or
``ground_truth/``.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lineside.core.errors import UserError
from lineside.parts.data.annotations import find_boxes, kind_of
from lineside.parts.data.images import SUFFIXES, tell_unread, unread
from lineside.parts.data.items import (
    DEFECT,
    DEFECT_WORDS,
    GOOD,
    GOOD_WORDS,
    NO_LABEL,
    ROLE_WORDS,
    Box,
    PartImage,
    listed,
    plain,
)

MASK_FOLDERS = frozenset(
    (
        "mask", "masks", "ground_truth", "groundtruth", "gt", "labels", "annotation",
        "annotations", "segmentation", "segmentations", "segmentationclass",
    )
)  # fmt: skip
NEUTRAL_FOLDERS = frozenset(("image", "images", "img", "imgs", "jpegimages", "pictures", "data"))
MASK_ENDING = re.compile(r"[_\-. ](mask|gt|seg|segmentation)$", re.IGNORECASE)
EXPECTED = "expected good/ and defect/KIND/, or annotations, or a table parts.csv: path,label"


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a picture lies: the folders that mean something, the role, whether it is a mask."""

    path: Path
    id: str
    folders: tuple[str, ...]
    role: str
    mask: bool

    @property
    def stem(self) -> str:
        name = MASK_ENDING.sub("", self.path.stem) if self.mask else self.path.stem
        return unicodedata.normalize("NFC", name).casefold()


def read_folder(root: Path) -> list[PartImage]:
    """Return one item per picture, masks attached.

    Raises:
        UserError: if it cannot be read, holds no pictures, or does not say which are good.
    """
    files = _files(root)
    places = _places(root, [path for path in files if path.suffix.lower() in SUFFIXES])
    tell_unread(root, unread(path.name for path in files))
    pictures = [place for place in places if not place.mask]
    if not pictures:
        raise UserError(f"{root} holds no pictures", f"known endings: {', '.join(SUFFIXES)}")
    others = [path for path in files if path.suffix.lower() not in SUFFIXES]
    boxes = find_boxes([place.path for place in pictures], others)
    labels = _labels(root, pictures, boxes)
    masks = _masks(pictures, [place for place in places if place.mask], labels)
    return [
        PartImage(
            id=place.id,
            path=place.path,
            label=labels[place.path],
            part=place.id,
            mask=masks.get(place.path),
            boxes=boxes.get(place.path, ()),
            role=place.role,
        )
        for place in pictures
    ]


def _files(root: Path) -> list[Path]:
    """Return all files below a folder, sorted, but hidden ones; links are followed once."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}", "check permissions")

    found, seen = [], set()
    for folder, below, names in os.walk(root, onerror=refuse, followlinks=True):
        here = os.path.realpath(folder)
        if here in seen:
            below.clear()
            continue
        seen.add(here)
        below[:] = sorted(name for name in below if not name.startswith((".", "__")))
        found += [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
    return found


def _places(root: Path, paths: Sequence[Path]) -> list[_Place]:
    # the endings that exist for each name (without ending) in each folder
    endings: dict[tuple[Path, str], set[str]] = {}
    for path in paths:
        endings.setdefault((path.parent, path.stem), set()).add(path.suffix.lower())
    places = []
    for path in paths:
        base = MASK_ENDING.sub("", path.stem)
        named = base != path.stem and (path.parent, base) in endings
        twin = path.suffix.lower() == ".png" and len(endings[path.parent, path.stem]) > 1
        places.append(_place(root, path, named or twin))
    return _without_prefix(_without_common(root, places))


def _place(root: Path, path: Path, beside: bool) -> _Place:
    relative = path.relative_to(root)
    folders = [plain(name) for name in relative.parts[:-1]]
    mask = beside or any(name in MASK_FOLDERS for name in folders)
    telling = [name for name in folders if name not in MASK_FOLDERS | NEUTRAL_FOLDERS]
    roles = [name for name in telling if name in ROLE_WORDS]
    if roles:
        telling.remove(roles[0])
    return _Place(
        path=path, id=relative.as_posix(), folders=tuple(telling), mask=mask,
        role=ROLE_WORDS[roles[0]] if roles else "",
    )  # fmt: skip


def _without_common(root: Path, places: Sequence[_Place]) -> list[_Place]:
    """Drop leading folders that all pictures share and that say nothing.

    Raises:
        UserError: if several data sets lie side by side.
    """
    places = list(places)
    while places:
        first = {place.folders[0] if len(place.folders) > 1 else "" for place in places}
        name = first.pop()
        if first or not name or name in GOOD_WORDS | DEFECT_WORDS:
            break
        places = [replace(place, folders=place.folders[1:]) for place in places]
    nested = {
        place.folders[0]
        for place in places
        if place.folders[0:1] and place.folders[0] not in GOOD_WORDS | DEFECT_WORDS
        and GOOD_WORDS.intersection(place.folders[1:])
    }  # fmt: skip
    if len(nested) > 1:
        raise UserError(
            f"{root} holds several data sets: {listed(sorted(nested))}", "give one of them"
        )
    return places


def _without_prefix(places: Sequence[_Place]) -> list[_Place]:
    """Drop what all kinds start with (``MT_Free``, ``MT_Crack``) if ``good`` appears so."""
    names = {place.folders[0] for place in places if place.folders}
    starts = {name[: name.find("_") + 1] for name in names}
    prefix = starts.pop() if len(starts) == 1 else ""
    if len(names) < 2 or not prefix or not any(n[len(prefix) :] in GOOD_WORDS for n in names):
        return list(places)
    return [
        replace(place, folders=(place.folders[0][len(prefix) :], *place.folders[1:]))
        if place.folders
        else place
        for place in places
    ]


def _labels(
    root: Path, pictures: Sequence[_Place], boxes: Mapping[Path, tuple[Box, ...]]
) -> dict[Path, str]:
    """Return the label of every picture, by its folder or by its annotation.

    Raises:
        UserError: if a picture has neither.
    """
    by_folder = not boxes or any(
        place.folders[:1] and place.folders[0] in GOOD_WORDS | DEFECT_WORDS for place in pictures
    )
    labels: dict[Path, str] = {}
    for place in pictures:
        label = _folder_label(place.folders) if by_folder else ""
        if label in ("", DEFECT) and place.path in boxes:
            label = kind_of(boxes[place.path]) if not label or boxes[place.path] else label
        labels[place.path] = label
    without = [place.id for place in pictures if not labels[place.path]]
    if len(without) == len(pictures):
        raise UserError(f"{root} does not say which pictures are good", EXPECTED)
    if without:
        raise UserError(
            f"{root}: {len(without)} pictures have no label: {listed(without)}",
            "annotate them" if boxes else "move them into good/ or the folder of their defect",
        )
    return labels


def _folder_label(folders: tuple[str, ...]) -> str:
    if not folders or folders[0] in NO_LABEL:
        return ""
    if folders[0] in GOOD_WORDS:
        return GOOD
    if folders[0] in DEFECT_WORDS:
        return folders[1] if len(folders) > 1 else DEFECT
    return folders[0]


def _masks(
    pictures: Sequence[_Place], masks: Sequence[_Place], labels: Mapping[Path, str]
) -> dict[Path, Path]:
    """Match masks with pictures: in the same folder, then by kind and name, then by name.

    By name alone, a mask belongs to a defect rather than to a good picture of the same name.

    Raises:
        UserError: if a mask may belong to several pictures, or none belongs to any.
    """

    def kinds(place: _Place) -> tuple[str, ...]:
        return tuple(name for name in place.folders if name not in DEFECT_WORDS)

    keys: tuple[Callable[[_Place], object], ...] = (
        lambda place: (place.path.parent, place.stem),
        lambda place: (place.role, place.folders, place.stem),
        lambda place: (kinds(place), place.stem),
        lambda place: (labels.get(place.path) == GOOD, place.stem),
        lambda place: place.stem,
    )
    found: dict[Path, Path] = {}
    left = list(masks)
    for key in keys:
        free = [place for place in pictures if place.path not in found]
        found.update(_matched(free, left, key))
        used = set(found.values())
        left = [mask for mask in left if mask.path not in used]
    _check_masks(pictures, masks, left, labels)
    return found


def _matched(
    pictures: Sequence[_Place], masks: Sequence[_Place], key: Callable[[_Place], object]
) -> dict[Path, Path]:
    """Return the pairs that agree in the key, where it is unique on both sides."""
    ours: defaultdict[object, list[Path]] = defaultdict(list)
    theirs: defaultdict[object, list[Path]] = defaultdict(list)
    for places, by_key in ((pictures, ours), (masks, theirs)):
        for place in places:
            by_key[key(place)].append(place.path)
    return {ours[k][0]: theirs[k][0] for k in ours if len(ours[k]) == 1 == len(theirs[k])}


def _check_masks(
    pictures: Sequence[_Place],
    masks: Sequence[_Place],
    left: Sequence[_Place],
    labels: Mapping[Path, str],
) -> None:
    if masks and len(left) == len(masks):
        raise UserError(
            f"none of the {len(masks)} masks belongs to a picture, e.g. {masks[0].id}",
            "name a mask like its picture, or NAME_mask.png",
        )
    faulty: dict[str, list[str]] = {}
    for place in pictures:
        if labels[place.path] != GOOD:
            faulty.setdefault(place.stem, []).append(place.id)
    unclear = [mask for mask in left if len(faulty.get(mask.stem, ())) > 1]
    if unclear:
        owners = " or ".join(faulty[unclear[0].stem][:2])
        raise UserError(
            f"mask {unclear[0].id} may belong to {owners}", "sort masks into folders like pictures"
        )
