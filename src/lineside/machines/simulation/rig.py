"""Vibration of a simulated machine, one snapshot at a time: shaft, gears, bearing, structure.

The usual phenomenological model of machine diagnostics (McFadden and Smith 1984 for the bearing's
impulses and their load zone, Randall and Antoni 2011, section 2, for the slip of rolling
elements): harmonics of the shaft, gear mesh with sidebands, impulses that ring a resonance of the
structure, and noise. Amplitudes grow with speed and load. All units are g, hertz and seconds.

A machine that works through the steps of a batch (fill, heat, stir, cool ...: ordered phases in the
sense of IEC 61512-1) sounds different in each: its process rings another resonance. That the wave
of a step is narrow-band noise of a fixed level is our choice, not taken from a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

Fault = Literal["outer race", "inner race", "ball", "gear", "imbalance", "sequence"]
"""What breaks; ``sequence``: steps of a batch come in a wrong order, each as healthy as ever."""

STEP_DAMPING = 0.05

Samples = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Rig:
    """What a machine is made of.

    Attributes:
        speed_hz: Nominal turns of the shaft per second.
        teeth: Teeth of the pinion on the shaft.
        balls: Rolling elements of the bearing.
        ball_mm: Their diameter.
        pitch_mm: Pitch diameter of the bearing.
        resonance_hz: Resonance that impulses ring.
        damping: Damping ratio of it.
        noise_g: Spread of the broadband noise at nominal speed and load.
        rate_hz: Samples per second.
        seconds: Length of a snapshot.
        gains: How strongly each channel feels the machine.
        channels: Their names.
        slip: Relative spread of the time between two impulses.
        steps_hz: Resonance that each step of a batch rings, in the order of a healthy batch;
            empty for a machine without steps.
        process_g: Spread of the noise of a step.
    """

    speed_hz: float = 25.0
    teeth: int = 23
    balls: int = 9
    ball_mm: float = 7.9
    pitch_mm: float = 38.5
    resonance_hz: float = 3400.0
    damping: float = 0.03
    noise_g: float = 0.05
    rate_hz: float = 12800.0
    seconds: float = 0.5
    gains: tuple[float, ...] = (1.0, 0.7)
    channels: tuple[str, ...] = ("horizontal", "vertical")
    slip: float = 0.012
    steps_hz: tuple[float, ...] = ()
    process_g: float = 0.1

    @property
    def samples(self) -> int:
        """Samples of a snapshot."""
        return round(self.rate_hz * self.seconds)

    def order(self, fault: Fault) -> float:
        """Return the impulses per turn of a fault of the bearing, whose outer ring is fixed."""
        ratio = self.ball_mm / self.pitch_mm
        orders = {
            "outer race": self.balls / 2 * (1 - ratio),
            "inner race": self.balls / 2 * (1 + ratio),
            "ball": self.pitch_mm / self.ball_mm * (1 - ratio**2),  # both races are hit
        }
        return orders[fault]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """How the machine runs and how it is worn, at the time of one snapshot.

    Attributes:
        speed_hz: Turns of the shaft per second; 0 stands still.
        load: Relative load, 1 is nominal.
        fault: What is wrong.
        severity: 0 healthy; 1 is heard by a good ear, 10 is the end.
        roughness: Factor on the noise, above 1 while a machine runs in.
        sweep: Relative change of speed within the snapshot.
        step: Which step of a batch it is at, if the machine has steps.
    """

    speed_hz: float
    load: float = 1.0
    fault: Fault = "outer race"
    severity: float = 0.0
    roughness: float = 1.0
    sweep: float = 0.0
    step: int = 0


def simulate_vibration(rig: Rig, condition: Condition, rng: np.random.Generator) -> Samples:
    """Return one snapshot, shape (channel, sample), in g."""
    count = rig.samples
    standstill = 0.004 * rng.standard_normal((len(rig.gains), count))
    if condition.speed_hz <= 0:
        return standstill.astype(np.float32)
    time = np.arange(count) / rig.rate_hz
    phase0 = rng.uniform()
    ramp = condition.sweep * (time / rig.seconds - 0.5)
    turns = phase0 + condition.speed_hz * (time + ramp * time / 2)
    pace = condition.speed_hz / rig.speed_hz
    smooth = _shaft(rig, condition, turns, pace, rng) + _gears(rig, condition, turns, pace)
    rough = _impulses(rig, condition, turns, pace, rng) if condition.severity > 0 else 0.0
    noise = rig.noise_g * condition.roughness * pace * (0.7 + 0.3 * condition.load)
    body = 0.6 * _rung(count, rig.resonance_hz, rig.damping, rig, rng)
    gains = np.array(rig.gains)[:, None]
    own = rng.standard_normal((len(rig.gains), count))
    heard = gains * (smooth + rough + noise * body) + gains * noise * 0.8 * own + standstill
    if rig.steps_hz:
        resonance_hz = rig.steps_hz[condition.step]
        heard += gains * rig.process_g * _rung(count, resonance_hz, STEP_DAMPING, rig, rng)
    return heard.astype(np.float32)


def _shaft(
    rig: Rig,
    condition: Condition,
    turns: NDArray[np.float64],
    pace: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Harmonics of the shaft; imbalance grows with the square of the speed."""
    unbalance = 1.0 + (condition.severity if condition.fault == "imbalance" else 0.0)
    sizes = np.array([0.04 * unbalance, 0.02, 0.01]) * pace**2
    phases = rng.uniform(size=3)
    wave = np.zeros_like(turns)
    for harmonic, (size, phase) in enumerate(zip(sizes, phases, strict=True), start=1):
        wave += size * np.sin(2 * np.pi * (harmonic * turns + phase))
    return wave


