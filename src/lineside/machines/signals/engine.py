"""From one measurement to its features: one batched real FFT per group of channels feeds all.

The Hann window is applied in the frequency domain (each bin minus half of its two neighbours),
so that the same transform also gives the envelope: a slice of the spectrum, brought back to time
at the width of the slice, is the band-passed analytic signal at the lowest rate that holds it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from lineside.machines.measurement import Measurement, Waveform
from lineside.machines.signals.layout import (
    ACCELERATION,
    ENVELOPE_TOP_HZ,
    TIME_NAMES,
    VELOCITY,
    Group,
    Layout,
    mel_edges_hz,
)
from lineside.machines.signals.spectra import Spectrum, spectrum_of
from lineside.machines.signals.waveforms import time_features

Features = NDArray[np.float32]
FLOOR = np.float32(1e-20)
"""Added to mean squares before the logarithm."""
SHORT_SHARE = 0.01
"""A channel may be this much shorter than the layout's; zeros are put in its end."""
RATE_TOLERANCE = 1e-3
SEVERITY_HZ = (10.0, 1000.0)
LINE_TOLERANCE = 0.015
LINE_HARMONICS = (1, 2, 3)


class Engine:
    """Makes the features of one layout.

    It keeps its work space between calls: one engine per thread. A channel that is missing, has
    another rate, is more than 1 % too short or holds no finite sample gives NaN for its features;
    single missing samples count as the channel's mean.
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
        out = np.empty((len(measurements), len(self.layout.names)), dtype=np.float32)
        for row, measurement in zip(out, measurements, strict=True):
            row[:] = self.features(measurement)
        return out

    def spectra(self, measurement: Measurement) -> dict[str, Spectrum]:
        """Return power density and envelope spectrum of every usable channel, for evidence."""
        found = {}
        for group in self.layout.groups:
            for name in group.channels:
                wave = usable(measurement, name, group)
                if wave is not None:
                    found[name] = spectrum_of(name, wave, group, measurement.speed_hz)
        return found


def usable(measurement: Measurement, name: str, group: Group) -> Waveform | None:
    """Return the samples of a channel that fit its group, None if they do not."""
    channel = measurement.channels.get(name)
    if channel is None or channel.unit != group.unit:
        return None
    if abs(channel.rate_hz / group.rate_hz - 1) > RATE_TOLERANCE:
        return None
    if len(channel.samples) < (1 - SHORT_SHARE) * group.length:
        return None
    return channel.samples[: group.length]


class _GroupEngine:
    """Constants and work space of one group."""

    def __init__(self, group: Group, layout: Layout) -> None:
        self.group, self.layout = group, layout
        channels, bins = len(group.channels), group.length // 2 - 1
        self.wave = np.zeros((channels, group.length), dtype=np.float32)
        self.scratch = np.zeros_like(self.wave)
        self.ones = np.ones(group.length, dtype=np.float32)
        # One work space for all: what fits into the processor's cache is fast.
        self.hann = self.scratch[:, : 2 * bins]
        self.power = np.zeros((channels, bins), dtype=np.float32)
        self.weighted = self.scratch[:, :bins]
        width = len(layout.names_of(group))
        self.out = np.zeros((channels, width), dtype=np.float32)
        self.hz = np.linspace(1, bins, bins, dtype=np.float64) * np.float64(group.resolution_hz)
        # Two-sided to one-sided, and the window's mean square of 3/8: see Welch 1967.
        self.unit_power = np.float32(1 / (3 * group.length**2))
        self.bands = _edges(bins, layout.bands)
        self.velocity = _velocity_weights(group, self.hz)
        self.mel_starts, self.mel_rising = _mel_weights(group, self.hz)
        # Bands and mel filters share one pass: sums between the edges of either.
        self.cuts = np.union1d(self.bands, self.mel_starts[:-1])
        self.band_cuts = np.searchsorted(self.cuts, self.bands)
        self.mel_cuts = np.searchsorted(self.cuts, self.mel_starts[:-1])
        first, last = group.envelope_bins
        self.slice = slice(first, last)
        self.envelope_unit = np.float32(2 * (last - first) / group.length)
        top = round(min(ENVELOPE_TOP_HZ, group.envelope_rate_hz / 2) / group.resolution_hz)
        self.envelope_top = max(2, min(top, (last - first) // 2))
        self.envelope_bands = _edges(self.envelope_top, layout.envelope_bands)

    def features(self, measurement: Measurement) -> Features:
        """Return shape (channel, feature); overwritten by the next call."""
        out = self.out
        bad = self._gather(measurement)
        time_features(self.wave, self.scratch, self.ones, out[:, : len(TIME_NAMES)])
        spectrum = fft.rfft(self.wave, axis=1)
        self._windowed_power(spectrum)
        parts = self._spectral(out, len(TIME_NAMES))
        at = self._envelope(spectrum, out, parts, measurement.speed_hz)
        assert at == out.shape[1]
        if bad:
            out[bad] = np.nan
        return out

    def _gather(self, measurement: Measurement) -> list[int]:
        """Copy samples without their mean into the work space; return the rows that have none."""
        bad = []
        for row, name in enumerate(self.group.channels):
            samples = usable(measurement, name, self.group)
            if samples is None:
                bad.append(row)
                self.wave[row] = 0
                continue
            mean = np.vecdot(samples, self.ones[: len(samples)]) / len(samples)
            if len(samples) == self.group.length and np.isfinite(mean):
                np.subtract(samples, mean, out=self.wave[row])
                continue
            fits = np.isfinite(samples)
            centre = samples[fits].mean(dtype=np.float64) if fits.any() else 0.0
            self.wave[row] = 0
            self.wave[row, : len(samples)][fits] = samples[fits] - np.float32(centre)
            bad += [] if fits.any() else [row]
        return bad

    def _windowed_power(self, spectrum: NDArray[np.complex64]) -> None:
        """Power of the Hann-windowed signal in every bin but the first and the last."""
        flat = spectrum.view(np.float32)
        width = self.hann.shape[1]
        # Twice the bin minus its neighbours is the difference of two differences; the samples
        # themselves are no longer needed.
        steps = self.wave[:, : width + 2]
        np.subtract(flat[:, 2 : width + 4], flat[:, : width + 2], out=steps)
        np.subtract(steps[:, :width], steps[:, 2:], out=self.hann)
        np.multiply(self.hann, self.hann, out=self.hann)
        np.add(self.hann[:, ::2], self.hann[:, 1::2], out=self.power)

    def _spectral(self, out: Features, at: int) -> int:
        """Write velocity, bands and mel filters from `at` on; return where they end."""
        if self.velocity is not None:
            first, weights = self.velocity
            squares = self.power[:, first : first + len(weights)] @ weights
            out[:, at] = 0.5 * np.log(squares * self.unit_power + FLOOR)
            at += 1
        pieces = np.add.reduceat(self.power, self.cuts, axis=1)
        sums = np.add.reduceat(pieces, self.band_cuts, axis=1)
        out[:, at : at + len(self.bands)] = np.log(sums * self.unit_power + FLOOR)
        at += len(self.bands)
        # A triangle rises over one interval between corners and falls over the next, so that two
        # sums per interval give all filters.
        first, last = self.mel_starts[0], self.mel_starts[-1]
        starts = self.mel_starts[:-1] - first
        power, weighted = self.power[:, first:last], self.weighted[:, first:last]
        np.multiply(power, self.mel_rising, out=weighted)
        rising = np.add.reduceat(weighted, starts, axis=1)
        falling = np.add.reduceat(pieces, self.mel_cuts, axis=1) - rising
        mels = np.maximum(rising[:, :-1] + falling[:, 1:], 0)
        out[:, at : at + mels.shape[1]] = np.log(mels * self.unit_power + FLOOR)
        return at + mels.shape[1]

    def _envelope(
        self, spectrum: NDArray[np.complex64], out: Features, at: int, speed_hz: float | None
    ) -> int:
        """Write the envelope's features, then orders and lines; return where they end."""
        analytic = fft.ifft(spectrum[:, self.slice], axis=1)
        envelope = np.abs(analytic)
        count, unit = np.float32(envelope.shape[1]), self.envelope_unit
        level = np.vecdot(envelope, self.ones[: envelope.shape[1]])[:, None] / count
        envelope -= level
        spread = np.maximum(np.vecdot(envelope, envelope) / count, FLOOR)
        squares = envelope * envelope
        fourth = np.vecdot(squares, squares) / (count * spread * spread)
        lines = np.abs(fft.rfft(envelope, axis=1)[:, 1 : self.envelope_top + 1])
        lines *= 2 * unit / count
        power = lines * lines
        background = np.maximum(lines.mean(axis=1), FLOOR)
        out[:, at] = np.log(level[:, 0] * unit + FLOOR)
        out[:, at + 1] = 0.5 * np.log(spread * unit * unit + FLOOR)
        out[:, at + 2] = np.arcsinh(fourth - 3)
        out[:, at + 3] = np.log(np.maximum(lines.max(axis=1), FLOOR) / background)
        at += 4
        sums = np.add.reduceat(power, self.envelope_bands, axis=1) / 2
        out[:, at : at + sums.shape[1]] = np.log(sums + FLOOR)
        at += sums.shape[1]
        at = self._orders(out, at, speed_hz)
        return self._lines(lines / background[:, None], out, at, speed_hz)

    def _orders(self, out: Features, at: int, speed_hz: float | None) -> int:
        """Write the energy of bands that are fixed in orders; NaN above half the rate."""
        count = self.layout.order_bands
        if not count:
            return at
        if not speed_hz:
            out[:, at : at + count] = np.nan
            return at + count
        total = np.zeros((len(self.power), self.power.shape[1] + 1))
        np.cumsum(self.power, axis=1, dtype=np.float64, out=total[:, 1:])
        edges = np.linspace(0, self.layout.orders, count + 1) * speed_hz / self.group.resolution_hz
        place = np.clip(edges - 0.5, 0, self.power.shape[1])  # bin 1 reaches from 0.5 to 1.5
        low = np.minimum(place.astype(int), self.power.shape[1] - 1)
        sums = total[:, low] + (total[:, low + 1] - total[:, low]) * (place - low)
        found = np.log(np.diff(sums, axis=1) * self.unit_power + FLOOR)
        found[:, edges[1:] > self.group.length / 2] = np.nan
        out[:, at : at + count] = found
        return at + count

    def _lines(
        self, lines: NDArray[np.float32], out: Features, at: int, speed_hz: float | None
    ) -> int:
        """Write how high the bearing's lines stand over the mean of the envelope spectrum."""
        bearing = self.layout.bearing
        for order in bearing.orders.values() if bearing else ():
            heights = []
            for harmonic in LINE_HARMONICS if speed_hz else ():
                place = harmonic * order * (speed_hz or 0.0) / self.group.resolution_hz - 1
                reach = max(1.0, LINE_TOLERANCE * place)
                window = lines[:, max(0, int(place - reach)) : int(place + reach) + 2]
                heights += [window.max(axis=1)] if window.shape[1] else []
            mean = np.mean(heights, axis=0) if heights else np.full(len(lines), np.nan)
            out[:, at] = np.log(np.maximum(mean, FLOOR))
            at += 1
        return at


def _edges(bins: int, parts: int) -> NDArray[np.intp]:
    """First bin of each of equal parts."""
    return np.linspace(0, bins, parts + 1).astype(np.intp)[:-1]


def _velocity_weights(
    group: Group, hz: NDArray[np.float64]
) -> tuple[int, NDArray[np.float32]] | None:
    """First bin and weights from power to the mean square of velocity in mm2/s2."""
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
    """First bin of every interval between corners and the end; rising weight of every bin."""
    corners = mel_edges_hz(group)
    starts = np.searchsorted(hz, corners)
    starts[-1] = len(hz)
    inside = hz[starts[0] :]
    place = np.clip(np.searchsorted(corners, inside, side="right") - 1, 0, len(corners) - 2)
    rising = (inside - corners[place]) / (corners[place + 1] - corners[place])
    return starts.astype(np.intp), np.clip(rising, 0, 1).astype(np.float32)
