"""Pages degraded by augraphy: repeatable, another picture, every symbol where it was."""

import random

import numpy as np
import pytest

from lineside.core.errors import UserError

pytest.importorskip("augraphy", reason="pip install augraphy")
from benchmarks.scores import second_family


@pytest.fixture(scope="module")
def page():
    image = np.full((240, 320), 255, np.uint8)
    image[60:102:10] = 0  # five staff lines
    image[61:103:10] = 120  # smooth at one edge
    image[160:170, 100:114] = image[160:170, 200:214] = 0  # two heads
    return image


def test_the_same_seed_gives_the_same_bytes(page):
    first, names = second_family.degrade(page, 3)
    random.random()
    again, _ = second_family.degrade(page, 3)
    assert first.tobytes() == again.tobytes()
    assert len(names) == 3
    assert len({second_family.degrade(page, seed)[1] for seed in range(8)}) > 3


PHASES = second_family.recipes()


@pytest.mark.parametrize(
    ("phase", "name"),
    [(i, name) for i, phase in enumerate(PHASES) for name in phase if name != "plain"],
)
def test_each_recipe_changes_the_page_and_moves_nothing(page, phase, name):
    random.seed(1)
    np.random.seed(1)
    result = np.asarray(PHASES[phase][name](page.copy())).astype(float)
    result = result.mean(-1) if result.ndim == 3 else result
    assert result.shape == page.shape
    assert not np.array_equal(result, page)
    here = result[page == 0].mean()
    for shift in ((15, 0), (0, 30), (-15, 0), (0, -30), (5, 0)):
        assert here < result[np.roll(page, shift, (0, 1)) == 0].mean(), shift


def test_a_missing_augraphy_is_said_in_one_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "augraphy", None)
    with pytest.raises(UserError, match="augraphy is missing"):
        second_family.recipes()
