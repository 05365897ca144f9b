"""Calibrated machines judged over time: two tiers of alarm, and outcomes that know both."""

import dataclasses

import numpy as np
import pytest

from lineside.core.contract import Refusal
from lineside.machines import outcomes as judging
from lineside.machines.alarms.verdict import Event, Verdict
from lineside.machines.config import Config
from lineside.machines.data import find_snapshots, load_measurement
from lineside.machines.data.measurement import Channel
from lineside.machines.model import MachinesModel
from lineside.machines.monitoring.session import Session
from lineside.machines.simulation.demo import save_history
from lineside.machines.simulation.rig import Rig
from lineside.machines.simulation.scenarios import Scenario, simulate_history
from lineside.machines.training.fitting import fit_machine

SCENARIO = Scenario(
    name="pump", rig=Rig(seconds=0.1), days=8.0, interval_hours=2.0, onset_day=None, run_in=0.0
)


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet")
    save_history(simulate_history(SCENARIO, np.random.default_rng(0)), folder / "pump")
    return [s for s in find_snapshots(folder) if not isinstance(s, Refusal)]


@pytest.fixture(scope="module")
def machine(snapshots):
    learned = fit_machine(
        snapshots[:44], "trend", rng=np.random.default_rng(0), log=lambda row: None,
        stop=lambda: False,
    )  # fmt: skip
    model = MachinesModel(method="trend", machines={"pump": learned})
    raw = list(judging.outcomes(model, snapshots[44:66]))
    return judging.calibrate(model, raw, Config()).machines["pump"]


def louder(measurement, factor):
    channels = {
        name: Channel(samples=np.float32(factor) * c.samples, rate_hz=c.rate_hz, unit=c.unit)
        for name, c in measurement.channels.items()
    }
    return dataclasses.replace(measurement, channels=channels)


def deafened(machine):
    """The same machine with a detector whose novelty never passes the limit."""
    deaf = dataclasses.replace(machine.main.calibration, spread=1e6)
    main = dataclasses.replace(machine.main, calibration=deaf)
    return dataclasses.replace(machine, main=main)


@pytest.mark.parametrize(("factor", "danger"), [(2.0, False), (4.5, True)])
def test_three_times_as_loud_is_danger_whatever_the_detector_says(
    machine, snapshots, factor, danger
):
    session = Session(deafened(machine))
    said = [session.push(louder(load_measurement(s), factor)) for s in snapshots[66:76]]
    assert all(abs(v.novelty) < 1 for v in said)
    kinds = [e.kind for v in said for e in v.events]
    assert kinds == (["danger"] if danger else [])
    assert said[-1].state == ("danger" if danger else "normal")


def test_at_an_unlearned_speed_only_what_speed_cannot_explain_is_loud(machine, snapshots):
    faster = 1.6 * SCENARIO.rig.speed_hz
    for factor, level in ((2.4, "normal"), (9.0, "danger")):
        session = Session(machine)
        for snapshot in snapshots[66:76]:
            base = louder(load_measurement(snapshot), factor)
            said = session.push(dataclasses.replace(base, speed_hz=faster))
        assert said.state == level


def test_an_episode_may_begin_with_danger():
    first = Event(kind="danger", episode=1, evidence={"first": True})
    later = Event(kind="danger", episode=1, evidence={"first": False})
    said = [Verdict(machine="m", time=0.0, state="danger", events=(e,)) for e in (first, later)]
    assert [judging._raises(verdict, first=True) for verdict in said] == [True, False]
