"""Features of one snapshot, from one batched real FFT per group of channels.

With X = rfft(x) of n samples, (channel, sample) -> (channel, bin):

spectrum        Hann window in the frequency domain, X_k / 2 - (X_{k-1} + X_{k+1}) / 4, so that X
                itself remains unwindowed for the envelope
sub-bands, mel  mean square per band of the windowed spectrum (Welch 1967 with one segment)
velocity        sum of |A_k / (2 pi f_k)|^2 over 10 to 1000 Hz, the band of ISO 20816-3
envelope        |ifft(X[first:last])|: a slice of the one-sided spectrum is the band-passed analytic
                signal, decimated to the width of the slice, hence the demodulated envelope at the
                lowest rate that holds it (Randall and Antoni 2011, section 4)

Bins count from 1: neither the mean nor the Nyquist bin belongs to a feature.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from lineside.machines.data.measurement import Measurement, Waveform
from lineside.machines.signals.layout import (
    ACCELERATION,
    ASINH_NAMES,
    ENVELOPE_TOP_HZ,
    TIME_NAMES,
    VELOCITY,
    Group,
    Layout,
    mel_edges_hz,
)
from lineside.machines.signals.spectra import Spectrum, spectrum_of

Features = NDArray[np.float32]
FLOOR = np.float32(1e-20)
"""Added to mean squares before the logarithm."""
TINY = 1e-12
LANES = 4
"""Rows that one SIMD transform takes at little more than the cost of one."""
SHORT_SHARE = 0.01
"""A channel may be shorter than the layout's by this share; it is padded with zeros."""
RATE_TOLERANCE = 1e-3
SEVERITY_HZ = (10.0, 1000.0)
"""Band of the vibration velocity of ISO 20816-3."""
LINE_TOLERANCE = 0.015
LINE_HARMONICS = (1, 2, 3)


