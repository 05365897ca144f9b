"""Order tracking and speed: known sweeps, contradictions."""

import numpy as np
import pytest

from lineside.machines.data.measurement import Channel, Measurement
from lineside.machines.signals.orders import order_spectrum, resample_at_angles, turns_from_line
from lineside.machines.signals.speed import estimate_speed, speed_contradiction

RATE = 12800.0
TIME = np.arange(25600) / RATE


def sweep(start=20.0, slope=5.0):
    """Turns of a shaft that speeds up linearly."""
    return start * TIME + slope * TIME**2 / 2


def wave_of(turns, orders=((1.0, 0.3), (23.4, 1.0))):
    return sum(size * np.sin(2 * np.pi * order * turns) for order, size in orders).astype(
        np.float32
    )


def hann_peak(samples):
    window = np.hanning(len(samples))
    return 2 * np.abs(np.fft.rfft(samples * window)).max() / window.sum()


def test_a_sweep_smears_in_hz_and_is_sharp_in_orders():
    wave = wave_of(sweep(slope=1.0))  # 20 to 22 Hz
    noise = 0.1 * np.random.default_rng(0).standard_normal(len(TIME))
    spectrum = order_spectrum((wave + noise).astype(np.float32), RATE, 21.0, 40.0)
    assert spectrum.tracked and spectrum.orders.max() <= 40.0
    assert spectrum.orders[np.argmax(spectrum.amplitude)] == pytest.approx(23.4, abs=0.05)
    assert spectrum.amplitude.max() > 0.6 and hann_peak(wave) < 0.3


def test_a_constant_speed_gives_amplitudes_at_their_orders():
    wave = wave_of(20.0 * TIME, ((1.0, 0.3), (5.4, 1.0)))
    spectrum = order_spectrum(wave, RATE, 20.0, 40.0)
    assert spectrum.orders[np.argmax(spectrum.amplitude)] == pytest.approx(5.4, abs=0.03)
    assert spectrum.amplitude.max() == pytest.approx(1.0, abs=0.16)  # 1.42 dB at most between bins
    assert order_spectrum(wave[:2000], RATE, 20.0, 40.0) is None  # 3 turns


def test_noise_without_a_shaft_line_is_not_tracked():
    noise = np.random.default_rng(0).standard_normal(len(TIME)).astype(np.float32)
    noise[::1000] = np.nan
    spectrum = order_spectrum(noise, RATE, 20.0, 40.0)
    assert np.isfinite(spectrum.amplitude).all() and spectrum.amplitude.max() < 0.2


def test_resampling_by_known_angles_restores_a_fast_sweep():
    turns = sweep()  # 20 to 30 Hz
    angular = resample_at_angles(wave_of(turns).astype(np.float64), turns, 128)
    assert hann_peak(angular) == pytest.approx(1.0, abs=0.16)
    assert hann_peak(wave_of(turns)) < 0.4


def test_turns_from_the_phase_of_a_line():
    turns = sweep(slope=1.0)
    wave = wave_of(turns) + 0.2 * np.random.default_rng(0).standard_normal(len(turns))
    tracked = turns_from_line(wave, RATE, 21.0, 1.0)
    middle = slice(2560, -2560)
    assert np.ptp((tracked - turns)[middle]) < 0.15
    assert (tracked[-2560] - tracked[2560]) == pytest.approx(turns[-2560] - turns[2560], rel=0.005)


def test_resampling_filters_out_what_it_cannot_hold():
    turns = 20.0 * TIME
    wave = np.sin(2 * np.pi * 50 * turns)  # order 50, 64 per turn hold 32
    assert np.abs(resample_at_angles(wave, turns, 64)[64:-64]).max() < 0.01


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
        assert found.confidence > 0.25 and found.lines >= 3


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
