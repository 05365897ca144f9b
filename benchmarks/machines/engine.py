"""Speed of the signal engine beside the usual way, and diagnosis on measured bearings.

Settings of the diagnosis were chosen while looking at the same files, so that its numbers tell
what the method can do there, not what it will do on other machines.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import signal, stats
from threadpoolctl import threadpool_limits

from benchmarks.results import ROOT, Say, plain
from lineside.core.errors import UserError
from lineside.machines.data.formats import read_recording
from lineside.machines.data.measurement import Channel, Measurement
from lineside.machines.signals.bearings import Bearing, bearing_from_geometry
from lineside.machines.signals.diagnosis import Diagnosis, diagnose
from lineside.machines.signals.engine import Engine
from lineside.machines.signals.harmonics import (
    HarmonicSeries,
    LineHeights,
    fit_harmonics,
    line_heights_of,
)
from lineside.machines.signals.layout import Group, Layout, fast_length, make_layout, mel_edges_hz
from lineside.machines.signals.quality import find_sensor_faults, learn_norms
from lineside.machines.signals.spectra import Spectrum, spectrum_of
from lineside.machines.signals.speed import estimate_speed, speed_contradiction
from lineside.machines.simulation.rig import Condition, Rig, simulate_vibration

DATA = ROOT.parent / "shared" / "data" / "machines"
CHANNELS, SAMPLES, RATE_HZ = 4, 20_000, 20_000.0
SNAPSHOTS, BLOCKS, OURS_PER_BLOCK, NAIVE_PER_BLOCK = 8, 21, 40, 6
TSFEL_BLOCKS = 5
COMPONENTS = 10
BAND_HZ = (2000.0, 10_000.0)
SEGMENT_SECONDS = 0.25
HITSM_RATE_HZ = 51_200.0
RANDOM_GEOMETRIES = 300
MFPT = bearing_from_geometry(balls=8, ball_mm=5.969, pitch_mm=31.623)
WRONG = (
    (6, 5.969, 31.623, 0), (7, 5.969, 31.623, 0), (9, 5.969, 31.623, 0), (10, 5.969, 31.623, 0),
    (12, 5.969, 31.623, 0), (8, 5.969, 31.623, 40), (8, 3.0, 30.0, 0), (8, 9.0, 30.0, 0),
    (9, 7.94, 39.04, 0), (8, 6.75, 28.5, 0), (13, 3.5, 25.6, 0), (16, 8.41, 71.5, 15.17),
    (8, 7.92, 34.55, 0), (9, 7.9, 38.5, 0),
)  # fmt: skip
"""Other bearings: balls, their diameter, pitch diameter in mm, contact angle in degrees."""
SHAFT_TRAPS = ((2.0, 4.0), (3.0, 5.0), (4.0, 6.0))
"""Outer and inner race at multiples of the shaft: no real bearing, but a test of the rule."""


class Judge:
    """A small end of the chain: PCA of standardised features, EWMA of the log score, k of n."""

    def __init__(self, rows: NDArray[np.float32]) -> None:
        self.centre = rows.mean(axis=0)
        self.scale = 1 / (rows.std(axis=0) + np.float32(1e-3))
        scaled = (rows - self.centre) * self.scale
        _, sizes, axes = np.linalg.svd(scaled, full_matrices=False)
        self.axes = np.ascontiguousarray(axes[:COMPONENTS])
        self.weights = len(rows) / sizes[:COMPONENTS] ** 2
        self.mean, self.recent, self.limit = 0.0, [False] * 6, 8.0

    def push(self, features: NDArray[np.float32]) -> bool:
        """Return whether five of the last six smoothed scores exceed the limit."""
        scaled = (features - self.centre) * self.scale
        along = self.axes @ scaled
        distance = float(along * along @ self.weights)
        residual = float(scaled @ scaled - along @ along)
        score = np.log(max(distance / COMPONENTS, residual / len(scaled), 1e-12))
        self.mean += 0.4 * (score - self.mean)
        self.recent = [*self.recent[1:], self.mean > self.limit]
        return sum(self.recent) >= 5


def engine(say: Say) -> None:
    """Features, score and alarm of 4 x 20,000 samples in one thread, beside the naive path."""
    snapshots = make_snapshots()
    layout = make_layout(snapshots)
    ours, naive, library = Engine(layout), NaivePath(layout), NaivePath(layout, library=True)
    norms = learn_norms(snapshots)
    _agree(ours, naive, snapshots[0])
    judges = Judge(ours.features_of(snapshots)), Judge(np.stack([naive(s) for s in snapshots]))
    paths: list[tuple[Callable[[Measurement], object], int]] = [
        (lambda s: judges[0].push(ours.features(s)), OURS_PER_BLOCK),
        (lambda s: judges[1].push(naive(s)), NAIVE_PER_BLOCK),
        (lambda s: judges[1].push(library(s)), NAIVE_PER_BLOCK),
        (
            lambda s: (find_sensor_faults(s, norms), judges[0].push(ours.features(s))),
            OURS_PER_BLOCK,
        ),
    ]
    with threadpool_limits(1):
        times = block_times(paths, snapshots)
    fast, slow, slower, checked = np.median(times, axis=1)
    reason = f"processor time of one thread, median of {BLOCKS} alternating blocks, 4 x 20,000"
    say("machines_per_core", plain(1 / fast, "machines", BLOCKS, "higher", reason))
    say(
        "machines_per_core_with_sensor_checks",
        plain(1 / checked, "machines", BLOCKS, "higher", reason),
    )
    say("engine_snapshot_ms", plain(1000 * fast, "ms", BLOCKS, "lower", reason))
    say("naive_snapshot_ms", plain(1000 * slow, "ms", BLOCKS, "lower", reason))
    ratio = float(np.median(times[1] / times[0]))
    say("engine_ratio_naive", plain(ratio, "ratio", BLOCKS, "higher", reason + ", paired"))
    say("engine_ratio_scipy_moments", plain(slower / fast, "ratio", BLOCKS, "higher", reason))
    _tsfel(say, snapshots, paths[0][0])


def make_snapshots() -> list[Measurement]:
    """Return simulated snapshots of four channels."""
    rig = Rig(
        rate_hz=RATE_HZ, seconds=SAMPLES / RATE_HZ,
        gains=(1.0, 0.8, 0.7, 0.5), channels=("a", "b", "c", "d"),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    found = []
    for place in range(SNAPSHOTS):
        wave = simulate_vibration(rig, Condition(speed_hz=25.0, severity=0.2), rng)
        channels = {
            name: Channel(samples=samples, rate_hz=RATE_HZ)
            for name, samples in zip(rig.channels, wave, strict=True)
        }
        found.append(Measurement(machine="m", time=float(place), channels=channels))
    return found


def block_times(
    paths: Sequence[tuple[Callable[[Measurement], object], int]],
    snapshots: Sequence[Measurement],
    blocks: int = BLOCKS,
) -> NDArray[np.float64]:
    """Return processor seconds per snapshot, shape (path, block); the paths take turns."""
    for path, count in paths:
        for snapshot in snapshots[:count]:
            path(snapshot)
    times = np.empty((len(paths), blocks))
    for block in range(blocks):
        for row, (path, count) in enumerate(paths):
            start = time.process_time()
            for place in range(count):
                path(snapshots[place % len(snapshots)])
            times[row, block] = (time.process_time() - start) / count
    return times


class NaivePath:
    """The usual way: channel by channel, float64, band-pass filter and Hilbert transform.

    Filters and matrices are made once, and the band-pass runs in one direction only (zero phase
    would cost twice). `library` takes the moments from scipy.stats, which is
    slower than writing them out.
    """

    def __init__(self, layout: Layout, *, library: bool = False) -> None:
        group = layout.groups[0]
        self.layout, self.count, self.library = layout, group.length, library
        self.window = np.hanning(self.count + 1)[:-1]
        self.unit = 2 / (self.count * np.sum(self.window**2))
        self.hz = np.arange(1, self.count // 2) * group.resolution_hz
        corners = mel_edges_hz(group)
        up = (self.hz - corners[:-2, None]) / np.diff(corners)[:-1, None]
        down = (corners[2:, None] - self.hz) / np.diff(corners)[1:, None]
        self.mel = np.clip(np.minimum(up, down), 0, None)
        inside = (self.hz >= 10) & (self.hz <= 1000)
        self.velocity = np.where(inside, (9806.65 / (2 * np.pi * self.hz)) ** 2, 0)
        self.filter = signal.butter(
            4, group.envelope_hz, "bandpass", fs=group.rate_hz, output="sos"
        )
        self.bands = np.linspace(0, len(self.hz), layout.bands + 1).astype(int)[:-1]
        self.top = round(1000 / group.resolution_hz)
        self.envelope_bands = np.linspace(0, self.top, layout.envelope_bands + 1).astype(int)[:-1]

    def __call__(self, measurement: Measurement) -> NDArray[np.float32]:
        """Return the same features as the engine, shape (feature,)."""
        parts = [self._channel(c.samples.astype(np.float64)) for c in measurement.channels.values()]
        return np.concatenate(parts).astype(np.float32)

    def _channel(self, samples: NDArray[np.float64]) -> NDArray[np.float64]:
        x = samples - samples.mean()
        size = np.abs(x)
        rms, peak, mean = np.sqrt(np.mean(x**2)), size.max(), size.mean()
        fourth, third = self._moments(x)
        spread = np.mean(np.sqrt(size)) ** 2
        power = np.abs(np.fft.rfft(x * self.window))[1:-1] ** 2 * self.unit
        envelope = np.abs(signal.hilbert(signal.sosfilt(self.filter, x)))
        level = envelope.mean()
        envelope = envelope - level
        lines = np.abs(np.fft.rfft(envelope))[1 : self.top + 1] * 2 / self.count
        kurtosis = self._moments(envelope)[0]
        logs = [
            rms, peak, np.ptp(x), peak / rms, rms / mean, peak / mean, peak / spread,
            np.sqrt(power @ self.velocity), level, envelope.std(), lines.max() / lines.mean(),
        ]  # fmt: skip
        sums = (
            np.add.reduceat(power, self.bands),
            self.mel @ power,
            np.add.reduceat(lines**2, self.envelope_bands) / 2,
        )
        time_part = np.insert(np.log(logs), 4, np.arcsinh([fourth, third]))
        at = 10
        return np.concatenate([
            time_part[:at], np.log(sums[0]), np.log(sums[1]), time_part[at : at + 2],
            [np.arcsinh(kurtosis)], time_part[at + 2 :], np.log(sums[2]),
        ])  # fmt: skip

    def _moments(self, x: NDArray[np.float64]) -> tuple[float, float]:
        """Return excess kurtosis and skewness."""
        if self.library:
            return float(stats.kurtosis(x)), float(stats.skew(x))
        squares = x * x
        power = squares.mean()
        return np.mean(squares * squares) / power**2 - 3, np.mean(squares * x) / power**1.5


def _agree(ours: Engine, naive: NaivePath, snapshot: Measurement) -> None:
    """Refuse to time two paths that do not compute the same thing."""
    names = ours.layout.names
    first, second = ours.features(snapshot), naive(snapshot)
    for name, mine, theirs in zip(names, first, second, strict=True):
        filtered = "envelope" in name  # an ideal and a Butterworth band-pass differ a little
        if abs(mine - theirs) > (1.0 if filtered else 0.02):
            raise UserError(f"{name}: the engine says {mine:.4f}, the naive path {theirs:.4f}")


def _tsfel(
    say: Say, snapshots: Sequence[Measurement], path: Callable[[Measurement], object]
) -> None:
    """Time tsfel's default features beside ours, if it is installed; they take turns.

    Its set (temporal, statistical, spectral) differs from ours, and holds neither envelope nor
    score nor alarm: it is what a user would take instead.
    """
    try:
        import tsfel
    except ImportError:
        print("tsfel is absent, so it is left out: pip install tsfel", file=sys.stderr)
        return
    settings = tsfel.get_features_by_domain()

    def theirs(snapshot: Measurement) -> None:
        for channel in snapshot.channels.values():
            tsfel.time_series_features_extractor(
                settings, channel.samples.astype(np.float64), fs=RATE_HZ, verbose=0
            )

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        times = block_times([(path, OURS_PER_BLOCK), (theirs, 1)], snapshots, TSFEL_BLOCKS)
    channel = float(np.median(times[1])) / CHANNELS
    kinds = ", ".join(f"{len(found)} {domain}" for domain, found in settings.items())
    reason = (
        f"default set ({kinds}), one thread, median of {TSFEL_BLOCKS} blocks of {CHANNELS} channels"
    )
    say("tsfel_channel_ms", plain(1000 * channel, "ms", TSFEL_BLOCKS, "lower", reason))
    ratio = float(np.median(times[1] / times[0]))
    reason += ", paired with features, score and alarm of the same snapshots"
    say("engine_ratio_tsfel", plain(ratio, "ratio", TSFEL_BLOCKS, "higher", reason))


def diagnosis(say: Say) -> None:
    """Bearing faults on MFPT and HIT-SM: right, refused, and what chance would name."""
    _mfpt(say)
    _hitsm(say)


def _mfpt(say: Say) -> None:
    whole, right, count, shaft_lines = {}, 0, 0, 0
    for path in _files("mfpt"):
        samples, rate_hz, speed_hz = _load(path)
        truth = "inner race" if "Inner" in path.name else "outer race"
        spectrum = _spectrum(samples, rate_hz, speed_hz)
        whole[path.stem] = (spectrum, speed_hz, truth)
        size = int(SEGMENT_SECONDS * rate_hz)
        found = [
            diagnose([_spectrum(part, rate_hz, speed_hz)], MFPT, speed_hz)
            for part in samples[: len(samples) // size * size].reshape(-1, size)
        ]
        right += sum(each.fault == truth for each in found)
        count += len(found)
        shaft_lines += sum(_names_a_shaft_line(each, spectrum.seconds) for each in found)
    files = list(whole.values())
    reason = f"{count} segments of {SEGMENT_SECONDS} s of 5 files of one rig: no interval"
    say("mfpt_segments_right", plain(right / count, "fraction", count, "higher", reason))
    named = [diagnose([s], MFPT, hz).fault == truth for s, hz, truth in files]
    say("mfpt_files_right", plain(float(np.mean(named)), "fraction", 5, "higher", "5 files"))
    traps = [
        diagnose([s], Bearing(outer_race=low, inner_race=high, ball=3.0, cage=0.49), hz).fault != ""
        for s, hz, _ in files
        for low, high in SHAFT_TRAPS
    ]
    wrong = shaft_lines + sum(traps)
    total = count + len(traps)
    reason = f"{count} segments and {len(traps)} traps whose orders are multiples of the shaft"
    say("mfpt_shaft_line_called_fault", plain(wrong / total, "fraction", total, "lower", reason))
    _geometries(say, files)


def _geometries(say: Say, files: Sequence[tuple[Spectrum, float, str]]) -> None:
    """Wrong, missing and random geometries: how many are refused."""
    wrong = [
        bearing_from_geometry(balls=b, ball_mm=d, pitch_mm=p, contact_degrees=a)
        for b, d, p, a in WRONG
    ]
    kept = [diagnose([s], bearing, hz).fault == "" for s, hz, _ in files for bearing in wrong]
    kept += [diagnose([s], None, hz).status == "refused" for s, hz, _ in files]
    kept += [diagnose([s], MFPT, None).status == "refused" for s, _, _ in files]
    reason = f"5 files x ({len(WRONG)} other bearings, no geometry, no speed)"
    rate = float(np.mean(kept))
    say("mfpt_wrong_geometry_refused", plain(rate, "fraction", len(kept), "higher", reason))
    named = [
        diagnose([s], bearing, hz).fault not in ("", truth)
        for bearing in random_bearings(RANDOM_GEOMETRIES, np.random.default_rng(0))
        for s, hz, truth in files
    ]
    reason = "wrong fault named with a bearing drawn at random: it fits by chance"
    rate = float(np.mean(named))
    say("mfpt_random_geometry_misnamed", plain(rate, "fraction", len(named), "lower", reason))


def random_bearings(count: int, rng: np.random.Generator) -> list[Bearing]:
    """Return bearings whose outer or inner race lies 3 % or more off that of MFPT's."""
    found: list[Bearing] = []
    while len(found) < count:
        try:
            bearing = bearing_from_geometry(
                balls=int(rng.integers(6, 21)), ball_mm=rng.uniform(0.1, 0.35), pitch_mm=1.0,
                contact_degrees=float(rng.choice([0, 0, 15, 25, 40])),
            )  # fmt: skip
        except UserError:
            continue
        outer, inner = bearing.outer_race / MFPT.outer_race, bearing.inner_race / MFPT.inner_race
        if max(abs(outer - 1), abs(inner - 1)) >= 0.03:
            found.append(bearing)
    return found


