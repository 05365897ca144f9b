"""Layout of the feature vector of one machine: fixed at learning, stored in the model.

Per channel: time-domain statistics, velocity (ISO 20816), energies of equal sub-bands and of mel
filters, statistics and sub-bands of the envelope spectrum, and where speeds are known the bearing's
fault lines (BPFO, BPFI, BSF, FTF) in the envelope. Then the slow values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.fft import next_fast_len

from lineside.core.errors import UserError
from lineside.machines.data.measurement import Measurement
from lineside.machines.signals.bearings import FAULTS, SHORT, Bearing
from lineside.machines.signals.kurtogram import choose_band

BANDS, MELS, ENVELOPE_BANDS = 100, 64, 24
TIME_NAMES = (
    "rms", "peak", "peak_to_peak", "crest", "kurtosis", "skew", "shape", "impulse", "clearance",
)  # fmt: skip
ENVELOPE_NAMES = ("envelope_level", "envelope_spread", "envelope_kurtosis", "envelope_line")
LABELS = {
    "crest": "crest factor", "skew": "skewness", "shape": "shape factor",
    "impulse": "impulse factor", "clearance": "clearance factor",
    "envelope_line": "highest line of the envelope",
}  # fmt: skip
"""Where the name with spaces would not say what a feature is."""
ASINH_NAMES = ("kurtosis", "skew", "envelope_kurtosis")
ENVELOPE_TOP_HZ = 1000.0
"""Envelope bands reach up to here, or to half the width of the envelope's band."""
ACCELERATION = {"g": 9806.65, "m/s2": 1000.0, "mm/s2": 1.0}
"""Factors from a unit of acceleration to mm/s2."""
VELOCITY = {"mm/s": 1.0, "m/s": 1000.0, "in/s": 25.4}
"""Factors from a unit of velocity to mm/s."""
MIN_SAMPLES = 64
MOST_SAMPLES = 2**28
MOST_BANDS = 10_000


