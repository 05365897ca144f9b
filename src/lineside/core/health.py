"""Warnings of a training run in plain words: what is wrong, the number, what to do.

The thresholds were measured on planted faults and healthy runs; "more than half of the units are
silent" and "the loss is three times its best" were dropped because healthy runs trigger them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from lineside.core.files import finite

DEAD_SHARE = 0.95
DIVERGED_FACTOR = 10.0
RISING_VALIDATIONS = 6
DATA_SHARE = 0.5
_WINDOW_STEPS = 20
_WINDOW_SECONDS = 0.2


class Health:
    """Watches the rows of a run and logs each warning once.

    * *diverged*: a loss that is no number, or above ten times the loss before the first update;
      it takes precedence over *dead*.
    * *dead*: more than 95 % of a ReLU layer's outputs are zero on two samples in a row.
    * *overfitting*: the validation loss rose six times in a row.
    * *slow data*: drawing batches took more than half of the time in two windows of 20 steps.
    """

    def __init__(self, log: Callable[[dict[str, Any]], None]) -> None:
        self.warnings: list[dict[str, Any]] = []
        self._log = log
        self._first_loss: float | None = None
        self._diverged = False
        self._silent: set[str] = set()
        self._validation_loss = math.inf
        self._rises = 0
        self._data = self._total = 0.0
        self._steps = self._slow_windows = 0
        self._warm = False

    def step(self, row: Mapping[str, Any]) -> None:
        """Judge the row of one training step."""
        self._judge_loss(row["step"], float(row["loss"]))
        self._judge_layers(row["step"], row.get("layers", {}))
        self._judge_time(row)

    def validation(self, step: int, measures: Mapping[str, float]) -> None:
        """Judge the measures of one validation."""
        loss = float(measures.get("loss", math.nan))
        if math.isnan(loss):
            return
        self._rises = self._rises + 1 if loss > self._validation_loss else 0
        self._validation_loss = loss
        if self._rises >= RISING_VALIDATIONS:
            text = (
                f"The validation loss has risen {self._rises} times in a row: the network now "
                "learns its training data by heart. Stop earlier, or add data or augmentation."
            )
            self._warn(step, "overfitting", "", self._rises, text)

    def state(self) -> dict[str, Any]:
        """Return the plain values that a resumed run needs."""
        return {
            "warnings": self.warnings,
            "first_loss": self._first_loss,
            "diverged": self._diverged,
            "silent": sorted(self._silent),
            "validation_loss": finite(self._validation_loss),
            "rises": self._rises,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self.warnings = list(state["warnings"])
        self._first_loss = state["first_loss"]
        self._diverged = bool(state["diverged"])
        self._silent = set(state["silent"])
        known = state["validation_loss"]
        self._validation_loss = math.inf if known is None else float(known)
        self._rises = int(state["rises"])

    def _judge_loss(self, step: int, loss: float) -> None:
        if self._first_loss is None:
            self._first_loss = abs(loss)
        if math.isfinite(loss) and abs(loss) <= DIVERGED_FACTOR * max(self._first_loss, 1e-12):
            return
        self._diverged = True
        what = (
            f"{abs(loss) / max(self._first_loss, 1e-12):.0f} times the loss at the start"
            if math.isfinite(loss)
            else "no longer a number"
        )
        text = f"Training has diverged: the loss is {what}. Lower the learning rate tenfold."
        self._warn(step, "diverged", "", loss, text)

    def _judge_layers(self, step: int, layers: Mapping[str, Mapping[str, float]]) -> None:
        if not layers or self._diverged:
            return
        silent = {n: v["zero_share"] for n, v in layers.items() if v["zero_share"] > DEAD_SHARE}
        for name in sorted(self._silent & set(silent)):
            text = (
                f"Layer {name} is dead: {silent[name]:.0%} of its outputs are zero, so it passes "
                "on almost nothing. Lower the learning rate or check how it was initialised."
            )
            self._warn(step, "dead", name, silent[name], text)
        self._silent = set(silent)

    def _judge_time(self, row: Mapping[str, Any]) -> None:
        self._data += row["data_seconds"]
        self._total += row["data_seconds"] + row["compute_seconds"]
        self._steps += 1
        if self._steps < _WINDOW_STEPS:
            return
        share = self._data / self._total if self._total else 0.0
        # The first window holds one-off costs (imports, caches); trifling steps do not matter.
        slow = self._warm and share > DATA_SHARE and self._total > _WINDOW_SECONDS
        self._slow_windows = self._slow_windows + 1 if slow else 0
        self._warm, self._steps, self._data, self._total = True, 0, 0.0, 0.0
        if self._slow_windows >= 2:
            text = (
                f"Loading data takes {share:.0%} of the training time. Cache decoded data or "
                "move work out of the loader."
            )
            self._warn(row["step"], "slow data", "", share, text)

    def _warn(self, step: int, kind: str, layer: str, value: float, text: str) -> None:
        if any(w["warning"] == kind and w["layer"] == layer for w in self.warnings):
            return
        row = {"step": step, "warning": kind, "layer": layer, "value": finite(value), "text": text}
        self.warnings.append(row)
        self._log(row)
