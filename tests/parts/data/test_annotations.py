from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Pillow

from lineside.core.errors import UserError
from lineside.parts.data.annotations import find_boxes, kind_of
from lineside.parts.data.dataset import read
from lineside.parts.data.images import mask_of
from lineside.parts.data.items import Box

CONFIG = SimpleNamespace(seed=0, part_pattern="")


def picture(path: Path, width: int = 60, height: int = 40) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path))).integers(0, 256, (height, width), dtype=np.uint8)
    Pillow.fromarray(noise).save(path)
    return path


def coco(folder: Path, width: int = 60, height: int = 40, **changes) -> Path:
    content = {
        "images": [
            {"id": 1, "file_name": "a.png", "width": width, "height": height},
            {"id": 2, "file_name": "b.png", "width": width, "height": height},
        ],
        "annotations": [{"id": 9, "image_id": 1, "category_id": 7, "bbox": [10, 5, 20, 10]}],
        "categories": [{"id": 7, "name": "Crack"}],
    }
    source = folder / "annotations.json"
    source.write_text(json.dumps({**content, **changes}))
    return source


def voc(folder: Path, stem: str, corners: str, width: int = 60, height: int = 40) -> Path:
    objects = f"<object><name>dent</name><bndbox>{corners}</bndbox></object>" if corners else ""
    size = f"<size><width>{width}</width><height>{height}</height></size>"
    source = folder / f"{stem}.xml"
    source.write_text(f"<annotation><filename>{stem}.png</filename>{size}{objects}</annotation>")
    return source


CORNERS = "<xmin>11</xmin><ymin>6</ymin><xmax>30</xmax><ymax>15</ymax>"
EXPECTED = (10, 5, 30, 15)


def corners(box: Box) -> tuple[float, ...]:
    return box.left, box.top, box.right, box.bottom


def test_coco(tmp_path):
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    coco(tmp_path)
    first, second = read(tmp_path, CONFIG)
    assert (first.label, second.label) == ("crack", "good")
    assert corners(first.boxes[0]) == EXPECTED and second.boxes == ()


def test_coco_polygon_without_bbox(tmp_path):
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    polygon = [[10, 5, 30, 5, 30, 15, 12, 14]]
    entry = {"id": 9, "image_id": 1, "category_id": 7, "segmentation": polygon}
    coco(tmp_path, annotations=[entry])
    assert corners(read(tmp_path, CONFIG)[0].boxes[0]) == EXPECTED


def test_boxes_follow_a_rescaled_picture(tmp_path):
    a = picture(tmp_path / "a.png", 120, 80)
    b = picture(tmp_path / "b.png", 120, 80)
    boxes = find_boxes([a, b], [coco(tmp_path)])
    assert corners(boxes[a][0]) == (20, 10, 60, 30)


@pytest.mark.parametrize("make", [coco, lambda folder: voc(folder, "a", CORNERS)])
def test_another_shape_is_an_error_with_both_sizes(tmp_path, make):
    a, b = picture(tmp_path / "a.png", 40, 60), picture(tmp_path / "b.png", 40, 60)
    with pytest.raises(UserError, match=r"60x40.*40x60"):
        find_boxes([a, b], [make(tmp_path)])


def test_coco_errors(tmp_path):
    a, b = picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    source = coco(tmp_path)
    with pytest.raises(UserError, match=r"not there: b\.png"):
        find_boxes([a], [source])
    source = coco(tmp_path, categories=[])
    with pytest.raises(UserError, match="not a valid annotation"):
        find_boxes([a, b], [source])
    outside = {"id": 9, "image_id": 1, "category_id": 7, "bbox": [50, 5, 20, 10]}
    with pytest.raises(UserError, match="outside"):
        find_boxes([a, b], [coco(tmp_path, annotations=[outside])])
    source.write_text("{")
    with pytest.raises(UserError, match="not a valid annotation"):
        find_boxes([a, b], [source])
    source.write_text('{"something": "else"}')
    assert find_boxes([a, b], [source]) == {}


def test_voc_corners_are_one_based(tmp_path):
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    voc(tmp_path, "a", CORNERS), voc(tmp_path, "b", "")
    first, second = read(tmp_path, CONFIG)
    assert (first.label, second.label) == ("dent", "good")
    assert corners(first.boxes[0]) == EXPECTED


