"""Order tracking: samples per turn instead of samples per second."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import map_coordinates

from lineside.core.errors import UserError

Curve = NDArray[np.float64]
HYSTERESIS = 0.2
"""Share of the tachometer's range that a pulse must fall before the next one counts."""


def pulse_times(tachometer: NDArray[np.float32], rate_hz: float) -> Curve:
    """Return when the tachometer's signal rises through the middle of its range, in seconds.

    Times are interpolated between samples; a pulse only counts after the signal has fallen
    through a lower threshold, so that noise on an edge does not count twice.

    Args:
        tachometer: Samples of the pulse train, shape (sample,), finite.
        rate_hz: Samples per second.

    Raises:
        UserError: if there are fewer than two pulses.
    """
    wave = np.asarray(tachometer, dtype=np.float64)
    low, high = np.percentile(wave, (1, 99)) if len(wave) else (0.0, 0.0)
    middle = (low + high) / 2
    armed_below = middle - HYSTERESIS * (high - low)
    rises = np.flatnonzero((wave[:-1] < middle) & (wave[1:] >= middle))
    falls = np.flatnonzero(wave < armed_below)
    last_low = np.searchsorted(falls, rises, side="right") - 1
    armed = last_low >= 0
    rises, last_low = rises[armed], last_low[armed]
    # Of several rises after the same low sample only the first one is a pulse.
    rises = rises[np.unique(last_low, return_index=True)[1]]
    if len(rises) < 2 or high <= low:
        raise UserError(f"the tachometer gave {len(rises)} pulses", "two or more are needed")
    part = (middle - wave[rises]) / (wave[rises + 1] - wave[rises])
    return np.asarray((rises + part) / rate_hz)


def turns_from_pulses(pulses_s: Curve, samples: int, rate_hz: float, per_turn: int = 1) -> Curve:
    """Return the shaft's turns at every sample, shape (sample,), by monotone interpolation.

    Before the first and after the last pulse the nearest pulse's speed goes on.

    Args:
        pulses_s: Times of the pulses in seconds, rising.
        samples: Number of samples.
        rate_hz: Samples per second.
        per_turn: Pulses per turn.
    """
    if len(pulses_s) < 2 or not (np.diff(pulses_s) > 0).all():
        raise UserError("pulse times must rise, and be two or more", "check the tachometer")
    turns = np.arange(len(pulses_s)) / per_turn
    time = np.arange(samples) / rate_hz
    found = PchipInterpolator(pulses_s, turns)(np.clip(time, pulses_s[0], pulses_s[-1]))
    first = 1 / (per_turn * (pulses_s[1] - pulses_s[0]))
    last = 1 / (per_turn * (pulses_s[-1] - pulses_s[-2]))
    found += np.minimum(time - pulses_s[0], 0) * first
    found += np.maximum(time - pulses_s[-1], 0) * last
    return np.asarray(found)


def turns_from_speed(speed_hz: Curve | float, samples: int, rate_hz: float) -> Curve:
    """Return the shaft's turns at every sample from its speed, shape (sample,).

    Args:
        speed_hz: One speed, or a profile at equal distances from the first to the last sample.
        samples: Number of samples.
        rate_hz: Samples per second.
    """
    profile = np.atleast_1d(np.asarray(speed_hz, dtype=np.float64))
    if not np.isfinite(profile).all() or (profile <= 0).any():
        raise UserError("order tracking needs a speed above zero throughout", "cut the snapshot")
    places = np.linspace(0, 1, len(profile)) if len(profile) > 1 else np.zeros(1)
    fine = np.interp(np.linspace(0, 1, samples), places, profile)
    steps = (fine[1:] + fine[:-1]) / (2 * rate_hz)
    return np.concatenate([[0.0], np.cumsum(steps)])


def turns_from_line(
    samples: NDArray[np.float32], rate_hz: float, speed_hz: float, *,
    order: float = 1.0, sway: float = 0.1,
) -> Curve:  # fmt: skip
    """Return the shaft's turns at every sample from the phase of one of its lines.

    The line is cut out of the spectrum with its surroundings; the phase of that analytic signal,
    unwrapped, is the angle (phase demodulation, Bonnardot et al. 2005, "Use of the acceleration
    signal of a gearbox in order to perform angular resampling").

    Args:
        samples: Shape (sample,).
        rate_hz: Samples per second.
        speed_hz: Roughly known mean speed.
        order: Which line, in turns of the shaft.
        sway: Half the width that is cut out, relative to the line.
    """
    centred = np.nan_to_num(np.asarray(samples, dtype=np.float64) - np.nanmean(samples))
    spectrum = fft.fft(centred)
    hz = fft.fftfreq(len(centred), 1 / rate_hz)
    line = order * speed_hz
    weight = np.clip(1 - np.abs(hz - line) / (sway * line), 0, None)
    weight = np.sin(np.pi / 2 * np.minimum(1, 2 * weight))  # flat inside, soft at the edge
    phase = np.unwrap(np.angle(fft.ifft(spectrum * weight)))
    return np.asarray((phase - phase[0]) / (2 * np.pi * order))


def angular_samples(
    samples: NDArray[np.float32], rate_hz: float, turns: Curve, per_turn: int
) -> Curve:
    """Return the samples at equal angles, shape (sample,), `per_turn` for every turn.

    What lies above half of `per_turn` orders at the slowest speed is taken out first; values in
    between come from cubic splines.

    Args:
        samples: Shape (sample,), in time; missing ones count as the mean.
        rate_hz: Samples per second.
        turns: The shaft's turns at every sample, rising, same shape.
        per_turn: New samples per turn.
    """
    wave = np.nan_to_num(np.asarray(samples, dtype=np.float64) - np.nanmean(samples))
    if len(turns) != len(wave) or turns[-1] - turns[0] < 2:
        raise UserError(
            f"{len(wave)} samples and {len(turns)} angles over {turns[-1] - turns[0]:.1f} turns",
            "order tracking needs one angle per sample and two turns or more",
        )
    rising = np.maximum.accumulate(turns)
    slowest = np.gradient(rising).clip(min=0)
    edge = 0.5 * per_turn * max(float(np.percentile(slowest, 1)), 1e-9)  # cycles per sample
    if edge < 0.5:
        spectrum = fft.rfft(wave)
        cycles = fft.rfftfreq(len(wave))
        spectrum *= np.clip((edge - cycles) / (0.1 * edge), 0, 1)
        wave = fft.irfft(spectrum, len(wave))
    angles = np.arange(np.ceil(rising[0] * per_turn), rising[-1] * per_turn) / per_turn
    places = np.interp(angles, rising, np.arange(len(wave)))
    return np.asarray(map_coordinates(wave, [places], order=3, mode="nearest"))


def order_spectrum(angular: Curve, per_turn: int) -> tuple[Curve, Curve]:
    """Return orders and amplitudes (Hann window, in the samples' unit) of a resampled wave."""
    window = np.hanning(len(angular) + 1)[:-1]
    lines = np.abs(fft.rfft((angular - angular.mean()) * window))
    return fft.rfftfreq(len(angular), 1 / per_turn), 2 * lines / window.sum()
