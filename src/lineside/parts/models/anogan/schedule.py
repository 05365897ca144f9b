"""The constants of f-AnoGAN's two trainings, and the clock that they share."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lineside.core.errors import UserError
from lineside.core.run.files import read_json, write_json

EncoderLoss = Literal["izi_f", "izi", "ziz"]
SAVE_EVERY_STEPS = 50


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Constants of both trainings, as published but for batch, steps and the encoder's rate.

    Attributes:
        steps: Updates of the generator (published: about 20,000).
        encoder_steps: Updates of the encoder (published: 50,000).
        batch: Patches per update (64 in the paper).
        critic_steps: Updates of the critic before each one of the generator.
        penalty_weight: Of the gradient penalty (lambda).
        learning_rate: Of Adam, with betas 0.0 and 0.9.
        encoder_learning_rate: Of RMSProp. Published: 5e-5 over 50,000 updates; a preset of a few
            thousand updates learns more with ten times as much.
        encoder_loss: ``izi_f`` compares patch and reconstruction in pixels and in the critic's
            features, ``izi`` in pixels only, ``ziz`` compares codes, on generated patches.
        feature_weight: Of the features in ``izi_f`` and in the anomaly score (kappa).
    """

    steps: int = 600
    encoder_steps: int = 2000
    batch: int = 32
    critic_steps: int = 5
    penalty_weight: float = 10.0
    learning_rate: float = 1e-4
    encoder_learning_rate: float = 5e-4
    encoder_loss: EncoderLoss = "izi_f"
    feature_weight: float = 1.0

    def __post_init__(self) -> None:
        if min(self.steps, self.encoder_steps, self.batch, self.critic_steps) < 1:
            raise UserError("f-AnoGAN needs at least one step of everything", "raise the steps")
        if self.encoder_loss not in ("izi_f", "izi", "ziz"):
            raise UserError(f"unknown encoder loss {self.encoder_loss!r}", "one of izi_f, izi, ziz")


class Clock:
    """Time spent on a fit so far, over all its resumes."""

    def __init__(self, folder: Path | None) -> None:
        self._file = folder / "clock.json" if folder else None
        self._before = {"seconds": 0.0, "cpu_seconds": 0.0}
        if self._file is not None and self._file.exists():
            self._before = read_json(self._file)
        self._begin, self._cpu_begin = time.perf_counter(), time.process_time()

    def seconds(self) -> float:
        """Return the seconds by the wall clock."""
        return self._before["seconds"] + time.perf_counter() - self._begin

    def cpu_seconds(self) -> float:
        """Return the processor time of this process, summed over its threads."""
        return self._before["cpu_seconds"] + time.process_time() - self._cpu_begin

    def keep(self) -> None:
        """Write the time spent beside the checkpoints."""
        if self._file:
            spent = {"seconds": self.seconds(), "cpu_seconds": self.cpu_seconds()}
            write_json(self._file, spent)
