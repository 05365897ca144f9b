"""A planted slow fault is caught and not absorbed, in the small."""

import dataclasses

from benchmarks.machines.poison import FAULTY, ONSET_DAY, compare

from lineside.machines.simulation.rig import Rig


def test_a_planted_slow_fault_is_caught_and_not_absorbed():
    scenario = dataclasses.replace(FAULTY, rig=Rig(seconds=0.06), days=150.0, growth_days=190.0)
    found = compare(scenario, 0)
    assert found.ours and min(found.ours) > ONSET_DAY
    # While the fault is at its worst the rival is silent: it went along, week by week.
    assert max(found.ours) > 100 > max(found.rival, default=0.0)
    assert found.refused
