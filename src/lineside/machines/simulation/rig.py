"""Vibration of a simulated machine, one snapshot at a time, and what a faulty sensor makes of it.

The usual phenomenological model of machine diagnostics (McFadden and Smith 1984 for the bearing's
impulses and their load zone, Randall and Antoni 2011, section 2, for the slip of rolling
elements): shaft harmonics, gear mesh with sidebands, impulses that excite a resonance of the
structure, and noise. Amplitudes grow with speed and load. All units are g, hertz and seconds.

A batch process (fill, heat, stir, cool ...: ordered phases in the sense of IEC 61512-1) excites
another resonance in each step. That the vibration of a step is narrow-band noise of a fixed level
is our choice, not taken from a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from lineside.machines.signals.bearings import Bearing, bearing_from_geometry

Fault = Literal["outer race", "inner race", "ball", "gear", "imbalance", "sequence"]
"""``sequence``: the steps of a batch come in a wrong order, each one healthy by itself."""

SensorFaultKind = Literal["none", "dead", "stuck", "clipped", "offset", "gain"]

STEP_DAMPING = 0.05
FULL_SCALE_G = 16.0
STEP_G = 0.0005
"""Resolution of a sensor."""

Samples = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Rig:
    """Construction of a machine and its sensors.

    Attributes:
        speed_hz: Nominal shaft speed, turns per second.
        teeth: Teeth of the pinion on the shaft.
        balls: Rolling elements of the bearing.
        ball_mm: Their diameter.
        pitch_mm: Pitch diameter of the bearing.
        resonance_hz: Resonance that impulses excite.
        damping: Its damping ratio.
        noise_g: Standard deviation of the broadband noise at nominal speed and load.
        rate_hz: Samples per second.
        seconds: Length of a snapshot.
        gains: Sensitivity of each channel.
        channels: Their names.
        slip: Relative standard deviation of the time between two impulses.
        steps_hz: Resonance that each step of a batch excites, in the order of a healthy batch;
            empty for a machine without steps.
        process_g: Standard deviation of the noise of a step.
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

    @property
    def bearing(self) -> Bearing:
        """The bearing of its shaft."""
        return bearing_from_geometry(balls=self.balls, ball_mm=self.ball_mm, pitch_mm=self.pitch_mm)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Operation and wear at the time of one snapshot.

    Attributes:
        speed_hz: Shaft speed, turns per second; 0: standstill.
        load: Relative load, 1 is nominal.
        fault: Kind of the fault.
        severity: 0 healthy, 1 just noticeable, 10 failure.
        roughness: Factor on the noise, above 1 during the run-in.
        step: Step of the batch, for a machine with steps.
    """

    speed_hz: float
    load: float = 1.0
    fault: Fault = "outer race"
    severity: float = 0.0
    roughness: float = 1.0
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """Condition of one sensor at the time of a snapshot.

    Attributes:
        kind: Its fault.
        size: Gain for ``gain``, g for ``offset``, full scale in g for ``clipped``.
    """

    kind: SensorFaultKind = "none"
    size: float = 1.0


def simulate_vibration(rig: Rig, condition: Condition, rng: np.random.Generator) -> Samples:
    """Return one snapshot, shape (channel, sample), in g."""
    count = rig.samples
    standstill = 0.004 * rng.standard_normal((len(rig.gains), count))
    if condition.speed_hz <= 0:
        return standstill.astype(np.float32)
    time = np.arange(count) / rig.rate_hz
    turns = rng.uniform() + condition.speed_hz * time  # shaft angle at every sample
    relative_speed = condition.speed_hz / rig.speed_hz
    tones = _shaft(rig, condition, turns, relative_speed, rng) + _gears(
        rig, condition, turns, relative_speed
    )
    impulses = (
        _impulses(rig, condition, turns, relative_speed, rng) if condition.severity > 0 else 0.0
    )
    noise = rig.noise_g * condition.roughness * relative_speed * (0.7 + 0.3 * condition.load)
    body = 0.6 * _resonant_noise(count, rig.resonance_hz, rig.damping, rig, rng)
    # (channel, 1) * (sample,) -> (channel, sample)
    gains = np.array(rig.gains)[:, None]
    white = rng.standard_normal((len(rig.gains), count))
    wave = gains * (tones + impulses + noise * body) + gains * noise * 0.8 * white + standstill
    if rig.steps_hz:
        resonance_hz = rig.steps_hz[condition.step]
        wave += gains * rig.process_g * _resonant_noise(count, resonance_hz, STEP_DAMPING, rig, rng)
    return wave.astype(np.float32)


def measure(wave: Samples, sensor: Sensor, rng: np.random.Generator) -> Samples:
    """Return a waveform as the sensor records it, shape (sample,), rounded to its resolution."""
    values = wave.astype(np.float64)
    if sensor.kind == "dead":
        values = 0.0005 * rng.standard_normal(len(wave))
    elif sensor.kind == "stuck":
        values = np.full(len(wave), float(values[0]))
    elif sensor.kind == "offset":
        values = values + sensor.size
    elif sensor.kind == "gain":
        values = values * sensor.size
    limit = sensor.size if sensor.kind == "clipped" else FULL_SCALE_G
    clipped = np.clip(values, -limit, limit)
    return np.asarray(np.round(clipped / STEP_G) * STEP_G, dtype=np.float32)


def _shaft(
    rig: Rig,
    condition: Condition,
    turns: NDArray[np.float64],
    relative_speed: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Three shaft harmonics; imbalance grows with the square of the speed."""
    unbalance = 1.0 + (condition.severity if condition.fault == "imbalance" else 0.0)
    sizes = np.array([0.04 * unbalance, 0.02, 0.01]) * relative_speed**2
    phases = rng.uniform(size=3)
    wave = np.zeros_like(turns)
    for harmonic, (size, phase) in enumerate(zip(sizes, phases, strict=True), start=1):
        wave += size * np.sin(2 * np.pi * (harmonic * turns + phase))
    return wave


