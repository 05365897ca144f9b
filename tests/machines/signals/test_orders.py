"""Order tracking and speed: known sweeps, known pulses, contradictions."""

import numpy as np
import pytest

from lineside.core.errors import UserError
from lineside.machines.data.measurement import Channel, Measurement
from lineside.machines.signals import estimate_speed, speed_contradiction
from lineside.machines.signals.orders import (
    angular_samples,
    order_spectrum,
    pulse_times,
    turns_from_line,
    turns_from_pulses,
    turns_from_speed,
)

RATE = 12800.0
TIME = np.arange(25600) / RATE


def sweep(start=20.0, slope=5.0):
    """Turns of a shaft that speeds up linearly."""
    return start * TIME + slope * TIME**2 / 2


def wave_of(turns, orders=((1.0, 0.3), (5.4, 1.0))):
    return sum(size * np.sin(2 * np.pi * order * turns) for order, size in orders).astype(
        np.float32
    )


def lines(turns, wave):
    orders, amplitude = order_spectrum(angular_samples(wave, RATE, turns, 64), 64)
    return orders, amplitude


def test_a_sweep_smears_in_hz_and_is_sharp_in_orders():
    turns = sweep()
    orders, amplitude = lines(turns, wave_of(turns))
    assert orders[np.argmax(amplitude)] == pytest.approx(5.4, abs=0.03)
    assert amplitude.max() == pytest.approx(1.0, abs=0.16)  # 1.42 dB at most between bins
    smeared = np.abs(np.fft.rfft(wave_of(turns) * np.hanning(len(turns)))).max()
    assert 2 * smeared / np.hanning(len(turns)).sum() < 0.4


def test_turns_from_a_profile_are_its_integral():
    profile = 20.0 + 5.0 * TIME[::100]
    profile = np.linspace(20.0, 20.0 + 5.0 * TIME[-1], 50)
    np.testing.assert_allclose(turns_from_speed(profile, len(TIME), RATE), sweep(), atol=1e-6)
    np.testing.assert_allclose(turns_from_speed(20.0, 100, RATE), 20 * TIME[:100], atol=1e-9)
    with pytest.raises(UserError):
        turns_from_speed(0.0, 100, RATE)


def test_turns_from_a_noisy_tachometer():
    turns = sweep()
    rng = np.random.default_rng(0)
    tachometer = 5.0 * ((2 * turns) % 1 < 0.3) + 0.1 * rng.standard_normal(len(turns))
    pulses = pulse_times(tachometer.astype(np.float32), RATE)
    found = turns_from_pulses(pulses, len(TIME), RATE, per_turn=2)
    assert len(pulses) == int(2 * turns[-1])
    assert np.ptp((found - turns)[500:-500]) < 0.01
    orders, amplitude = lines(found, wave_of(turns))
    assert orders[np.argmax(amplitude)] == pytest.approx(5.4, abs=0.03)
    with pytest.raises(UserError):
        pulse_times(np.zeros(100, dtype=np.float32), RATE)


def test_turns_from_the_phase_of_a_line():
    turns = sweep(slope=1.0)
    wave = wave_of(turns) + 0.2 * np.random.default_rng(0).standard_normal(len(turns))
    found = turns_from_line(wave.astype(np.float32), RATE, 21.0, order=1.0, sway=0.2)
    middle = slice(2560, -2560)
    assert np.ptp((found - turns)[middle]) < 0.15
    assert (found[-2560] - found[2560]) == pytest.approx(turns[-2560] - turns[2560], rel=0.005)


def test_resampling_takes_out_what_it_could_not_hold():
    turns = 20.0 * TIME
    wave = np.sin(2 * np.pi * 50 * turns).astype(np.float32)  # order 50, 64 per turn hold 32
    assert np.abs(angular_samples(wave, RATE, turns, 64)[64:-64]).max() < 0.01
    with pytest.raises(UserError):
        angular_samples(wave, RATE, turns[:100], 64)


def machine(speed_hz, sizes=(1.0, 0.4, 0.3, 0.2, 0.2), noise=1.0, seconds=3.0, seed=0):
    time = np.arange(int(seconds * 5120)) / 5120
    rng = np.random.default_rng(seed)
    wave = noise * rng.standard_normal(len(time))
    for harmonic, size in enumerate(sizes, start=1):
        wave += size * np.sin(2 * np.pi * harmonic * speed_hz * time + harmonic)
    channel = Channel(samples=wave.astype(np.float32), rate_hz=5120.0)
    return Measurement(machine="m", time=0.0, channels={"a": channel}, speed_hz=speed_hz)


def test_speed_is_read_off_the_harmonics():
    for speed in (11.3, 24.7, 38.0):
        found = estimate_speed(machine(speed), 5.0, 60.0)
        assert found.hz == pytest.approx(speed, rel=0.01)
        assert found.confidence > 0.25 and found.hits >= 3


def test_noise_has_no_speed_and_short_snapshots_are_refused():
    found = estimate_speed(machine(20.0, sizes=()), 5.0, 60.0)
    assert found.confidence < 0.25
    assert estimate_speed(machine(20.0, seconds=0.2), 5.0, 60.0) is None


def test_a_wrong_stated_speed_is_reported_and_a_right_one_is_not():
    truth = machine(20.05)
    assert speed_contradiction(truth, 20.0) == ""
    for stated in (10.0, 15.0, 26.0):
        assert "20.0" in speed_contradiction(truth, stated), stated
    assert speed_contradiction(machine(20.0, sizes=()), 15.0) == ""
    assert speed_contradiction(truth, 0.0) == ""
