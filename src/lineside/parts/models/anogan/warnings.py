"""What can go wrong with f-AnoGAN: warnings of the training, and sentences for the report."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from lineside.core.contract import Estimate
from lineside.core.run.files import finite
from lineside.core.training.warnings import Log

PUBLISHED_PATCHES = 7_000_000
"""Patches shown to the critic: 7 passes over about one million."""
PUBLISHED_ENCODER_PATCHES = 3_200_000
"""50,000 updates of the encoder with 64 patches each."""
ENOUGH = 0.5
"""Below this share of the published schedule the method is called under-trained."""
NORM_RANGE = (0.5, 2.0)
LEAST_SPREAD = 0.25
SETTLED = 0.25
WINDOW_STEPS = 50
WARM_UP_STEPS = 100


class GanMonitor:
    """Warnings of a training of generator against critic; each is logged once.

    * *gradient penalty*: the critic's gradient norm, which the penalty draws to 1, averages
      outside 0.5 to 2 over two windows of 50 generator updates in a row.
    * *mode collapse*: generated patches vary less than a quarter as much as real ones, likewise.
    * *not converged*: at the end the critic's estimate of the distance between real and generated
      patches still moves by more than a quarter between the last two fifths.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self.warnings: list[dict[str, Any]] = []
        self.norms: list[float] = []
        self.spreads: list[float] = []
        self.windows = {"gradient penalty": 0, "mode collapse": 0}  # in a row
        self.distances: list[float] = []

    def check(self, row: Mapping[str, Any]) -> None:
        """Check one generator update.

        Args:
            row: Has ``critic_gradient_norm``, the mean norm between real and generated patches;
                ``spread``, that of generated patches over that of real ones, see `spread_of`; and
                ``distance``, the critic's mean score of real patches minus that of generated ones.
        """
        self.distances.append(row["distance"])
        self.norms.append(row["critic_gradient_norm"])
        self.spreads.append(row["spread"])
        if len(self.norms) < WINDOW_STEPS:
            return
        norm, spread = float(np.mean(self.norms)), float(np.mean(self.spreads))
        self.norms, self.spreads = [], []
        step = row["step"]
        if step < WARM_UP_STEPS:
            return
        if self._twice("gradient penalty", not NORM_RANGE[0] <= norm <= NORM_RANGE[1]):
            text = (
                f"The gradient penalty has no effect: the critic's gradient norm averages "
                f"{norm:.2f} where it should be about 1, so its scores no longer measure a "
                "distance. Lower the learning rate or raise the penalty's weight."
            )
            self._warn(step, "gradient penalty", norm, text)
        if self._twice("mode collapse", spread < LEAST_SPREAD):
            text = (
                f"The generator has collapsed: its patches vary {spread:.0%} as much as real ones, "
                "so most good patches cannot be reconstructed. Train the critic longer or start "
                "with another seed."
            )
            self._warn(step, "mode collapse", spread, text)

    def close(self, step: int) -> None:
        """Check the end of the training."""
        if len(self.distances) < 4 * WINDOW_STEPS:
            return
        tail = np.array(self.distances)[-2 * (len(self.distances) // 5) :]
        before, last = (float(half.mean()) for half in np.array_split(tail, 2))
        change = abs(last - before) / max(abs(last), 1e-12)
        if change > SETTLED:
            text = (
                f"The critic has not converged: the distance it measures between real and "
                f"generated patches still changed by {change:.0%} towards the end. Train for more "
                "steps."
            )
            self._warn(step, "not converged", change, text)

    def state(self) -> dict[str, Any]:
        """Return the plain values that a resumed run needs."""
        return {name: value for name, value in vars(self).items() if name != "_log"}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        vars(self).update(copy.deepcopy(dict(state)))

    def _twice(self, kind: str, exceeded: bool) -> bool:
        self.windows[kind] = self.windows[kind] + 1 if exceeded else 0
        return self.windows[kind] >= 2

    def _warn(self, step: int, kind: str, value: float, text: str) -> None:
        if any(row["warning"] == kind for row in self.warnings):
            return
        row = {"step": step, "warning": kind, "layer": "", "value": finite(value), "text": text}
        self.warnings.append(row)
        self._log(row)


def under_trained(gan_patches: int, encoder_patches: int) -> str:
    """Return a sentence if training was far below the published schedule, else nothing.

    Args:
        gan_patches: Patches shown to the critic: updates times critic steps times batch.
        encoder_patches: Patches shown to the encoder.
    """
    shares = (gan_patches / PUBLISHED_PATCHES, encoder_patches / PUBLISHED_ENCODER_PATCHES)
    if min(shares) >= ENOUGH:
        return ""
    return (
        f"f-AnoGAN is under-trained here: its critic saw {gan_patches:,} patches, "
        f"{shares[0]:.1%} of the published schedule, and its encoder {encoder_patches:,}, "
        f"{shares[1]:.1%}. Its number says little about the method at full length."
    )


def against_chance(name: str, auroc: Estimate) -> str:
    """Return a sentence if an AUROC is worse than chance or cannot be told from it, else nothing.

    The sign is never turned round afterwards: that would be a choice made on test labels.
    """
    if auroc.low is None or auroc.high is None:
        return ""
    if auroc.high < 0.5:
        return (
            f"{name} is worse than chance on these data: AUROC {auroc.value:.3f} "
            f"[{auroc.low:.3f}, {auroc.high:.3f}]; good pictures score higher than faulty ones."
        )
    if auroc.low <= 0.5:
        return (
            f"{name} cannot be told from chance on these data: AUROC {auroc.value:.3f} "
            f"[{auroc.low:.3f}, {auroc.high:.3f}]."
        )
    return ""
