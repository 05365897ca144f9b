"""Operating states: idle, learned, unknown; and what speed and load explain."""

import numpy as np
import pytest

from lineside.core.run.codec import decode, encode
from lineside.machines.data.measurement import Measurement
from lineside.machines.monitoring.operating_states import (
    OperatingModel,
    fit_operating_model,
    unitless_columns,
)

NAMES = ("a.rms", "a.kurtosis", "b.rms", "a.envelope_outer_race", "a.band_000", "value.T")


def made(speeds, loads, seed=0):
    """Features that grow with powers of the speed, and with the load, beside some noise."""
    rng = np.random.default_rng(seed)
    rows = []
    for speed, load in zip(speeds, loads, strict=True):
        grown = 2 * np.log(max(speed, 1e-3)) + 0.5 * load
        rows.append([grown, 0.0, 1.5 * grown, 0.0, grown, 20.0])
    return (np.array(rows) + 0.01 * rng.standard_normal((len(rows), 6))).astype(np.float32)


def measured(speed=None, load=None):
    return Measurement(machine="m", time=0.0, speed_hz=speed, load=load)


@pytest.fixture
def learned():
    rng = np.random.default_rng(1)
    speeds, loads = rng.choice([10.0, 15.0, 20.0], 120), rng.choice([0.5, 1.0], 120)
    rows = made(speeds, loads)
    found, running = fit_operating_model(
        [measured(s, q) for s, q in zip(speeds, loads, strict=True)], rows, NAMES
    )
    assert running.all()
    return found


def test_speed_and_load_explain_what_they_change(learned):
    rows = made([10.0, 12.0, 20.0], [0.5, 1.0, 1.0], seed=2)
    left = np.stack(
        [
            learned.compensate(measured(s, q), row)
            for s, q, row in zip([10.0, 12.0, 20.0], [0.5, 1.0, 1.0], rows, strict=True)
        ]
    )
    assert np.ptp(rows[:, 0]) > 1.0
    assert np.ptp(left, axis=0).max() < 0.1


def test_states_are_told_apart(learned):
    row = made([15.0], [1.0])[0]
    assert learned.state_of(measured(15.0, 1.0), row, NAMES) == "learned"
    assert learned.state_of(measured(25.0, 1.0), row, NAMES) == "unknown"
    assert learned.state_of(measured(15.0, 2.0), row, NAMES) == "unknown"
    assert learned.state_of(measured(None, 1.0), row, NAMES) == "unknown"
    assert learned.state_of(measured(0.1, 1.0), row, NAMES) == "idle"


def test_without_a_speed_standstill_shows_in_every_channel():
    rows = made([20.0] * 40 + [0.5] * 10, [1.0] * 50)
    found, running = fit_operating_model([measured()] * 50, rows, NAMES)
    assert running.tolist() == [True] * 40 + [False] * 10 and not found.drivers
    assert found.state_of(measured(), rows[-1], NAMES) == "idle"
    half_dead = rows[0].copy()
    half_dead[0] = rows[-1, 0]
    assert found.state_of(measured(), half_dead, NAMES) == "learned"
    assert np.array_equal(found.compensate(measured(), rows[0]), rows[0])


def test_a_slow_value_called_rms_is_no_level():
    names = ("value.rms", "value.kurtosis")
    rows = np.full((20, 2), 100.0, dtype=np.float32)
    found, running = fit_operating_model([measured()] * 20, rows, names)
    assert running.all() and not found.levels
    assert found.state_of(measured(), rows[0] / 2, names) == "learned"
    assert np.isnan(found.level_rise(rows[0] * 2, names))


def test_the_rise_is_the_mean_over_the_channels(learned):
    row = made([15.0], [1.0])[0]
    row[[0, 2]] += [0.2, 0.6]
    left = learned.compensate(measured(15.0, 1.0), row)
    assert learned.level_rise(left, NAMES) == pytest.approx(0.4, abs=0.05)


def test_one_speed_teaches_nothing_about_speed():
    rng = np.random.default_rng(0)
    speeds = 20.0 * (1 + 0.002 * rng.standard_normal(50))
    found, _ = fit_operating_model([measured(s) for s in speeds], made(speeds, [1.0] * 50), NAMES)
    assert found.drivers == ()
    assert found.state_of(measured(20.3), made([20.3], [1.0])[0], NAMES) == "learned"
    assert found.state_of(measured(15.0), made([15.0], [1.0])[0], NAMES) == "unknown"


def test_features_without_a_unit_are_named():
    assert [NAMES[i] for i in unitless_columns(NAMES)] == ["a.kurtosis", "a.envelope_outer_race"]


def test_it_is_stored_as_json_and_arrays(learned):
    again = decode(OperatingModel, *encode(learned))
    row = made([12.0], [1.0])[0]
    assert np.array_equal(
        again.compensate(measured(12.0, 1.0), row), learned.compensate(measured(12.0, 1.0), row)
    )


def test_an_unlearned_speed_explains_amplitudes_only_so_far():
    """From one speed, healthy levels may rise with anything between its zeroth and square."""
    rng = np.random.default_rng(0)
    speeds = 20.0 * (1 + 0.001 * rng.standard_normal(80))
    found, _ = fit_operating_model(
        [measured(s, 1.0) for s in speeds], made(speeds, [1.0] * 80), NAMES
    )
    usual = found.medians[0]
    for speed, rise, left in (
        (30.0, 1.3 * np.log(1.5), 0.0),  # any power up to 2
        (30.0, 2 * np.log(1.5) + 0.4, 0.4),
        (10.0, -np.log(2), 0.0),
        (10.0, 0.3, 0.3),  # louder although slower
        (20.1, 0.3, 0.3),  # as learned
    ):
        row = made([20.0], [1.0])[0]
        row[0] = usual + rise
        assert found.compensate(measured(speed, 1.0), row)[0] - usual == pytest.approx(
            left, abs=0.01
        )
    row[0] = usual + np.log(1.2)
    assert found.compensate(measured(20.0, 1.2), row)[0] == pytest.approx(usual, abs=0.01)
    assert found.compensate(measured(20.0, -1.0), row)[0] == pytest.approx(usual, abs=0.01)
    assert row[1] == found.compensate(measured(30.0, 1.0), row)[1]


def test_beyond_several_speeds_the_nearest_one_explains_its_share(learned):
    row = made([30.0], [1.0])[0]  # the level grows with the square: more than speed 20 explains
    left = learned.compensate(measured(30.0, 1.0), row)
    assert left[0] == pytest.approx(learned.medians[0], abs=0.05)
    row[0] += 0.5
    assert learned.compensate(measured(30.0, 1.0), row)[0] == pytest.approx(
        learned.medians[0] + 0.5, abs=0.1
    )
    unknown = learned.compensate(measured(None, 1.0), row)  # an unknown speed explains everything
    assert unknown[0] <= learned.medians[0] + 1e-5
