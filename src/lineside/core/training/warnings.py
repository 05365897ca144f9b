"""Warnings of a training run: what is wrong, the number, what to do.

The thresholds were measured on planted faults and healthy runs. Three candidates were dropped
because healthy runs trigger them: more than half of the units dead, a loss three times its best,
and any bound on the size of updates (learning-rate schedules exceed it in both directions).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from lineside.core.audit.label_noise import LabelNoise
from lineside.core.run.files import finite

DEAD_SHARE = 0.95
DIVERGED_FACTOR = 10.0
VANISHED_RATIO = 1e-4
"""Gradient of a layer relative to the largest of any layer; below, it hardly learns."""
RISING_VALIDATIONS = 6
DATA_SHARE = 0.5
NAMED_ITEMS = 12
_WINDOW_STEPS = 20
_WINDOW_SECONDS = 0.2

MEASURED = frozenset(
    ("step", "lr", "data_seconds", "compute_seconds", "gradient_norm", "gradient_snr", "layers",
     "layer_gradients", "optimizers", "update_to_weight", "memory_mb", "recorder_share")
)  # fmt: skip

Log = Callable[[dict[str, Any]], None]


class Monitor(Protocol):
    """Checks the rows of a training and logs warnings; its state is part of the checkpoint.

    A warning is a row with ``step``, ``warning`` (its kind), ``layer``, ``value`` and ``text``.
    """

    warnings: list[dict[str, Any]]

    def check(self, row: Mapping[str, Any]) -> None:
        """Check the row of one training step."""

    def close(self, step: int) -> None:
        """Check the whole training, at its end."""

    def state(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""


def named_losses(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the losses of a recorder's row by name: all numbers that it did not measure itself.

    Example:
        >>> named_losses({"step": 3, "lr": 0.1, "loss": 1.5, "box": 1.0})
        {'loss': 1.5, 'box': 1.0}
    """
    return {name: float(value) for name, value in row.items() if name not in MEASURED}


@dataclass
class _Seen:
    """What a monitor has seen of a training; part of the checkpoint.

    Attributes:
        usual_loss: Reference of a divergence, None before the first loss.
        diverged: Whether the training has diverged.
        dead: Layers that were dead on the last sample.
        vanished: Networks whose gradients vanished on the last sample.
        validation_loss: The last one, None before the first.
        rises: How many times in a row it has risen.
    """

    usual_loss: float | None = None
    diverged: bool = False
    dead: list[str] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)
    validation_loss: float | None = None
    rises: int = 0


