"""Joining the normal model and the head: the head may raise a score and never lower it."""

import numpy as np
import pytest

from lineside.core.run.codec import decode, encode
from lineside.core.statistics.ranking import auroc
from lineside.parts.models.feature_head.fusion import (
    HINGE_QUANTILE,
    MEASURED_PARTS,
    MIN_SPREAD,
    NEGATIVE_SLOPE,
    SLOPE,
    Fusion,
    HeldOut,
    expected_ranks,
    fit_fusion,
    learn_slope,
    slope_for,
    standard_error,
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


GOOD, PARTS = 200, 30


def held_out(normal_shift, logit_shift, kinds=1, parts=PARTS):
    """Held-out scores of 200 good images and of two images of each faulty part."""
    rng = np.random.default_rng(0)
    faulty = np.arange(GOOD + 2 * parts) >= GOOD
    return HeldOut(
        normal=rng.normal(size=len(faulty)) + normal_shift * faulty,
        logits=rng.normal(size=len(faulty)) + logit_shift * faulty,
        parts=[f"g{i}" for i in range(GOOD)] + [f"f{i // 2}" for i in range(2 * parts)],
        labels=["good"] * GOOD + [f"kind{i // 2 % kinds}" for i in range(2 * parts)],
        faulty=faulty,
    )


def learned(found):
    usual = fit_fusion(found.logits[~found.faulty], len({p for p in found.parts if p[0] == "f"}))
    return learn_slope(usual, found).slope, usual.slope


def test_a_head_that_recognises_held_out_parts_counts_more():
    slope, usual = learned(held_out(0.5, 5))
    assert slope > usual


def test_a_head_that_raises_only_good_parts_counts_nothing():
    assert learned(held_out(1, -2))[0] == 0


def test_a_head_that_knows_nothing_counts_less_than_usual():
    slope, usual = learned(held_out(3, 0))
    assert slope < usual / 2


def test_a_weight_that_nothing_speaks_against_stays():
    slope, usual = learned(held_out(50, 50))  # all faulty parts are far above all good ones
    assert slope == usual


def test_few_parts_do_not_move_the_weight():
    slope, usual = learned(held_out(0.5, 5, parts=MEASURED_PARTS - 1))
    assert slope == usual
    assert usual == slope_for(MEASURED_PARTS - 1)


def test_where_each_part_is_another_kind_the_next_one_is_probably_unknown_too():
    """The same scores count less for the head where kinds do not repeat."""
    assert learned(held_out(1, 5, kinds=PARTS))[0] < learned(held_out(1, 5))[0]


def test_expected_ranks_are_the_auroc_with_and_without_what_the_head_says():
    found = held_out(1, 2)
    term = np.maximum(0, found.logits)
    known = expected_ranks(found.normal, term, found.faulty, 0.0)
    assert known.mean() == pytest.approx(auroc(found.normal + term, found.faulty))
    # an unknown part gets the term of a random good image
    rng = np.random.default_rng(1)
    shuffled = np.where(found.faulty, rng.choice(term[~found.faulty], len(term)), term)
    unknown = expected_ranks(found.normal, term, found.faulty, 1.0)
    assert unknown.mean() == pytest.approx(auroc(found.normal + shuffled, found.faulty), abs=0.03)


def test_the_standard_error_counts_groups_not_images():
    values = np.random.default_rng(0).normal(size=40)
    each = np.arange(40).astype(str)
    usual = values.std(ddof=1) / 40**0.5
    assert standard_error(values, each) == pytest.approx(usual)
    assert standard_error(np.repeat(values, 3), np.repeat(each, 3)) == pytest.approx(usual)