def _gears(
    rig: Rig, condition: Condition, turns: NDArray[np.float64], relative_speed: float
) -> NDArray[np.float64]:
    """Gear mesh and its second harmonic, modulated once per turn; a broken tooth modulates more."""
    depth = 0.1 + (0.25 * condition.severity if condition.fault == "gear" else 0.0)
    modulation = 1.0 + depth * np.cos(2 * np.pi * turns)
    size = 0.05 * relative_speed * (0.5 + 0.5 * condition.load)
    mesh = rig.teeth * turns
    tones = np.sin(2 * np.pi * mesh) + 0.4 * np.sin(4 * np.pi * mesh)
    return np.asarray(size * modulation * tones)


def _impulses(
    rig: Rig,
    condition: Condition,
    turns: NDArray[np.float64],
    relative_speed: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Impulses of a bearing fault through the resonance; other faults make none."""
    if condition.fault not in ("outer race", "inner race", "ball"):
        return np.zeros_like(turns)
    spacing = 1.0 / rig.bearing.impulses_per_turn(condition.fault)
    number = int((turns[-1] - turns[0]) / spacing) + 3
    gaps = spacing * (1.0 + rig.slip * rng.standard_normal(number))
    angles = turns[0] - spacing * rng.uniform() + np.cumsum(gaps)  # in turns, with slip
    angles = angles[(angles >= turns[0]) & (angles < turns[-1])]
    sizes = 1.0 + 0.15 * rng.standard_normal(len(angles))
    if condition.fault == "inner race":  # passes the load zone once per turn
        sizes *= np.clip(0.3 + 0.7 * np.cos(2 * np.pi * angles), 0.05, None)
    elif condition.fault == "ball":  # passes it with the cage
        sizes *= np.clip(0.3 + 0.7 * np.cos(2 * np.pi * rig.bearing.cage * angles), 0.05, None)
    # each impulse is shared between the two samples around its time
    train = np.zeros(len(turns))
    position = np.interp(angles, turns, np.arange(len(turns)))
    low = np.floor(position).astype(int)
    share = position - low
    np.add.at(train, low, sizes * (1 - share))
    np.add.at(train, np.minimum(low + 1, len(turns) - 1), sizes * share)
    size = 0.1 * condition.severity * relative_speed * (0.5 + 0.5 * condition.load)
    response = _impulse_response(rig.resonance_hz, rig.damping, rig.rate_hz)
    return np.asarray(size * fftconvolve(train, response)[: len(turns)])


def _resonant_noise(
    count: int, resonance_hz: float, damping: float, rig: Rig, rng: np.random.Generator
) -> NDArray[np.float64]:
    """White noise through a resonance, standard deviation 1, shape (sample,)."""
    response = _impulse_response(resonance_hz, damping, rig.rate_hz)
    wave = fftconvolve(rng.standard_normal(count + 512), response, mode="valid")[:count]
    return np.asarray(wave / max(float(np.std(wave)), 1e-12))


def _impulse_response(resonance_hz: float, damping: float, rate_hz: float) -> NDArray[np.float64]:
    """exp(-2 pi d f t) sin(2 pi f t) of a resonance f with damping d, peak about 1, 512 samples."""
    time = np.arange(512) / rate_hz
    decay = np.exp(-2 * np.pi * damping * resonance_hz * time)
    return np.asarray(decay * np.sin(2 * np.pi * resonance_hz * time))
