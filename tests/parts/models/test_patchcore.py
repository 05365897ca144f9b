from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch

from lineside.core.errors import UserError
from lineside.parts.models import backbone as trunk
from lineside.parts.models.detector import TrainingImage
from lineside.parts.models.patchcore import coreset as patch_memory
from lineside.parts.models.patchcore.patchcore import Memory, fit_memory, load_memory


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
def memory() -> Memory:
    train = [example(seed, f"part{seed // 2}") for seed in range(12)]
    rows: list[dict[str, object]] = []
    train.append(example(99, "bad", "hole", spot=(20, 20)))
    made = fit_memory(
        train, [], rng=np.random.default_rng(0), log=rows.append, vectors=300, candidates=2000
    )
    assert rows
    assert rows[-1]["of"] == 12
    return made


def test_nearest_agrees_with_pairwise_distances() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(50, 9, generator=generator), torch.randn(30, 9, generator=generator)
    distance, index = patch_memory.nearest_of(a, b)
    expected = torch.cdist(a, b).min(1)
    torch.testing.assert_close(distance, expected.values, atol=1e-4, rtol=1e-4)
    assert torch.equal(index, expected.indices)


def test_farthest_first_agrees_with_the_slow_way() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 5, generator=generator)
    known = (x - x[7]).norm(dim=1)
    chosen = [7]
    while len(chosen) < 10:
        gap = torch.cdist(x, x[chosen]).amin(1)
        chosen.append(int(gap.argmax()))
    assert patch_memory.farthest_from(x, known, 9).tolist() == chosen[1:]


def test_farthest_first_stops_when_all_is_known() -> None:
    x = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
    assert patch_memory.farthest_from(x, torch.tensor([0.0, 1.0, 1.0, 0.0]), 4).tolist() == [1]


def test_k_centre_covers_better_than_chance() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((600, 20)).astype(np.float32)) ** 3
    chosen = patch_memory.k_centre(x, 60, rng)
    assert len(set(chosen.tolist())) == 60
    radius = torch.cdist(x, x[chosen]).amin(1).amax()
    by_chance = torch.cdist(x, x[torch.from_numpy(rng.permutation(600)[:60])]).amin(1).amax()
    assert radius < 0.8 * by_chance
    assert patch_memory.k_centre(x[:5], 60, rng).tolist() == [0, 1, 2, 3, 4]


def test_the_memory_is_bounded_and_holds_only_good_images(memory: Memory) -> None:
    assert memory.vectors.shape == (300, 154)
    assert memory.vectors.dtype == torch.float16
    assert not any(item.startswith("bad") for item in memory.items)
    assert int(memory.owner.max()) == len(memory.items) - 1


def test_a_defect_scores_higher_and_is_found(memory: Memory) -> None:
    good = [memory.predict(plate(seed)).score for seed in range(200, 206)]
    prediction = memory.predict(plate(300, spot=(40, 16)))
    assert abs(np.mean(good)) < 3
    assert prediction.score > max(good) + 3
    assert prediction.map.shape == (32, 32)
    assert prediction.map.dtype == np.float32
    row, column = np.unravel_index(prediction.map.argmax(), (32, 32))
    assert abs((row + 0.5) / 32 - 44 / 64) < 0.12
    assert abs((column + 0.5) / 32 - 20 / 80) < 0.12


def test_neighbours_name_stored_good_patches(memory: Memory) -> None:
    found = memory.neighbours(plate(300, spot=(40, 16)), 3)
    assert len(found) == 3
    assert found[0].distance >= found[1].distance >= found[2].distance
    assert all(n.item in memory.items and 0 < n.item_row < 1 for n in found)
    assert abs(found[0].row - 44 / 64) < 0.12


def test_a_saved_memory_reads_alike(memory: Memory) -> None:
    spec = json.loads(json.dumps(memory.spec()))
    again = load_memory(spec, {k: v.clone() for k, v in memory.tensors().items()})
    image = plate(300, spot=(40, 16))
    assert again.predict(image).score == memory.predict(image).score
    np.testing.assert_array_equal(again.predict(image).map, memory.predict(image).map)
    assert again.items == memory.items


def test_other_weights_are_refused(memory: Memory) -> None:
    with pytest.raises(UserError, match="other trunk weights"):
        load_memory({**memory.spec(), "trunk": "0"}, memory.tensors())


def test_a_false_reject_is_learned(memory: Memory) -> None:
    odd, defect = plate(300, spot=(40, 16)), plate(301, spot=(8, 60))
    child = memory.update(
        [example(300, "new", spot=(40, 16)), example(301, "new", "hole", spot=(8, 60))],
        rng=np.random.default_rng(0),
    )
    assert len(memory.vectors) < len(child.vectors) <= len(memory.vectors) + 64
    assert child.items[-1] == "new/300"
    assert child.predict(odd).score < memory.predict(odd).score - 3
    assert child.predict(defect).score > 0.5 * memory.predict(defect).score
    assert child.neighbours(odd)[0].distance < memory.neighbours(odd)[0].distance


def test_scores_are_scaled_without_the_own_part() -> None:
    """Two images that only their own part resembles must count as far from the memory."""
    train = [example(seed, f"part{seed}") for seed in range(6)]
    twins = [example(50, "odd", spot=(40, 16)), example(50, "odd", spot=(40, 16))]
    options = {"rng": np.random.default_rng(0), "log": lambda row: None, "vectors": 300}
    plain = fit_memory(train, [], candidates=2000, **options)
    with_odd = fit_memory([*train, *twins], [], candidates=2000, **options)
    assert with_odd.hottest[1] > 3 * plain.hottest[1]


def test_one_part_and_too_few_images() -> None:
    options = {"rng": np.random.default_rng(0), "log": lambda row: None, "vectors": 50}
    single = fit_memory([example(1, "a"), example(2, "a")], [], candidates=400, **options)
    assert np.isfinite(single.predict(plate(5)).score)
    with pytest.raises(UserError, match="only 1 good"):
        fit_memory([example(1, "a"), example(2, "b", "hole")], [], **options)


def test_patches_have_one_size_whatever_the_picture() -> None:
    for shape in ((10, 300, 3), (64, 64, 1)):
        assert patch_memory.patches(np.zeros(shape, np.float32)).shape == (1024, 152)
    assert trunk.WIDTH[4] + trunk.WIDTH[10] == 152