def _names_a_shaft_line(found: Diagnosis, seconds: float) -> bool:
    """Whether a named fault rests on lines that are multiples of the shaft."""
    fault_lines = [line for line in found.lines if line.meaning and "shaft" not in line.meaning]
    if not found.fault or not found.speed_hz:
        return False
    strongest = fault_lines[0].order if fault_lines else 0.0
    return abs(strongest - round(strongest)) < 0.5 / (SEGMENT_SECONDS * found.speed_hz)


def _hitsm(say: Say) -> None:
    orders: list[float] = []
    told: list[bool] = []
    silent: list[bool] = []
    healthy: list[bool] = []
    speeds: list[float] = []
    bearings = [
        bearing_from_geometry(balls=b, ball_mm=d, pitch_mm=p, contact_degrees=a)
        for b, d, p, a in WRONG
    ]
    for path in _files("hitsm"):
        samples, rate_hz, _ = _load(path)
        stated = float(path.stem.split("_")[1]) / 60
        spectrum = _spectrum(samples, rate_hz, stated)
        snapshot = Measurement(
            machine="rig", time=0.0, channels={"a": Channel(samples=samples, rate_hz=rate_hz)}
        )
        doubt = speed_contradiction(snapshot, stated) != ""
        if path.stem.startswith("IR5"):
            series = strongest_series(line_heights_of([spectrum]), 0.5 * stated, 600.0)
            orders.append(series.hz / stated if series else np.nan)
            silent.append(not doubt)
        else:
            (silent if path.stem == "Normal_1200" else told).append(
                not doubt if path.stem == "Normal_1200" else doubt
            )
            healthy += [diagnose([spectrum], bearing, stated).fault != "" for bearing in bearings]
            estimate = estimate_speed(snapshot, stated / 3, 3 * stated)
            speeds.append(estimate.hz if estimate else np.nan)
    print(f"IR5 orders {np.round(orders, 4)}, healthy speeds {np.round(speeds, 3)} Hz")
    spread = float(np.ptp(orders) / np.mean(orders))
    reason = "3 files; (greatest - least) / mean of the strongest series' order"
    say("hitsm_order_spread", plain(spread, "fraction", 3, "lower", reason))
    reason = "1: both untrue speeds reported, none of the four true ones doubted"
    value = float(all(told) and all(silent))
    say("hitsm_speed_contradiction_found", plain(value, "fraction", 6, "higher", reason))
    reason = f"3 healthy files x {len(bearings)} bearings"
    rate = float(np.mean(healthy))
    say("hitsm_healthy_called_fault", plain(rate, "fraction", len(healthy), "lower", reason))


