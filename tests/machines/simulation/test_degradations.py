"""Graded degradations: what each does, and that it repeats."""

import numpy as np
import pytest

from lineside.machines.data.measurement import Channel, Measurement
from lineside.machines.simulation.degradations import (
    FASTER,
    GAIN_LOST,
    GRADES,
    LOUDER,
    MISSING_SHARE,
    NOISE_SHARE,
    SUITE,
    degrade,
)

RATE_HZ, HZ = 5000.0, 100.0
OF = {each.name: each for each in SUITE}


def wave(place=0, seconds=1.0):
    rng = np.random.default_rng(place)
    t = np.arange(int(RATE_HZ * seconds)) / RATE_HZ
    samples = np.sin(2 * np.pi * HZ * t) + 0.01 * rng.standard_normal(len(t))
    channels = {
        name: Channel(samples=samples.astype(np.float32), rate_hz=RATE_HZ) for name in ("a", "b")
    }
    return Measurement(machine="m", time=float(place), channels=channels, speed_hz=HZ)


def row(place=0):
    values = {"flow": 10.0 + place, "heat": 40.0}
    return Measurement(machine="m", time=float(place), values=values)


def plain(series):
    return [
        (m.time, m.speed_hz, repr(m.values), [c.samples.tobytes() for c in m.channels.values()])
        for m in series
    ]


def worse(name, grade, series):
    return degrade(series, OF[name], grade, seed=0)


def level(measurement, name="a"):
    return float(np.nanstd(measurement.channels[name].samples))


@pytest.mark.parametrize("each", SUITE, ids=lambda each: each.name)
@pytest.mark.parametrize("make", [wave, row])
def test_it_repeats_and_leaves_the_original_alone(each, make):
    if each.waves_only and make is row:
        pytest.skip("slow values have no speed")
    series = [make(place) for place in range(8)]
    for grade in GRADES:
        first, second = (degrade(series, each, grade, seed=1) for _ in range(2))
        assert plain(first) == plain(second)
        assert all(m.time in range(8) for m in first)
    assert plain(series) == plain([make(place) for place in range(8)])
    strongest = degrade(series, each, GRADES[-1], seed=1)
    assert plain(strongest) != plain(series)


@pytest.mark.parametrize("grade", GRADES)
def test_a_waveform_played_faster_has_its_line_higher_up(grade):
    for name, stated in (
        ("speed (stated)", HZ * (1 + FASTER[grade - 1])),
        ("speed (not stated)", HZ),
    ):
        quick = worse(name, grade, [wave()])[0]
        samples = quick.channels["a"].samples
        assert len(samples) == RATE_HZ and quick.speed_hz == pytest.approx(stated)
        spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
        assert spectrum.argmax() == pytest.approx(HZ * (1 + FASTER[grade - 1]), abs=1.01)


@pytest.mark.parametrize("grade", GRADES)
def test_amounts_are_what_they_say(grade):
    series = [wave(place) for place in range(200)]
    before = level(series[0])
    assert level(worse("load", grade, series[:1])[0]) == pytest.approx(
        LOUDER[grade - 1] * before, rel=1e-4
    )
    drifted = worse("gain drift", grade, series)
    assert level(drifted[0]) == pytest.approx(before, rel=1e-3)
    assert level(drifted[-1]) == pytest.approx((1 - GAIN_LOST[grade - 1]) * before, rel=1e-3)
    assert level(drifted[-1], "b") == pytest.approx(before, rel=1e-3)
    noisy = level(worse("noise", grade, series[:1])[0])
    assert noisy == pytest.approx(before * np.hypot(1, NOISE_SHARE[grade - 1]), rel=0.02)
    missing = [len(m.channels) for m in worse("missing sensor", grade, series)]
    assert missing.count(1) / 200 == pytest.approx(MISSING_SHARE[grade - 1], abs=0.08)


def test_torn_samples_and_lost_snapshots():
    series = [wave(place) for place in range(100)]
    shares = [
        np.isnan(worse("torn samples", grade, series)[0].channels["a"].samples).mean()
        for grade in GRADES
    ]
    assert shares == sorted(shares) and 0 < shares[0] <= 0.001 and 0.2 < shares[-1] <= 0.4
    counts = [len(worse("lost snapshots", grade, series)) for grade in GRADES]
    assert counts == sorted(counts, reverse=True) and counts[0] > 80 and counts[-1] < 40


def test_slow_values_get_worse_too():
    series = [row(place) for place in range(3)]
    assert worse("load", 4, series)[0].values["heat"] == pytest.approx(40 * LOUDER[-1])
    assert worse("gain drift", 4, series)[2].values == pytest.approx({"flow": 12 * 0.4, "heat": 40})
    assert list(worse("missing sensor", 4, series)[0].values) == ["heat"]
