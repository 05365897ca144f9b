"""Calibration is by part, and says so where the data cannot carry a promise by part."""

import dataclasses

import numpy as np
import pytest
from PIL import Image as Picture

import lineside
from lineside.core.contract import Outcome
from lineside.core.errors import UserError
from lineside.core.statistics.estimates import estimate
from lineside.parts.config import Config
from lineside.parts.data.items import PartImage
from lineside.parts.explain.exemplars import Library
from lineside.parts.metrics import METRICS, MapOverlap
from lineside.parts.model import PartsModel, Settings
from lineside.parts.models.detector import Prediction
from lineside.parts.outcomes import calibrate, map_scale
from lineside.parts.outcomes import outcomes as judge


class Nothing:
    def predict(self, image):
        raise AssertionError("calibration reads no image")

    def spec(self):
        return {}

    def tensors(self):
        return {}


@pytest.fixture
def model():
    library = Library(sources=(), labels=(), patches=None, embeddings=None)
    return PartsModel(
        method="detector", detector=Nothing(), settings=Settings(), library=library, health=None
    )


def outcomes(n_good, n_faulty, lot=False, views=2):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n_good + n_faulty):
        faulty = i >= n_good
        for view in range(views):
            score = float(rng.normal(3.0 if faulty else 0.0))
            slices = {"kind": "crack" if faulty else "good"}
            if lot:
                slices["lot"] = f"lot {i % 5}"
            value = {"score": score, "label": float(faulty), "peak": score, "middle": 0.0}
            rows.append(
                Outcome(
                    item=f"{i}-{view}", groups=(f"p{i}",), unit=f"p{i}", slices=slices, value=value
                )
            )
    return rows


def test_the_promise_counts_parts_not_pictures(model):
    point = calibrate(model, outcomes(40, 30), Config()).operating.point
    assert (point.n_negative, point.n_positive) == (40, 30)
    assert not point.provable
    assert "needs 59" in point.message
    certified = calibrate(model, outcomes(40, 60), Config()).operating.point
    assert certified.certified


def test_lots_suspend_a_promise_by_part(model):
    operating = calibrate(model, outcomes(40, 60, lot=True), Config()).operating
    assert not operating.point.certified
    assert "one lot" in operating.point.suspended


def test_one_part_of_each_lot_keeps_the_promise(model):
    """Then lots are the units; two views of a part are still one part."""
    rows = [
        dataclasses.replace(o, slices={**o.slices, "lot": f"lot of {o.unit}"})
        for o in outcomes(40, 60, views=2)
    ]
    assert calibrate(model, rows, Config()).operating.point.certified
    together = dataclasses.replace(rows[-1], slices=rows[0].slices)  # another part of that lot
    assert "one lot" in calibrate(model, [*rows[:-2], together], Config()).operating.point.suspended


def test_views_per_part_and_references_are_by_part(model):
    rows = outcomes(12, 4, views=3)
    operating = calibrate(model, rows, Config()).operating
    assert operating.views_per_part == 3.0
    best = {}
    for row in rows[:36]:
        best[row.unit] = max(best.get(row.unit, -9.0), row.value["score"])
    assert sorted(operating.good_scores) == sorted(best.values())
    assert len(operating.good_view_scores) == 12


@pytest.mark.parametrize("threshold", [-0.5, 1.0, 2.0])
def test_contours_are_drawn_in_the_pictures_that_the_verdict_holds_back(threshold):
    """Peaks that follow the score, on another scale and with noise: no picture need say both."""
    rng = np.random.default_rng(1)
    rows = [
        dataclasses.replace(o, value={**o.value, "peak": 12 + 3 * o.value["score"] + noise})
        for o, noise in zip(outcomes(200, 20, views=1), rng.normal(0, 0.3, 220), strict=True)
    ]
    scale = map_scale(rows[:200], rows, threshold)
    assert scale.threshold == pytest.approx(12 + 3 * threshold, abs=0.8)
    agree = [(o.value["peak"] >= scale.threshold) == (o.value["score"] >= threshold) for o in rows]
    assert np.mean(agree) > 0.93
    assert scale.low < scale.threshold < scale.high


def test_contours_where_all_or_none_is_held_back():
    rows = outcomes(200, 20, views=1)
    peaks = [row.value["peak"] for row in rows]
    none = map_scale(rows[:200], rows, 99.0)
    assert none.threshold > max(peaks) and none.high > none.threshold
    everything = map_scale(rows[:200], rows, -99.0)
    assert everything.low < everything.threshold < np.quantile(peaks, 0.9)


def test_maps_are_counted_where_masks_say_which_pixels_are_faulty(trained, shop, tmp_path):
    model = lineside.load(trained).model
    picture = shop.picture(tmp_path / "p.png", spot=120.0, seed=3)
    pixels = np.asarray(Picture.open(picture), dtype=np.float32)
    Picture.fromarray(np.uint8(255 * (pixels > 190))).save(tmp_path / "mask.png")
    masked = PartImage(id="p", path=picture, label="spot", part="p", mask=tmp_path / "mask.png")
    unmasked = dataclasses.replace(masked, mask=None)
    good = PartImage(id="g", path=shop.picture(tmp_path / "g.png"), label="good", part="g")
    first, second, third = judge(model, [masked, unmasked, good])
    assert [row["fault"] for row in first.details] == [0, 1]
    assert sum(first.details[0]["pixels_by_bin"].values()) > 96 * 96 - 300
    assert second.details == ()
    assert [row["fault"] for row in third.details] == [0]
    assert MapOverlap()([first, third]) > 0.5
    uncalibrated = dataclasses.replace(model, operating=None)
    assert next(iter(judge(uncalibrated, [masked]))).details == ()


def test_intervals_of_parts_with_lots_resample_lots(trained, shop, tmp_path):
    """Parts of a lot are alike: 40 parts of 4 lots say as much as 4 lots, not as 40 parts."""
    item = PartImage(
        id="p", path=shop.picture(tmp_path / "p.png"), label="good", part="p", lot="monday"
    )
    (outcome,) = judge(lineside.load(trained).model, [item])
    assert (outcome.groups, outcome.unit) == (("monday",), "p")

    rng = np.random.default_rng(0)
    shift = {lot: rng.normal(0, 2) for lot in range(4)}
    parts = [
        Outcome(
            item=str(i),
            groups=(f"lot {i % 4}",),
            unit=str(i),
            value={"score": shift[i % 4] + rng.normal() + (i % 3 == 0), "label": float(i % 3 == 0)},
        )
        for i in range(40)
    ]
    alone = [dataclasses.replace(o, groups=(o.unit,)) for o in parts]
    by_lot, by_part = (
        estimate(rows, METRICS[0], np.random.default_rng(1)) for rows in (parts, alone)
    )
    assert (by_lot.n, by_part.n) == (4, 40)
    assert by_lot.value == by_part.value


@pytest.mark.adversary("a")
def test_a_score_that_is_no_number_is_named(model, tmp_path):
    @dataclasses.dataclass(frozen=True)
    class NotANumber(Nothing):
        def predict(self, image):
            return Prediction(score=float("nan"), map=np.zeros((2, 2), np.float32))

    path = tmp_path / "a.png"
    Picture.new("L", (32, 32), 9).save(path)
    item = PartImage(id="a.png", path=path, label="good", part="a")
    broken = dataclasses.replace(model, detector=NotANumber())
    with pytest.raises(UserError, match=r"detector has no score for a.png \(nan\)"):
        list(judge(broken, [item]))