def _gears(
    rig: Rig, condition: Condition, turns: NDArray[np.float64], pace: float
) -> NDArray[np.float64]:
    """Gear mesh and its double, modulated once per turn; a broken tooth modulates more."""
    depth = 0.1 + (0.25 * condition.severity if condition.fault == "gear" else 0.0)
    swing = 1.0 + depth * np.cos(2 * np.pi * turns)
    size = 0.05 * pace * (0.5 + 0.5 * condition.load)
    mesh = rig.teeth * turns
    tones = np.sin(2 * np.pi * mesh) + 0.4 * np.sin(4 * np.pi * mesh)
    wave: NDArray[np.float64] = size * swing * tones
    return wave


def _impulses(
    rig: Rig,
    condition: Condition,
    turns: NDArray[np.float64],
    pace: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Impulses of a bearing fault that ring the resonance; other faults make none."""
    if condition.fault not in ("outer race", "inner race", "ball"):
        return np.zeros_like(turns)
    spacing = 1.0 / rig.order(condition.fault)
    number = int((turns[-1] - turns[0]) / spacing) + 3
    gaps = spacing * (1.0 + rig.slip * rng.standard_normal(number))
    places = turns[0] - spacing * rng.uniform() + np.cumsum(gaps)
    places = places[(places >= turns[0]) & (places < turns[-1])]
    sizes = 1.0 + 0.15 * rng.standard_normal(len(places))
    if condition.fault == "inner race":  # passes the load zone once per turn
        sizes *= np.clip(0.3 + 0.7 * np.cos(2 * np.pi * places), 0.05, None)
    elif condition.fault == "ball":  # passes it with the cage
        cage = 0.5 * (1 - rig.ball_mm / rig.pitch_mm)
        sizes *= np.clip(0.3 + 0.7 * np.cos(2 * np.pi * cage * places), 0.05, None)
    train = np.zeros(len(turns))
    at = np.interp(places, turns, np.arange(len(turns)))
    low = np.floor(at).astype(int)
    share = at - low
    np.add.at(train, low, sizes * (1 - share))
    np.add.at(train, np.minimum(low + 1, len(turns) - 1), sizes * share)
    size = 0.1 * condition.severity * pace * (0.5 + 0.5 * condition.load)
    ring = _ring(rig.resonance_hz, rig.damping, rig.rate_hz)
    ringing: NDArray[np.float64] = size * fftconvolve(train, ring)[: len(turns)]
    return ringing


def _rung(
    count: int, resonance_hz: float, damping: float, rig: Rig, rng: np.random.Generator
) -> NDArray[np.float64]:
    """White noise through a resonance, standard deviation 1, shape (sample,)."""
    ring = _ring(resonance_hz, damping, rig.rate_hz)
    wave = fftconvolve(rng.standard_normal(count + 512), ring, mode="valid")[:count]
    scaled: NDArray[np.float64] = wave / max(float(np.std(wave)), 1e-12)
    return scaled


def _ring(resonance_hz: float, damping: float, rate_hz: float) -> NDArray[np.float64]:
    """Response of the structure to an impulse, peak about 1."""
    time = np.arange(512) / rate_hz
    decay = np.exp(-2 * np.pi * damping * resonance_hz * time)
    wave: NDArray[np.float64] = decay * np.sin(2 * np.pi * resonance_hz * time)
    return wave
