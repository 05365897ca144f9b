"""Bearing diagnosis on simulated machines with known faults, and when it must keep silent."""

import numpy as np
import pytest
from benchmarks.machines.engine import strongest_series

from lineside.core.errors import UserError
from lineside.machines.data.measurement import Channel, Measurement
from lineside.machines.signals.bearings import Bearing, bearing_from_geometry
from lineside.machines.signals.diagnosis import diagnose
from lineside.machines.signals.engine import Engine
from lineside.machines.signals.harmonics import fit_harmonics, line_heights_of
from lineside.machines.signals.layout import make_layout
from lineside.machines.simulation.rig import Condition, Rig, simulate_vibration

RIG = Rig(seconds=2.0)
BEARING = bearing_from_geometry(balls=RIG.balls, ball_mm=RIG.ball_mm, pitch_mm=RIG.pitch_mm)
OTHERS = (
    bearing_from_geometry(balls=13, ball_mm=3.5, pitch_mm=25.6),
    bearing_from_geometry(balls=8, ball_mm=0.235, pitch_mm=1.245),
    bearing_from_geometry(balls=16, ball_mm=8.4, pitch_mm=71.5, contact_degrees=15.17),
)


def spectra(fault, severity, seed=0, rig=RIG, speed_hz=25.0):
    wave = simulate_vibration(
        rig,
        Condition(speed_hz=speed_hz, fault=fault, severity=severity),
        np.random.default_rng(seed),
    )
    channels = {
        name: Channel(samples=samples, rate_hz=rig.rate_hz)
        for name, samples in zip(rig.channels, wave, strict=True)
    }
    measurement = Measurement(machine="m", time=0.0, channels=channels, speed_hz=speed_hz)
    return list(Engine(make_layout([measurement])).spectra(measurement).values())


def test_orders_of_a_published_bearing():
    """SKF 6205-2RS as printed by the Case Western Reserve bearing data centre."""
    bearing = bearing_from_geometry(balls=9, ball_mm=7.94, pitch_mm=39.04)
    assert bearing.outer_race == pytest.approx(3.5848, abs=0.01)
    assert bearing.inner_race == pytest.approx(5.4152, abs=0.01)
    assert 2 * bearing.ball == pytest.approx(4.7135, abs=0.01)
    assert bearing.cage == pytest.approx(0.39828, abs=0.002)
    assert bearing.outer_race + bearing.inner_race == pytest.approx(9)
    assert bearing.outer_race == pytest.approx(9 * bearing.cage)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fault", ["outer race", "inner race", "ball"])
def test_faults_are_named(fault, seed):
    found = diagnose(spectra(fault, 8.0, seed), BEARING, 25.0)
    assert found.status == "fault" and found.fault == fault, found.reason
    assert any(line.meaning for line in found.lines) and found.explained > 0.5
    assert found.speed_hz == pytest.approx(25.0, rel=0.02)


@pytest.mark.parametrize("speed_hz", [14.0, 25.0, 36.0])
def test_the_line_keeps_its_order_at_every_speed(speed_hz):
    series = strongest_series(
        line_heights_of(spectra("outer race", 8.0, speed_hz=speed_hz)), 0.5 * speed_hz, 500.0
    )
    assert series.hz / speed_hz == pytest.approx(BEARING.outer_race, rel=0.01)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fault", ["outer race", "gear", "imbalance"])
def test_healthy_machines_and_shaft_lines_get_no_fault_name(fault, seed):
    severity = 0.0 if fault == "outer race" else 8.0
    for bearing in (BEARING, *OTHERS):
        found = diagnose(spectra(fault, severity, seed), bearing, 25.0)
        assert found.fault == "" and found.status == "no line", found.reason


@pytest.mark.parametrize("fault", ["outer race", "inner race"])
def test_wrong_geometries_are_refused(fault):
    for bearing in OTHERS:
        found = diagnose(spectra(fault, 8.0), bearing, 25.0)
        assert found.fault == "" and found.status in ("refused", "inconclusive"), found.reason
        assert found.reason


