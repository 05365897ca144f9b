"""Learning one machine: what is left out of its baseline, and what is written down."""

import itertools

import numpy as np
import pytest

from lineside.core.errors import UserError
from lineside.machines.data import find_snapshots
from lineside.machines.simulation.demo import save_history
from lineside.machines.simulation.rig import Rig
from lineside.machines.simulation.scenarios import Scenario, simulate_history
from lineside.machines.training.fitting import WARM_UP, fit_machine


def items_of(folder, **facts):
    scenario = Scenario(
        **{
            "name": "pump", "rig": Rig(seconds=0.1), "days": 14.0, "interval_hours": 2.0,
            "onset_day": None, "run_in": 0.0, **facts,
        }
    )  # fmt: skip
    save_history(simulate_history(scenario, np.random.default_rng(3)), folder / "pump")
    return find_snapshots(folder)


def learned(items, fitted):
    rng = np.random.default_rng(0)
    return fit_machine(
        items[:fitted], "trend", rng=rng, log=lambda row: None, stop=lambda: False,
        held_out=items[fitted:],
    )  # fmt: skip


def test_a_run_in_is_found_and_left_out(tmp_path):
    items = items_of(tmp_path, run_in=0.8, run_in_days=0.8)
    machine = learned(items, 110)
    (row,) = machine.learning_record
    assert 4 <= row.run_in <= 44 and row.rows == 110 - row.run_in == len(machine.reference)
    assert row.first == items[row.run_in].time == machine.reference_times[0]
    assert row.last == items[-1].time and not row.needs_consent


def test_a_run_in_that_does_not_end_needs_consent(tmp_path):
    (row,) = learned(items_of(tmp_path, run_in=1.5, run_in_days=10.0), 110).learning_record
    assert row.run_in == 0 and row.needs_consent


def test_a_fault_that_grows_during_calibration_needs_consent(tmp_path):
    items = items_of(tmp_path, onset_day=9.5, growth_days=5.5)
    (row,) = learned(items, 110).learning_record
    assert row.needs_consent and row.run_in == 0
    fitted_only = fit_machine(
        items[:110], "trend", rng=np.random.default_rng(0), log=lambda row: None,
        stop=lambda: False,
    )  # fmt: skip
    assert not fitted_only.learning_record[0].needs_consent


def test_snapshots_after_a_restart_are_not_learned(tmp_path):
    items = items_of(tmp_path, gaps=((4.0, 1.0),))
    machine = learned(items, 110)
    restart = next(b.time for a, b in itertools.pairwise(items) if b.time - a.time > 9000)
    after = [t for t in machine.reference_times if t >= restart]
    assert len(machine.reference_times) == 110 - WARM_UP
    assert after[0] == restart + WARM_UP * 7200


@pytest.mark.parametrize("count", [40, 60])
def test_short_healthy_histories_are_stationary(tmp_path, count):
    items = items_of(tmp_path)[:count]
    assert not learned(items, round(2 * count / 3)).learning_record[0].needs_consent
    with pytest.raises(UserError, match="pump has 10 readable snapshots"):
        learned(items, 10)
