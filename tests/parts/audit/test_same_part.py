from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image as Pillow
from scipy.ndimage import gaussian_filter

from lineside.parts.audit.same_part import FOUND_PREFIX, check_same_part, propose_parts
from lineside.parts.data.items import PartImage

PARTS = 12


@pytest.fixture(scope="module")
def items(tmp_path_factory) -> list[PartImage]:
    """Two pictures of each part, shifted and in another light, and names that say nothing."""
    root = tmp_path_factory.mktemp("pictures")
    found = []
    for part in range(PARTS):
        rng = np.random.default_rng(part)
        surface = gaussian_filter(rng.normal(size=(120, 140)), 1.2)
        surface = surface / surface.std()
        for view in range(2):
            shifted = surface[3 * view : 3 * view + 110, 5 * view : 5 * view + 130]
            noisy = shifted + 0.2 * rng.normal(size=shifted.shape)
            values = np.clip((90 + 30 * view) + 25 * noisy, 0, 240).astype(np.uint8)
            path = root / f"{view}{part:02d}.png"
            Pillow.fromarray(values).save(path)
            found.append(PartImage(id=path.name, path=path, label="good", part=path.name))
    return found


def truth(item: PartImage) -> str:
    return item.id[1:]


def test_parts_are_found_and_named_after_their_first_picture(items):
    proposed = propose_parts(items)
    assert [item.id for item in proposed] == [item.id for item in items]
    assert all(item.part == f"{FOUND_PREFIX}0{truth(item)}" for item in proposed)
    assert propose_parts(items[::-1]) == proposed[::-1]


def test_named_parts_are_left_alone(items):
    named = [dataclasses.replace(item, part="x") for item in items]
    assert propose_parts(named) == tuple(named)


def test_a_found_part_never_spans_two_prescribed_roles(items):
    roles = [dataclasses.replace(i, role="train" if i.id[0] == "0" else "test") for i in items]
    proposed = propose_parts(roles)
    assert len({item.part for item in proposed}) == 2 * PARTS
    check = check_same_part(roles)
    assert check.status == "fail" and f"{PARTS} of them in two prescribed" in check.evidence


def test_check_of_found_parts(items):
    check = check_same_part(propose_parts(items))
    assert check.status == "warn" and check.count == PARTS
    alone = [item for item in items if item.id[0] == "0"]
    assert check_same_part(alone).status == "ok"


def test_check_of_named_parts(items):
    right = [dataclasses.replace(item, part=truth(item)) for item in items]
    check = check_same_part(right)
    assert check.status == "ok" and "finds 100% of the pairs" in check.evidence
    wrong = [dataclasses.replace(i, part="new" if i.id == "000.png" else i.part) for i in right]
    check = check_same_part(wrong)
    assert check.status == "warn" and check.count == 1
    assert set(check.items) == {"000.png", "100.png"}


def test_unreadable_pictures_stay_alone(items, tmp_path):
    bad = PartImage(id="bad", path=tmp_path / "none.png", label="good", part="bad")
    proposed = propose_parts([*items, bad])
    assert proposed[-1] == bad and proposed[:-1] == propose_parts(items)


def test_one_picture_is_unknown(items):
    assert check_same_part(items[:1]).status == "unknown"