def test_a_wrong_speed_is_refused():
    assert diagnose(spectra("outer race", 8.0), BEARING, 21.0).fault == ""


def test_missing_speed_geometry_and_short_snapshots_are_refused_with_a_reason():
    lines = spectra("outer race", 8.0)
    assert "speed" in diagnose(lines, BEARING, None).reason
    assert "geometry" in diagnose(lines, None, 25.0).reason
    assert diagnose([], BEARING, 25.0).status == "refused"
    for severity in (0.0, 8.0):
        short = spectra("outer race", severity, rig=Rig(seconds=0.1), speed_hz=30.0)
        assert "too short" in diagnose(short, BEARING, 30.0).reason


def pulses(order, *, slip=0.0, shaft_depth=0.0, speed_hz=25.0, seconds=2.0, rate=12800.0):
    """Impulses of known order and slip, modulated by the shaft or not."""
    rng = np.random.default_rng(1)
    train = np.zeros(int(seconds * rate))
    gap = rate / (order * speed_hz * (1 - slip))
    for at in np.arange(10.0, len(train) - 1, gap):
        train[int(at)] = 1 + shaft_depth * np.cos(2 * np.pi * speed_hz * at / rate)
    time = np.arange(256) / rate
    wave = np.convolve(train, np.exp(-1500 * time) * np.sin(2 * np.pi * 3400 * time))[: len(train)]
    wave += 0.02 * rng.standard_normal(len(wave))
    channel = Channel(samples=wave.astype(np.float32), rate_hz=rate)
    measurement = Measurement(machine="m", time=0.0, channels={"a": channel}, speed_hz=speed_hz)
    return list(Engine(make_layout([measurement])).spectra(measurement).values())


@pytest.mark.parametrize("slip", [0.0, 0.01, 0.018])
def test_slip_up_to_two_percent_is_tolerated_and_measured(slip):
    found = diagnose(pulses(BEARING.outer_race, slip=slip), BEARING, 25.0)
    assert found.fault == "outer race", found.reason
    family = fit_harmonics(
        line_heights_of(pulses(BEARING.outer_race, slip=slip)), BEARING.outer_race * 25, 0.02
    )
    assert family.hz == pytest.approx(BEARING.outer_race * 25 * (1 - slip), rel=0.002)


def test_a_line_five_percent_off_is_no_fault():
    assert diagnose(pulses(BEARING.outer_race, slip=0.05), BEARING, 25.0).status == "refused"


def test_sidebands_decide_between_races():
    steady = diagnose(pulses(BEARING.inner_race), BEARING, 25.0)
    assert steady.status == "inconclusive" and "sidebands" in steady.reason
    turning = diagnose(pulses(BEARING.inner_race, shaft_depth=0.8), BEARING, 25.0)
    assert turning.fault == "inner race"
    assert any("BPFI - 1 x shaft" in line.meaning for line in turning.lines)
    wrong = diagnose(pulses(BEARING.outer_race, shaft_depth=0.95), BEARING, 25.0)
    assert wrong.status == "inconclusive"


def test_impulses_once_per_turn_are_the_shafts():
    found = diagnose(pulses(1.0), BEARING, 25.0)
    assert found.status == "no line" and found.lines[0].meaning.endswith("x shaft")


def test_impossible_bearings_are_refused():
    with pytest.raises(UserError):
        bearing_from_geometry(balls=20, ball_mm=10, pitch_mm=30)
    with pytest.raises(UserError):
        bearing_from_geometry(balls=8, ball_mm=40, pitch_mm=30)
    with pytest.raises(UserError):
        Bearing(outer_race=5.4, inner_race=3.6, ball=2.3, cage=0.4)
    with pytest.raises(UserError):
        Bearing(outer_race=3.6, inner_race=5.4, ball=2.3, cage=0.6)