class Engine:
    """Computes the features of one layout.

    It reuses its work space between calls: one engine per thread. A channel that is missing, has
    another rate, is more than 1 % too short or holds no finite sample gets NaN features; single
    missing samples are replaced by the channel's mean.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._groups = [_GroupEngine(group, layout) for group in layout.groups]

    def features(self, measurement: Measurement) -> Features:
        """Return the features of one snapshot, shape (feature,), in the order of the names."""
        parts = [group.features(measurement).ravel() for group in self._groups]
        values = [measurement.values.get(name, np.nan) for name in self.layout.values]
        return np.concatenate([*parts, np.array(values, dtype=np.float32)])

    def features_of(self, measurements: Sequence[Measurement]) -> Features:
        """Return the features of snapshots one by one, shape (snapshot, feature)."""
        rows = [self.features(measurement) for measurement in measurements]
        return np.array(rows, dtype=np.float32).reshape(-1, len(self.layout.names))

    def spectra(self, measurement: Measurement) -> dict[str, Spectrum]:
        """Return power density and envelope spectrum of every usable channel, for diagnosis."""
        spectra = {}
        for group in self.layout.groups:
            for name in group.channels:
                wave = usable_samples(measurement, name, group)
                if wave is not None:
                    spectra[name] = spectrum_of(name, wave, group, measurement.speed_hz)
        return spectra


def usable_samples(measurement: Measurement, name: str, group: Group) -> Waveform | None:
    """Return the samples of a channel that fit its group, None if they do not."""
    channel = measurement.channels.get(name)
    if channel is None or channel.unit != group.unit:
        return None
    if abs(channel.rate_hz / group.rate_hz - 1) > RATE_TOLERANCE:
        return None
    if len(channel.samples) < (1 - SHORT_SHARE) * group.length:
        return None
    return channel.samples[: group.length]


def time_features(
    centred: NDArray[np.float32], scratch: NDArray[np.float32], ones: NDArray[np.float32]
) -> tuple[float, ...]:
    """Return the time-domain statistics of one waveform, in the order of `TIME_NAMES`.

    rms, peak, peak to peak, crest factor peak / rms, excess kurtosis, skewness, and with the mean
    of |x|, m, and of its root, r: shape factor rms / m, impulse factor peak / m, clearance factor
    peak / r^2. One row with its scratch stays in the processor's cache, several rows do not. Dot
    products sum in parallel lanes, so that float32 keeps four digits or more; samples between 1e-8
    and 1e8 in their unit neither underflow nor overflow.

    Args:
        centred: Samples without their mean, shape (sample,).
        scratch: Same shape; overwritten.
        ones: Same shape; a dot product with them is the fastest sum.
    """
    count = len(centred)
    power = max(float(centred.dot(centred)) / count, TINY * TINY)
    rms = math.sqrt(power)
    np.square(centred, out=scratch)
    third = float(scratch.dot(centred)) / (count * power * rms)
    fourth = float(scratch.dot(scratch)) / (count * power * power)
    np.abs(centred, out=scratch)
    np.sqrt(scratch, out=scratch)
    # Unlike a BLAS sum, a dot product does not depend on the memory alignment of its rows.
    mean = max(float(scratch.dot(scratch)) / count, TINY)
    spread = max((float(scratch.dot(ones)) / count) ** 2, TINY)
    top, bottom = float(np.maximum.reduce(centred)), float(np.minimum.reduce(centred))
    peak = max(top, -bottom, TINY)
    return (
        rms, peak, max(top - bottom, TINY), peak / rms, fourth - 3, third, rms / mean,
        peak / mean, peak / spread,
    )  # fmt: skip


class _GroupEngine:
    """Constants and work space of one group of channels with the same rate, length and unit."""

    def __init__(self, group: Group, layout: Layout) -> None:
        self.group, self.layout = group, layout
        channels, bins = len(group.channels), group.length // 2 - 1
        self.ones = np.ones(group.length, dtype=np.float32)
        # Rows are padded to whole SIMD lanes: two or three rows would take longer than four.
        rows = channels if channels % LANES == 1 else -(-channels // LANES) * LANES
        self.padded = np.zeros((rows, group.length), dtype=np.float32)
        self.wave = self.padded[:channels]
        # Small work space that is reused stays in the processor's cache.
        self.scratch = np.zeros(group.length, dtype=np.float32)
        # the samples' memory, seen as complex differences of neighbouring bins, (channel, bin + 1)
        self.steps = self.wave[:, : 2 * bins + 2].view(np.complex64)
        self.power = np.zeros((channels, bins), dtype=np.float32)
        self.weighted = self.wave[:, :bins]
        names = layout.feature_names(group)
        self.out = np.zeros((channels, len(names)), dtype=np.float32)
        self.scales = _scales(names)
        self.hz = np.linspace(1, bins, bins, dtype=np.float64) * np.float64(group.resolution_hz)
        # power = |4 X_hann|^2; the one-sided mean square is 2 |X_hann|^2 / (3/8 n^2), where 3/8 is
        # the window's mean square (Welch 1967): power / (3 n^2)
        self.unit_power = np.float32(1 / (3 * group.length**2))
        self.velocity = _velocity_weights(group, self.hz)
        self._set_band_edges(bins)
        first, last = group.envelope_bins
        self.slice = slice(first, last)
        self.envelope = np.zeros((rows, last - first), dtype=np.float32)
        self.envelope_unit = np.float32(2 / group.length)
        self.envelope_mean = np.full(last - first, 1 / (last - first), dtype=np.float32)
        top = round(min(ENVELOPE_TOP_HZ, group.envelope_rate_hz / 2) / group.resolution_hz)
        self.envelope_top = max(2, min(top, (last - first) // 2))
        self.line_mean = np.full(self.envelope_top, 1 / self.envelope_top, dtype=np.float32)
        self.envelope_bands = _edges(self.envelope_top, layout.envelope_bands)

    def _set_band_edges(self, bins: int) -> None:
        """Sub-bands and mel filters share one pass: sums between the union of their edges."""
        self.bands = _edges(bins, self.layout.bands)
        self.mel_starts, self.mel_rising = _mel_weights(self.group, self.hz)
        self.cuts = np.union1d(self.bands, self.mel_starts[:-1])
        self.band_cuts = np.searchsorted(self.cuts, self.bands)
        self.mel_cuts = np.searchsorted(self.cuts, self.mel_starts[:-1])
        self.mel_slice = slice(int(self.mel_starts[0]), int(self.mel_starts[-1]))
        self.mel_first = self.mel_starts[:-1] - self.mel_starts[0]

    def features(self, measurement: Measurement) -> Features:
        """Return shape (channel, feature); overwritten by the next call.

        Features are written in physical units, then the logarithm (asinh for a few) is taken.
        """
        out = self.out
        bad = self._read_samples(measurement)
        spectrum = fft.rfft(self.padded, axis=1)  # (row, sample) -> (row, sample // 2 + 1)
        # (row, last - first) bins -> as many samples of the envelope
        np.abs(fft.ifft(spectrum[:, self.slice], axis=1, norm="forward"), out=self.envelope)
        self._windowed_power(spectrum[: len(out)])
        column = self._write_spectral(out, len(TIME_NAMES))
        column = self._write_envelope(out, column, measurement.speed_hz)
        assert column == out.shape[1]
        for function, begin, end in self.scales:
            function(out[:, begin:end], out=out[:, begin:end])
        if bad:
            out[bad] = np.nan
        return out

    def _read_samples(self, measurement: Measurement) -> list[int]:
        """Copy centred samples, write time-domain features, return rows without samples."""
        bad = []
        for row, name in enumerate(self.group.channels):
            samples = usable_samples(measurement, name, self.group)
            if samples is None or not self._centre(samples, self.wave[row]):
                bad.append(row)
                self.wave[row] = 0
            self.out[row, : len(TIME_NAMES)] = time_features(
                self.wave[row], self.scratch, self.ones
            )
        return bad

    def _centre(self, samples: Waveform, out: Waveform) -> bool:
        """Write samples minus their mean, zeros for missing ones; False if all are missing."""
        mean = samples.dot(self.ones[: len(samples)]) / len(samples)
        if len(samples) == len(out) and math.isfinite(mean):
            np.subtract(samples, mean, out=out)
            return True
        finite = np.isfinite(samples)
        out[:] = 0
        if finite.any():
            centre = samples[finite].mean(dtype=np.float64)
            out[: len(samples)][finite] = samples[finite] - np.float32(centre)
        return bool(finite.any())

    def _windowed_power(self, spectrum: NDArray[np.complex64]) -> None:
        """Write the power of the Hann-windowed signal: (channel, bin + 2) -> (channel, bin).

        The samples and the spectrum are no longer needed and are overwritten: new memory would
        evict the rest from the processor's cache.
        """
        # 2 X_k - X_{k-1} - X_{k+1} = (X_k - X_{k-1}) - (X_{k+1} - X_k): a difference of differences
        np.subtract(spectrum[:, 1:], spectrum[:, :-1], out=self.steps)
        hann = spectrum[:, : self.power.shape[1]]
        np.subtract(self.steps[:, :-1], self.steps[:, 1:], out=hann)
        np.abs(hann, out=self.power)
        np.square(self.power, out=self.power)

    def _write_spectral(self, out: Features, column: int) -> int:
        """Write velocity, sub-bands and mel filters from a column on; return the next column."""
        if self.velocity is not None:
            first, weights = self.velocity
            squares = self.power[:, first : first + len(weights)] @ weights
            out[:, column] = np.sqrt(squares * self.unit_power + FLOOR)
            column += 1
        begin = column
        pieces = np.add.reduceat(self.power, self.cuts, axis=1)  # (channel, bin) -> (channel, cut)
        bands = out[:, column : column + len(self.bands)]
        np.add.reduceat(pieces, self.band_cuts, axis=1, out=bands)
        column += len(self.bands)
        # A triangular filter rises over one interval between corners and falls over the next: two
        # sums per interval, rising and falling, give all filters.
        power = self.power[:, self.mel_slice]
        weighted = self.weighted[:, : power.shape[1]]
        np.multiply(power, self.mel_rising, out=weighted)
        rising = np.add.reduceat(weighted, self.mel_first, axis=1)
        falling = np.add.reduceat(pieces, self.mel_cuts, axis=1) - rising
        mels = rising[:, :-1] + falling[:, 1:]
        np.maximum(mels, 0, out=out[:, column : column + mels.shape[1]])
        column += mels.shape[1]
        written = out[:, begin:column]
        written *= self.unit_power
        written += FLOOR
        return column

    def _write_envelope(self, out: Features, column: int, speed_hz: float | None) -> int:
        """Write the envelope's features, then the bearing lines."""
        envelope, count = self.envelope[: len(out)], self.envelope.shape[1]
        level = np.vecdot(envelope, self.envelope_mean)  # mean over time, (channel,)
        envelope -= level[:, None]
        squares = envelope * envelope
        spread = np.maximum(np.vecdot(squares, self.envelope_mean), FLOOR)
        # amplitude of the envelope spectrum from bin 1 up to 1 kHz, (channel, line)
        lines = np.abs(fft.rfft(self.envelope, axis=1)[: len(out), 1 : self.envelope_top + 1])
        background = np.maximum(np.vecdot(lines, self.line_mean), FLOOR * count)
        out[:, column] = level * self.envelope_unit + FLOOR
        out[:, column + 1] = np.sqrt(spread * self.envelope_unit**2 + FLOOR)
        out[:, column + 2] = np.vecdot(squares, squares) / (count * spread * spread) - 3
        out[:, column + 3] = np.maximum(lines.max(axis=1) / background, FLOOR)
        column += 4
        sums = out[:, column : column + len(self.envelope_bands)]
        np.add.reduceat(lines * lines, self.envelope_bands, axis=1, out=sums)
        sums *= np.float32(2 * (self.envelope_unit / count) ** 2)  # amplitude to mean square
        sums += FLOOR
        column += sums.shape[1]
        return self._write_bearing_lines(lines, background, out, column, speed_hz)

    def _write_bearing_lines(
        self,
        lines: NDArray[np.float32],
        background: NDArray[np.float32],
        out: Features,
        column: int,
        speed_hz: float | None,
    ) -> int:
        """Write the height of each fault's first harmonics over the mean envelope spectrum."""
        bearing = self.layout.bearing
        for order in bearing.orders.values() if bearing else ():
            heights = []
            for harmonic in LINE_HARMONICS if speed_hz else ():
                # column of `lines`, which begin at bin 1
                line = harmonic * order * (speed_hz or 0.0) / self.group.resolution_hz - 1
                reach = max(1.0, LINE_TOLERANCE * line)
                window = lines[:, max(0, int(line - reach)) : int(line + reach) + 2]
                heights += [window.max(axis=1) / background] if window.shape[1] else []
            mean = np.mean(heights, axis=0) if heights else np.full(len(lines), np.nan)
            out[:, column] = np.maximum(mean, FLOOR)
            column += 1
        return column


