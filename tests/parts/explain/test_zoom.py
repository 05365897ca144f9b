"""The zoom: what its windows are, that it finds planted places, its picture and its command."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from benchmarks.parts.zoom import pointing_hit
from PIL import Image
from scipy import ndimage

import lineside
from lineside.cli import main
from lineside.core.explain.attribution import guided_backprop
from lineside.core.explain.sanity_checks import randomise_weights
from lineside.parts.calibration import MapScale
from lineside.parts.data.sources import unlabelled
from lineside.parts.explain import zoom as zooming
from lineside.parts.explain.drawings import write_zoom
from lineside.parts.explain.zoom import (
    COLOURS,
    Evidence,
    Window,
    ZoomPath,
    agreement_with_random,
    centre_on_response,
    evidence_of_map,
    evidence_of_tiles,
    refine_peak,
    window_response,
    zoom_sheet,
)
from lineside.parts.models.detector import Prediction
from lineside.parts.models.patch_cnn.patch_cnn import PatchCNN, build_network

SHAPE = (400, 640)


def zoom(cells, shape, **options):
    return zooming.zoom(evidence_of_map(cells, np.zeros((*shape, 1))), **options)


def planted(*places, shape=SHAPE, cell_px=8, height=5.0):
    """A map that is 0 but for single cells at places (x, y) in pixels, each a bit lower."""
    cells = np.zeros((shape[0] // cell_px, shape[1] // cell_px), np.float32)
    for number, (x, y) in enumerate(places):
        cells[y // cell_px, x // cell_px] = height - 0.5 * number
    return cells


def holds(window, place):
    x, y = place
    return window.left <= x < window.right and window.top <= y < window.bottom


def network(seed=0, channels=1):
    torch.manual_seed(seed)
    net = build_network("vgg19_eighth", channels).eval()
    return PatchCNN(
        network=net, architecture="vgg19_eighth", crop_px=32, channels=channels, mean=0.5,
        spread=1.0,
    )  # fmt: skip


@pytest.mark.parametrize("place", [(4, 4), (636, 396), (324, 204), (12, 388), (500, 68)])
def test_the_way_leads_to_a_planted_place(place):
    (path,) = zoom(planted(place), SHAPE, least_px=64, background=1.0)
    assert all(holds(window, place) for window in path.windows)
    assert path.peak == place
    assert path.final.size == (64, 64)
    middle = (path.final.left + 32, path.final.top + 32)
    for got, wanted, side in zip(middle, path.peak, (640, 400), strict=True):
        assert abs(got - np.clip(wanted, 32, side - 32)) <= 1, "centre_box, but inside the picture"


def test_windows_shrink_by_a_fixed_share_and_neighbours_overlap_by_a_quarter():
    (path,) = zoom(planted((320, 200)), SHAPE, least_px=64, background=1.0)
    assert path.windows[0] == Window(left=0, top=0, right=640, bottom=400, score=2.5)
    sizes = [window.size for window in path.windows]
    assert sizes[:3] == [(400, 640), (229, 366), (131, 210)], "by 1.75, rounded up"
    # Two windows of 366 px in 640 px share 92 px, a quarter of each.
    corners = {
        zoom(planted(p), SHAPE, least_px=64, background=1.0)[0].windows[1].left
        for p in ((5, 5), (635, 5))
    }
    assert corners == {0, 274} and 366 - 274 == 92


def test_an_elongated_picture_is_cut_along_its_length_first():
    cells = planted((900, 50), shape=(96, 1000))
    (path,) = zoom(cells, (96, 1000), least_px=64, background=1.0)
    sizes = [window.size for window in path.windows]
    assert [high for high, _ in sizes[:3]] == [96, 96, 96]
    assert sizes[-1] == (64, 64) and holds(path.final, (900, 50))


def test_a_picture_smaller_than_the_crop_is_its_own_final_window():
    (path,) = zoom(planted((10, 10), shape=(40, 48)), (40, 48), least_px=64, background=1.0)
    assert [window.size for window in path.windows] == [(40, 48)]
    (path,) = zoom(planted((10, 10), shape=(40, 240)), (40, 240), least_px=64, background=1.0)
    assert path.final.size == (40, 64)


def test_two_defects_get_two_ways_and_one_defect_only_one():
    places = [(100, 100), (560, 330)]
    paths = zoom(planted(*places), SHAPE, least_px=64, background=1.0)
    assert len(paths) == 2
    assert [holds(t.final, p) for t, p in zip(paths, places, strict=True)] == [True, True]
    assert paths[0].final.score > paths[1].final.score
    # A smear wider than the final window, yet one region.
    cells = planted()
    cells[20:30, 30:42] = np.linspace(4, 5, 12)
    assert len(zoom(cells, SHAPE, least_px=64, background=1.0)) == 1
    close = [(100, 100), (100, 180)]
    paths = zoom(planted(*close), SHAPE, least_px=64, background=1.0)
    assert [holds(t.final, p) for t, p in zip(paths, close, strict=True)] == [True, True]


def test_a_weak_defect_beside_a_strong_one_in_the_same_quarter_is_not_lost():
    rng = np.random.default_rng(0)
    for _ in range(30):
        first, second = rng.integers((0, 0), (640, 400), (2, 2))
        if np.abs(first - second).max() < 80:
            continue
        paths = zoom(planted(first, second), SHAPE, least_px=64, background=1.0)
        assert len(paths) == 2
        assert all(any(holds(t.final, p) for t in paths) for p in (first, second))


def test_the_beam_bounds_the_ways_and_the_background_ends_them():
    places = [(50, 50), (350, 50), (600, 50), (50, 350), (350, 350)]
    assert len(zoom(planted(*places), SHAPE, least_px=64, background=1.0)) == 3
    assert len(zoom(planted(*places), SHAPE, least_px=64, background=1.0, beam=5)) == 5
    assert len(zoom(planted(*places), SHAPE, least_px=64, background=4.4, beam=5)) == 2
    assert zoom(planted(*places), SHAPE, least_px=64, background=5.1) == []
    assert len(zoom(planted(*places), SHAPE, least_px=64, background=5.0)) == 1


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (7, 11), (400, 640), (900, 900)])
def test_any_grid_of_cells_will_do(grid):
    cells = np.random.default_rng(1).random(grid).astype(np.float32)
    cells[0, 0] = np.nan
    paths = zoom(
        cells, SHAPE, least_px=64, background=float(np.nanmax(cells)) if grid[0] > 1 else 0
    )
    for path in paths:
        assert path.final.size == (64, 64)
        assert all(w.left >= 0 and w.right <= 640 and w.bottom <= 400 for w in path.windows)
    assert len(paths) == 1


def test_a_look_is_the_network_on_the_window_at_native_size():
    cnn = network()
    image = np.random.default_rng(0).random((90, 120, 1)).astype(np.float32)
    window = Window(left=40, top=20, right=72, bottom=52, score=0.0)
    response = window_response(cnn, image, window)
    crop = image[20:52, 40:72].transpose(2, 0, 1)[None]
    logit = cnn.logits(crop)[0]
    assert response.probability == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-5)
    guided = guided_backprop(cnn.network, cnn.standardise(crop))
    np.testing.assert_allclose(response.guided, guided[0, 0], rtol=1e-4, atol=1e-7)
    assert response.cam.shape == (32, 32) and response.cam.min() >= 0
    wide = window_response(cnn, image, Window(left=0, top=0, right=120, bottom=90, score=0.0))
    assert wide.guided.shape == wide.cam.shape == (90, 120)


def test_a_look_mirrors_small_windows_and_takes_any_channels():
    cnn = network(channels=3)
    image = np.random.default_rng(0).random((20, 120, 1)).astype(np.float32)
    response = window_response(cnn, image, Window(left=0, top=0, right=32, bottom=20, score=0.0))
    assert response.guided.shape == response.cam.shape == (20, 32)


@pytest.mark.parametrize("shape", [(90, 120), (20, 70), (32, 32)])
def test_tiles_pool_to_the_score_of_the_verdict(shape):
    cnn = dataclasses.replace(network(), tile_slope=0.3)
    image = np.random.default_rng(3).random((*shape, 1)).astype(np.float32)
    seen = evidence_of_tiles(cnn, image, cnn.predict(image))
    strongest = np.sort(seen.values.ravel())[-2:].mean()
    assert strongest == pytest.approx(cnn.predict(image).score, abs=1e-4)
    paths = zooming.zoom(seen, least_px=32, background=-1e9)
    assert paths[0].windows[0].score == pytest.approx(strongest)
    assert all(holds(paths[0].windows[0], (x - 0.5, y - 0.5)) for x in seen.x for y in seen.y)


def test_a_strong_tile_keeps_its_own_middle():
    values = np.zeros((4, 5))
    values[1, 3] = 2.0
    y, x = np.linspace(16, 84, 4), np.linspace(16, 104, 5)
    seen = Evidence(values=values, y=y, x=x, shape=(100, 120))
    (path,) = zooming.zoom(seen, least_px=32, background=1.0)
    assert path.peak == pytest.approx((x[3], y[1]))
    assert path.final.size == (32, 32) and holds(path.final, path.peak)


def test_the_final_crop_moves_to_the_response_but_never_to_a_weaker_one():
    cnn = network()
    rng = np.random.default_rng(5)
    moved = 0
    for _ in range(8):
        image = rng.random((100, 100, 1)).astype(np.float32)
        start = Window(left=34, top=34, right=66, bottom=66, score=1.0)
        path = ZoomPath(windows=(start,), peak=(50.0, 50.0))
        final = centre_on_response(cnn, image, path).final
        before, after = (
            window_response(cnn, image, window).probability for window in (start, final)
        )
        assert after >= before and final.size == (32, 32) and final.score == 1.0
        moved += final != start
    assert 0 < moved < 8


def test_random_weights_agree_with_themselves_only():
    cnn = network()
    image = np.random.default_rng(0).random((60, 60, 1)).astype(np.float32)
    window = Window(left=10, top=10, right=42, bottom=42, score=0.0)
    assert all(abs(value) < 0.9 for value in agreement_with_random(cnn, image, window))
    twin = dataclasses.replace(cnn, network=randomise_weights(cnn.network))
    assert agreement_with_random(twin, image, window)[0] == pytest.approx(1.0)


def test_a_crop_that_is_read_again_moves_the_peak_only():
    image = np.zeros((*SHAPE, 1), np.float32)
    image[230, 345] = 1.0

    class Brightest:
        def predict(self, image):
            return Prediction(score=0.0, map=image[..., 0])

    (path,) = zoom(planted((324, 204)), SHAPE, least_px=64, background=1.0)
    again = refine_peak(Brightest(), image, path)
    assert again.windows == path.windows
    assert again.peak == (345.5, 230.5)
    assert again.as_json() == {**path.final._asdict(), "x": 345.5, "y": 230.5}


def test_the_sheet_shows_every_way_in_its_own_colour(monkeypatch):
    image = np.full((*SHAPE, 1), 0.5, np.float32)
    cells = planted((100, 100), (560, 330))
    scale = MapScale(low=0.0, threshold=1.0, high=5.0)
    paths = zoom(cells, SHAPE, least_px=64, background=1.0)
    plain = zoom_sheet(image, cells, paths, scale=scale, heading="two")
    drawn = [bool((plain == colour).all(2).any()) for colour in COLOURS]
    assert drawn == [True, True, False]
    small = zoom(cells, SHAPE, least_px=64, background=4.9)
    small = [dataclasses.replace(small[0], windows=small[0].windows[-2:])]
    bare = zoom_sheet(image, cells, small, scale=scale, heading="one")
    explained = zoom_sheet(image, cells, small, scale=scale, heading="one", cnn=network())
    assert explained.shape[0] > bare.shape[0] + 2 * 144, "two more rows"
    monkeypatch.setattr(zooming, "LARGEST_PX", 64 * 64)  # the first window is larger
    partly = zoom_sheet(image, cells, small, scale=scale, heading="one", cnn=network())
    assert partly.shape == explained.shape and (partly != explained).any()
    none = zoom_sheet(image, cells, [], scale=scale, heading="none")
    assert none.shape[0] < plain.shape[0]


def test_predict_zooms_in_on_the_spot(trained, shop, tmp_path, capsys):
    spot = shop.picture(tmp_path / "spot_v1.png", spot=130, seed=91)
    fine = shop.picture(tmp_path / "fine_v1.png", seed=90)
    rest = ["--model", str(trained), "--zoom", str(tmp_path / "zoom" / "new"), "--json"]
    assert main(["parts", "predict", str(spot), str(fine), *rest]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["verdict"] for row in rows] == ["reject", "accept"]
    pixels = np.asarray(Image.open(spot), np.float32)
    y, x = np.argwhere(pixels > 200).mean(0)
    window = rows[0]["zoom"][0]
    assert set(window) == {"left", "top", "right", "bottom", "score", "x", "y"}
    assert abs(window["x"] - x) < 16 and abs(window["y"] - y) < 16
    assert window["left"] <= x < window["right"] and window["top"] <= y < window["bottom"]
    assert window["right"] - window["left"] == window["bottom"] - window["top"] == 64
    threshold = lineside.load(trained).model.scale.threshold
    assert bool(rows[1]["zoom"]) == bool(rows[1]["findings"])
    assert window["score"] > threshold
    written = sorted(path.name for path in (tmp_path / "zoom" / "new").iterdir())
    assert written == ["0000_reject_spot_v1.png", "0001_accept_fine_v1.png"]


def test_a_rejected_picture_without_findings_shows_its_strongest_places(trained, shop, tmp_path):
    model = lineside.load(trained).model
    spot = shop.picture(tmp_path / "spot_v1.png", spot=130, seed=91)
    item = unlabelled(spot, "")
    (result,) = model.predict([item])
    scale = dataclasses.replace(model.scale, threshold=1e9)
    quiet = dataclasses.replace(model, operating=dataclasses.replace(model.operating, scale=scale))
    view, page = model.predict_view(item, keep_image=True), tmp_path / "zoom" / "spot.png"
    told = write_zoom(quiet, None, view, result, page)
    assert 1 <= len(told.zoom_paths) <= 3
    (row, column), side = np.argwhere(np.asarray(Image.open(spot), np.float32) > 200).mean(0), 64
    first = told.zoom_paths[0].final
    assert 0 <= column - first.left < side and 0 <= row - first.top < side
    fine = dataclasses.replace(result, score=result.threshold - 1e-6)
    told = write_zoom(quiet, None, view, fine, page)
    assert not told.zoom_paths
    told = write_zoom(model, None, view, fine, page)
    assert told.zoom_paths, "the map decides where the verdict does not need a reason"
    assert told.as_line() == fine.as_line() and told.item == str(spot) and told.finding


def test_without_zoom_nothing_changes(trained, shop, tmp_path, capsys):
    fine = shop.picture(tmp_path / "fine_v1.png", seed=90)
    assert main(["parts", "predict", str(fine), "--model", str(trained), "--json"]) == 0
    assert "zoom" not in json.loads(capsys.readouterr().out)


def test_a_zoom_folder_that_is_a_file_is_one_line(trained, shop, tmp_path, capsys):
    fine = shop.picture(tmp_path / "fine_v1.png", seed=90)
    (tmp_path / "file").write_text("")
    rest = ["--model", str(trained), "--zoom", str(tmp_path / "file")]
    assert main(["parts", "predict", str(fine), *rest]) == 2
    assert "file" in capsys.readouterr().err


def test_pointing_hit_by_hand():
    strength = np.zeros((10, 10))
    strength[2, 2], strength[8, 8] = 3.0, 1.0
    mask = np.zeros((10, 10), bool)
    mask[4, 4] = True
    assert pointing_hit(strength, ndimage.maximum_filter(mask, size=5))
    assert not pointing_hit(strength, ndimage.maximum_filter(mask, size=3))
