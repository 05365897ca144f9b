"""Sensor faults are found, named, and not confused with faults of the machine."""

import json

import numpy as np
import pytest

from lineside.core.run.codec import decode, encode
from lineside.machines.data.measurement import Channel, Measurement
from lineside.machines.signals.quality import Norms, find_sensor_faults, learn_norms
from lineside.machines.simulation.rig import Condition, Rig, Sensor, measure, simulate_vibration

RIG = Rig()


def wave_of(seed=0, severity=0.0, sensor=Sensor(), speed_hz=25.0):
    rng = np.random.default_rng(seed)
    condition = Condition(speed_hz=speed_hz, severity=severity)
    return measure(simulate_vibration(RIG, condition, rng)[0], sensor, rng)


def snapshot(wave, *, rate=RIG.rate_hz, unit="g", values=None, speed_hz=25.0, name="a"):
    channel = Channel(samples=np.asarray(wave, dtype=np.float32), rate_hz=rate, unit=unit)
    return Measurement(
        machine="m", time=0.0, channels={name: channel}, values=values or {}, speed_hz=speed_hz
    )


NORMS = learn_norms([snapshot(wave_of(seed)) for seed in range(8)])


def kinds(measurement, norms=NORMS):
    return [fault.kind for fault in find_sensor_faults(measurement, norms)]


@pytest.mark.parametrize("severity", [0.0, 1.0, 5.0, 10.0])
def test_a_failing_machine_has_sound_sensors(severity):
    for seed in range(20, 30):
        assert kinds(snapshot(wave_of(seed, severity))) == []


@pytest.mark.parametrize(
    ("sensor", "kind"),
    [
        (Sensor(kind="dead"), "dead"),
        (Sensor(kind="stuck"), "stuck"),
        (Sensor(kind="clipped", size=0.1), "clipped"),
        (Sensor(kind="offset", size=0.8), "offset"),
        (Sensor(kind="gain", size=200.0), "loud"),
    ],
)
def test_each_sensor_fault_is_named_in_one_sentence(sensor, kind):
    found = find_sensor_faults(snapshot(wave_of(3, sensor=sensor)), NORMS)
    assert kind in [fault.kind for fault in found]
    assert all(f.message.startswith("sensor a ") and "\n" not in f.message for f in found)
    if kind != "loud":
        assert len(found) == 1


def test_wrong_settings_and_gaps():
    wave = wave_of(1)
    assert kinds(snapshot(wave, rate=25600.0)) == ["rate"]
    assert kinds(snapshot(wave[:5000])) == ["length"]
    assert kinds(snapshot(wave, unit="m/s2")) == ["unit"]
    assert kinds(snapshot(wave[:0])) == ["length"]
    assert kinds(snapshot(wave, name="b")) == ["unknown", "missing"]
    holed = wave.copy()
    holed[50:100] = np.nan
    assert kinds(snapshot(holed)) == ["gaps"]
    assert kinds(snapshot(np.full(6400, np.nan))) == ["gaps"]
    holed = wave.copy()
    holed[50] = np.nan
    assert kinds(snapshot(holed)) == []
    frozen = wave.copy()
    frozen[3000:] = frozen[3000]
    assert kinds(snapshot(frozen)) == ["stuck"]


def test_a_sensor_that_stood_still_is_found_wherever_it_did():
    for start in range(0, 5700, 477):
        frozen = wave_of(1)
        frozen[start : start + 700] = frozen[start]
        assert kinds(snapshot(frozen)) == ["stuck"], start
        frozen = wave_of(1)
        frozen[start : start + 600] = frozen[start]
        assert "stuck" not in kinds(snapshot(frozen)), start


def test_a_small_vibration_on_a_large_offset_keeps_its_level():
    norms = learn_norms([snapshot(1000 + 0.1 * wave_of(seed)) for seed in range(4)])
    assert kinds(snapshot(1000 + 0.1 * wave_of(9)), norms) == []
    assert kinds(snapshot(1000 + 0.001 * wave_of(9)), norms) == ["dead"]


def test_a_machine_at_rest_is_not_dead():
    assert kinds(snapshot(wave_of(2, speed_hz=0.0), speed_hz=0.0)) == []


def test_a_sensor_of_few_steps_is_not_clipped():
    coarse = np.round(wave_of(4) / 0.05) * 0.05
    assert kinds(snapshot(coarse)) == []


ROW = {"RMS": 0.08, "Std": 0.078, "Max": 0.4, "Mean": -0.01, "Kurtosis": 0.5}


def row(factor=1.0, **changes):
    values = {name: value * factor for name, value in ROW.items()} | changes
    return Measurement(machine="m", time=0.0, values=values)


def test_slow_values_that_vanish_together_are_a_dead_sensor():
    norms = learn_norms([row(1 + 0.01 * place) for place in range(10)])
    assert kinds(row(), norms) == [] and kinds(row(8.0), norms) == []
    assert kinds(row(0.02), norms) == ["dead"]
    assert kinds(row(Kurtosis=0.001), norms) == []
    assert kinds(row(RMS=float("nan")), norms) == ["gaps"]
    assert kinds(Measurement(machine="m", time=0.0, values={"RMS": 0.08}), norms) == ["missing"] * 4


def test_norms_survive_json():
    norms = learn_norms([snapshot(wave_of(0), values={"flow": 3.0})])
    assert decode(Norms, json.loads(json.dumps(encode(norms)[0])), {}) == norms