def test_voc_in_its_own_folders(tmp_path):
    for stem, text in (("a", CORNERS), ("b", "")):
        picture(tmp_path / "JPEGImages" / f"{stem}.png")
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        voc(tmp_path / "Annotations", stem, text)
    assert [item.label for item in read(tmp_path, CONFIG)] == ["dent", "good"]


def test_a_picture_without_annotation_is_named(tmp_path):
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    voc(tmp_path, "a", "")
    with pytest.raises(UserError, match=r"1 pictures have no label: b\.png"):
        read(tmp_path, CONFIG)


def test_voc_errors(tmp_path):
    a = picture(tmp_path / "a.png")
    with pytest.raises(UserError, match="missing corner"):
        find_boxes([a], [voc(tmp_path, "a", "<xmin>3</xmin>")])
    with pytest.raises(UserError, match="belongs to no picture"):
        find_boxes([a], [voc(tmp_path, "z", CORNERS)])
    (tmp_path / "a.xml").write_text("<annotation>")
    with pytest.raises(UserError, match="not a valid annotation"):
        find_boxes([a], [tmp_path / "a.xml"])


@pytest.mark.parametrize("folders", [("", ""), ("images/train", "labels/train")])
@pytest.mark.parametrize(
    ("classes", "text"),
    [
        ("classes.txt", "dent\ncrack\n"),
        ("data.yaml", "nc: 2\nnames: ['dent', 'crack']\n"),
        ("data.yaml", "names:\n  0: dent\n  1: crack\nnc: 2\n"),
        ("data.yaml", "names:\n- dent\n- crack\n"),
    ],
)
def test_yolo(tmp_path, folders, classes, text):
    pictures, labels = (tmp_path / folder for folder in folders)
    picture(pictures / "a.png"), picture(pictures / "b.png")
    labels.mkdir(parents=True, exist_ok=True)
    (labels / "a.txt").write_text(f"1 {20 / 60} {10 / 40} {20 / 60} {10 / 40}\n")
    (tmp_path / classes).write_text(text)
    first, second = read(tmp_path, CONFIG)
    assert (first.label, second.label) == ("crack", "good")
    assert corners(first.boxes[0]) == pytest.approx(EXPECTED)
    assert first.role == ("train" if folders[0] else "")


def test_yolo_polygon_and_errors(tmp_path):
    a = picture(tmp_path / "a.png")
    classes, text = tmp_path / "classes.txt", tmp_path / "a.txt"
    classes.write_text("crack")
    text.write_text("0 0.5 0.25 0.75 0.25 0.75 0.5")
    assert corners(find_boxes([a], [classes, text])[a][0]) == (30, 10, 45, 20)
    for line in ("1 .5 .5 .1 .1", "0 .5 .5", "0 30 10 5 5", "crack .5 .5 .1 .1"):
        text.write_text(line)
        with pytest.raises(UserError, match=r"a\.txt.*line 1"):
            find_boxes([a], [classes, text])


def test_annotations_beside_labelled_folders_name_the_kind(tmp_path):
    picture(tmp_path / "good" / "g.png")
    picture(tmp_path / "defect" / "d.png")
    voc(tmp_path / "defect", "d", CORNERS)
    defect, good = read(tmp_path, CONFIG)
    assert (defect.label, good.label) == ("dent", "good") and len(defect.boxes) == 1


def test_kind_of_many_boxes():
    def box(kind: str, side: float) -> Box:
        return Box(left=0, top=0, right=side, bottom=side, kind=kind)

    assert kind_of([]) == "good"
    assert kind_of([box("a", 1), box("b", 9), box("a", 1)]) == "a"
    assert kind_of([box("a", 1), box("b", 9)]) == "b"
    assert kind_of([box("b", 1), box("a", 1)]) == "a"


def test_good_boxes_are_no_defects(tmp_path):
    a, b = picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    source = coco(tmp_path, categories=[{"id": 7, "name": "OK"}])
    assert find_boxes([a, b], [source]) == {a: (), b: ()}


# ---- classes and pictures that an annotation does not know


def yolo(folder: Path, **texts: str) -> Path:
    (folder / "classes.txt").write_text("dent\ncrack\n")
    for stem, text in texts.items():
        (folder / f"{stem}.txt").write_text(text)
    return folder