def _files(name: str) -> list[Path]:
    found = sorted((DATA / name).glob("*.mat"))
    if not found:
        raise UserError(f"there are no files in {DATA / name}", "these data are not part of this")
    return found


def _load(path: Path) -> tuple[NDArray[np.float32], float, float]:
    """Samples, rate and stated speed of a file with one channel."""
    record = read_recording(path)
    name = next(iter(record.samples))
    speed_hz = 0.0 if record.speed_hz is None else float(record.speed_hz[0])
    return record.samples[name][0], record.rate_hz[name] or HITSM_RATE_HZ, speed_hz


def _spectrum(samples: NDArray[np.float32], rate_hz: float, speed_hz: float) -> Spectrum:
    """Spectrum with the default band: these files hold no healthy record to choose one from."""
    length = fast_length(len(samples))
    group = Group(
        channels=("a",), unit="g", rate_hz=rate_hz, length=length, mels=64,
        envelope_hz=BAND_HZ,
    )  # fmt: skip
    return spectrum_of("a", samples[:length], group, speed_hz)


def strongest_series(heights: LineHeights, low_hz: float, high_hz: float) -> HarmonicSeries | None:
    """Return the series of the strongest line, at its fundamental; None if there is no line.

    The strongest line may be the second or third harmonic: the lowest fundamental whose own line
    has a third of its height or more is taken.
    """
    lines = heights.lines(low_hz, high_hz)
    if not lines:
        return None
    hz, height = lines[0]
    slip = 0.5 * heights.resolution_hz / hz
    for divisor in (3, 2):
        series = fit_harmonics(heights, hz / divisor, slip)
        enough = max(heights.threshold, height / 3)
        if hz / divisor >= low_hz and series.heights[0] >= enough:
            return series
    return fit_harmonics(heights, hz, slip)
