from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Pillow

from lineside.core.contract import Check, Refusal
from lineside.parts.audit.checks import audit, check_masks
from lineside.parts.audit.survey import MaskStatistics, describe, measure_image, sharpness, survey
from lineside.parts.data.dataset import read
from lineside.parts.data.items import Box, PartImage

CONFIG = SimpleNamespace(seed=0, part_pattern=r"p(\d+)", view_rule="any")


def texture(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(height, width))
    smooth = noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)
    return np.clip(128 + 25 * smooth, 1, 254).astype(np.uint8)


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(values).save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Thirty parts in one or two pictures with nearly one of everything that can be wrong."""
    root = tmp_path_factory.mktemp("data")
    for part in range(20):
        for view in range(2):
            save(root / f"good/p{part}_v{view}.png", texture(10 * part + view))
    for part in range(20, 30):
        save(root / f"defect/crack/p{part}_v0.png", texture(10 * part))
        mask = np.zeros((48, 64), np.uint8)
        mask[10:20, 10:20] = 255
        save(root / f"masks/crack/p{part}_v0.png", mask)
    (root / "good/p40_v0.png").write_bytes(b"")
    (root / "good/p41_v0.png").write_bytes((root / "good/p0_v0.png").read_bytes())
    save(root / "good/p42_v0.png", np.stack([texture(420)] * 3, axis=2) // 16)
    (root / "defect/crack/p43_v0.png").write_bytes((root / "good/p1_v0.png").read_bytes())
    save(root / "masks/crack/p43_v0.png", np.zeros((48, 64), np.uint8))
    save(root / "masks/crack/p20_v0.png", np.full((40, 64), 255, np.uint8))
    save(root / "defect/crack/p0_v9.png", texture(99))
    return root


@pytest.fixture(scope="module")
def found(folder) -> dict[str, Check]:
    return {check.name: check for check in audit(read(folder, CONFIG), CONFIG)}


@pytest.mark.parametrize(
    ("name", "status", "count", "first"),
    [
        ("unreadable files", "fail", 1, "good/p40_v0.png"),
        ("copied files", "fail", 2, "defect/crack/p43_v0.png"),
        ("identical pictures", "fail", 2, "defect/crack/p43_v0.png"),
        ("mixed parts", "warn", 1, "defect/crack/p0_v9.png"),
        ("unusable masks", "fail", 1, "defect/crack/p20_v0.png"),
        ("empty masks on defects", "warn", 1, "defect/crack/p43_v0.png"),
        ("defects without a mask", "info", 1, "defect/crack/p0_v9.png"),
        ("storage of the pictures", "warn", 1, "good/p42_v0.png"),
        ("size of the pictures", "ok", 0, None),
        ("use of the value range", "info", 1, "good/p42_v0.png"),
        ("acquisition health", "warn", 1, "good/p42_v0.png"),
        ("rater agreement", "unknown", 0, None),
        ("leakage between split roles", "info", 0, None),
    ],
)
def test_everything_planted_is_found(found, name, status, count, first):
    check = found[name]
    assert (check.status, check.count) == (status, count), check
    assert first is None or check.items[0] == first


def test_unreadable_names_file_and_reason(found):
    assert "0 bytes" in found["unreadable files"].evidence
    assert "64x40" in found["unusable masks"].evidence


def test_balance_counts_parts(found):
    assert "crack 12, " not in found["class balance"].evidence.split(";")[1]
    assert found["class balance"].count == 12  # ten, p43 and the mixed p0


def test_audit_is_deterministic_and_reads_items_too(folder, found):
    again = audit(read(folder, CONFIG), CONFIG)
    assert {check.name: check for check in again} == found


def test_every_check_says_something(found):
    for check in found.values():
        assert check.evidence and check.status in ("ok", "info", "warn", "fail", "unknown")
        assert "\n" not in check.evidence


def test_clean_data_raise_no_alarm(tmp_path):
    for part in range(12):
        for view in range(2):
            save(tmp_path / f"good/p{part}_v{view}.png", texture(10 * part + view))
    checks = audit(read(tmp_path, CONFIG), CONFIG)
    assert {check.status for check in checks} <= {"ok", "info", "unknown"}


def test_shortcut_by_brightness(tmp_path):
    for part in range(24):
        values = texture(part) // (1 if part < 12 else 2)
        save(tmp_path / ("good" if part < 12 else "crack") / f"p{part}.bmp", values)
    checks = {check.name: check for check in audit(read(tmp_path, CONFIG), CONFIG)}
    assert checks["shortcuts"].status == "warn" and "brightness" in checks["shortcuts"].hint


def test_prescribed_split_with_leak_and_drift(tmp_path):
    for part in range(24):
        role, shift = ("train", 0) if part < 12 else ("test", 40)
        values = np.clip(texture(part).astype(int) - shift, 1, 254).astype(np.uint8)
        save(tmp_path / f"{role}/good/p{part}.png", values)
    save(tmp_path / "test/good/p3.png", texture(77))
    checks = {check.name: check for check in audit(read(tmp_path, CONFIG), CONFIG)}
    assert checks["leakage between split roles"].status == "fail"
    assert checks["drift from train to test"].status == "warn"
    assert "brightness" in checks["drift from train to test"].evidence


def test_sixteen_bits_hardly_used(tmp_path):
    for part in range(4):
        save(tmp_path / f"good/p{part}.png", texture(part).astype(np.uint16) * 16)
    checks = {check.name: check for check in audit(read(tmp_path, CONFIG), CONFIG)}
    check = checks["use of the value range"]
    assert check.status == "warn" and check.count == 4
    assert re.search(r"uses [4-6]% of its 16-bit range", check.evidence)


def test_raters(tmp_path):
    lines = ["path,label,rater:anna,rater:bert"]
    for part in range(8):
        save(tmp_path / f"p{part}.png", texture(part))
        own = "good" if part < 4 else "crack"
        lines.append(f"p{part}.png,{own},{own},{'good' if part < 5 else 'crack'}")
    (tmp_path / "parts.csv").write_text("\n".join(lines))
    checks = {check.name: check for check in audit(read(tmp_path, CONFIG), CONFIG)}
    check = checks["rater agreement"]
    # 7 of 8 agree; by chance (4 x 5 + 4 x 3) / 64 = 0.5, so kappa is (0.875 - 0.5) / 0.5
    assert check.items == ("p4.png",) and "anna and bert: kappa 0.75" in check.evidence


def test_all_unreadable(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "good").mkdir(exist_ok=True)
        (tmp_path / f"good/p1{name}.png").write_bytes(b"x")
    checks = audit(read(tmp_path, CONFIG), CONFIG)
    assert [check.status for check in checks] == ["fail", "info"]


def test_refusals_among_the_items_count_as_unreadable(tmp_path):
    for part in range(3):
        save(tmp_path / f"good/p{part}.png", texture(part))
    items = read(tmp_path, CONFIG)
    check = audit([*items, Refusal(item="x", message="x is empty")], CONFIG)[0]
    assert (check.status, check.items) == ("fail", ("x",)) and "1 of 4" in check.evidence


# ---- survey


def test_look_counts_what_is_there(tmp_path):
    values = np.full((40, 50), 100, np.uint8)
    values[:4] = 255
    values[4:8] = 0
    path = save(tmp_path / "a.png", values)
    seen = measure_image("a", path)
    assert (seen.height, seen.width, seen.channels, seen.bits) == (40, 50, 1, 8)
    assert seen.clipped == pytest.approx(0.2) and seen.used == pytest.approx(1.0)
    assert seen.brightness == pytest.approx(values.mean() / 255, abs=1e-6)
    assert seen.contrast == pytest.approx(values.std() / 255, abs=1e-6)


def test_content_hash_ignores_the_container(tmp_path):
    first = measure_image("a", save(tmp_path / "a.png", texture(1)))
    second = measure_image("b", save(tmp_path / "b.bmp", np.stack([texture(1)] * 3, axis=2)))
    assert first.content_sha256 == second.content_sha256
    assert first.file_sha256 != second.file_sha256


def test_sharpness_falls_with_blur_and_ignores_exposure():
    from scipy.ndimage import gaussian_filter

    grey = texture(1).astype(np.float32) / 255
    assert sharpness(gaussian_filter(grey, 2)) < sharpness(grey) - 0.5
    assert sharpness(grey * 0.5) == pytest.approx(sharpness(grey), abs=1e-3)


def test_description_ignores_exposure_but_for_its_last_two_numbers():
    grey = texture(1, 200, 300).astype(np.float32) / 255
    bright, dark = describe(grey), describe(grey * 0.5)
    np.testing.assert_allclose(bright[:-2], dark[:-2], atol=0.01)
    assert bright[-1] == pytest.approx(2 * dark[-1])
    assert np.isfinite(describe(np.zeros((16, 16), np.float32))).all()


def test_survey_reads_a_changed_file_again(tmp_path):
    path = save(tmp_path / "a.png", texture(1))
    item = PartImage(id="a", path=path, label="good", part="a")
    before = survey([item])
    assert survey([item]).images[0] is before.images[0]
    path.write_bytes(b"broken")
    assert [refusal.item for refusal in survey([item]).refusals] == ["a"]


# ---- masks


def masked(**options):
    item = PartImage(id="a", path=Path("x"), label="crack", part="a", mask=Path("m"))
    return item, SimpleNamespace(mask=MaskStatistics(**options))


def names(*pairs) -> dict[str, str]:
    items, images = zip(*pairs, strict=True)
    return {check.name: check.status for check in check_masks(items, images)}


def test_mask_findings():
    assert names(masked(area_px=50, largest=255)) == {"masks": "ok"}
    assert names(masked(area_px=50, grey=0.2)) == {"grey edges of masks": "info"}
    assert names(masked(area_px=3)) == {"specks as masks": "info"}
    assert names(masked(area_px=3000, inverted=True)) == {"inverted masks": "fail"}
    item, seen = masked(area_px=0, largest=1)
    check = check_masks([item], [seen])[0]
    assert check.name == "empty masks on defects" and "0 and 1" in check.evidence
    good, full = masked(area_px=50)
    pair = (dataclasses.replace(good, label="good"), full)
    assert names(pair, masked(area_px=50)) == {"masks on good pictures": "warn"}
    assert names(pair) == {}


def test_boxes_count_as_place_and_no_place_is_unknown():
    item, _ = masked()
    bare, nothing = dataclasses.replace(item, mask=None), SimpleNamespace(mask=None)
    assert names((bare, nothing)) == {"masks": "unknown"}
    box = Box(left=0, top=0, right=2, bottom=2)
    boxed = dataclasses.replace(bare, boxes=(box,))
    nowhere = dataclasses.replace(bare, boxes=(dataclasses.replace(box, left=np.nan),))
    assert names((nowhere, nothing)) == {"unusable boxes": "fail"}
    assert names((boxed, nothing)) == {"masks": "ok"}
    wrong = dataclasses.replace(boxed, label="good")
    assert names((wrong, nothing), (boxed, nothing)) == {"boxes on good pictures": "warn"}
