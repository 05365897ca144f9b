from __future__ import annotations

import os
import unicodedata
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Pillow

from lineside.core.contract import ROLES
from lineside.core.errors import Note, UserError
from lineside.parts.data.dataset import read
from lineside.parts.data.grouping import has_parts, split
from lineside.parts.data.images import decode
from lineside.parts.data.items import PartImage
from lineside.parts.data.sources import find_files


def config(**options) -> SimpleNamespace:
    return SimpleNamespace(**{"seed": 0, "part_pattern": "", "view_rule": "any", **options})


def make(root: Path, *names: str) -> Path:
    """Write small pictures, each different from the others."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = int.from_bytes(name.encode()[-8:], "big")
        noise = np.random.default_rng(seed).integers(0, 256, (20, 30), dtype=np.uint8)
        Pillow.fromarray(noise).save(path)
    return root


def labels(root: Path, **options) -> dict[str, str]:
    return {item.id: item.label for item in read(root, config(**options))}


# ---- folders


def test_good_and_kinds_below_defect(tmp_path):
    make(tmp_path, "good/1.png", "good/2.jpg", "defect/crack/1.png", "defect/dent/cam1/1.png")
    assert labels(tmp_path) == {
        "good/1.png": "good", "good/2.jpg": "good",
        "defect/crack/1.png": "crack", "defect/dent/cam1/1.png": "dent",
    }  # fmt: skip
    assert all(item.part == item.id for item in read(tmp_path, config()))
    assert not has_parts(read(tmp_path, config()))


@pytest.mark.parametrize(
    ("good", "bad", "label"),
    [
        ("OK", "NOK", "defect"), ("normal", "anomaly", "defect"), ("Free", "Scratch", "scratch"),
        ("defect-free", "defective", "defect"), ("MT_Free", "MT_Blow hole", "blow_hole"),
        ("no_defect", "bad", "defect"),
    ],
)  # fmt: skip
def test_synonyms(tmp_path, good, bad, label):
    make(tmp_path, f"{good}/1.png", f"{bad}/2.png")
    assert sorted(labels(tmp_path).values()) == sorted(["good", label])


def test_layout_with_prescribed_roles_and_ground_truth(tmp_path):
    make(
        tmp_path, "bottle/train/good/000.png", "bottle/train/good/001.png",
        "bottle/test/good/000.png", "bottle/test/hole/000.png",
        "bottle/ground_truth/hole/000_mask.png",
    )  # fmt: skip
    items = {item.id: item for item in read(tmp_path, config())}
    assert len(items) == 4
    hole = items["bottle/test/hole/000.png"]
    assert hole.label == "hole" and hole.role == "test"
    assert hole.mask == tmp_path / "bottle/ground_truth/hole/000_mask.png"
    good = items["bottle/train/good/000.png"]
    assert good.role == "train" and good.mask is None


def test_several_data_sets_are_refused(tmp_path):
    make(tmp_path, "bottle/train/good/0.png", "cable/train/good/0.png")
    with pytest.raises(UserError, match="bottle, cable"):
        read(tmp_path, config())


@pytest.mark.parametrize(
    "mask", ["defect/crack/a.png", "defect/crack/a_mask.png", "masks/a.png", "masks/crack/a.png",
             "ground_truth/a_mask.png", "masks/defect/crack/a.png"],
)  # fmt: skip
def test_masks(tmp_path, mask):
    make(tmp_path, "good/a.jpg", "defect/crack/a.jpg", mask)
    items = {item.label: item for item in read(tmp_path, config())}
    assert len(items) == 2
    assert items["crack"].mask == tmp_path / mask and items["good"].mask is None


def test_masks_that_fit_nothing_or_several(tmp_path):
    make(tmp_path, "good/a.png", "defect/crack/b.png", "masks/z.png")
    with pytest.raises(UserError, match="none of the 1 masks"):
        read(tmp_path, config())
    make(tmp_path, "defect/dent/b.png", "masks/b.png", "masks/crack/c.png", "defect/crack/c.png")
    with pytest.raises(UserError, match=r"masks/b\.png may belong to"):
        read(tmp_path, config())


def test_folder_errors(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "none", config())
    with pytest.raises(UserError, match="holds no pictures"):
        read(tmp_path, config())
    make(tmp_path, "good/1.png")
    with pytest.raises(UserError, match="only one picture"):
        read(tmp_path, config())
    with pytest.raises(UserError, match="is one picture"):
        read(tmp_path / "good/1.png", config())
    make(tmp_path, "stray.png")
    with pytest.raises(UserError, match=r"1 pictures have no label: stray\.png"):
        read(tmp_path, config())


def test_flat_folder_and_only_defects(tmp_path):
    with pytest.raises(UserError, match="does not say which"):
        read(make(tmp_path / "flat", "1.png", "2.png"), config())
    with pytest.raises(UserError, match="no good parts"):
        read(make(tmp_path / "bad", "defect/1.png", "defect/2.png"), config())


def test_only_good_is_fine(tmp_path):
    assert len(read(make(tmp_path, "good/1.png", "good/2.png"), config())) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_folder(tmp_path):
    make(tmp_path, "good/1.png", "good/2.png")
    (tmp_path / "good").chmod(0)
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path, config())
    (tmp_path / "good").chmod(0o700)


def test_hidden_files_and_link_loops(tmp_path):
    make(tmp_path, "good/1.png", "good/2.png", "good/.thumb.png", "__MACOSX/good/1.png")
    (tmp_path / "good" / "loop").symlink_to(tmp_path / "good")
    assert len(read(tmp_path, config())) == 2


# ---- files that are not read


@pytest.mark.adversary("o")
def test_files_that_are_not_read_are_counted_in_one_line(tmp_path):
    make(tmp_path, "good/1.png", "good/2.jpg", "defect/3.bmp")
    for name in ("good/a.GIF", "good/b.gif", "defect/c.heic", "d.jp2", "e.raw", ".hidden.gif", "F"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("read.me.md", "good/1.txt", "notes.yaml", "Thumbs.db", "labels.json"):
        (tmp_path / name).write_text("{}")
    with pytest.warns(Note) as told:
        assert len(read(tmp_path, config())) == 3
    (line,) = [str(note.message) for note in told]
    assert "6 files skipped: 2 .gif, 1 " in line and "readable are .png .jpg .jpeg .jfif" in line
    assert all(f"1 {ending}" in line for ending in (".heic", ".jp2", ".raw", "without ending"))
    with pytest.warns(Note) as told:
        assert len(find_files([tmp_path / "good"])) == 2
    assert "2 files skipped: 2 .gif" in str(told[0].message) and len(told) == 1


@pytest.mark.adversary("o")
def test_nothing_is_said_where_everything_is_read(tmp_path, recwarn):
    make(tmp_path, "good/1.jpg", "good/2.jpg", "defect/3.png")
    (tmp_path / "good/1.jpg").rename(tmp_path / "good/1.jfif")
    (tmp_path / "good/2.jpg").rename(tmp_path / "good/2.JPE")
    found = read(tmp_path, config())
    assert len(found) == len(find_files([tmp_path])) == 3 and not recwarn.list
    assert all(decode(item.path).shape == (20, 30, 1) for item in found)


# ---- parts


def test_part_pattern(tmp_path):
    make(tmp_path, "good/p1_v1.png", "good/p1_v2.png", "defect/p2_v1.png")
    parts = [item.part for item in read(tmp_path, config(part_pattern=r"(p\d+)_v"))]
    assert parts == ["p2", "p1", "p1"]
    named = read(tmp_path, config(part_pattern=r"(v)|(?P<part>p\d+)"))
    assert [item.part for item in named] == ["p2", "p1", "p1"]
    assert has_parts(named)


@pytest.mark.parametrize(
    ("pattern", "says"), [("(", "invalid"), ("p1", "no group"), ("(x)", "finds no part in 2 of 2")]
)
def test_bad_part_pattern(tmp_path, pattern, says):
    make(tmp_path, "good/p1.png", "good/p2.png")
    with pytest.raises(UserError, match=says):
        read(tmp_path, config(part_pattern=pattern))


# ---- tables


def table(root: Path, *lines: str, name: str = "parts.csv", encoding: str = "utf-8") -> Path:
    (root / name).write_text("\n".join(lines), encoding=encoding)
    return root / name


def test_table_with_everything(tmp_path):
    make(tmp_path, "x/1.png", "x/2.png", "m.png")
    table(
        tmp_path, "Path;Label;part;split;mask;lot;rater;rater_2;rater:Anna;exposure",
        "x/1.png;OK;p1;training;;l1;ok;good;Crack;3", "x/2.png;Crack;p2;test;m.png;l2;;;;4",
        encoding="utf-8-sig",
    )  # fmt: skip
    good, bad = read(tmp_path, config())
    assert (good.label, good.part, good.role, good.lot) == ("good", "p1", "train", "l1")
    assert good.raters == {"rater": "good", "2": "good", "Anna": "crack"}
    assert good.slices == {"exposure": "3"} and good.groups == ("l1",)
    assert bad.mask == tmp_path / "m.png" and bad.raters == {} and bad.mask.exists()


def test_table_given_as_file_and_windows_paths(tmp_path):
    make(tmp_path, "x/1.png", "x/2.png")
    source = table(tmp_path, "path,label", r"x\1.png,good", "x/2.png,bad", name="other.csv")
    assert [item.id for item in read(source, config())] == ["x/1.png", "x/2.png"]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["file,label", "1.png,good"], "no column 'path', did you mean 'file'"),
        (["path,lable", "1.png,good"], "no column 'label', did you mean 'lable'"),
        (["path", "1.png"], "no column 'label'"),
        (["path,label,prt", "1.png,good,a"], "unknown column 'prt', did you mean 'part'"),
        (["path,label,part,Part", "1.png,good,a,b"], "'part' twice"),
        (["path,label", "1.png,good", "9.png,good", "8.png,bad"], "2 of 3 files.*9.png, 8.png"),
        (["path,label", "1.png,good", "x" * 5000 + ",good"], "1 of 2 files"),
        (["path,label,mask", "1.png,bad,m.png"], "1 of 1 files in column 'mask'"),
        (["path,label", "1.png,"], "row 2 has no path or no label"),
        (["path,label", "1.png,1"], "row 2: label '1' may mean good or defective"),
        (["path,label", "1.png,good,x"], "row 2 has 3 cells"),
        (["path,label,split", "1.png,good,tset"], "row 2: 'tset' is no split role, did you mean"),
        (["path,label"], "holds no rows"),
        ([""], "is empty"),
        (["path,label", "1.png,good", "1.png,bad", "2.png,good"], "listed as 'good' and as 'def"),
    ],
)
def test_table_errors(tmp_path, lines, says):
    make(tmp_path, "1.png", "2.png")
    table(tmp_path, *lines)
    with pytest.raises(UserError, match=says) as caught:
        read(tmp_path, config())
    assert "\n" not in str(caught.value)


@pytest.mark.adversary("e")
@pytest.mark.parametrize(
    "label", ["?", "-", "nan", "NaN", "N/A", "null", "unlabelled", "none", "-1"]
)
def test_what_is_no_label_is_neither_good_nor_a_kind(tmp_path, label):
    make(tmp_path, "1.png", "2.png", "3.png")
    table(tmp_path, "path,label,rater:A", "1.png,good,?", "2.png,good,nan", f"3.png,{label},ok")
    with pytest.raises(UserError, match="row 4"):
        read(tmp_path, config())
    table(tmp_path, "path,label,rater:A", "1.png,good,?", "2.png,good,nan", "3.png,bad,ok")
    assert [item.raters for item in read(tmp_path, config())] == [{}, {}, {"A": "good"}]


@pytest.mark.adversary("e")
def test_an_unlabelled_folder_is_no_kind_of_defect(tmp_path):
    make(tmp_path, "good/1.png", "crack/2.png", "unlabelled/3.png")
    with pytest.raises(UserError, match=r"1 pictures have no label: unlabelled/3\.png"):
        read(tmp_path, config())


def test_foreign_encoding(tmp_path):
    make(tmp_path, "1.png")
    (tmp_path / "parts.csv").write_bytes("path,label\nä.png,good".encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        read(tmp_path, config())


def test_one_item_for_a_path_in_two_spellings(tmp_path):
    composed = unicodedata.normalize("NFC", "ä.png")
    make(tmp_path, composed, "b.png")
    split_form = unicodedata.normalize("NFD", "ä.png")
    table(
        tmp_path, "path,label", f"{composed},good", f"{split_form},good", "B.PNG,bad", "b.png,bad"
    )
    assert [item.label for item in read(tmp_path, config())] == ["defect", "good"]


def test_different_pictures_that_differ_in_case(tmp_path):
    make(tmp_path, "good/a.png", "good/b.png")
    (tmp_path / "good/A.png").write_bytes((tmp_path / "good/a.png").read_bytes())
    if len(list((tmp_path / "good").iterdir())) == 2:
        pytest.skip("the file system ignores case")
    assert len(read(tmp_path, config())) == 2
    (tmp_path / "good/A.png").write_bytes((tmp_path / "good/b.png").read_bytes())
    with pytest.raises(UserError, match="differ only in case"):
        read(tmp_path, config())


# ---- splitting


def items(*groups: tuple[str, str, int], role: str = "") -> list[PartImage]:
    """Return pictures without files: (part, label, number of pictures)."""
    return [
        PartImage(id=f"{part}-{n}", path=Path("x"), label=label, part=part, role=role)
        for part, label, count in groups
        for n in range(count)
    ]


def many(good: int = 40, **kinds: int) -> list[PartImage]:
    return items(
        *[(f"g{n}", "good", 3) for n in range(good)],
        *[(f"{kind}{n}", kind, 2) for kind, count in kinds.items() for n in range(count)],
    )


def parts(split_, role: str, label: str = "") -> set[str]:
    return {item.part for item in split_.role(role) if not label or item.label == label}


def test_no_part_is_in_two_roles_and_all_are_used():
    everything = many(crack=10, dent=5, rare=1)
    divided = split(everything, config())
    assert sorted(i.id for _, i in divided.rows()) == sorted(i.id for i in everything)
    counts = Counter(part for role in ROLES for part in parts(divided, role))
    assert max(counts.values()) == 1


def test_shares_and_strata():
    divided = split(many(good=100, crack=20, dent=3), config())
    for label, expected in (("good", (50, 10, 20, 20)), ("crack", (10, 2, 4, 4))):
        assert tuple(len(parts(divided, role, label)) for role in ROLES) == expected
    assert [len(parts(divided, role, "dent")) for role in ROLES] == [1, 0, 1, 1]


def test_split_ignores_the_order_and_follows_the_seed():
    everything = many(crack=10)
    shuffled = [everything[i] for i in np.random.default_rng(1).permutation(len(everything))]
    assert split(everything, config()) == split(shuffled, config())
    assert split(everything, config()) != split(everything, config(seed=1))


@pytest.mark.parametrize(
    ("good", "bad", "filled"),
    [
        (2, 0, {"train", "calibration"}),
        (3, 0, {"train", "calibration", "test"}),
        (3, 1, {"train", "calibration", "test"}),
        (5, 0, set(ROLES)),
    ],
)
def test_tiny(good, bad, filled):
    divided = split(many(good=good, crack=bad), config())
    assert {role for role in ROLES if divided.role(role)} == filled
    assert bad == 0 or parts(divided, "test", "crack") == {"crack0"}


def test_mixed_part_counts_as_its_kind():
    mixed = items(("a", "good", 5), ("a", "dent", 1), ("b", "dent", 1), ("c", "dent", 1))
    divided = split([*mixed, *many(good=5)], config())
    assert [len(parts(divided, role) & {"a", "b", "c"}) for role in ROLES] == [1, 0, 1, 1]


def test_lot_is_the_unit():
    lots = [
        PartImage(id=f"{n}", path=Path("x"), label="good", part=f"p{n}", lot=f"l{n % 5}")
        for n in range(50)
    ]
    divided = split(lots, config())
    counts = Counter(lot for role in ROLES for lot in {i.lot for i in divided.role(role)})
    assert max(counts.values()) == 1


@pytest.mark.adversary("m")
def test_one_lot_per_class_is_refused_with_the_reason():
    def lots(**counts: int) -> list[PartImage]:
        return [
            PartImage(id=f"{lot}{n}", path=Path("x"), label=label, part=f"{lot}{n}", lot=lot)
            for lot, count in counts.items()
            for label in ("good" if lot.startswith("g") else "crack",)
            for n in range(count)
        ]

    with pytest.raises(UserError, match=r"one lot \(g1\).*never split.*none are left for calibr"):
        split(lots(g1=20, c1=9), config())
    with pytest.raises(UserError, match="at least 3 lots, or leave the column lot out"):
        split(lots(g1=20, c1=9, c2=9, c3=9, c4=9), config())
    assert split(lots(g1=20, g2=20, c1=9), config()).calibration


@pytest.mark.adversary("m")
def test_too_few_lots_that_hold_both_classes_are_refused_with_the_reason():
    mixed = [
        PartImage(id=f"{n}", path=Path("x"), label=label, part=f"p{n}", lot=f"l{n % 2}")
        for n, label in enumerate(["good"] * 20 + ["crack"] * 4)
    ]
    with pytest.raises(UserError, match=r"2 lots \(l0, l1\), and a lot is never split.*for train"):
        split(mixed, config())


@pytest.mark.adversary("m")
def test_one_part_per_class_is_refused_with_the_reason():
    with pytest.raises(UserError, match=r"one part \(a\), and a part is never split"):
        split(items(("a", "good", 9), ("b", "crack", 9)), config())


def test_prescribed_roles_are_kept():
    train = items(*[(f"g{n}", "good", 1) for n in range(20)], role="train")
    test = items(*[(f"t{n}", "good", 1) for n in range(4)], ("x", "dent", 1), role="test")
    divided = split([*train, *test], config())
    assert parts(divided, "test") == {i.part for i in test}
    assert [len(divided.role(role)) for role in ROLES] == [12, 3, 5, 5]
    free = items(*[(f"f{n}", "good", 1) for n in range(9)])
    divided = split([*train, *test, *free], config())
    assert parts(divided, "train") == {i.part for i in train}
    assert [len(divided.role(role)) for role in ROLES] == [20, 3, 6, 5]


def test_all_four_roles_prescribed():
    everything = [i for r in ROLES for i in items((r, "good", 2), role=r)]
    divided = split(everything, config())
    assert all(parts(divided, role) == {role} for role in ROLES)


def test_one_prescribed_picture_binds_its_part():
    everything = [*items(("a", "good", 1), role="test"), *items(("a", "good", 3)), *many(good=9)]
    assert len([i for i in split(everything, config()).test if i.part == "a"]) >= 3


def test_part_in_two_roles_is_refused():
    everything = [*items(("a", "good", 1), role="test"), *items(("a", "good", 1), role="train")]
    with pytest.raises(UserError, match="1 parts lie in two split roles: a"):
        split(everything, config())
