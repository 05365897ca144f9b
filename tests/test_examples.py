"""The example scripts: their tasks and a short run."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location(
        "plane_example", EXAMPLES / "information_plane.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_the_symmetric_rule_has_64_sums_and_2118_ones(example):
    patterns, sums, labels = example.rule()
    assert patterns.shape == (4096, 12) and len(np.unique(patterns, axis=0)) == 4096
    assert len(np.unique(sums)) == 64
    assert labels.sum() == 2118
    share = 2118 / 4096
    entropy = -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    assert example.information.entropy(labels) == pytest.approx(entropy)
    assert entropy == pytest.approx(0.9992, abs=5e-5)


def test_the_rule_is_the_same_after_a_turn_of_the_icosahedron(example):
    vertices = example.icosahedron()
    np.testing.assert_allclose(np.linalg.norm(vertices, axis=1), 1)
    turned = np.roll(vertices, 1, axis=1)
    order = np.array([np.argmin(((vertices - each) ** 2).sum(1)) for each in turned])
    assert sorted(order) == list(range(12)) and (order != np.arange(12)).any()
    patterns, sums, _ = example.rule()
    code = patterns[:, order] @ (1 << np.arange(12))
    np.testing.assert_array_equal(sums[code.astype(int)], sums)


@pytest.mark.parametrize("kind", ["tanh", "ReLU"])
def test_a_short_run_gives_a_plane_of_six_layers(example, kind):
    run = example.trained(kind, seed=0, epochs=2)
    assert run.plane.layers == (*[f"hidden {i}" for i in range(1, 6)], "output")
    assert run.plane.steps == (0, 1, 2) and run.plane.ceiling_bits == 12
    assert 0.3 < run.accuracy < 1
    assert len(example.changes(kind, run.plane)) == 2
