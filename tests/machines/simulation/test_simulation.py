"""The simulator: its physics against formulas, its scenarios against what was told."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.signal import hilbert

from lineside.core.errors import UserError
from lineside.machines.data import find_snapshots, load_measurement
from lineside.machines.simulation.demo import save_history
from lineside.machines.simulation.rig import Condition, Rig, Sensor, measure, simulate_vibration
from lineside.machines.simulation.scenarios import (
    Scenario,
    SensorEpisode,
    severity_on,
    simulate_history,
)

RIG = Rig(seconds=4.0, slip=0.0, noise_g=0.002)


def rng(seed=0):
    return np.random.default_rng(seed)


def line(wave, hz, rate):
    """Height of a spectral line over the median of its neighbourhood."""
    size = np.abs(np.fft.rfft(wave - wave.mean()))
    place = round(hz * len(wave) / rate)
    near = size[max(place - 40, 1) : place + 41]
    return size[place - 1 : place + 2].max() / np.median(near)


@pytest.mark.parametrize("fault", ["outer race", "inner race", "ball"])
def test_bearing_faults_stand_at_their_order_in_the_envelope(fault):
    wave = simulate_vibration(RIG, Condition(speed_hz=25.0, severity=5.0, fault=fault), rng())[0]
    spectrum = np.fft.rfft(wave)
    hz = np.fft.rfftfreq(len(wave), 1 / RIG.rate_hz)
    spectrum[(hz < 2200) | (hz > 4600)] = 0
    envelope = np.abs(hilbert(np.fft.irfft(spectrum, len(wave))))
    assert line(envelope, 25.0 * RIG.bearing.impulses_per_turn(fault), RIG.rate_hz) > 10
    healthy = simulate_vibration(RIG, Condition(speed_hz=25.0), rng())[0]
    assert line(healthy, 25.0 * RIG.bearing.impulses_per_turn(fault), RIG.rate_hz) < 10


def test_orders_are_those_of_the_published_geometry():
    # 13 balls of 3.5 mm on 25.6 mm at 1800 rpm: 168.3, 221.7 and 215.4 (twice the spin) Hz.
    rig = Rig(balls=13, ball_mm=3.5, pitch_mm=25.6)
    hertz = [30 * rig.bearing.impulses_per_turn(f) for f in ("outer race", "inner race", "ball")]
    np.testing.assert_allclose(hertz, [168.3, 221.7, 215.4], atol=0.1)


def test_shaft_and_gear_lines_follow_the_speed():
    for speed in (15.0, 25.0):
        wave = simulate_vibration(RIG, Condition(speed_hz=speed), rng())[0]
        assert line(wave, speed, RIG.rate_hz) > 10
        assert line(wave, speed * RIG.teeth, RIG.rate_hz) > 10


def test_a_machine_that_stands_still_is_quiet_and_a_fast_one_is_loud():
    still, slow, fast = (
        simulate_vibration(Rig(), Condition(speed_hz=hz), rng()).std() for hz in (0.0, 15.0, 35.0)
    )
    assert still < 0.2 * slow < 0.2 * fast / 2


def test_severity_starts_at_the_onset_and_ends_at_ten():
    scenario = Scenario(name="m", onset_day=10.0, growth_days=5.0)
    assert severity_on(scenario, 9.99) == 0.0
    assert severity_on(scenario, 10.0) == pytest.approx(0.3)
    assert severity_on(scenario, 15.0) == pytest.approx(10.0)


def test_the_same_stream_tells_the_same_story():
    scenario = Scenario(name="m", days=1.0, onset_day=None)
    assert np.array_equal(
        simulate_history(scenario, rng()).counts, simulate_history(scenario, rng()).counts
    )
    assert not np.array_equal(
        simulate_history(scenario, rng()).counts, simulate_history(scenario, rng(1)).counts
    )


def test_a_history_is_read_back_with_labels_speed_and_load(tmp_path):
    scenario = Scenario(
        name="m", days=3.0, onset_day=2.0, growth_days=0.5, interval_hours=6,
        relative_speeds=(0.5, 1.0), gaps=((0.5, 0.5),),
    )  # fmt: skip
    history = simulate_history(scenario, rng())
    save_history(history, tmp_path / "m")
    found = find_snapshots(tmp_path)
    days = [(s.time - history.times[0]) / 86400 for s in found]
    assert days == [0.0, 0.25, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25]
    assert [s.label for s in found] == ["healthy"] * 6 + ["faulty"] * 2
    measured = load_measurement(found[3])
    assert measured.speed_hz == pytest.approx(history.speed_hz[3])
    np.testing.assert_allclose(
        measured.channels["vertical"].samples, history.counts[3, 1] * 0.0005, rtol=1e-5
    )
    assert 30 < measured.values["temperature"] < 65
    assert json.loads((tmp_path / "m" / "machine.json").read_text())["failed_at"] > found[-1].time


def test_sensor_faults_are_what_they_say():
    wave = simulate_vibration(Rig(), Condition(speed_hz=25.0), rng())[0]
    dead, stuck, clipped, offset, gain = (
        measure(wave, Sensor(kind=kind, size=size), rng())
        for kind, size in (
            ("dead", 1), ("stuck", 1), ("clipped", 0.05), ("offset", 2.0), ("gain", 0.5),
        )
    )  # fmt: skip
    assert dead.std() < 0.02 * wave.std() and np.ptp(stuck) == 0
    assert np.abs(clipped).max() <= 0.0501 and (np.abs(clipped) > 0.0499).mean() > 0.1
    assert offset.mean() == pytest.approx(2.0 + wave.mean(), abs=1e-3)
    assert gain.std() == pytest.approx(0.5 * wave.std(), rel=0.01)


def test_an_episode_touches_its_channel_and_days_only():
    quiet = Scenario(name="m", days=2.0, interval_hours=12, onset_day=None)
    dead = SensorEpisode(channel=1, from_day=1.0, until_day=1.5, sensor=Sensor(kind="stuck"))
    spread = simulate_history(dataclasses.replace(quiet, episodes=(dead,)), rng()).counts.std(
        axis=2
    )
    assert (spread[:, 0] > 10).all()
    assert (spread[:, 1] > 10).tolist() == [True, True, False, True]


BATCH = Scenario(
    name="m", fault="sequence", onset_day=10.0, growth_days=10.0, days=30.0,
    rig=Rig(steps_hz=(800.0, 1800.0, 4400.0, 5400.0), seconds=0.1),
)  # fmt: skip


def test_steps_follow_each_other_until_the_sequence_is_lost():
    history = simulate_history(BATCH, rng())
    following = np.diff(history.steps) % 4 == 1
    begun = history.severity[1:] > 0
    assert following[~begun].all() and set(history.steps[:4]) == {0, 1, 2, 3}
    early, late = following[begun][:60], following[begun][60:]
    assert 0.6 < early.mean() < 1.0  # lost more and more often
    assert late.mean() < early.mean() - 0.1
    # By chance the right step follows once in four.
    lost = history.severity[1:] > 3.0
    assert following[lost].mean() == pytest.approx(0.25, abs=0.2)


def test_every_step_rings_its_own_resonance_as_loudly_as_the_others():
    spectra = [
        np.abs(
            np.fft.rfft(simulate_vibration(BATCH.rig, Condition(speed_hz=25.0, step=s), rng())[0])
        )
        for s in range(4)
    ]
    hz = np.fft.rfftfreq(1280, 1 / BATCH.rig.rate_hz)
    for step, own in enumerate(BATCH.rig.steps_hz):
        near = np.abs(hz - own) < 150
        loud = [np.square(spectrum[near]).mean() for spectrum in spectra]
        assert loud[step] > 5 * max(np.delete(loud, step))
    levels = [np.square(spectrum).sum() for spectrum in spectra]
    assert max(levels) < 1.3 * min(levels)


def test_a_lost_sequence_sounds_like_nothing():
    well, lost = (
        Condition(speed_hz=25.0, step=2, fault="sequence", severity=size) for size in (0.0, 10.0)
    )
    assert np.array_equal(
        simulate_vibration(BATCH.rig, well, rng()), simulate_vibration(BATCH.rig, lost, rng())
    )


def test_a_sequence_cannot_break_where_there_is_none():
    with pytest.raises(UserError, match="no steps"):
        Scenario(name="m", fault="sequence")


def test_a_machine_without_steps_draws_nothing_for_them():
    stream = rng()
    wave = simulate_vibration(Rig(), Condition(speed_hz=25.0), stream)
    assert wave.shape == (2, 6400)
    # 3 phases and one start of the shaft are uniform; noise: body, own, standstill.
    other = rng()
    other.standard_normal((2, 6400)), other.uniform(), other.uniform(size=3)
    other.standard_normal(6400 + 512), other.standard_normal((2, 6400))
    assert stream.bit_generator.state == other.bit_generator.state
    assert (simulate_history(Scenario(name="m", days=1.0, onset_day=None), rng()).steps == 0).all()
