"""When a training is sampled: within its share, again after a slow sample, and at the end."""

import math
from itertools import pairwise

import pytest

from lineside.core.training.pace import Pace


def sampled(cost, step_seconds, steps, *, share=0.01, last_step=None, confirm=lambda step: False):
    """Return the sampled steps of a training, of which `cost` gives the seconds of a sample."""
    pace, seconds, found = Pace(10, last_step), 0.0, []
    for step in range(steps):
        if pace.due(step, seconds):
            pace.begin(step, seconds)
            pace.spend(cost(step))
            pace.plan(share, confirm=confirm(step))
            found.append(step)
        seconds += step_seconds(step)
    return found


def test_every_tenth_step_where_samples_are_cheap():
    assert sampled(lambda s: 1e-6, lambda s: 1e-3, 51) == [0, 10, 20, 30, 40, 50]


def test_samples_take_their_share_of_the_time():
    # 1 ms each at 1 % of the time: every 100 ms, which are 1000 steps
    steps = sampled(lambda s: 1e-3, lambda s: 1e-4, 4000)
    assert steps[:3] == [0, 10, 20]
    assert [b - a for a, b in pairwise(steps[2:])] == pytest.approx([1000] * 3, abs=2)


def test_one_slow_sample_is_forgotten():
    steps = sampled(lambda s: 5.0 if s == 20 else 1e-3, lambda s: 1e-3, 1000)
    assert steps[:6] == [0, 10, 20, 120, 220, 320]


def test_it_recovers_when_the_training_becomes_slower_or_samples_cheaper():
    slower = sampled(lambda s: 1e-3, lambda s: 1e-4 if s < 2000 else 1e-1, 2100)
    assert [s for s in slower if s >= 2001] == list(range(slower[-10], 2100, 10))
    cheaper = sampled(lambda s: 1e-1 if s < 100 else 1e-6, lambda s: 1e-1, 3000)
    assert cheaper[-1] - cheaper[-2] == 10


def test_the_end_is_seen_twice_and_a_suspicion_is_confirmed_once():
    assert sampled(lambda s: 1.0, lambda s: 1e-3, 500, last_step=499) == [0, 10, 20, 489, 499]
    steps = sampled(lambda s: 1e-3, lambda s: 1e-3, 400, confirm=lambda step: step >= 100)
    assert steps == [0, 10, 20, 120, 130, 230, 240, 340, 350]


def test_without_a_share_only_the_first_three():
    assert sampled(lambda s: 1e-3, lambda s: 1.0, 200, share=0.0) == [0, 10, 20]
    pace = Pace(10)
    pace.begin(0, 0.0)
    assert pace.plan(0.0, confirm=False) == math.inf
