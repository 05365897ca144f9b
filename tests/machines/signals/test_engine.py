"""The signal engine: every transform against a second formula."""

import json

import numpy as np
import pytest
from scipy import signal, stats

from lineside.core.errors import UserError
from lineside.core.run.codec import decode, encode
from lineside.machines.data.measurement import Channel, Measurement
from lineside.machines.signals.bearings import bearing_from_geometry
from lineside.machines.signals.engine import Engine
from lineside.machines.signals.kurtogram import choose_band, kurtogram
from lineside.machines.signals.layout import Group, Layout, fast_length, make_layout, mel_edges_hz
from lineside.machines.signals.spectra import envelope_in_band, envelope_spectrum, power_density

RATE, COUNT = 20000.0, 20000
G_MM_S2 = 9806.65


def measured(*waves, rate=RATE, unit="g", speed_hz=None, values=None):
    channels = {
        f"c{place}": Channel(samples=np.asarray(wave, dtype=np.float32), rate_hz=rate, unit=unit)
        for place, wave in enumerate(waves)
    }
    return Measurement(
        machine="m", time=0.0, channels=channels, values=values or {}, speed_hz=speed_hz
    )


def noise(seed=0, count=COUNT, size=1.0):
    return size * np.random.default_rng(seed).standard_normal(count)


def found(measurement, *, layout=None, **options):
    layout = layout or make_layout([measurement], **options)
    values = Engine(layout).features(measurement)
    return dict(zip(layout.names, values.tolist(), strict=True))


def test_time_features_are_those_of_scipy_in_double():
    wave = (noise() ** 3 + 5.0).astype(np.float32)  # heavy tails on a large offset
    x = wave.astype(np.float64) - wave.mean(dtype=np.float64)
    rms, peak, mean = np.sqrt(np.mean(x**2)), np.abs(x).max(), np.abs(x).mean()
    clearance = peak / np.mean(np.sqrt(np.abs(x))) ** 2
    expected = {
        "rms": np.log(rms), "peak": np.log(peak), "peak_to_peak": np.log(np.ptp(x)),
        "crest": np.log(peak / rms), "kurtosis": np.arcsinh(stats.kurtosis(x)),
        "skew": np.arcsinh(stats.skew(x)), "shape": np.log(rms / mean),
        "impulse": np.log(peak / mean), "clearance": np.log(clearance),
    }  # fmt: skip
    values = found(measured(wave))
    for name, value in expected.items():
        assert values[f"c0.{name}"] == pytest.approx(value, abs=2e-4), name


def test_bands_hold_the_windowed_signals_power():
    wave = noise() + np.sin(2 * np.pi * 1234.5 * np.arange(COUNT) / RATE)
    values = found(measured(wave))
    bands = np.exp([values[f"c0.band_{place:03d}"] for place in range(100)])
    window = np.hanning(COUNT + 1)[:-1]
    x = wave - wave.mean()
    power = 2 * np.abs(np.fft.rfft(x * window)[1:-1]) ** 2 / (COUNT * np.sum(window**2))
    edges = np.linspace(0, len(power), 101).astype(int)
    np.testing.assert_allclose(bands, np.add.reduceat(power, edges[:-1]), rtol=2e-3)
    assert bands.sum() == pytest.approx(np.var(x), rel=0.03)
    assert np.argmax(bands) == 12


