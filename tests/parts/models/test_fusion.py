"""Joining the normal model and the head: the head may raise a score and never lower it."""

import numpy as np
import pytest

from lineside.core.run.codec import decode, encode
from lineside.parts.models.feature_head.fusion import (
    HINGE_QUANTILE,
    MIN_SPREAD,
    NEGATIVE_SLOPE,
    SLOPE,
    Fusion,
    fit_fusion,
    slope_for,
)


def test_the_head_never_lowers_a_score():
    c = Fusion(hinge=1.0, spread=2.0, slope=3.0)
    h = np.array([-100.0, 0.0, 1.0, 2.0, 5.0])
    np.testing.assert_allclose(c.score_term(h), [0, 0, 0, 1.5, 6.0])


def test_in_the_map_the_head_clears_places_at_a_fraction_of_its_weight():
    c = Fusion(hinge=1.0, spread=2.0, slope=3.0)
    h = np.array([-3.0, 1.0, 5.0])
    np.testing.assert_allclose(c.map_term(h), [-6.0 * NEGATIVE_SLOPE, 0, 6.0])
    assert not Fusion().map_term(h).any()


def test_without_defects_the_head_adds_nothing():
    assert not Fusion().score_term(np.array([-5.0, 0.0, 100.0])).any()


def test_gaussian_logits_get_unit_spread_and_a_hinge_at_the_quantile():
    head = np.random.default_rng(0).normal(-1, 4, 20000)
    c = fit_fusion(head, 1000)
    assert c.spread == pytest.approx(4, rel=0.03)
    assert np.mean(c.score_term(head) > 0) == pytest.approx(1 - HINGE_QUANTILE, abs=0.005)
    assert c.slope == pytest.approx(SLOPE, rel=0.01)


def test_few_defects_count_less():
    assert 0 < slope_for(1) < slope_for(5) < slope_for(50) < SLOPE
    assert slope_for(0) == 0


def test_a_head_that_is_always_the_same_is_not_trusted_with_tiny_differences():
    c = fit_fusion(np.ones(10), 3)
    assert c.spread == MIN_SPREAD
    assert c.score_term(np.array([1.0 + MIN_SPREAD]))[0] == pytest.approx(c.slope)


def test_survives_its_spec():
    c = fit_fusion(np.arange(10.0), 2)
    assert decode(Fusion, *encode(c)) == c