@dataclass(frozen=True, kw_only=True)
class Group:
    """Channels of one rate, length and unit: one batch of one transform.

    Attributes:
        channels: Their names.
        unit: Their unit.
        rate_hz: Samples per second.
        length: Samples that are transformed: the longest fast FFT length of a healthy snapshot.
        mels: Mel filters; fewer than asked for where their spacing would be below one bin.
        envelope_hz: Lower and upper edge of the demodulation band.
    """

    channels: tuple[str, ...]
    unit: str
    rate_hz: float
    length: int
    mels: int
    envelope_hz: tuple[float, float]

    def __post_init__(self) -> None:
        if not (MIN_SAMPLES <= self.length <= MOST_SAMPLES and 0 <= self.mels <= MOST_BANDS):
            raise UserError(
                f"a layout of {self.length} samples and {self.mels} mel filters is not possible",
                f"{MIN_SAMPLES} to {MOST_SAMPLES} samples and up to {MOST_BANDS} filters are",
            )

    @property
    def resolution_hz(self) -> float:
        """Distance between two bins of the spectrum."""
        return self.rate_hz / self.length

    @property
    def envelope_bins(self) -> tuple[int, int]:
        """First bin of the demodulation band and the bin after its last; a fast FFT length."""
        first = max(1, round(self.envelope_hz[0] / self.resolution_hz))
        last = min(self.length // 2, round(self.envelope_hz[1] / self.resolution_hz))
        return first, first + fast_length(max(last - first, 8))

    @property
    def envelope_rate_hz(self) -> float:
        """Samples per second of the envelope: the width of its band."""
        first, last = self.envelope_bins
        return (last - first) * self.resolution_hz

    @property
    def has_velocity(self) -> bool:
        """Whether the unit can be converted to mm/s."""
        return self.unit in ACCELERATION or self.unit in VELOCITY


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Names, order and constants of the features of one machine.

    Energies, levels and positive ratios are natural logarithms, kurtosis and skewness asinh of
    the (excess) value: all are of order one with short tails, as linear models need.
    `to_physical` undoes it. Slow values stay as they are.

    Attributes:
        groups: Channels that are transformed together.
        values: Names of slow values.
        bands: Equal sub-bands of the spectrum between 0 and half the sample rate.
        envelope_bands: Equal sub-bands of the envelope spectrum.
        bearing: Its lines become features where it is given together with speeds; they are NaN in
            a snapshot whose speed is unknown.
    """

    groups: tuple[Group, ...]
    values: tuple[str, ...] = ()
    bands: int = BANDS
    envelope_bands: int = ENVELOPE_BANDS
    bearing: Bearing | None = None

    def __post_init__(self) -> None:
        if not all(0 <= count <= MOST_BANDS for count in (self.bands, self.envelope_bands)):
            raise UserError(
                f"a layout of {self.bands} and {self.envelope_bands} bands is not possible",
                f"up to {MOST_BANDS} are",
            )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Feature names in their order, e.g. ``horizontal.band_017``, ``value.Temperature``."""
        waveform_features = [
            f"{channel}.{name}"
            for group in self.groups
            for channel in group.channels
            for name in self.feature_names(group)
        ]
        return (*waveform_features, *(f"value.{name}" for name in self.values))

    def feature_names(self, group: Group) -> list[str]:
        """Return the names of the features of one channel of a group."""
        names = [*TIME_NAMES, *(["velocity"] if group.has_velocity else [])]
        names += [f"band_{band:03d}" for band in range(self.bands)]
        names += [f"mel_{band:02d}" for band in range(group.mels)]
        names += [*ENVELOPE_NAMES]
        names += [f"envelope_band_{band:02d}" for band in range(self.envelope_bands)]
        lines = self.bearing.orders if self.bearing else {}
        return names + [f"envelope_{fault.replace(' ', '_')}" for fault in lines]

    def to_physical(self, name: str, value: float) -> float:
        """Undo the logarithm or asinh: ``rms`` in the channel's unit, bands in its square."""
        kind = name.rpartition(".")[2]
        if name.startswith("value."):
            return value
        return float(np.sinh(value) if kind in ASINH_NAMES else np.exp(value))

    def frequencies_hz(self, name: str) -> tuple[float, float] | None:
        """Return the frequency band of a feature in Hz, None if it has no fixed one."""
        channel, _, kind = name.rpartition(".")
        group = next((g for g in self.groups if channel in g.channels), None)
        if group is None:
            return None
        stem, _, number = kind.rpartition("_")
        half = group.rate_hz / 2
        if stem == "band":
            return int(number) * half / self.bands, (int(number) + 1) * half / self.bands
        if stem == "mel":
            edges = mel_edges_hz(group)
            return float(edges[int(number)]), float(edges[int(number) + 2])
        if kind == "velocity":
            return 10.0, min(1000.0, half)
        return group.envelope_hz if kind.startswith("envelope") else None


def make_layout(healthy: Sequence[Measurement], *, bearing: Bearing | None = None) -> Layout:
    """Return the layout of a machine, made from a few of its healthy snapshots.

    Args:
        healthy: At least one; channels and values that any of them has are part of the layout.
        bearing: Its lines in the envelope become features if every snapshot has a speed.

    Raises:
        UserError: if there is nothing to make features of.
    """
    if not healthy or not any(m.channels or m.values for m in healthy):
        raise UserError("there is no healthy snapshot with samples or values", "give at least one")
    speeds_known = all(measurement.speed_hz is not None for measurement in healthy)
    by_format: dict[tuple[float, int, str], list[str]] = {}
    for name in dict.fromkeys(name for m in healthy for name in m.channels):
        by_format.setdefault(_usual_format(healthy, name), []).append(name)
    return Layout(
        groups=tuple(_make_group(healthy, form, names) for form, names in by_format.items()),
        values=tuple(dict.fromkeys(name for m in healthy for name in m.values)),
        bearing=bearing if speeds_known else None,
    )


def feature_label(name: str) -> str:
    """Return the label of a feature: ``BPFO line in the envelope of x``, or a slow value's name."""
    if name.startswith("value."):
        return name.removeprefix("value.")
    channel, _, kind = name.rpartition(".")
    fault = next((f for f in FAULTS if kind == f"envelope_{f.replace(' ', '_')}"), None)
    label = f"{SHORT[fault]} line in the envelope" if fault else LABELS.get(kind)
    return f"{label or kind.replace('_', ' ')} of {channel}"


def fast_length(samples: int) -> int:
    """Return the longest fast FFT length up to `samples`.

    A length with a large prime factor takes up to twenty times as long; at most about one sample in
    a hundred is left out.
    """
    while next_fast_len(samples, real=True) != samples:
        samples -= 1
    return samples


def mel_edges_hz(group: Group) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the corners of the triangular mel filters in Hz, shape (mels + 2,).

    mel = 2595 log10(1 + hz / 700) at equal distances (O'Shaughnessy, Speech Communication, 1987).
    """
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (_lowest_hz(group), group.rate_hz / 2))
    return np.asarray(700 * (10 ** (np.linspace(low, high, group.mels + 2) / 2595) - 1))


def _lowest_hz(group: Group) -> float:
    return min(max(20.0, 2 * group.resolution_hz), group.rate_hz / 8)


def _usual_format(healthy: Sequence[Measurement], name: str) -> tuple[float, int, str]:
    """Return rate, samples and unit of a channel in most healthy snapshots."""
    channels = [m.channels[name] for m in healthy if name in m.channels]
    formats = Counter((float(c.rate_hz), len(c.samples), c.unit) for c in channels)
    rate, samples, unit = formats.most_common(1)[0][0]
    if samples < MIN_SAMPLES or rate <= 0:
        raise UserError(
            f"channel {name} has {samples} samples at {rate:g} Hz",
            f"at least {MIN_SAMPLES} and a positive rate are needed",
        )
    return rate, samples, unit


def _make_group(
    healthy: Sequence[Measurement], form: tuple[float, int, str], names: Sequence[str]
) -> Group:
    rate, samples, unit = form
    length = fast_length(samples)
    waves = [
        np.asarray(m.channels[name].samples[:length], dtype=np.float32)
        for m in healthy
        for name in names
        if name in m.channels and len(m.channels[name].samples) >= length
    ]
    group = Group(
        channels=tuple(names), unit=unit, rate_hz=rate, length=length,
        mels=MELS, envelope_hz=choose_band(np.stack(waves), rate),
    )  # fmt: skip
    while group.mels > 4 and np.diff(mel_edges_hz(group)).min() < group.resolution_hz:
        group = replace(group, mels=group.mels - 4)
    return group