def test_mel_filters_are_triangles_between_the_corners():
    wave = noise(1)
    layout = make_layout([measured(wave)])
    values = found(measured(wave), layout=layout)
    corners = mel_edges_hz(layout.groups[0])
    window = np.hanning(COUNT + 1)[:-1]
    power = 2 * np.abs(np.fft.rfft((wave - wave.mean()) * window)[1:-1]) ** 2
    power /= COUNT * np.sum(window**2)
    hz = np.arange(1, COUNT // 2) * RATE / COUNT
    for place in (0, 7, 40, 63):
        low, centre, high = corners[place : place + 3]
        up, down = (hz - low) / (centre - low), (high - hz) / (high - centre)
        expected = np.log(power @ np.clip(np.minimum(up, down), 0, None))
        assert values[f"c0.mel_{place:02d}"] == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize(("unit", "factor"), [("g", G_MM_S2), ("m/s2", 1000.0)])
def test_velocity_is_the_integral_of_a_sine(unit, factor):
    """1 g at 50 Hz is 9806.65 / (2 pi 50) mm/s peak; what lies outside 10-1000 Hz is left out."""
    time = np.arange(COUNT) / RATE
    wave = np.sin(2 * np.pi * 50 * time) + 3 * np.sin(2 * np.pi * 2000 * time)
    values = found(measured(wave, unit=unit))
    expected = factor / (2 * np.pi * 50) / np.sqrt(2)
    assert np.exp(values["c0.velocity"]) == pytest.approx(expected, rel=0.002)


def test_velocity_is_the_direct_integral_of_band_passed_noise():
    band = signal.butter(4, (50, 600), "bandpass", fs=RATE, output="sos")
    wave = signal.sosfiltfilt(band, noise(2))
    speed = np.cumsum(wave - wave.mean()) / RATE * G_MM_S2
    speed = signal.sosfiltfilt(signal.butter(2, 10, "highpass", fs=RATE, output="sos"), speed)
    values = found(measured(wave))
    assert np.exp(values["c0.velocity"]) == pytest.approx(speed[1000:-1000].std(), rel=0.05)


def test_velocity_of_a_velocity_needs_no_integral_and_of_a_pressure_there_is_none():
    wave = 4 * np.sin(2 * np.pi * 50 * np.arange(COUNT) / RATE)
    values = found(measured(wave, unit="mm/s"))
    assert np.exp(values["c0.velocity"]) == pytest.approx(4 / np.sqrt(2), rel=0.002)
    assert "c0.velocity" not in make_layout([measured(wave, unit="Pa")]).names


def group_of(count=COUNT, band=(2000.0, 9000.0)):
    return Group(
        channels=("c0",), unit="g", rate_hz=RATE, length=count, mels=64,
        envelope_hz=band,
    )  # fmt: skip


def test_envelope_is_the_hilbert_envelope_after_an_ideal_band_pass():
    group = group_of()
    wave = noise(3)
    wave -= wave.mean()
    first, last = group.envelope_bins
    kept = np.zeros(COUNT // 2 + 1, dtype=complex)
    kept[first:last] = np.fft.rfft(wave)[first:last]
    expected = np.abs(signal.hilbert(np.fft.irfft(kept, COUNT)))
    envelope = envelope_in_band(wave, group)
    step = COUNT / len(envelope)
    at = np.arange(len(envelope))
    whole = np.flatnonzero(np.isclose(at * step % 1, 0))  # samples that both rates have
    assert len(whole) > 30
    places = np.round(whole * step).astype(int)
    np.testing.assert_allclose(envelope[whole], expected[places], rtol=1e-6, atol=1e-9)


def test_envelope_of_a_modulated_tone_has_its_depth_and_frequency():
    time = np.arange(COUNT) / RATE
    wave = (2 + 0.5 * np.cos(2 * np.pi * 83 * time)) * np.sin(2 * np.pi * 5000 * time)
    group = group_of()
    hz, lines = envelope_spectrum(envelope_in_band(wave, group), group.envelope_rate_hz)
    assert hz[np.argmax(lines)] == pytest.approx(83, abs=0.3)
    assert lines.max() == pytest.approx(0.5, rel=0.01)
    values = found(measured(wave))
    assert np.exp(values["c0.envelope_level"]) == pytest.approx(2, rel=0.01)
    assert np.exp(values["c0.envelope_spread"]) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)
    bands = np.exp([values[f"c0.envelope_band_{place:02d}"] for place in range(24)])
    assert np.argmax(bands) == 1 and bands.sum() == pytest.approx(0.125, rel=0.02)


def test_power_density_agrees_with_welch():
    wave = signal.lfilter([1], [1, -1.6, 0.9], noise(4, 200_000))
    hz, density = power_density(wave, RATE, bins=1000)
    welch_hz, welch = signal.welch(wave, RATE, nperseg=2000)
    ratio = np.interp(welch_hz[5:-5], hz, density) / welch[5:-5]
    assert np.median(ratio) == pytest.approx(1, abs=0.02) and np.std(ratio) < 0.25
    assert np.trapezoid(density, hz) == pytest.approx(np.var(wave), rel=0.04)


def test_one_by_one_is_the_same_as_all_at_once_bit_for_bit():
    snapshots = [measured(noise(seed), noise(seed + 50)) for seed in range(4)]
    layout = make_layout(snapshots)
    together = Engine(layout).features_of(snapshots)
    for row, snapshot in zip(together[::-1], snapshots[::-1], strict=True):
        assert np.array_equal(row, Engine(layout).features(snapshot))


@pytest.mark.parametrize("count", [COUNT, 3645])
def test_a_channel_does_not_depend_on_how_many_there_are_beside_it(count):
    waves = [noise(seed, count) for seed in range(9)]
    alone = Engine(make_layout([measured(waves[0])])).features(measured(waves[0]))
    for channels in range(2, 10):
        snapshot = measured(*waves[:channels])
        band = make_layout([measured(waves[0])]).groups[0].envelope_hz
        layout = make_layout([snapshot])
        assert layout.groups[0].envelope_hz == band
        features = Engine(layout).features(snapshot)
        np.testing.assert_allclose(features[: len(alone)], alone, rtol=2e-6, atol=2e-6)


def test_features_do_not_depend_on_where_in_memory_anything_lies():
    """Some sums of BLAS begin at a multiple of 64 bytes, and round by it."""
    wave = noise(0, 2560).astype(np.float32)
    layout = make_layout([measured(wave, wave)])
    rng = np.random.default_rng(0)
    held, seen = [], set()
    for offset in range(40):
        held.append(np.empty(int(rng.integers(1, 5000)), dtype=np.uint8))
        moved = np.empty(3000, dtype=np.float32)[offset % 16 :][: len(wave)]
        moved[:] = wave
        engine = Engine(layout)
        held.append(engine)
        seen.add(engine.features(measured(moved, moved)).tobytes())
    assert len(seen) == 1


def test_layout_survives_json():
    bearing = bearing_from_geometry(balls=9, ball_mm=7.9, pitch_mm=38.5)
    snapshot = measured(noise(), speed_hz=25.0, values={"Temperature": 40.0})
    layout = make_layout([snapshot], bearing=bearing)
    again = decode(Layout, json.loads(json.dumps(encode(layout)[0])), {})
    assert again == layout and again.names == layout.names
    assert len(set(layout.names)) == len(layout.names) == len(Engine(layout).features(snapshot))
    assert layout.names[-1] == "value.Temperature" and "c0.envelope_inner_race" in layout.names


def test_channels_of_two_rates_share_a_layout():
    slow = Channel(samples=noise(1, 4096).astype(np.float32), rate_hz=4096.0, unit="mm/s")
    snapshot = measured(noise(0))
    both = Measurement(machine="m", time=0.0, channels={**snapshot.channels, "slow": slow})
    layout = make_layout([both])
    assert len(layout.groups) == 2
    values = found(both, layout=layout)
    assert np.exp(values["slow.rms"]) == pytest.approx(1, rel=0.05)
    assert values["c0.rms"] == found(snapshot)["c0.rms"]


def test_what_cannot_be_used_is_nan_and_touches_no_other_channel():
    good = measured(noise(0), noise(1))
    layout = make_layout([good])
    engine = Engine(layout)
    whole = engine.features(good)
    width = len(whole) // 2
    holed = noise(1).astype(np.float32)
    holed[100:110] = np.nan
    for bad in (
        measured(noise(0)),
        measured(noise(0), noise(1, 15000)),
        measured(noise(0), np.full(COUNT, np.nan)),
    ):
        values = engine.features(bad)
        assert np.array_equal(values[:width], whole[:width]) and np.isnan(values[width:]).all()
    near = engine.features(measured(noise(0), holed))
    assert np.isfinite(near).all()
    assert near[width] == pytest.approx(whole[width], abs=0.01)
    assert np.isnan(engine.features(measured(noise(0), noise(1), rate=25600.0))).all()
    assert np.isfinite(engine.features(measured(np.zeros(COUNT), np.ones(COUNT)))).all()


def test_prime_lengths_are_trimmed():
    assert fast_length(20011) in range(19950, 20012) and fast_length(20480) == 20480
    layout = make_layout([measured(noise(0, 20011))])
    assert layout.groups[0].length == fast_length(20011)


def test_names_tell_their_band_and_scale():
    layout = make_layout([measured(noise())])
    assert layout.frequencies_hz("c0.band_017") == (1700.0, 1800.0)
    assert layout.frequencies_hz("c0.velocity") == (10.0, 1000.0)
    assert layout.frequencies_hz("c0.rms") is None
    assert layout.to_physical("c0.rms", float(np.log(2))) == pytest.approx(2)
    assert layout.to_physical("c0.kurtosis", float(np.arcsinh(5))) == pytest.approx(5)
    assert layout.to_physical("value.flow", 12.5) == 12.5


def test_kurtogram_finds_the_band_of_the_impulses():
    rng = np.random.default_rng(0)
    train = np.zeros(COUNT)
    train[rng.integers(200, 240, 90).cumsum()] = 1.0
    time = np.arange(300) / RATE
    ring = np.exp(-time * 900) * np.sin(2 * np.pi * 6200 * time)
    wave = 0.5 * rng.standard_normal(COUNT) + 6 * np.convolve(train, ring)[:COUNT]
    waves = wave[None].astype(np.float32)
    low, high = choose_band(waves, RATE)
    assert low < 6200 < high and high - low < 3500
    assert max(b.kurtosis for b in kurtogram(waves, RATE) if b.low_hz == low) > 0.5


def test_kurtogram_of_noise_is_zero_and_of_a_tone_is_minus_one():
    waves = np.stack([noise(seed) for seed in range(4)]).astype(np.float32)
    bands = kurtogram(waves, RATE)
    assert all(abs(band.kurtosis) < 6 * band.sigma for band in bands)
    assert choose_band(waves, RATE) == (2000.0, 9000.0)
    tone = np.sin(2 * np.pi * 3500 * np.arange(COUNT) / RATE)[None].astype(np.float32)
    inside = [b.kurtosis for b in kurtogram(tone, RATE) if b.low_hz < 3300 and b.high_hz > 3700]
    assert inside == pytest.approx([-1] * len(inside), abs=0.1)


def test_nothing_to_make_a_layout_of_is_said():
    with pytest.raises(UserError):
        make_layout([])
    with pytest.raises(UserError):
        make_layout([measured(noise(0, 10))])