@pytest.mark.adversary("e")
@pytest.mark.parametrize("index", [-1, -2, 2, 80])
def test_a_class_that_is_not_listed_is_refused(tmp_path, index):
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    yolo(tmp_path, a=f"0 .5 .5 .1 .1\n{index} .5 .5 .1 .1")
    with pytest.raises(UserError, match=rf"a\.txt.*line 2: class {index}, .*dent, crack"):
        read(tmp_path, CONFIG)


@pytest.mark.adversary("e")
def test_without_a_text_file_a_picture_is_good_only_where_no_empty_file_says_so(tmp_path):
    for stem in "abc":
        picture(tmp_path / f"{stem}.png")
    yolo(tmp_path, a="1 .5 .5 .1 .1")
    assert [item.label for item in read(tmp_path, CONFIG)] == ["crack", "good", "good"]
    (tmp_path / "b.txt").write_text("\n")
    with pytest.raises(UserError, match=r"1 pictures have no label: c\.png"):
        read(tmp_path, CONFIG)


@pytest.mark.adversary("e")
@pytest.mark.parametrize(
    ("key", "value"), [("category_id", -1), ("category_id", 8), ("image_id", 3)]
)
def test_coco_ids_that_are_not_listed_are_refused_by_name(tmp_path, key, value):
    a, b = picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    entry = {"id": 9, "image_id": 1, "category_id": 7, "bbox": [10, 5, 20, 10], key: value}
    source = coco(tmp_path, annotations=[entry])
    with pytest.raises(UserError, match=f"annotation 9 has the unknown {key} {value}"):
        find_boxes([a, b], [source])


@pytest.mark.adversary("e")
def test_a_coco_image_without_annotations_is_good_and_one_that_is_not_listed_has_no_label(tmp_path):
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    coco(tmp_path)
    assert [item.label for item in read(tmp_path, CONFIG)] == ["crack", "good"]
    picture(tmp_path / "c.png")
    with pytest.raises(UserError, match=r"1 pictures have no label: c\.png"):
        read(tmp_path, CONFIG)


# ---- coordinates that are not numbers


def nowhere(boxes: tuple[Box, ...]) -> bool:
    return len(boxes) == 1 and boxes[0].kind == "crack" and not boxes[0].usable


@pytest.mark.adversary("f")
@pytest.mark.parametrize(
    "line", ["1 nan .5 .1 .1", "1 .5 .5 inf .1", "1 .1 .1 nan .1 .2 .2", "1 .5 .5 .1 -Infinity"]
)
def test_yolo_coordinates_that_are_not_numbers_leave_the_label(tmp_path, line):
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    first, second = read(yolo(tmp_path, a=line), CONFIG)
    assert (first.label, second.label) == ("crack", "good") and nowhere(first.boxes)
    assert mask_of(first) is None


@pytest.mark.adversary("f")
@pytest.mark.parametrize(
    "place",
    ['"bbox": [NaN, 5, 20, 10]', '"bbox": [10, 5, Infinity, 10]', '"bbox": [1e999, 5, 20, 10]',
     '"segmentation": [[1, NaN, 2, 3, 4, 5]]'],
)  # fmt: skip
def test_coco_coordinates_that_are_not_numbers_leave_the_label(tmp_path, place):
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    source = coco(tmp_path)
    source.write_text(source.read_text().replace('"bbox": [10, 5, 20, 10]', place))
    first, second = read(tmp_path, CONFIG)
    assert (first.label, second.label) == ("crack", "good") and nowhere(first.boxes)
    assert mask_of(first) is None


@pytest.mark.adversary("f")
def test_voc_coordinates_that_are_not_numbers_leave_the_label(tmp_path):
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    voc(tmp_path, "a", CORNERS.replace("11", "nan")), voc(tmp_path, "b", "")
    first, second = read(tmp_path, CONFIG)
    assert (first.label, second.label) == ("dent", "good") and not first.boxes[0].usable


def test_a_usable_box_beside_an_unusable_one_keeps_its_place(tmp_path):
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    first, _ = read(yolo(tmp_path, a="1 nan .5 .1 .1\n1 .5 .5 .1 .1"), CONFIG)
    assert mask_of(first).sum() == 6 * 4


def test_broken_coco_numbers_are_one_line(tmp_path):
    a, b = picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    source = coco(tmp_path, width="wide")
    with pytest.raises(UserError, match="not a valid annotation"):
        find_boxes([a, b], [source])
    source.write_text("[" * 200_000)
    with pytest.raises(UserError, match="not a valid annotation"):
        find_boxes([a, b], [source])
