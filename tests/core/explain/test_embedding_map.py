"""Maps of embeddings: principal components, t-SNE and neighbour agreement on made-up clusters."""

import numpy as np
import pytest

from lineside.core.explain.embedding_map import embedding_map, neighbour_agreement, principal, tsne


def clusters(gap):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5))
    x[30:, 2] += gap
    return x, ["a"] * 30 + ["b"] * 30, [str(i) for i in range(60)]


def test_principal_components_are_those_of_the_singular_vectors():
    x, _, _ = clusters(6)
    centred = x - x.mean(0)
    _, _, v = np.linalg.svd(centred, full_matrices=False)
    assert np.allclose(np.abs(principal(x)), np.abs(centred @ v[:2].T))


def test_tsne_keeps_clusters_apart_and_is_repeatable():
    x, _, _ = clusters(12)
    places = tsne(x, 1)
    assert np.array_equal(places, tsne(x, 1))
    a, b = places[:30], places[30:]
    between = np.linalg.norm(a.mean(0) - b.mean(0))
    assert between > a.std() and between > b.std()


def test_agreement_is_one_for_clusters_and_half_by_chance():
    assert neighbour_agreement(*clusters(20)) == pytest.approx(1.0)
    assert neighbour_agreement(*clusters(0)) == pytest.approx(0.5, abs=0.12)


def test_neighbours_of_the_same_group_do_not_count():
    x = np.repeat(np.random.default_rng(1).normal(size=(12, 3)), 5, axis=0)
    labels = ["a"] * 30 + ["b"] * 30
    groups = np.repeat(np.arange(12), 5).astype(str).tolist()
    assert neighbour_agreement(x, labels, [str(i) for i in range(60)]) > 0.6
    assert neighbour_agreement(x, labels, groups) < 0.7
    assert np.isnan(neighbour_agreement(x, labels, ["one"] * 60))


def test_rare_labels_count_as_much_as_common_ones():
    rng = np.random.default_rng(2)
    x, labels = rng.normal(size=(100, 3)), ["a"] * 90 + ["b"] * 10
    assert neighbour_agreement(x, labels, [str(i) for i in range(100)]) == pytest.approx(
        0.5, abs=0.12
    )


def test_the_figure_names_its_panels_and_classes():
    x, labels, _ = clusters(5)
    svg = embedding_map("t", "c", {"start": principal(x)}, labels, ("b", "a")).image.decode()
    assert "start" in svg and svg.index(">b<") < svg.index(">a<")
