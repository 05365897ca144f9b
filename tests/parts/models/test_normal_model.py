from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lineside.core.errors import UserError
from lineside.parts.models.detector import TrainingImage
from lineside.parts.models.feature_head import deviations as evidence
from lineside.parts.models.feature_head import line_filters as contrast
from lineside.parts.models.feature_head import normal_model as goodness
from lineside.parts.models.feature_head.description import (
    Description,
    describe,
    description_of,
    stacked,
)
from lineside.parts.models.feature_head.gaussians import (
    RIDGE,
    moments,
    place_gaussian,
    whole_gaussian,
)
from lineside.parts.models.feature_head.normal_model import (
    Goodness,
    fit_good_only,
    fit_goodness,
    load_goodness,
)
from lineside.parts.models.size_regression import fit_size_scale, load_size_scale

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
def goods() -> list[Description]:
    return [describe(plate(seed)) for seed in range(12)]


@pytest.fixture(scope="module")
def model(goods: list[Description]) -> Goodness:
    return fit_goodness(goods, PARTS, inner_folds=4)


@pytest.fixture(scope="module")
def cracked() -> Description:
    return describe(plate(102, crack=True))


@pytest.fixture(scope="module")
def holed() -> Description:
    return describe(plate(103, hole=True))


def test_defects_score_above_unseen_good_parts(
    model: Goodness, cracked: Description, holed: Description
) -> None:
    good = [model.judge(describe(plate(seed)))[0] for seed in range(60, 66)]
    assert abs(np.mean(good)) < 3
    assert model.judge(cracked)[0] > max(good) + 2
    assert model.judge(holed)[0] > max(good) + 2


def test_the_map_points_at_the_defect(
    model: Goodness, cracked: Description, holed: Description
) -> None:
    for description, row, column, reach in ((cracked, 13, 35, 28), (holed, 50, 64, 8)):
        local = model.judge(description)[1]
        assert local.shape == (32, 32)
        assert local.dtype == np.float32
        found = np.unravel_index(local.argmax(), local.shape)
        assert abs((found[0] + 0.5) / 32 * 70 - row) < 8
        assert abs((found[1] + 0.5) / 32 * 90 - column) < reach


def test_held_out_scores_are_standardised_and_give_tails(model: Goodness) -> None:
    assert float(model.held_out.mean()) == pytest.approx(0, abs=1e-4)
    assert float(model.held_out.std(unbiased=False)) == pytest.approx(1, abs=1e-3)
    assert model.tail(1e9) == pytest.approx(1 / 13)
    assert model.tail(-1e9) == 1.0
    assert model.tail(float(model.held_out[-1])) == pytest.approx(2 / 13)


def test_read_agrees_with_judge(model: Goodness) -> None:
    image = plate(102, crack=True)
    prediction = model.predict(image)
    score, local = model.judge(describe(image))
    assert prediction.score == score
    np.testing.assert_array_equal(prediction.map, local)
    assert tuple(prediction.contributions) == goodness.VIEWS
    mean, spread = model.constants["score"]
    assert (np.mean(list(prediction.contributions.values())) - mean) / spread == pytest.approx(
        score, abs=1e-4
    )


def test_a_saved_model_judges_alike(model: Goodness, cracked: Description) -> None:
    child = model.update([cracked])
    for parent in (model, child):
        spec = json.loads(json.dumps(parent.spec()))
        again = load_goodness(spec, {k: v.clone() for k, v in parent.tensors().items()})
        assert again.judge(cracked)[0] == pytest.approx(parent.judge(cracked)[0], abs=1e-5)
        np.testing.assert_allclose(again.judge(cracked)[1], parent.judge(cracked)[1], atol=1e-5)


def test_other_features_are_refused(model: Goodness) -> None:
    with pytest.raises(UserError, match="other image features"):
        load_goodness({**model.spec(), "extractor": "0"}, model.tensors())


def test_the_fit_is_deterministic(goods: list[Description], model: Goodness) -> None:
    again = fit_goodness(goods, PARTS, inner_folds=4)
    assert torch.equal(again.held_out, model.held_out)


