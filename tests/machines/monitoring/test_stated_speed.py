"""A stated speed that the spectrum contradicts is suspect until the spectrum shows its line."""

import json

import numpy as np
import pytest

from lineside.machines.data.measurement import Channel, Measurement
from lineside.machines.monitoring.stated_speed import (
    CHANGED_INTERVAL,
    INITIAL,
    INTERVAL,
    SUSPECT_INTERVAL,
    check_speed,
    drop_suspect_speed,
)

RATE_HZ, SECONDS = 2048.0, 2.0


def turning(hz, stated, seed=0):
    """Four harmonics of a shaft in noise, and what somebody states."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(RATE_HZ * SECONDS)) / RATE_HZ
    wave = sum(np.sin(2 * np.pi * k * hz * t + k) / k for k in range(1, 6))
    samples = (wave + 0.5 * rng.standard_normal(len(t))).astype(np.float32)
    channels = {"a": Channel(samples=samples, rate_hz=RATE_HZ)}
    return Measurement(machine="m", time=float(seed), channels=channels, speed_hz=stated)


def fold(measurements):
    state, kinds = INITIAL, []
    for measurement in measurements:
        state, events = check_speed(json.loads(json.dumps(state)), measurement)
        kinds += [event.kind for event in events]
    return state, kinds


def test_a_wrong_speed_becomes_suspect_once_and_is_confirmed_once():
    wrong = [turning(20.0, 31.0, seed) for seed in range(3)]
    state, kinds = fold(wrong)
    assert kinds == ["speed suspect"]
    assert drop_suspect_speed(state, wrong[0]).speed_hz is None
    right = [turning(31.0, 31.0, seed) for seed in range(3, 3 + 2 * SUSPECT_INTERVAL)]
    state, kinds = fold(wrong + right)
    assert kinds == ["speed suspect", "speed confirmed"]
    assert drop_suspect_speed(state, right[0]).speed_hz == 31.0


def test_silence_does_not_confirm_a_speed():
    noise = turning(20.0, 31.0, 9)
    rng = np.random.default_rng(5)
    quiet = Channel(
        samples=rng.standard_normal(len(noise.channels["a"].samples)).astype(np.float32),
        rate_hz=RATE_HZ,
    )
    silent = Measurement(machine="m", time=0.0, channels={"a": quiet}, speed_hz=31.0)
    state, kinds = fold([turning(20.0, 31.0)] + [silent] * 3 * SUSPECT_INTERVAL)
    assert kinds == ["speed suspect"] and state["suspect"]


def test_checks_become_rarer(monkeypatch):
    from lineside.machines.monitoring import stated_speed

    seen = []
    monkeypatch.setattr(stated_speed, "speed_contradiction", lambda m, hz: seen.append(hz) or "")
    steady = turning(20.0, 20.0)
    fold([steady] * 640)
    assert len(seen) == 6 + (640 - 63) // INTERVAL
    seen.clear()
    fold([turning(20.0, 20.0 + (place // 40) % 2 * 5) for place in range(640)])
    assert 640 // INTERVAL < len(seen) <= 640 // CHANGED_INTERVAL + 6


@pytest.mark.parametrize("hz", [None, 0.0])
def test_without_a_speed_there_is_nothing_to_check(hz):
    state, kinds = fold([turning(20.0, hz)])
    assert state == INITIAL and kinds == []
