"""One measurement of a machine: waveforms, slow values, speed and load at one time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Waveform = NDArray[np.float32]
"""Samples of one channel, shape (sample,), in the channel's unit."""


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One sensor's samples.

    Attributes:
        samples: Shape (sample,), in `unit`; NaN where a sample is missing.
        rate_hz: Samples per second; channels of one machine may differ.
        unit: ``"g"``, ``"m/s2"``, ``"mm/s"`` ...; velocity severity needs an acceleration.
    """

    samples: Waveform
    rate_hz: float
    unit: str = "g"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The data of one snapshot of one machine.

    Attributes:
        machine: Name of the machine, the independent unit of all statistics.
        time: Seconds since 1970 (UTC), or since the start of a history without dates.
        channels: Waveforms by channel name.
        values: Slow values (temperature, flow) or precomputed features, by name.
        speed_hz: Stated shaft speed, turns per second; None if it is not known.
        load: Stated load in any unit, None if it is not known.
    """

    machine: str
    time: float
    channels: Mapping[str, Channel] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    speed_hz: float | None = None
    load: float | None = None

    @property
    def item(self) -> str:
        """The snapshot's id, ``MACHINE@TIME``."""
        return f"{self.machine}@{self.time:.3f}"
