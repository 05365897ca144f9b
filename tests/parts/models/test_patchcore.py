from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch

from lineside.core.errors import UserError
from lineside.core.run.codec import decode, encode
from lineside.parts.models import backbone
from lineside.parts.models.detector import TrainingImage
from lineside.parts.models.patchcore import patchcore as pc
from lineside.parts.models.patchcore.patchcore import PatchCore, fit_patchcore


@pytest.fixture(autouse=True, scope="module")
def no_cache() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LINESIDE_CACHE", "off")
        yield


def plate(seed: int, spot: tuple[int, int] | None = None) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shade = np.linspace(0.3, 0.6, 80, dtype=np.float32)[None, :, None]
    image = shade + rng.normal(0, 0.02, (64, 80, 1)).astype(np.float32)
    if spot is not None:
        image[spot[0] : spot[0] + 8, spot[1] : spot[1] + 8] = 0.02
    return np.clip(image, 0, 1)


def example(seed: int, part: str, label: str = "good", **options: object) -> TrainingImage:
    image: Callable[[], np.ndarray] = lambda: plate(seed, **options)  # noqa: E731
    return TrainingImage(id=f"{part}/{seed}", label=label, part=part, digest="", image=image)


@pytest.fixture(scope="module")
def memory() -> PatchCore:
    train = [example(seed, f"part{seed // 2}") for seed in range(12)]
    rows: list[dict[str, object]] = []
    train.append(example(99, "bad", "hole", spot=(20, 20)))
    made = fit_patchcore(
        train, [], rng=np.random.default_rng(0), log=rows.append, vectors=300, candidates=2000
    )
    assert rows
    assert rows[-1]["of"] == 12
    return made


def test_nearest_agrees_with_pairwise_distances() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(50, 9, generator=generator), torch.randn(30, 9, generator=generator)
    distance = pc.nearest_distance(a, b)
    expected = torch.cdist(a, b).min(1)
    torch.testing.assert_close(distance, expected.values, atol=1e-4, rtol=1e-4)


def test_farthest_first_agrees_with_the_slow_way() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 5, generator=generator)
    known = (x - x[7]).norm(dim=1)
    chosen = [7]
    while len(chosen) < 10:
        gap = torch.cdist(x, x[chosen]).amin(1)
        chosen.append(int(gap.argmax()))
    assert pc.farthest_first(x, known, 9).tolist() == chosen[1:]


def test_farthest_first_stops_when_all_is_known() -> None:
    x = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
    assert pc.farthest_first(x, torch.tensor([0.0, 1.0, 1.0, 0.0]), 4).tolist() == [1]


def test_k_centre_covers_better_than_chance() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((600, 20)).astype(np.float32)) ** 3
    chosen = pc.k_centre(x, 60, rng)
    assert len(set(chosen.tolist())) == 60
    radius = torch.cdist(x, x[chosen]).amin(1).amax()
    by_chance = torch.cdist(x, x[torch.from_numpy(rng.permutation(600)[:60])]).amin(1).amax()
    assert radius < 0.8 * by_chance
    assert pc.k_centre(x[:5], 60, rng).tolist() == [0, 1, 2, 3, 4]


def test_the_memory_is_bounded_and_holds_only_good_images(memory: PatchCore) -> None:
    assert memory.bank.shape == (300, 154)
    assert memory.bank.dtype == torch.float16
    goods = [example(seed, f"part{seed // 2}") for seed in range(12)]
    options = {"rng": np.random.default_rng(0), "log": lambda row: None, "vectors": 300}
    assert torch.equal(fit_patchcore(goods, [], candidates=2000, **options).bank, memory.bank)


def test_a_defect_scores_higher_and_is_found(memory: PatchCore) -> None:
    good = [memory.predict(plate(seed)).score for seed in range(200, 206)]
    prediction = memory.predict(plate(300, spot=(40, 16)))
    assert abs(np.mean(good)) < 3
    assert prediction.score > max(good) + 3
    assert prediction.map.shape == (32, 32)
    assert prediction.map.dtype == np.float32
    row, column = np.unravel_index(prediction.map.argmax(), (32, 32))
    assert abs((row + 0.5) / 32 - 44 / 64) < 0.12
    assert abs((column + 0.5) / 32 - 20 / 80) < 0.12


def test_a_saved_memory_reads_alike(memory: PatchCore) -> None:
    spec, tensors = encode(memory)
    spec = json.loads(json.dumps(spec))
    again = decode(PatchCore, spec, tensors)
    image = plate(300, spot=(40, 16))
    assert again.predict(image).score == memory.predict(image).score
    np.testing.assert_array_equal(again.predict(image).map, memory.predict(image).map)


def test_other_weights_are_refused(memory: PatchCore) -> None:
    with pytest.raises(UserError, match="other backbone weights"):
        dataclasses.replace(memory, backbone="0")


def test_a_false_reject_is_learned(memory: PatchCore) -> None:
    odd, defect = plate(300, spot=(40, 16)), plate(301, spot=(8, 60))
    child = memory.update(
        [example(300, "new", spot=(40, 16)), example(301, "new", "hole", spot=(8, 60))],
        rng=np.random.default_rng(0),
    )
    assert len(memory.bank) < len(child.bank) <= len(memory.bank) + 64
    assert child.predict(odd).score < memory.predict(odd).score - 3
    assert child.predict(defect).score > 0.5 * memory.predict(defect).score


def test_scores_are_scaled_without_the_own_part() -> None:
    """Two images that only their own part resembles must count as far from the memory."""
    train = [example(seed, f"part{seed}") for seed in range(6)]
    twins = [example(50, "odd", spot=(40, 16)), example(50, "odd", spot=(40, 16))]
    options = {"rng": np.random.default_rng(0), "log": lambda row: None, "vectors": 300}
    plain = fit_patchcore(train, [], candidates=2000, **options)
    with_odd = fit_patchcore([*train, *twins], [], candidates=2000, **options)
    assert with_odd.map_scale[1] > 3 * plain.map_scale[1]


def test_one_part_and_too_few_images() -> None:
    options = {"rng": np.random.default_rng(0), "log": lambda row: None, "vectors": 50}
    single = fit_patchcore([example(1, "a"), example(2, "a")], [], candidates=400, **options)
    assert np.isfinite(single.predict(plate(5)).score)
    with pytest.raises(UserError, match="only 1 good"):
        fit_patchcore([example(1, "a"), example(2, "b", "hole")], [], **options)


def test_patches_have_one_size_whatever_the_picture() -> None:
    for shape in ((10, 300, 3), (64, 64, 1)):
        assert pc.patch_features(np.zeros(shape, np.float32)).shape == (1024, 152)
    assert backbone.WIDTH[4] + backbone.WIDTH[10] == 152