class TrainingMonitor:
    """The warnings of every training; each is logged once.

    * *diverged*: a loss that is not finite, or a ``"loss"`` above ten times that before the first
      update; it suppresses the next two.
    * *dead layer*: more than 95 % of a layer's outputs are zero on two samples in a row.
    * *vanishing gradients*: the first layers' gradients are below 1e-4 of the largest on two
      samples in a row, and no layer is dead.
    * *overfitting*: the validation loss rose six times in a row.
    * *slow data*: drawing batches took more than half of the time in two windows of 20 steps.
    * *label noise*: too many labels contradict their neighbours, whatever the network says.

    Args:
        log: Receives a row per warning.
        networks: Where several networks are trained together, the first part of their layers'
            names; gradients vanish within one network.
        usual_loss: Reference of a divergence; the first loss unless given (a critic's first loss
            is near zero).
    """

    def __init__(
        self, log: Log, *, networks: Sequence[str] = ("",), usual_loss: float | None = None
    ) -> None:
        self.warnings: list[dict[str, Any]] = []
        self._log = log
        self._networks = tuple(networks)
        self._seen = _Seen(usual_loss=usual_loss)
        self._data = self._total = 0.0
        self._steps = self._slow_windows = 0
        self._warm = False

    def check(self, row: Mapping[str, Any]) -> None:
        """Check the row of one training step."""
        self._check_losses(row)
        self._check_activations(row["step"], row.get("layers", {}))
        self._check_gradients(row["step"], row.get("layer_gradients", {}))
        self._check_data_time(row)

    def labels(self, step: int, noise: LabelNoise) -> None:
        """Check the labels that the run learns from."""
        if not noise.noisy:
            return
        named = noise.ranked[: min(NAMED_ITEMS, noise.count)]
        text = (
            f"The labels of these {len(named)} items contradict their neighbours the most: "
            f"{', '.join(named)}. So do those of {noise.count} of {noise.items} items and "
            f"{noise.share:.0%} of the clearest ones. Have them labelled again before training on."
        )
        self._warn(step, "label noise", "", noise.share, text, items=list(named))

    def validation(self, step: int, measures: Mapping[str, float]) -> None:
        """Check the measures of one validation."""
        loss = float(measures.get("loss", math.nan))
        if math.isnan(loss):
            return
        seen, before = self._seen, self._seen.validation_loss
        seen.rises = seen.rises + 1 if before is not None and loss > before else 0
        seen.validation_loss = loss
        if seen.rises >= RISING_VALIDATIONS:
            text = (
                f"The validation loss has risen {seen.rises} times in a row: the network is "
                "overfitting. Stop earlier, or add data or augmentation."
            )
            self._warn(step, "overfitting", "", seen.rises, text)

    def state(self) -> dict[str, Any]:
        """Return the plain values that a resumed run needs."""
        return {"warnings": self.warnings, **asdict(self._seen)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._seen = _Seen(**{k: v for k, v in state.items() if k != "warnings"})
        self.warnings = list(state["warnings"])

    def _check_losses(self, row: Mapping[str, Any]) -> None:
        losses = named_losses(row)
        for name, loss in losses.items():
            if not math.isfinite(loss):
                self._diverge(row["step"], loss, f"{name} is no longer a number")
                return
        if "loss" not in losses:
            return
        loss = abs(losses["loss"])
        if self._seen.usual_loss is None:
            self._seen.usual_loss = loss
        factor = loss / max(self._seen.usual_loss, 1e-12)
        if factor > DIVERGED_FACTOR:
            self._diverge(row["step"], loss, f"the loss is {factor:.0f} times that at the start")

    def _diverge(self, step: int, loss: float, what: str) -> None:
        self._seen.diverged = True
        text = f"Training has diverged: {what}. Lower the learning rate tenfold."
        self._warn(step, "diverged", "", loss, text)

    def _check_activations(self, step: int, layers: Mapping[str, Mapping[str, float]]) -> None:
        if not layers or self._seen.diverged:
            return
        dead = {n: v["zero_share"] for n, v in layers.items() if v["zero_share"] > DEAD_SHARE}
        for name in sorted({*self._seen.dead} & {*dead}):
            text = (
                f"Layer {name} is dead: {dead[name]:.0%} of its outputs are zero, so almost no "
                "gradient passes. Lower the learning rate or check the initialisation."
            )
            self._warn(step, "dead layer", name, dead[name], text)
        self._seen.dead = list(dead)

    def _check_gradients(self, step: int, gradients: Mapping[str, float]) -> None:
        if not gradients or self._seen.diverged:
            return
        before, self._seen.vanished = self._seen.vanished, []
        if self._seen.dead:  # no gradient passes a dead layer, which has its own warning
            return
        for network in self._networks:
            # A gradient of exactly zero belongs to a layer that this step does not train.
            norms = {n: g for n, g in gradients.items() if n.startswith(network) and g > 0}
            if not norms:
                continue
            largest = max(norms.values())
            reached = next(n for n, g in norms.items() if g >= VANISHED_RATIO * largest)
            first = next(iter(norms))
            if reached == first:
                continue
            self._seen.vanished.append(network)
            if network not in before:
                continue
            ratio = norms[first] / largest
            text = (
                f"Gradients vanish before layer {reached}: that of layer {first} is {ratio:.0e} "
                "of the largest, so the first layers hardly learn. Use ReLU with batch norm, "
                "skip connections or fewer layers."
            )
            self._warn(step, "vanishing gradients", network, ratio, text)

    def _check_data_time(self, row: Mapping[str, Any]) -> None:
        self._data += row["data_seconds"]
        self._total += row["data_seconds"] + row["compute_seconds"]
        self._steps += 1
        if self._steps < _WINDOW_STEPS:
            return
        share = self._data / self._total if self._total else 0.0
        # The first window holds one-off costs (imports, caches); very short windows do not matter.
        slow = self._warm and share > DATA_SHARE and self._total > _WINDOW_SECONDS
        self._slow_windows = self._slow_windows + 1 if slow else 0
        self._warm, self._steps, self._data, self._total = True, 0, 0.0, 0.0
        if self._slow_windows >= 2:
            text = (
                f"Loading data takes {share:.0%} of the training time. Cache decoded data or "
                "move work out of the loader."
            )
            self._warn(row["step"], "slow data", "", share, text)

    def _warn(self, step: int, kind: str, layer: str, value: float, text: str, **more: Any) -> None:
        if any(w["warning"] == kind and w["layer"] == layer for w in self.warnings):
            return
        row = {"step": step, "warning": kind, "layer": layer, "value": finite(value), "text": text}
        row |= more
        self.warnings.append(row)
        self._log(row)
