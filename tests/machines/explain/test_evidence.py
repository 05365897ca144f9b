"""What an alarm says for itself: channel, bands, orders, closest healthy snapshots, diagnosis."""

import dataclasses
import json

import numpy as np
import pytest

from lineside.machines.data import find_snapshots, load_measurement
from lineside.machines.data.measurement import Measurement
from lineside.machines.explain.evidence import alarm_evidence
from lineside.machines.explain.explanation import explain_snapshot
from lineside.machines.models.detector import Rows
from lineside.machines.signals.engine import Engine
from lineside.machines.simulation.demo import save_history
from lineside.machines.simulation.rig import Rig
from lineside.machines.simulation.scenarios import Scenario, simulate_history
from lineside.machines.training.fitting import fit_machine

SCENARIO = Scenario(name="pump", rig=Rig(seconds=0.8), days=5.0, onset_day=3.5, growth_days=1.5)
HEALTHY = 40


@pytest.fixture(scope="module")
def pump(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet") / "pump"
    save_history(simulate_history(SCENARIO, np.random.default_rng(0)), folder)
    items = list(find_snapshots(folder))
    machine = fit_machine(
        items[:HEALTHY], "trend", rng=np.random.default_rng(0), log=lambda row: None,
        stop=lambda: False,
    )  # fmt: skip
    return machine, load_measurement(items[-1])


def said(machine, measurement: Measurement):
    engine = Engine(machine.layout)
    row: Rows = engine.features(measurement)
    window = machine.main.select(machine.operating_model.compensate(measurement, row)[None])
    return alarm_evidence(machine, machine.main, window, measurement, row, engine)


def test_an_alarm_names_channel_band_order_and_the_worn_part(pump):
    machine, worn = pump
    found = said(machine, worn)
    loudest = next(iter(found["features"]))
    assert found["channel"] in SCENARIO.rig.channels
    assert found["values"][loudest]["now"] > 1.5 * found["values"][loudest]["usually"]
    assert found["values"][loudest]["closest"] < found["values"][loudest]["now"]
    assert len(found["closest"]) == 5 and set(found["closest"]) <= set(machine.reference_times)
    told = found["diagnosis"]
    assert (told["status"], told["fault"]) == ("fault", "outer race")
    order = SCENARIO.rig.bearing.impulses_per_turn("outer race")
    matched = [line for line in told["lines"] if "BPFO" in line["meaning"]]
    assert any(abs(line["order"] / order - round(line["order"] / order)) < 0.03 for line in matched)
    assert json.dumps(found, allow_nan=False)


def test_without_a_speed_it_refuses_a_diagnosis(pump):
    machine, worn = pump
    told = said(machine, dataclasses.replace(worn, speed_hz=None))["diagnosis"]
    assert told["status"] == "refused" and told["fault"] == "" and "speed" in told["reason"]


def test_a_snapshot_is_explained_in_orders_where_its_speed_is_known(pump):
    machine, worn = pump
    known = explain_snapshot(machine, worn)
    assert "BPFO" in known.facts["diagnosis"] and "contributes most" in known.text
    envelopes = ["Envelope spectrum of horizontal", "Envelope spectrum of vertical"]
    titles = [figure.title for figure in known.figures]
    assert titles == ["Top features", "Order spectrum", *envelopes]
    unknown = explain_snapshot(machine, dataclasses.replace(worn, speed_hz=None))
    titles = [figure.title for figure in unknown.figures]
    assert titles[-3:] == ["Power spectral density", *envelopes]
