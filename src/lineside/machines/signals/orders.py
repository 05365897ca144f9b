"""Order tracking: the amplitude spectrum in multiples of the shaft speed instead of hertz.

A speed that changes within a snapshot smears its lines in hertz. Samples at equal angles instead
of equal times make them sharp again. No tachometer is needed: the phase of a shaft harmonic is the
angle (phase demodulation; Bonnardot et al., "Use of the acceleration signal of a gearbox in order
to perform angular resampling", Mechanical Systems and Signal Processing 19, 2005).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import map_coordinates

Curve = NDArray[np.float64]
PER_TURN = 128
"""Samples per turn after resampling: they hold 64 orders."""
MIN_TURNS = 4
SWAY = 0.1
"""Half the width of the band around a shaft harmonic whose phase is taken, relative to it."""
TRACKED_ORDERS = (1, 2, 3)
"""Shaft harmonics whose phase is tried."""


@dataclass(frozen=True, kw_only=True)
class OrderSpectrum:
    """Amplitude spectrum of one waveform over shaft orders.

    Attributes:
        orders: Multiples of the shaft speed, shape (line,).
        amplitude: In the samples' unit, Hann window, shape (line,).
        tracked: Whether the angle comes from the phase of a shaft harmonic, not from the mean
            speed.
    """

    orders: Curve
    amplitude: Curve
    tracked: bool


def order_spectrum(
    samples: NDArray[np.float32], rate_hz: float, speed_hz: float, highest: float
) -> OrderSpectrum | None:
    """Return the order spectrum of a waveform, None for fewer than `MIN_TURNS` turns.

    The angle is that of the constant mean speed or of the phase of one of the first three shaft
    harmonics: whichever gives the sharpest spectrum, the largest sum A^4 / (sum A^2)^2.

    Args:
        samples: Shape (sample,); missing ones are replaced by the mean.
        rate_hz: Samples per second.
        speed_hz: Mean shaft speed, turns per second.
        highest: Highest order to return.
    """
    if len(samples) * speed_hz / rate_hz < MIN_TURNS:
        return None
    wave = np.nan_to_num(np.asarray(samples, dtype=np.float64) - np.nanmean(samples))
    constant: Curve = np.arange(len(wave), dtype=np.float64) * speed_hz / rate_hz
    tracked = [turns_from_line(wave, rate_hz, speed_hz, order) for order in TRACKED_ORDERS]
    angles = [constant, *(t for t in tracked if _is_plausible(t * rate_hz / speed_hz))]
    spectra = [_spectrum(resample_at_angles(wave, turns, PER_TURN)) for turns in angles]
    sharpness = [float((a**4).sum() / max((a**2).sum() ** 2, 1e-300)) for _, a in spectra]
    best = int(np.argmax(sharpness))
    orders, amplitude = spectra[best]
    inside = orders <= min(highest, rate_hz / 2 / speed_hz)
    return OrderSpectrum(orders=orders[inside], amplitude=amplitude[inside], tracked=best > 0)


def turns_from_line(wave: Curve, rate_hz: float, speed_hz: float, order: float) -> Curve:
    """Return the shaft angle in turns at every sample, from the phase of a shaft harmonic.

    The harmonic is cut out of the spectrum with its surroundings (`SWAY`); the unwrapped phase of
    that analytic signal over 2 pi times the order is the angle.

    Args:
        wave: Samples without their mean, shape (sample,).
        rate_hz: Samples per second.
        speed_hz: Mean shaft speed, roughly.
        order: Of the harmonic.
    """
    hz = fft.fftfreq(len(wave), 1 / rate_hz)
    line = order * speed_hz
    weight = np.clip(1 - np.abs(hz - line) / (SWAY * line), 0, None)
    weight = np.sin(np.pi / 2 * np.minimum(1, 2 * weight))  # flat inside, soft at the edges
    phase = np.unwrap(np.angle(fft.ifft(fft.fft(wave) * weight)))
    return np.asarray((phase - phase[0]) / (2 * np.pi * order))


def resample_at_angles(wave: Curve, turns: Curve, per_turn: int) -> Curve:
    """Return the samples at equal angles: (sample,) in time -> (angle,), `per_turn` each turn.

    What lies above `per_turn` / 2 orders at the slowest speed is filtered out first (aliasing);
    values between samples come from cubic splines.

    Args:
        wave: Samples without their mean, shape (sample,).
        turns: Shaft angle at every sample, shape (sample,).
        per_turn: New samples per turn.
    """
    rising = np.maximum.accumulate(turns)
    turns_per_sample = np.gradient(rising).clip(min=0)
    # cut-off in cycles per sample, at the first percentile of the speed
    edge = 0.5 * per_turn * max(float(np.percentile(turns_per_sample, 1)), 1e-9)
    if edge < 0.5:
        spectrum = fft.rfft(wave)
        spectrum *= np.clip((edge - fft.rfftfreq(len(wave))) / (0.1 * edge), 0, 1)
        wave = fft.irfft(spectrum, len(wave))
    angles = np.arange(np.ceil(rising[0] * per_turn), rising[-1] * per_turn) / per_turn
    positions = np.interp(angles, rising, np.arange(len(wave)))
    return np.asarray(map_coordinates(wave, [positions], order=3, mode="nearest"))


def _is_plausible(relative: Curve) -> bool:
    """Return whether an angle, in samples at the mean speed, stays within twice the sway.

    Where the harmonic drowns in noise the phase slips, and the speed leaves the band.
    """
    return bool(np.abs(np.gradient(relative) - 1).max() < 2 * SWAY)


def _spectrum(resampled: Curve) -> tuple[Curve, Curve]:
    """Return orders and amplitudes (Hann window) of samples at equal angles."""
    window = np.hanning(len(resampled) + 1)[:-1]
    amplitude = np.abs(fft.rfft((resampled - resampled.mean()) * window))
    return fft.rfftfreq(len(resampled), 1 / PER_TURN), 2 * amplitude / window.sum()