def test_a_taught_image_is_accepted_and_other_defects_are_not(
    model: Goodness, cracked: Description, holed: Description
) -> None:
    child = model.update([cracked])
    assert model.taught is None
    assert child.judge(cracked)[0] < model.judge(cracked)[0] - 2
    assert child.judge(describe(plate(104, crack=True)))[0] < model.judge(cracked)[0]
    assert child.judge(holed)[0] > 0.8 * model.judge(holed)[0]
    assert model.update([]) is model
    many = model.update([cracked] * 70)
    assert many.taught is not None
    assert len(many.taught.near) == goodness.MOST_TAUGHT


def test_no_evidence_falls_below_what_is_ordinary(model: Goodness, cracked: Description) -> None:
    assert model.update([cracked]).judge(cracked)[0] > -15


def test_each_image_is_held_out_of_its_own_model(goods: list[Description]) -> None:
    stack, fold = stacked(goods), torch.arange(12) // 4
    _, held = evidence.fit_normals(stack, fold)
    rest, _ = evidence.fit_normals(stack.rows(fold != 1), torch.arange(8) // 4)
    expected = evidence.judged(rest, stack.rows(fold == 1))
    torch.testing.assert_close(held.scores[4:8], expected.scores, atol=2e-3, rtol=0)
    torch.testing.assert_close(held.peaks[4:8], expected.peaks, atol=2e-3, rtol=1e-3)


def test_folds_keep_parts_together_and_are_even() -> None:
    parts = ["a"] * 7 + ["b"] * 2 + ["c"] * 3 + ["d"] * 2
    fold = goodness._folds(parts, 2).tolist()
    assert all(len({f for p, f in zip(parts, fold, strict=True) if p == n}) == 1 for n in "abcd")
    assert sorted(map(fold.count, set(fold))) == [7, 7]
    assert sorted(set(goodness._folds(["a"] * 5, 3).tolist())) == [0, 1, 2]


def test_without_parts_twins_make_the_scale_too_narrow(goods: list[Description]) -> None:
    twins, names = goods[::3] * 2, [f"p{i % 4}" for i in range(8)]
    by_part = fit_goodness(twins, names, inner_folds=2)
    by_image = fit_goodness(twins, inner_folds=4)
    unseen = describe(plate(60))
    assert by_image.judge(unseen)[0] > by_part.judge(unseen)[0] + 1


def test_small_and_odd_sets(goods: list[Description]) -> None:
    assert np.isfinite(fit_goodness(goods[:2]).judge(goods[5])[0])
    assert np.isfinite(fit_goodness([goods[0]] * 3, ["a"] * 3).judge(goods[5])[0])
    with pytest.raises(UserError, match="only 1 good"):
        fit_goodness(goods[:1])


def test_fit_from_examples_ignores_defects(goods: list[Description], tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LINESIDE_CACHE", str(tmp_path))

    def example(seed: int, label: str = "good") -> TrainingImage:
        return TrainingImage(
            id=str(seed), label=label, part=f"p{seed}", digest=f"d{seed}", image=lambda: plate(seed)
        )

    train = [example(0), example(1), example(2, "crack")]
    rows: list[dict[str, object]] = []
    rng = np.random.default_rng(0)
    first = fit_good_only(train, [example(3)], rng=rng, log=rows.append)
    again = fit_good_only(train, [example(3)], rng=rng, log=rows.append)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3
    assert torch.equal(first.held_out, again.held_out)
    assert len(first.held_out) == 3
    bounded = fit_good_only(train, [example(3)], rng=rng, log=rows.append, most_images=2)
    assert len(bounded.held_out) == 2


def test_descriptions_survive_the_cache_format(goods: list[Description]) -> None:
    again = description_of(goods[0].arrays())
    assert torch.equal(again.near, goods[0].near)
    assert torch.equal(again.lines, goods[0].lines)


@pytest.mark.parametrize("shape", [(3, 5, 1), (400, 12, 3), (1, 1, 1)])
def test_any_size_is_described(shape: tuple[int, int, int], model: Goodness) -> None:
    description = describe(np.full(shape, 0.5, np.float32))
    assert np.isfinite(model.judge(description)[0])
    assert np.isfinite(model.judge(description)[1]).all()


def test_place_gaussian_mixes_covariances() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((40, 9, 4)) @ rng.standard_normal((4, 4)) + 3).astype(np.float32)
    own = np.stack([np.cov(x[:, p].T, bias=True) for p in range(9)])
    middle = 0.4 * own[4] + 0.3 * own.mean(0) + 0.3 * own.mean(0)
    corner = 0.4 * own[0] + 0.3 * own[[0, 1, 3, 4]].mean(0) + 0.3 * own.mean(0)
    shift = torch.from_numpy(x.mean(0)) + 0.1
    fitted = place_gaussian(moments(torch.from_numpy(x), shift), shift)
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
    rest = moments(x, shift).minus(moments(x[:10], shift))
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
    found = whole_gaussian(torch.from_numpy(x)).deviations(torch.from_numpy(x)).square().sum(1)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_scores_are_freed_of_size() -> None:
    rng = np.random.default_rng(0)
    sizes = torch.from_numpy(rng.uniform(5, 6, (200, 2)).astype(np.float32))
    noise = torch.from_numpy(rng.standard_normal((200, 2)).astype(np.float32))
    scores = torch.stack([3 * sizes[:, 0] - sizes[:, 1], torch.zeros(200)], 1) + 0.1 * noise
    scale = load_size_scale(fit_size_scale(scores, sizes).tensors())
    z = scale.standardised(scores, sizes)
    assert abs(float(torch.corrcoef(torch.stack([z[:, 0], sizes[:, 0]]))[0, 1])) < 0.05
    torch.testing.assert_close(z.mean(0), torch.zeros(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(z.std(0, unbiased=False), torch.ones(2), atol=1e-3, rtol=0)
    edge, beyond = torch.tensor([[6.0, 6.0]]), torch.tensor([[9.0, 9.0]])
    torch.testing.assert_close(
        scale.standardised(scores[:1], beyond),
        scale.standardised(scores[:1], edge),
        atol=0.5,
        rtol=0,
    )


def test_equal_sizes_leave_plain_standard_scores() -> None:
    scores = torch.tensor([[1.0], [2.0], [3.0]])
    z = fit_size_scale(scores, torch.full((3, 2), 5.5)).standardised(
        scores, torch.full((3, 2), 5.5)
    )
    torch.testing.assert_close(z[:, 0], torch.tensor([-1.2247, 0.0, 1.2247]), atol=1e-3, rtol=0)


def test_lines_and_spots_answer_to_their_own_kind() -> None:
    flat = np.full((80, 80, 1), 0.5, np.float32)
    line, spot = flat.copy(), flat.copy()
    line[40:42, :] = 0.2
    spot[40:43, 38:41] = 0.9
    of_line = contrast.contrast(line)[: contrast.RESPONSES].amax((1, 2))
    of_spot = contrast.contrast(spot)[: contrast.RESPONSES].amax((1, 2))
    dark_line, bright_line, dark_spot, bright_spot = range(4)
    assert of_line[dark_line] > of_line[bright_line] + 0.5
    assert of_line[dark_line] > of_line[dark_spot] + 2
    assert of_spot[bright_spot] > of_spot[dark_spot] + 1
    assert of_line[4] > of_line[5] + 2  # an edge across, not along
    assert of_line[6] > of_line[7] + 2  # a bar across, not along
    turned = contrast.contrast(np.ascontiguousarray(line.transpose(1, 0, 2)))
    torch.testing.assert_close(turned[5].amax(), of_line[4], atol=1e-4, rtol=1e-4)
    assert float(contrast.contrast(flat).amax()) < -6


def test_region_by_region_equals_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).random((75, 131, 3)).astype(np.float32)
    whole = contrast.contrast(image)
    monkeypatch.setattr(contrast, "WHOLE_PIXELS", 100)
    torch.testing.assert_close(contrast.contrast(image), whole, atol=1e-5, rtol=1e-5)
