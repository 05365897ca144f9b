"""Power density and envelope spectrum of one channel in physical units, for diagnosis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import median_filter, uniform_filter1d

from lineside.machines.data.measurement import Waveform
from lineside.machines.signals.layout import Group

Curve = NDArray[np.float64]
FINENESS = 4
"""Zero padding: points of the envelope spectrum per resolution of 1 / length."""
PSD_BINS = 4096


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Spectra of one channel of one snapshot.

    Attributes:
        channel: Its name.
        unit: Its unit.
        speed_hz: Stated shaft speed, turns per second, None if unknown.
        seconds: Length of the snapshot; 1 / seconds is the resolution.
        psd_hz: Frequencies of the power density.
        psd: One-sided power density in unit2/Hz, Hann window, averaged over neighbouring bins.
        envelope_hz: Frequencies of the envelope spectrum.
        envelope: Amplitude of each line of the envelope in `unit`, Hann window.
        envelope_level: Mean of the envelope; a line over it is the depth of modulation.
        band_hz: Demodulation band.
    """

    channel: str
    unit: str
    speed_hz: float | None
    seconds: float
    psd_hz: Curve
    psd: Curve
    envelope_hz: Curve
    envelope: Curve
    envelope_level: float
    band_hz: tuple[float, float]


def spectrum_of(name: str, wave: Waveform, group: Group, speed_hz: float | None) -> Spectrum:
    """Return the spectra of one channel.

    Args:
        name: The channel.
        wave: Its samples, shape (sample,); missing ones (NaN) are replaced by the mean.
        group: Its rate, unit and demodulation band.
        speed_hz: Stated shaft speed, turns per second.
    """
    samples = np.asarray(wave, dtype=np.float64)
    samples = np.nan_to_num(samples - np.nanmean(samples))
    envelope = envelope_in_band(samples, group)
    hz, lines = envelope_spectrum(envelope, group.envelope_rate_hz)
    psd_hz, psd = power_density(samples, group.rate_hz)
    return Spectrum(
        channel=name, unit=group.unit, speed_hz=speed_hz, seconds=len(samples) / group.rate_hz,
        psd_hz=psd_hz, psd=psd, envelope_hz=hz, envelope=lines,
        envelope_level=float(envelope.mean()), band_hz=group.envelope_hz,
    )  # fmt: skip


def envelope_in_band(samples: Curve, group: Group) -> Curve:
    """Return the envelope in the group's band, sampled at that band's width.

    (sample,) -> (last - first,): the magnitude of the analytic signal (Hilbert transform) after an
    ideal band-pass, decimated. The factor 2 / length makes it an amplitude.
    """
    first, last = group.envelope_bins
    padded = np.zeros(group.length)
    padded[: len(samples)] = samples[: group.length]
    analytic = fft.ifft(fft.rfft(padded)[first:last])
    return np.abs(analytic) * (2 * (last - first) / group.length)


def envelope_spectrum(envelope: Curve, rate_hz: float) -> tuple[Curve, Curve]:
    """Return frequencies and amplitudes of the envelope without its mean, Hann window."""
    window = np.hanning(len(envelope) + 1)[:-1]
    size = fft.next_fast_len(FINENESS * len(envelope), real=True)
    lines = np.abs(fft.rfft((envelope - envelope.mean()) * window, size))
    return fft.rfftfreq(size, 1 / rate_hz), 2 * lines / window.sum()


def over_background(hz: Curve, amplitude: Curve, bins: int) -> Curve:
    """Return the amplitude over its running median, of a spectrum with `FINENESS` zero padding.

    The median over `bins` is taken at the true resolution and interpolated to the finer grid.
    """
    coarse = median_filter(amplitude[::FINENESS], bins, mode="nearest")
    return amplitude / np.maximum(np.interp(hz, hz[::FINENESS], coarse), 1e-30)


def power_density(samples: Curve, rate_hz: float, bins: int = PSD_BINS) -> tuple[Curve, Curve]:
    """Return frequencies and one-sided power density, averaged over neighbouring bins.

    psd = 2 |rfft(w x)|^2 / (rate sum(w^2)). The average over m bins of one transform has the
    variance of m segments (Daniell 1946; compare Welch 1967).
    """
    window = np.hanning(len(samples) + 1)[:-1]
    power = np.abs(fft.rfft(samples * window)) ** 2
    density = 2 * power / (rate_hz * np.sum(window**2))
    density[0] /= 2
    width = max(1, len(density) // bins)
    smooth = np.maximum(uniform_filter1d(density, width, mode="nearest"), 0)  # a running sum
    return fft.rfftfreq(len(samples), 1 / rate_hz)[::width], smooth[::width]
