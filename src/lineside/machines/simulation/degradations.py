"""Graded degradations of a snapshot: speed, load, sensor drift, noise, missing sensor, gaps.

Each is a pure function of (measurement, amount, rng) and each grade is a documented amount, so that
"robust up to grade 2" can be checked against a machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import resample

from lineside.core.run.folder import rng_of
from lineside.machines.data.measurement import Measurement

GRADES = (1, 2, 3, 4)
FASTER = (0.02, 0.05, 0.1, 0.2)
"""Relative increase of the speed."""
LOUDER = (1.1, 1.25, 1.6, 2.5)
"""Factor on every amplitude."""
GAIN_LOST = (0.05, 0.15, 0.3, 0.6)
"""Share of its gain that one sensor has lost at the end of the series, linearly over it."""
NOISE_SHARE = (0.1, 0.25, 0.5, 1.0)
"""Standard deviation of white noise over that of the signal; slow values: over the value."""
MISSING_SHARE = (0.1, 0.25, 0.5, 1.0)
"""Share of the snapshots without one sensor."""
GAP_SHARE = (0.0005, 0.005, 0.05, 0.4)
"""Share of the samples that are missing, in five gaps; slow values: of the numbers."""
LOST_SHARE = (0.1, 0.25, 0.5, 0.75)
"""Share of the snapshots that never arrive."""
GAPS = 5

Apply = Callable[[Measurement, float, np.random.Generator], Measurement | None]


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """One kind of degradation.

    Attributes:
        name: Short name.
        apply: (measurement, amount, rng) -> the snapshot as it arrives, None if it does not arrive.
        amounts: Of grade 1 to 4.
        help: What it simulates and the amount of every grade.
        waves_only: Not for machines with slow values only.
        grows: The amount grows linearly from 0 at the first to its full size at the last snapshot.
    """

    name: str
    apply: Apply
    amounts: Sequence[float]
    help: str
    waves_only: bool = False
    grows: bool = False


def speed_up(measurement: Measurement, share: float, rng: np.random.Generator) -> Measurement:
    """Play every waveform faster, and state the higher speed."""
    hz = measurement.speed_hz
    stated = dataclasses.replace(measurement, speed_hz=None if hz is None else hz * (1 + share))
    return speed_up_unstated(stated, share, rng)


def speed_up_unstated(
    measurement: Measurement, share: float, rng: np.random.Generator
) -> Measurement:
    """Play every waveform faster while the stated speed stays the same."""
    return _change(measurement, lambda samples: _play_faster(samples, 1 + share))


def increase_load(measurement: Measurement, factor: float, rng: np.random.Generator) -> Measurement:
    """Scale every amplitude (slow values, where there are only those); no load is stated."""
    return _change(
        measurement, lambda samples: samples * np.float32(factor), lambda value: value * factor
    )


def drift_gain(measurement: Measurement, lost: float, rng: np.random.Generator) -> Measurement:
    """Let the first sensor lose a share of its gain."""
    gain = np.float32(1 - lost)
    return _change(
        measurement,
        lambda samples: samples * gain,
        lambda value: value * float(gain),
        only=_first(measurement),
    )


def add_noise(measurement: Measurement, share: float, rng: np.random.Generator) -> Measurement:
    """Add white noise to every channel, or to every slow value where there are only those."""

    def with_noise(samples: np.ndarray) -> np.ndarray:
        spread = share * float(np.nanstd(samples))
        return samples + rng.normal(0.0, spread, len(samples)).astype(np.float32)

    return _change(
        measurement, with_noise, lambda value: value * (1 + share * rng.standard_normal())
    )


def drop_sensor(measurement: Measurement, share: float, rng: np.random.Generator) -> Measurement:
    """Drop the first sensor from some snapshots."""
    if rng.random() >= share:
        return measurement
    name = _first(measurement)
    channels = {key: c for key, c in measurement.channels.items() if key != name}
    values = {
        key: v for key, v in measurement.values.items() if measurement.channels or key != name
    }
    return dataclasses.replace(measurement, channels=channels, values=values)


def drop_samples(measurement: Measurement, share: float, rng: np.random.Generator) -> Measurement:
    """Make gaps in every channel, or drop single slow values where there are only those."""

    def with_gaps(samples: np.ndarray) -> np.ndarray:
        gapped = samples.copy()
        length = max(1, round(share * len(samples) / GAPS))
        for start in rng.integers(0, max(1, len(samples) - length), GAPS):
            gapped[start : start + length] = np.nan
        return gapped

    return _change(measurement, with_gaps, lambda value: np.nan if rng.random() < share else value)


def drop_snapshot(
    measurement: Measurement, share: float, rng: np.random.Generator
) -> Measurement | None:
    """Drop some snapshots."""
    return None if rng.random() < share else measurement


def _amounts(values: Sequence[float], unit: str) -> str:
    return f"grades 1-4: {', '.join(f'{value:g}' for value in values)} {unit}"


def _percent(values: Sequence[float], of: str) -> str:
    return _amounts([100 * value for value in values], f"% {of}")


SUITE: tuple[Degradation, ...] = (
    Degradation(
        name="speed (stated)", apply=speed_up, amounts=FASTER, waves_only=True,
        help=f"the waveform played faster, its speed stated; {_percent(FASTER, 'faster')}",
    ),
    Degradation(
        name="speed (not stated)", apply=speed_up_unstated, amounts=FASTER, waves_only=True,
        help="the same while the stated speed stays the same",
    ),
    Degradation(
        name="load", apply=increase_load, amounts=LOUDER,
        help=f"every amplitude larger, no load stated; {_amounts(LOUDER, 'times')}",
    ),
    Degradation(
        name="gain drift", apply=drift_gain, amounts=GAIN_LOST, grows=True,
        help=f"one sensor loses gain linearly; {_percent(GAIN_LOST, 'at the end')}",
    ),
    Degradation(
        name="noise", apply=add_noise, amounts=NOISE_SHARE,
        help=f"white noise in every channel; {_percent(NOISE_SHARE, 'of the signal')}",
    ),
    Degradation(
        name="missing sensor", apply=drop_sensor, amounts=MISSING_SHARE,
        help=f"one sensor is missing; {_percent(MISSING_SHARE, 'of the snapshots')}",
    ),
    Degradation(
        name="torn samples", apply=drop_samples, amounts=GAP_SHARE,
        help=f"gaps in the samples; {_percent(GAP_SHARE, 'of the samples')}",
    ),
    Degradation(
        name="lost snapshots", apply=drop_snapshot, amounts=LOST_SHARE,
        help=f"some snapshots never arrive; {_percent(LOST_SHARE, 'of the snapshots')}",
    ),
)  # fmt: skip


def degrade(
    series: Sequence[Measurement], degradation: Degradation, grade: int, seed: int
) -> list[Measurement]:
    """Return the snapshots that arrive; the random stream depends on the arguments only."""
    last = max(1, len(series) - 1)
    machine = series[0].machine if series else ""
    rng = rng_of(seed, f"{machine} {degradation.name} {grade}")
    amount = degradation.amounts[grade - 1]
    arrived = [
        degradation.apply(m, amount * (i / last) if degradation.grows else amount, rng)
        for i, m in enumerate(series)
    ]
    return [m for m in arrived if m is not None]


def _first(measurement: Measurement) -> str:
    return next(iter(measurement.channels or measurement.values))


def _change(
    measurement: Measurement,
    wave: Callable[[np.ndarray], np.ndarray],
    value: Callable[[float], float] = float,
    only: str | None = None,
) -> Measurement:
    """Change the waveforms, or the slow values where there are only those; `only` names one."""
    if not measurement.channels:
        values = {
            name: value(number) if only in (None, name) else number
            for name, number in measurement.values.items()
        }
        return dataclasses.replace(measurement, values=values)
    channels = {
        name: dataclasses.replace(channel, samples=wave(channel.samples).astype(np.float32))
        if only in (None, name)
        else channel
        for name, channel in measurement.channels.items()
    }
    return dataclasses.replace(measurement, channels=channels)


def _play_faster(samples: np.ndarray, factor: float) -> np.ndarray:
    """Resample a waveform to a higher speed; its mirror image fills up the length."""
    faster = resample(np.nan_to_num(samples), max(2, round(len(samples) / factor)))
    missing = len(samples) - len(faster)
    return np.concatenate([faster, faster[::-1][:missing]])
