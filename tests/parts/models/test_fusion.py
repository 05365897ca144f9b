"""Joining good-only evidence and the head: the head may raise a score and never lower it."""

import numpy as np
import pytest

from lineside.parts.models.feature_head.fusion import (
    BEND,
    CLEARING,
    LEAST_SPREAD,
    SLOPE,
    Combination,
    fit_combination,
    load_combination,
    slope_for,
)


def test_the_head_never_lowers_a_score():
    c = Combination(bend=1.0, spread=2.0, slope=3.0)
    h = np.array([-100.0, 0.0, 1.0, 2.0, 5.0])
    np.testing.assert_allclose(c.raised(h), [0, 0, 0, 1.5, 6.0])


def test_in_the_map_the_head_clears_places_at_a_fraction_of_its_weight():
    c = Combination(bend=1.0, spread=2.0, slope=3.0)
    h = np.array([-3.0, 1.0, 5.0])
    np.testing.assert_allclose(c.local(h), [-6.0 * CLEARING, 0, 6.0])
    assert not Combination().local(h).any()


def test_without_defects_the_head_adds_nothing():
    assert not Combination().raised(np.array([-5.0, 0.0, 100.0])).any()


def test_gaussian_logits_get_unit_spread_and_a_bend_at_the_quantile():
    head = np.random.default_rng(0).normal(-1, 4, 20000)
    c = fit_combination(head, 1000)
    assert c.spread == pytest.approx(4, rel=0.03)
    assert np.mean(c.raised(head) > 0) == pytest.approx(1 - BEND, abs=0.005)
    assert c.slope == pytest.approx(SLOPE, rel=0.01)


def test_few_defects_count_less():
    assert 0 < slope_for(1) < slope_for(5) < slope_for(50) < SLOPE
    assert slope_for(0) == 0


def test_a_head_that_is_always_the_same_is_not_trusted_with_tiny_differences():
    c = fit_combination(np.ones(10), 3)
    assert c.spread == LEAST_SPREAD
    assert c.raised(np.array([1.0 + LEAST_SPREAD]))[0] == pytest.approx(c.slope)


def test_survives_its_spec():
    c = fit_combination(np.arange(10.0), 2)
    assert load_combination(c.spec()) == c
