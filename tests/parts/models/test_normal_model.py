from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lineside.core.errors import UserError
from lineside.core.run.codec import decode, encode
from lineside.parts.models.feature_head import image_features as module
from lineside.parts.models.feature_head import normal_model
from lineside.parts.models.feature_head.deviations import (
    RIDGE,
    cross_fit,
    fit_grid_gaussian,
    fit_vector_gaussian,
    moments,
    view_scores,
)
from lineside.parts.models.feature_head.image_features import (
    Features,
    image_features,
    line_responses,
    stack,
)
from lineside.parts.models.feature_head.normal_model import (
    NormalModel,
    cross_fit_normal_model,
    fit_normal_model,
)
from lineside.parts.models.size_regression import fit_size_regression

PARTS = [f"part{i // 3}" for i in range(12)]


def plate(seed: int, crack: bool = False, hole: bool = False) -> np.ndarray:
    """A shaded, grainy plate; parts share a tint, defects are a thin line or a dark spot."""
    rng = np.random.default_rng(seed)
    shade = np.linspace(0.3, 0.6, 90, dtype=np.float32)[None, :, None]
    image = shade + rng.normal(0, 0.015, (70, 90, 1)).astype(np.float32)
    image += 0.02 * np.sin(np.arange(70, dtype=np.float32) / 5 + seed // 3)[:, None, None]
    if crack:
        image[12:14, 10:60] -= 0.2
    if hole:
        image[46:54, 60:68] = 0.02
    return np.clip(image, 0, 1)


@pytest.fixture(scope="module")
def goods() -> list[Features]:
    return [image_features(plate(seed)) for seed in range(12)]


@pytest.fixture(scope="module")
def model(goods: list[Features]) -> NormalModel:
    return fit_normal_model(goods, PARTS, inner_folds=4)


@pytest.fixture(scope="module")
def cracked() -> Features:
    return image_features(plate(102, crack=True))


@pytest.fixture(scope="module")
def holed() -> Features:
    return image_features(plate(103, hole=True))


def test_defects_score_above_unseen_good_parts(
    model: NormalModel, cracked: Features, holed: Features
) -> None:
    good = [model.predict(image_features(plate(seed))).score for seed in range(60, 66)]
    assert abs(np.mean(good)) < 3
    assert model.predict(cracked).score > max(good) + 2
    assert model.predict(holed).score > max(good) + 2


def test_the_map_points_at_the_defect(
    model: NormalModel, cracked: Features, holed: Features
) -> None:
    for description, row, column, reach in ((cracked, 13, 35, 28), (holed, 50, 64, 8)):
        local = model.predict(description).map
        assert local.shape == (32, 32)
        assert local.dtype == np.float32
        found = np.unravel_index(local.argmax(), local.shape)
        assert abs((found[0] + 0.5) / 32 * 70 - row) < 8
        assert abs((found[1] + 0.5) / 32 * 90 - column) < reach


def test_held_out_scores_are_standardised(model: NormalModel) -> None:
    assert float(model.held_out_scores.mean()) == pytest.approx(0, abs=1e-4)
    assert float(model.held_out_scores.std(unbiased=False)) == pytest.approx(1, abs=1e-3)


def test_the_score_is_the_standardised_mean_of_the_views(
    model: NormalModel, cracked: Features
) -> None:
    prediction = model.predict(cracked)
    assert tuple(prediction.contributions) == normal_model.VIEWS
    mean, std = model.score_scale["score"]
    views = np.mean(list(prediction.contributions.values()))
    assert (views - mean) / std == pytest.approx(prediction.score, abs=1e-4)


def test_a_saved_model_scores_alike(model: NormalModel, cracked: Features) -> None:
    for saved in (model, model.accept([cracked])):
        spec, tensors = encode(saved)
        again = decode(NormalModel, json.loads(json.dumps(spec)), tensors)
        assert again.predict(cracked).score == pytest.approx(saved.predict(cracked).score, abs=1e-5)
        np.testing.assert_allclose(
            again.predict(cracked).map, saved.predict(cracked).map, atol=1e-5
        )


def test_other_features_are_refused(model: NormalModel) -> None:
    spec, tensors = encode(model)
    with pytest.raises(UserError, match="other image features"):
        decode(NormalModel, {**spec, "extractor": "0"}, tensors)


def test_the_fit_is_deterministic(goods: list[Features], model: NormalModel) -> None:
    again = fit_normal_model(goods, PARTS, inner_folds=4)
    assert torch.equal(again.held_out_scores, model.held_out_scores)


def test_a_taught_image_is_accepted_and_other_defects_are_not(
    model: NormalModel, cracked: Features, holed: Features
) -> None:
    child = model.accept([cracked])
    assert model.accepted is None
    assert child.predict(cracked).score < model.predict(cracked).score - 2
    assert (
        child.predict(image_features(plate(104, crack=True))).score < model.predict(cracked).score
    )
    assert child.predict(holed).score > 0.8 * model.predict(holed).score
    assert model.accept([]) is model
    many = model.accept([cracked] * 70)
    assert many.accepted is not None
    assert len(many.accepted.near) == normal_model.MAX_ACCEPTED


def test_no_evidence_falls_below_what_is_ordinary(model: NormalModel, cracked: Features) -> None:
    assert model.accept([cracked]).predict(cracked).score > -15


def test_each_image_is_held_out_of_its_own_model(goods: list[Features]) -> None:
    stacked, fold = stack(goods), torch.arange(12) // 4
    _, held, _ = cross_fit(stacked, fold)
    rest, _, _ = cross_fit(stacked.rows(fold != 1), torch.arange(8) // 4)
    expected = view_scores(rest, stacked.rows(fold == 1))
    torch.testing.assert_close(held.distances[4:8], expected.distances, atol=2e-3, rtol=0)
    torch.testing.assert_close(held.peaks[4:8], expected.peaks, atol=2e-3, rtol=1e-3)


def test_folds_keep_parts_together_and_are_even() -> None:
    parts = ["a"] * 7 + ["b"] * 2 + ["c"] * 3 + ["d"] * 2
    fold = normal_model.assign_folds(parts, 2).tolist()
    assert all(len({f for p, f in zip(parts, fold, strict=True) if p == n}) == 1 for n in "abcd")
    assert sorted(map(fold.count, set(fold))) == [7, 7]
    assert sorted(set(normal_model.assign_folds(["a"] * 5, 3).tolist())) == [0, 1, 2]


def test_without_parts_twins_make_the_scale_too_narrow(goods: list[Features]) -> None:
    twins, names = goods[::3] * 2, [f"p{i % 4}" for i in range(8)]
    by_part = fit_normal_model(twins, names, inner_folds=2)
    by_image = fit_normal_model(twins, inner_folds=4)
    unseen = image_features(plate(60))
    assert by_image.predict(unseen).score > by_part.predict(unseen).score + 1


def test_small_and_odd_sets(goods: list[Features]) -> None:
    assert np.isfinite(fit_normal_model(goods[:2]).predict(goods[5]).score)
    assert np.isfinite(fit_normal_model([goods[0]] * 3, ["a"] * 3).predict(goods[5]).score)
    with pytest.raises(UserError, match="only 1 good"):
        fit_normal_model(goods[:1])


@pytest.mark.parametrize("shape", [(3, 5, 1), (400, 12, 3), (1, 1, 1)])
def test_any_size_is_described(shape: tuple[int, int, int], model: NormalModel) -> None:
    description = image_features(np.full(shape, 0.5, np.float32))
    assert np.isfinite(model.predict(description).score)
    assert np.isfinite(model.predict(description).map).all()


def test_place_gaussian_mixes_covariances() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((40, 9, 4)) @ rng.standard_normal((4, 4)) + 3).astype(np.float32)
    own = np.stack([np.cov(x[:, p].T, bias=True) for p in range(9)])
    middle = 0.4 * own[4] + 0.3 * own.mean(0) + 0.3 * own.mean(0)
    corner = 0.4 * own[0] + 0.3 * own[[0, 1, 3, 4]].mean(0) + 0.3 * own.mean(0)
    shift = torch.from_numpy(x.mean(0)) + 0.1
    fitted = fit_grid_gaussian(moments(torch.from_numpy(x), shift), shift)
    np.testing.assert_allclose(fitted.mean, x.mean(0), atol=1e-4)
    for place, covariance in ((4, middle), (0, corner)):
        covariance = covariance + (RIDGE * np.trace(covariance) / 4 + 1e-6) * np.eye(4)
        centred = x[:, place] - x[:, place].mean(0)
        expected = np.einsum("nd,de,ne->n", centred, np.linalg.inv(covariance), centred)
        found = fitted.deviations(torch.from_numpy(x))[:, place].square().sum(1)
        np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_moments_of_a_fold_can_be_taken_off() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 4, 3, generator=generator)
    shift = torch.zeros(4, 3)
    rest = moments(x, shift).plus(moments(x[:10], shift), -1)
    direct = moments(x[10:], shift)
    assert rest.count == 20
    torch.testing.assert_close(rest.product, direct.product, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(rest.plus(moments(x[:10], shift)).total, x.sum(0))


def test_whole_gaussian_is_a_shrunken_mahalanobis_distance() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((60, 5)) @ rng.standard_normal((5, 5)) * 3 + 1).astype(np.float32)
    standard = (x - x.mean(0)) / (x.std(0) + 1e-6)
    shrunk = (1 - RIDGE) * standard.T @ standard / 60 + RIDGE * np.eye(5)
    expected = np.einsum("nd,de,ne->n", standard, np.linalg.inv(shrunk), standard)
    found = fit_vector_gaussian(torch.from_numpy(x)).deviations(torch.from_numpy(x)).square().sum(1)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_scores_are_freed_of_size() -> None:
    rng = np.random.default_rng(0)
    sizes = torch.from_numpy(rng.uniform(5, 6, (200, 2)).astype(np.float32))
    noise = torch.from_numpy(rng.standard_normal((200, 2)).astype(np.float32))
    scores = torch.stack([3 * sizes[:, 0] - sizes[:, 1], torch.zeros(200)], 1) + 0.1 * noise
    scale = fit_size_regression(scores, sizes)
    z = scale.z_scores(scores, sizes)
    assert abs(float(torch.corrcoef(torch.stack([z[:, 0], sizes[:, 0]]))[0, 1])) < 0.05
    torch.testing.assert_close(z.mean(0), torch.zeros(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(z.std(0, unbiased=False), torch.ones(2), atol=1e-3, rtol=0)
    edge, beyond = torch.tensor([[6.0, 6.0]]), torch.tensor([[9.0, 9.0]])
    torch.testing.assert_close(
        scale.z_scores(scores[:1], beyond),
        scale.z_scores(scores[:1], edge),
        atol=0.5,
        rtol=0,
    )


def test_equal_sizes_leave_plain_standard_scores() -> None:
    scores = torch.tensor([[1.0], [2.0], [3.0]])
    z = fit_size_regression(scores, torch.full((3, 2), 5.5)).z_scores(
        scores, torch.full((3, 2), 5.5)
    )
    torch.testing.assert_close(z[:, 0], torch.tensor([-1.2247, 0.0, 1.2247]), atol=1e-3, rtol=0)


def test_lines_and_spots_answer_to_their_own_kind() -> None:
    flat = np.full((80, 80, 1), 0.5, np.float32)
    line, spot = flat.copy(), flat.copy()
    line[40:42, :] = 0.2
    spot[40:43, 38:41] = 0.9
    of_line = line_responses(line)[: module.RESPONSES].amax((1, 2))
    of_spot = line_responses(spot)[: module.RESPONSES].amax((1, 2))
    dark_line, bright_line, dark_spot, bright_spot = range(4)
    assert of_line[dark_line] > of_line[bright_line] + 0.5
    assert of_line[dark_line] > of_line[dark_spot] + 2
    assert of_spot[bright_spot] > of_spot[dark_spot] + 1
    assert of_line[4] > of_line[5] + 2  # an edge across, not along
    assert of_line[6] > of_line[7] + 2  # a bar across, not along
    turned = line_responses(np.ascontiguousarray(line.transpose(1, 0, 2)))
    torch.testing.assert_close(turned[5].amax(), of_line[4], atol=1e-4, rtol=1e-4)
    assert float(line_responses(flat).amax()) < -6


def test_band_by_band_equals_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).random((75, 131, 3)).astype(np.float32)
    whole = line_responses(image)
    monkeypatch.setattr(module, "PASS_PIXELS", 300)
    torch.testing.assert_close(line_responses(image), whole, atol=1e-5, rtol=1e-5)


def test_faulty_images_are_scored_without_their_part_and_never_change_the_model(
    goods: list[Features], model: NormalModel, cracked: Features
) -> None:
    # a copy of a good image of part 1, and a part of its own
    faulty, names = [goods[3], cracked], ["part1", "other"]
    beside, scores = cross_fit_normal_model(goods, PARTS, faulty, names, inner_folds=4)
    spec, tensors = encode(beside)
    alone = encode(model)
    assert spec == alone[0]
    assert all(torch.equal(tensors[name], alone[1][name]) for name in alone[1])
    assert len(scores) == len(goods) + 2
    torch.testing.assert_close(scores[: len(goods)].sort().values, model.held_out_scores)
    torch.testing.assert_close(scores[len(goods)], scores[3])  # judged by the same models
    assert scores[-1] > scores[: len(goods)].max()
