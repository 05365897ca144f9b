"""Drift while learning, the run-in that is left out, and the entries of the learning record."""

import json

import numpy as np
import pytest

from lineside.core.run.codec import decode, encode
from lineside.machines.training.baseline import LearningEntry, drift, drift_limit, run_in_length


def noise(rows=200, columns=300, seed=0):
    return np.random.default_rng(seed).normal(0.0, 0.1, size=(rows, columns))


def test_drift_is_signed_and_in_spreads_about_the_running_level():
    rows = noise()
    rows[:, 7] -= 2.0 * np.arange(200) / 200
    moves = drift(rows)
    assert np.abs(moves).argmax() == 7
    # A fall of 1.6 between the middles of the outer fifths; the spread holds a fifth of the slope.
    within = np.sqrt(0.1**2 + (0.4 / np.sqrt(12)) ** 2)
    assert moves[7] == pytest.approx(-1.6 / within, rel=0.25)


@pytest.mark.parametrize("rows", [20, 40, 60, 133, 200])
def test_stationary_rows_pass_for_any_number_of_rows(rows):
    largest = [np.abs(drift(noise(rows, 300, seed))).max() for seed in range(20)]
    assert np.mean(np.array(largest) <= drift_limit(rows)) >= 0.85
    assert drift_limit(200) == 3.0 < drift_limit(20)


def test_a_run_in_is_left_out_until_it_has_levelled():
    rows = noise()
    rows[:, :3] += 3 * np.exp(-np.arange(200) / 12.0)[:, None]
    start = run_in_length(rows, rows[:, :2], 80)
    assert 10 <= start <= 60
    assert np.abs(drift(rows[start:])).max() <= 3.0
    assert run_in_length(rows, rows[:, :2], 4) == 0  # longer than may be left out: a person decides
    assert run_in_length(rows, np.zeros((200, 0)), 80) == 0
    assert run_in_length(noise(), noise()[:, :2], 80) == 0


@pytest.mark.parametrize("shape", ["step", "ramp"])
def test_rows_that_become_louder_are_never_a_run_in(shape):
    rows = noise()
    grown = np.arange(200) / 100 if shape == "ramp" else 1.0 * (np.arange(200) >= 60)
    rows[:, :3] += grown[:, None]
    assert run_in_length(rows, rows[:, :2], 80) == 0
    assert np.abs(drift(rows)).max() > 3.0


def test_an_entry_of_the_learning_record_is_stored_as_json_and_knows_its_consent():
    row = LearningEntry(
        first=0.0, last=9.0, rows=10, drift=5.0, drift_feature="h.rms", drift_limit=3.0, started=0.0
    )
    assert row.needs_consent
    assert decode(LearningEntry, json.loads(json.dumps(encode(row)[0])), {}) == row
    assert not LearningEntry(
        first=0.0, last=9.0, rows=10, drift=5.0, by="Kim", started=0.0
    ).needs_consent
    assert not LearningEntry(first=0.0, last=9.0, rows=10, drift=2.9, started=0.0).needs_consent
