"""A stated speed that the spectrum contradicts is doubted, and trusted again with its line."""

import json

import numpy as np
import pytest

from lineside.machines.data.measurement import Channel, Measurement
from lineside.machines.monitoring.stated_speed import (
    CHANGED,
    DOUBTED,
    FRESH,
    SELDOM,
    believed,
    look,
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
    memory, told = FRESH, []
    for measurement in measurements:
        memory, events = look(json.loads(json.dumps(memory)), measurement)
        told += [event.kind for event in events]
    return memory, told


def test_doubt_begins_once_and_ends_once():
    wrong = [turning(20.0, 31.0, seed) for seed in range(3)]
    memory, told = fold(wrong)
    assert told == ["speed doubted"]
    assert believed(memory, wrong[0]).speed_hz is None
    right = [turning(31.0, 31.0, seed) for seed in range(3, 3 + 2 * DOUBTED)]
    memory, told = fold(wrong + right)
    assert told == ["speed doubted", "speed trusted"]
    assert believed(memory, right[0]).speed_hz == 31.0


def test_silence_does_not_give_trust_back():
    noise = turning(20.0, 31.0, 9)
    rng = np.random.default_rng(5)
    quiet = Channel(
        samples=rng.standard_normal(len(noise.channels["a"].samples)).astype(np.float32),
        rate_hz=RATE_HZ,
    )
    silent = Measurement(machine="m", time=0.0, channels={"a": quiet}, speed_hz=31.0)
    memory, told = fold([turning(20.0, 31.0)] + [silent] * 3 * DOUBTED)
    assert told == ["speed doubted"] and memory["doubted"]


def test_looks_are_rare_and_rarer(monkeypatch):
    from lineside.machines.monitoring import stated_speed

    seen = []
    monkeypatch.setattr(stated_speed, "speed_contradiction", lambda m, hz: seen.append(hz) or "")
    steady = turning(20.0, 20.0)
    fold([steady] * 640)
    assert len(seen) == 6 + (640 - 63) // SELDOM
    seen.clear()
    fold([turning(20.0, 20.0 + (place // 40) % 2 * 5) for place in range(640)])
    assert 640 // SELDOM < len(seen) <= 640 // CHANGED + 6


@pytest.mark.parametrize("hz", [None, 0.0])
def test_without_a_speed_there_is_nothing_to_doubt(hz):
    memory, told = fold([turning(20.0, hz)])
    assert memory == FRESH and told == []
