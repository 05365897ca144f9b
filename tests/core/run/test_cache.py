from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from lineside.core.run import cache as features_cache
from lineside.core.run.cache import FeatureCache, default_folder, key_of


def arrays(value: float = 0.1, size: int = 1000) -> dict[str, np.ndarray]:
    return {"a": np.full((size,), value, np.float32), "b": np.float32([[1.0, 2.0]])}


def never() -> dict[str, np.ndarray]:
    raise AssertionError("computed although it was stored")


def test_a_hit_returns_what_the_miss_returned(tmp_path: Path) -> None:
    cache = FeatureCache(folder=tmp_path)
    first = cache.fetch("d", "x", arrays)
    again = FeatureCache(folder=tmp_path).fetch("d", "x", never)
    assert first["a"].dtype == np.float32
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    np.testing.assert_allclose(first["a"], 0.1, rtol=1e-3)
    assert first["a"][0] != np.float32(0.1)  # rounded on the miss as well


def test_without_a_folder_the_values_are_the_same(tmp_path: Path) -> None:
    stored = FeatureCache(folder=tmp_path).fetch("d", "x", arrays)
    loose = FeatureCache(folder=None).fetch("d", "x", arrays)
    np.testing.assert_array_equal(stored["a"], loose["a"])


def test_the_key_depends_on_file_and_extractor() -> None:
    assert len({key_of("a", "b"), key_of("a", "c"), key_of("c", "b"), key_of("ab", "")}) == 4


def test_a_file_without_a_hash_is_not_stored(tmp_path: Path) -> None:
    FeatureCache(folder=tmp_path).fetch("", "x", arrays)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_least_recently_used_goes_first_and_the_limit_holds(tmp_path: Path) -> None:
    cache = FeatureCache(folder=tmp_path, limit_mb=0.0105)  # room for four of about 2.2 kB
    for name in "1234":
        cache.fetch(name, "x", arrays)
        time.sleep(0.01)
    cache.fetch("1", "x", never)
    for name in "56":
        time.sleep(0.01)
        cache.fetch(name, "x", arrays)
    files = list(tmp_path.rglob("*.safetensors"))
    assert sum(f.stat().st_size for f in files) <= 10500
    assert cache.get(key_of("1", "x")) is not None
    assert cache.get(key_of("2", "x")) is None
    assert cache.get(key_of("6", "x")) is not None


def test_an_entry_over_the_limit_evicts_nothing(tmp_path: Path) -> None:
    cache = FeatureCache(folder=tmp_path, limit_mb=0.005)
    cache.fetch("small", "x", arrays)
    cache.fetch("big", "x", lambda: arrays(size=9000))
    assert cache.get(key_of("small", "x")) is not None


@pytest.mark.parametrize("damage", [b"", b"rubbish" * 10, "half"])
def test_a_damaged_entry_is_computed_again(tmp_path: Path, damage: bytes | str) -> None:
    cache = FeatureCache(folder=tmp_path)
    first = cache.fetch("d", "x", arrays)
    (file,) = tmp_path.rglob("*.safetensors")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] if damage == "half" else damage)
    np.testing.assert_array_equal(cache.fetch("d", "x", arrays)["a"], first["a"])
    np.testing.assert_array_equal(cache.fetch("d", "x", never)["a"], first["a"])


def test_a_full_disk_means_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(features_cache.os, "replace", full)
    cache = FeatureCache(folder=tmp_path)
    with pytest.warns(UserWarning, match="No space left"):
        first = cache.fetch("d", "x", arrays)
    assert first["b"][0, 1] == 2.0
    assert not cache.usable
    assert not [f for f in tmp_path.rglob("*") if f.is_file()]
    cache.fetch("e", "x", arrays)  # silent from now on


def test_a_folder_that_is_a_file_means_no_cache(tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("x")
    cache = FeatureCache(folder=tmp_path / "occupied")
    with pytest.warns(UserWarning):
        assert cache.fetch("d", "x", arrays)["b"][0, 0] == 1.0


def test_huge_values_are_clipped_not_infinite() -> None:
    got = FeatureCache(folder=None).fetch("d", "x", lambda: {"a": np.float32([1e9, -1e9])})
    assert np.isfinite(got["a"]).all()


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINESIDE_CACHE", "/somewhere")
    assert default_folder() == Path("/somewhere")
    monkeypatch.setenv("LINESIDE_CACHE", "off")
    assert default_folder() is None
    monkeypatch.delenv("LINESIDE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", os.sep + "xdg")
    assert default_folder() == Path("/xdg/lineside")
