"""What sensors do to a waveform: gain drift, clipping, death, sticking, quantisation, gaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SensorFaultKind = Literal["none", "dead", "stuck", "clipped", "offset", "gain"]

FULL_SCALE_G = 16.0
STEP_G = 0.0005


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """How one sensor is at the time of a snapshot.

    Attributes:
        kind: What is wrong with it.
        size: Gain for ``gain``, g for ``offset``, full scale in g for ``clipped``.
    """

    kind: SensorFaultKind = "none"
    size: float = 1.0


def measure(
    wave: NDArray[np.float32], sensor: Sensor, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return a waveform as the sensor gives it, shape (sample,), rounded to its resolution."""
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
    rounded: NDArray[np.float32] = (np.round(clipped / STEP_G) * STEP_G).astype(np.float32)
    return rounded