def _scales(names: Sequence[str]) -> list[tuple[np.ufunc, int, int]]:
    """Return (function, first column, end) of runs of features: asinh for a few, else log."""
    runs: list[tuple[np.ufunc, int, int]] = []
    for column, name in enumerate(names):
        function = np.arcsinh if name in ASINH_NAMES else np.log
        if runs and runs[-1][0] is function:
            runs[-1] = (function, runs[-1][1], column + 1)
        else:
            runs.append((function, column, column + 1))
    return runs


def _edges(bins: int, parts: int) -> NDArray[np.intp]:
    """Return the first bin of each of equal parts."""
    return np.linspace(0, bins, parts + 1).astype(np.intp)[:-1]


def _velocity_weights(
    group: Group, hz: NDArray[np.float64]
) -> tuple[int, NDArray[np.float32]] | None:
    """Return the first bin, and weights from power to the mean square of velocity in mm2/s2."""
    if not group.has_velocity:
        return None
    first = int(np.searchsorted(hz, SEVERITY_HZ[0] - group.resolution_hz / 2))
    last = max(first + 1, int(np.searchsorted(hz, SEVERITY_HZ[1], side="right")))
    inside = hz[first:last]
    if group.unit in VELOCITY:
        return first, np.full(len(inside), VELOCITY[group.unit] ** 2, dtype=np.float32)
    return first, ((ACCELERATION[group.unit] / (2 * np.pi * inside)) ** 2).astype(np.float32)


def _mel_weights(
    group: Group, hz: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the first bin of each interval between corners, and each bin's rising weight."""
    corners = mel_edges_hz(group)
    starts = np.searchsorted(hz, corners)
    starts[-1] = len(hz)
    inside = hz[starts[0] :]
    interval = np.clip(np.searchsorted(corners, inside, side="right") - 1, 0, len(corners) - 2)
    rising = (inside - corners[interval]) / (corners[interval + 1] - corners[interval])
    return starts.astype(np.intp), np.clip(rising, 0, 1).astype(np.float32)
