"""Frames of a camera and Pillow pictures are judged as the same picture in a file is."""

import dataclasses
import os

import numpy as np
import pytest
from PIL import Image as Pillow

import lineside
from lineside.core.contract import Refusal
from lineside.core.errors import UserError

pytestmark = pytest.mark.adversary("n")
GREY = np.full((40, 30), 7, np.uint8)


@pytest.fixture(scope="module")
def predictor(trained):
    return lineside.load(trained)


@pytest.fixture(scope="module")
def file(shop, tmp_path_factory):
    return shop.picture(tmp_path_factory.mktemp("frames") / "f1_v1.png", 130.0, 5)


def test_the_score_is_that_of_the_file(predictor, file, tmp_path):
    (wanted,) = predictor.predict(file)
    frame = np.asarray(Pillow.open(file))
    rgb = np.repeat(frame[:, :, None], 3, axis=2)
    given = [
        frame, frame[:, :, None], rgb, frame.astype(np.uint16) * 257, frame / np.float32(255),
        frame / 255, Pillow.open(file), Pillow.fromarray(rgb), np.asfortranarray(frame),
        np.concatenate([rgb, np.full_like(rgb[:, :, :1], 255)], axis=2), file, str(file),
    ]  # fmt: skip
    results = predictor.predict(given)
    assert [result.verdict for result in results] == [wanted.verdict] * len(given)
    assert [result.score for result in results] == pytest.approx([wanted.score] * len(given))
    assert results[0].score == wanted.score and results[0].findings == wanted.findings
    assert results[0].item == results[0].part == "frame 0"
    assert results[6].item == str(file) and results[6].part == wanted.part  # Pillow knows it
    assert results[0].sha256 != results[3].sha256
    assert results[-1] == wanted
    deep = tmp_path / "deep.png"
    values = frame.astype(np.uint16) * 200 + 3
    Pillow.fromarray(values).save(deep)
    one, other = predictor.predict([deep, values])
    assert one.score == pytest.approx(other.score)


def test_one_picture_needs_no_list_and_is_explained(predictor, file):
    frame = np.asarray(Pillow.open(file))
    (wanted,) = predictor.predict(file)
    for one in (frame, Pillow.open(file)):
        assert [result.score for result in predictor.predict(one)] == [wanted.score]
        assert f"score {wanted.score:.3f}" in predictor.explain(one).text
        assert predictor.session().push(predictor.items(one)[0]).score == wanted.score
    both = predictor.model.predict([frame, file])
    assert [result.item for result in both] == ["frame 0", str(file)]
    assert predictor.model.explain(frame).figures


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (GREY.astype(np.int64), "frame 1 has the dtype int64 - expected an array (height, width)"),
        (GREY > 3, "has the dtype bool"),
        (GREY.astype(object), "has the dtype object"),
        (GREY[0], "has the shape (30,) - expected an array"),
        (np.zeros((3, 40, 30), np.uint8), "has the shape (3, 40, 30) - channels come last"),
        (np.zeros((2, 40, 30, 3), np.uint8), "give several frames as a list"),
        (np.zeros((40, 30, 2), np.uint8), "has the shape (40, 30, 2) - expected"),
        (np.zeros((0, 30), np.uint8), "is too small: 30x0 pixels"),
        (GREY[:9, :9], "is too small: 9x9 pixels"),
        (GREY * 1.0, "holds values from 7 to 7, expected 0 to 1 - divide by"),
        (np.full((40, 30), np.nan, np.float32), "holds values from nan to nan"),
        (np.where(GREY == 7, -np.inf, 0.0), "holds values from -inf"),
        (np.broadcast_to(np.uint8(0), (9000, 9000)), "is too large: 9000x9000 pixels"),
        (Pillow.new("L", (9, 9)), "is too small: 9x9 pixels"),
        ({"a": 1}, "frame 1 is a dict, not a picture - give a path, a Pillow picture or an array"),
        (None, "frame 1 is a NoneType, not a picture"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line_and_the_rest_is_judged(
    predictor, file, value, words
):
    first, odd, last = predictor.predict([GREY, value, file])
    assert isinstance(odd, Refusal) and words in f"{odd.item} {odd.message} - {odd.hint}".replace(
        f"{odd.item} {odd.item}", odd.item
    )
    assert "\n" not in odd.message + odd.hint
    assert not isinstance(first, Refusal) and not isinstance(last, Refusal)
    with pytest.raises(UserError) as caught:
        predictor.explain(value)
    assert "frame 0" in str(caught.value)


def test_a_truncated_picture_of_pillow_is_refused(predictor, file):
    cut = file.with_name("cut.png")
    cut.write_bytes(file.read_bytes()[:2000])
    for given in (lambda raw: raw, lambda raw: [raw]):
        with Pillow.open(cut) as raw:
            (odd,) = predictor.predict(given(raw))
        assert isinstance(odd, Refusal) and "damaged or cut off" in odd.message
    os.remove(cut)


def test_an_application_of_files_says_so(predictor):
    files_only = dataclasses.replace(predictor.application, in_memory=None)
    with pytest.raises(UserError, match="a ndarray is no file - give files or folders"):
        dataclasses.replace(predictor, application=files_only).predict([GREY])
