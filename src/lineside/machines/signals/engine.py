"""From one measurement to its features: one batched real FFT per group of channels feeds all.

The Hann window is applied in the frequency domain (each bin minus half of its two neighbours),
so that the same transform also gives the envelope: a slice of the spectrum, brought back to time
at the width of the slice, is the band-passed analytic signal at the lowest rate that holds it.
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
from lineside.machines.signals.waveforms import time_features

Features = NDArray[np.float32]
FLOOR = np.float32(1e-20)
"""Added to mean squares before the logarithm."""
LANES = 4
"""Rows that one transform takes at the cost of little more than one."""
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
        self.ones = np.ones(group.length, dtype=np.float32)
        # Rows of zeros fill the last lanes: two or three rows alone would cost more than four.
        rows = channels if channels % LANES == 1 else -(-channels // LANES) * LANES
        self.padded = np.zeros((rows, group.length), dtype=np.float32)
        self.wave = self.padded[:channels]
        # Little work space, and used again: what stays in the processor's cache is fast.
        self.scratch = np.zeros(group.length, dtype=np.float32)
        self.steps = self.wave[:, : 2 * bins + 2].view(np.complex64)
        self.power = np.zeros((channels, bins), dtype=np.float32)
        self.weighted = self.wave[:, :bins]
        names = layout.feature_names(group)
        self.out = np.zeros((channels, len(names)), dtype=np.float32)
        self.scales = _scales(names)
        self.hz = np.linspace(1, bins, bins, dtype=np.float64) * np.float64(group.resolution_hz)
        # Two-sided to one-sided, and the window's mean square of 3/8: see Welch 1967.
        self.unit_power = np.float32(1 / (3 * group.length**2))
        self.velocity = _velocity_weights(group, self.hz)
        self._edges_of_sums(bins)
        first, last = group.envelope_bins
        self.slice = slice(first, last)
        self.envelope = np.zeros((rows, last - first), dtype=np.float32)
        self.envelope_unit = np.float32(2 / group.length)
        self.envelope_mean = np.full(last - first, 1 / (last - first), dtype=np.float32)
        top = round(min(ENVELOPE_TOP_HZ, group.envelope_rate_hz / 2) / group.resolution_hz)
        self.envelope_top = max(2, min(top, (last - first) // 2))
        self.line_mean = np.full(self.envelope_top, 1 / self.envelope_top, dtype=np.float32)
        self.envelope_bands = _edges(self.envelope_top, layout.envelope_bands)

    def _edges_of_sums(self, bins: int) -> None:
        """Bands and mel filters share one pass: sums between the edges of either."""
        self.bands = _edges(bins, self.layout.bands)
        self.mel_starts, self.mel_rising = _mel_weights(self.group, self.hz)
        self.cuts = np.union1d(self.bands, self.mel_starts[:-1])
        self.band_cuts = np.searchsorted(self.cuts, self.bands)
        self.mel_cuts = np.searchsorted(self.cuts, self.mel_starts[:-1])
        self.mel_slice = slice(int(self.mel_starts[0]), int(self.mel_starts[-1]))
        self.mel_first = self.mel_starts[:-1] - self.mel_starts[0]

    def features(self, measurement: Measurement) -> Features:
        """Return shape (channel, feature); overwritten by the next call.

        All features are written as they are; one logarithm at the end serves all but a few.
        """
        out = self.out
        bad = self._gather(measurement)
        spectrum = fft.rfft(self.padded, axis=1)
        np.abs(fft.ifft(spectrum[:, self.slice], axis=1, norm="forward"), out=self.envelope)
        self._windowed_power(spectrum[: len(out)])
        at = self._spectral(out, len(TIME_NAMES))
        at = self._envelope(out, at, measurement.speed_hz)
        assert at == out.shape[1]
        for part, begin, end in self.scales:
            part(out[:, begin:end], out=out[:, begin:end])
        if bad:
            out[bad] = np.nan
        return out

    def _gather(self, measurement: Measurement) -> list[int]:
        """Take in samples without their mean; write time features; return rows without samples."""
        bad = []
        for row, name in enumerate(self.group.channels):
            samples = usable(measurement, name, self.group)
            if samples is None or not self._centre(samples, self.wave[row]):
                bad.append(row)
                self.wave[row] = 0
            self.out[row, : len(TIME_NAMES)] = time_features(
                self.wave[row], self.scratch, self.ones
            )
        return bad

    def _centre(self, samples: Waveform, out: Waveform) -> bool:
        """Write samples without their mean, zeros for missing ones; False if all are missing."""
        mean = samples.dot(self.ones[: len(samples)]) / len(samples)
        if len(samples) == len(out) and math.isfinite(mean):
            np.subtract(samples, mean, out=out)
            return True
        fits = np.isfinite(samples)
        out[:] = 0
        if fits.any():
            centre = samples[fits].mean(dtype=np.float64)
            out[: len(samples)][fits] = samples[fits] - np.float32(centre)
        return bool(fits.any())

    def _windowed_power(self, spectrum: NDArray[np.complex64]) -> None:
        """Power of the Hann-windowed signal in every bin but the first and the last.

        The samples and the spectrum are no longer needed and are overwritten: new memory would
        push what is needed out of the processor's cache.
        """
        # Twice the bin minus its neighbours is the difference of two differences.
        np.subtract(spectrum[:, 1:], spectrum[:, :-1], out=self.steps)
        hann = spectrum[:, : self.power.shape[1]]
        np.subtract(self.steps[:, :-1], self.steps[:, 1:], out=hann)
        np.abs(hann, out=self.power)
        np.square(self.power, out=self.power)

    def _spectral(self, out: Features, at: int) -> int:
        """Write velocity, bands and mel filters from `at` on; return where they end."""
        if self.velocity is not None:
            first, weights = self.velocity
            squares = self.power[:, first : first + len(weights)] @ weights
            out[:, at] = np.sqrt(squares * self.unit_power + FLOOR)
            at += 1
        begin = at
        pieces = np.add.reduceat(self.power, self.cuts, axis=1)
        bands = out[:, at : at + len(self.bands)]
        np.add.reduceat(pieces, self.band_cuts, axis=1, out=bands)
        at += len(self.bands)
        # A triangle rises over one interval between corners and falls over the next, so that two
        # sums per interval give all filters.
        power = self.power[:, self.mel_slice]
        weighted = self.weighted[:, : power.shape[1]]
        np.multiply(power, self.mel_rising, out=weighted)
        rising = np.add.reduceat(weighted, self.mel_first, axis=1)
        falling = np.add.reduceat(pieces, self.mel_cuts, axis=1) - rising
        mels = rising[:, :-1] + falling[:, 1:]
        np.maximum(mels, 0, out=out[:, at : at + mels.shape[1]])
        at += mels.shape[1]
        written = out[:, begin:at]
        written *= self.unit_power
        written += FLOOR
        return at

    def _envelope(self, out: Features, at: int, speed_hz: float | None) -> int:
        """Write the envelope's features, then orders and lines; return where they end."""
        envelope, count = self.envelope[: len(out)], self.envelope.shape[1]
        level = np.vecdot(envelope, self.envelope_mean)
        envelope -= level[:, None]
        squares = envelope * envelope
        spread = np.maximum(np.vecdot(squares, self.envelope_mean), FLOOR)
        lines = np.abs(fft.rfft(self.envelope, axis=1)[: len(out), 1 : self.envelope_top + 1])
        background = np.maximum(np.vecdot(lines, self.line_mean), FLOOR * count)
        out[:, at] = level * self.envelope_unit + FLOOR
        out[:, at + 1] = np.sqrt(spread * self.envelope_unit**2 + FLOOR)
        out[:, at + 2] = np.vecdot(squares, squares) / (count * spread * spread) - 3
        out[:, at + 3] = np.maximum(lines.max(axis=1) / background, FLOOR)
        at += 4
        sums = out[:, at : at + len(self.envelope_bands)]
        np.add.reduceat(lines * lines, self.envelope_bands, axis=1, out=sums)
        sums *= np.float32(2 * (self.envelope_unit / count) ** 2)  # amplitude to mean square
        sums += FLOOR
        at += sums.shape[1]
        at = self._orders(out, at, speed_hz)
        return self._lines(lines, background, out, at, speed_hz)

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
        found = np.diff(sums, axis=1) * self.unit_power + FLOOR
        found[:, edges[1:] > self.group.length / 2] = np.nan
        out[:, at : at + count] = found
        return at + count

    def _lines(
        self,
        lines: NDArray[np.float32],
        background: NDArray[np.float32],
        out: Features,
        at: int,
        speed_hz: float | None,
    ) -> int:
        """Write how high the bearing's lines stand over the mean of the envelope spectrum."""
        bearing = self.layout.bearing
        for order in bearing.orders.values() if bearing else ():
            heights = []
            for harmonic in LINE_HARMONICS if speed_hz else ():
                place = harmonic * order * (speed_hz or 0.0) / self.group.resolution_hz - 1
                reach = max(1.0, LINE_TOLERANCE * place)
                window = lines[:, max(0, int(place - reach)) : int(place + reach) + 2]
                heights += [window.max(axis=1) / background] if window.shape[1] else []
            mean = np.mean(heights, axis=0) if heights else np.full(len(lines), np.nan)
            out[:, at] = np.maximum(mean, FLOOR)
            at += 1
        return at


def _scales(names: Sequence[str]) -> list[tuple[np.ufunc, int, int]]:
    """Which function is applied to which features: asinh to a few, the logarithm to the rest."""
    found: list[tuple[np.ufunc, int, int]] = []
    for place, name in enumerate(names):
        function = np.arcsinh if name in ASINH_NAMES else np.log
        if found and found[-1][0] is function:
            found[-1] = (function, found[-1][1], place + 1)
        else:
            found.append((function, place, place + 1))
    return found


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
