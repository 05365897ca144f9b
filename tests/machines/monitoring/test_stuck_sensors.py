"""Readings that repeat are reported as stuck, live ones are not."""

import json

import numpy as np

from lineside.machines.data.measurement import Channel, Measurement
from lineside.machines.monitoring.stuck_sensors import INITIAL, stuck_sensors


def snapshot(seed, other=None, **values):
    waves = {"a": seed, "b": seed if other is None else other}
    channels = {
        name: Channel(
            samples=np.random.default_rng([ord(name), s]).standard_normal(3000).astype(np.float32),
            rate_hz=1000.0,
        )
        for name, s in waves.items()
    }
    return Measurement(machine="m", time=0.0, channels=channels, values=values)


def row(flow, heat=40.0):
    return Measurement(machine="m", time=0.0, values={"flow": flow, "heat": heat})


def fold(measurements):
    state, faulty = INITIAL, []
    for measurement in measurements:
        state, faults = stuck_sensors(json.loads(json.dumps(state)), measurement)
        faulty.append([fault.sensor for fault in faults])
    return faulty


def test_only_the_channel_that_repeats_is_stuck():
    assert fold([snapshot(1), snapshot(2), snapshot(3)]) == [[], [], []]
    assert fold([snapshot(1), snapshot(1)]) == [[], ["a", "b"]]
    assert fold([snapshot(1), snapshot(2, other=1)]) == [[], ["b"]]
    assert fold([snapshot(1), snapshot(2), snapshot(1)]) == [[], [], []]


def test_slow_values_may_repeat_for_a_while():
    assert fold([row(1.0)] * 5) == [[], [], [], [], ["all values"]]
    assert fold([row(1.0)] * 4 + [row(2.0)] + [row(1.0)] * 4) == [[]] * 9
    single = Measurement(machine="m", time=0.0, values={"heat": 40.0})
    assert fold([single] * 9) == [[]] * 9
    turned = Measurement(machine="m", time=0.0, values={"heat": 40.0, "flow": 1.0})
    assert fold([row(1.0), turned] * 3)[4] == ["all values"], "values have no order"


def test_empty_channels_are_not_stuck():
    empty = Measurement(
        machine="m", time=0.0,
        channels={"a": Channel(samples=np.zeros(0, np.float32), rate_hz=1000.0)},
    )  # fmt: skip
    assert fold([empty, empty]) == [[], []]
