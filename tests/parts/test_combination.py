"""Joining good-only evidence and the head: the head may raise a score and never lower it."""

import numpy as np
import pytest

from lineside.parts.combination import (
    SLOPE,
    Combination,
    fit_combination,
    load_combination,
    slope_for,
)


def test_the_head_never_lowers_a_score():
    c = Combination(good_centre=0, good_spread=1, head_bend=1.0, head_spread=2.0, slope=3.0)
    h = np.array([-100.0, 0.0, 1.0, 2.0, 5.0])
    np.testing.assert_allclose(c.head(h), [0, 0, 0, 1.5, 6.0])


def test_without_defects_only_goodness_counts():
    c = fit_combination(np.arange(101.0), None, 0)
    assert c.slope == 0
    assert c.goodness(np.array([50.0]))[0] == pytest.approx(0)
    assert not c.head(np.array([100.0])).any()


def test_gaussian_outputs_get_unit_spread_and_a_bend_at_their_80_percent_quantile():
    rng = np.random.default_rng(0)
    good, head = rng.normal(3, 2, 20000), rng.normal(-1, 4, 20000)
    c = fit_combination(good, head, 1000)
    assert c.good_centre == pytest.approx(3, abs=0.05)
    assert c.good_spread == pytest.approx(2, rel=0.03)
    assert c.head_spread == pytest.approx(4, rel=0.03)
    assert np.mean(c.head(head) > 0) == pytest.approx(0.2, abs=0.005)
    assert c.slope == pytest.approx(SLOPE, rel=0.01)


def test_few_defects_count_less():
    assert 0 < slope_for(1) < slope_for(5) < slope_for(50) < SLOPE
    assert slope_for(0) == 0


def test_constant_outputs_do_not_divide_by_zero():
    c = fit_combination(np.ones(10), np.ones(10), 3)
    assert np.isfinite(c.goodness(np.array([2.0]))).all()
    assert np.isfinite(c.head(np.array([2.0]))).all()


def test_survives_its_spec():
    c = fit_combination(np.arange(10.0), np.arange(10.0), 2)
    assert load_combination(c.spec()) == c
