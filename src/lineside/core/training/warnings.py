"""Warnings of a training run: what is wrong, the number, what to do.

The thresholds were measured on planted faults and healthy runs. Three candidates were dropped
because healthy runs trigger them: more than half of the units dead, a loss three times its best,
and any bound on the size of updates (learning-rate schedules exceed it in both directions).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol

from lineside.core.audit.label_noise import LabelNoise
from lineside.core.run.files import finite

DEAD_SHARE = 0.95
SILENT_UNITS = 0.85
SATURATED_SHARE = 0.75
CONSTANT_VARIATION = 1e-4
DIVERGED_FACTOR = 10.0
THROWN = 0.5
"""Change of the weights in one update, relative to their norm."""
RECENT_UPDATES = 4
VANISHED_RATIO = 1e-4
"""Gradient of a layer relative to the largest of any layer; below, it hardly learns."""
RISING_VALIDATIONS = 6
DATA_SHARE = 0.5
NAMED_ITEMS = 12
_WINDOW_STEPS = 20
_WINDOW_SECONDS = 0.2
_FEWEST_SLOW_STEPS = 4

MEASURED = frozenset(
    ("step", "lr", "data_seconds", "compute_seconds", "gradient_norm", "gradient_snr", "layers",
     "layer_gradients", "optimizers", "outputs", "update_to_weight", "memory_mb", "recorder_share")
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
        first_loss: None before the first.
        updates: Changes of an optimiser's weights in one step, relative to them, last samples.
        diverged: Whether the training has diverged.
        hits: Rules that were broken on the last sample, as "kind" + tab + "layer or network".
        validation_loss: The last one, None before the first.
        rises: How many times in a row it has risen.
    """

    first_loss: float | None = None
    updates: list[float] = field(default_factory=list)
    diverged: bool = False
    hits: list[str] = field(default_factory=list)
    validation_loss: float | None = None
    rises: int = 0


class TrainingMonitor:
    """The warnings of every training; each is logged once for a layer or network.

    * *diverged*: a loss that is not finite; or ``"loss"`` has risen by more than ten times its
      first value, and one of the last four measured updates changed the weights by more than half
      their norm. It suppresses all that follow but the last three.
    * *dead layer*: more than 95 % of a layer's outputs are zero.
    * *dead units*: more than 85 % of a rectifier's units put out the same for all items.
    * *saturated layer*: more than 75 % of the outputs of a hidden tanh or sigmoid lie where it is
      flat.
    * *vanishing gradients*: the first layers' gradients are below 1e-4 of the largest, and no layer
      is dead.
    * *constant output*: a network's output is the same for all items, for none of these reasons.
    * *overfitting*: the validation loss rose six times in a row.
    * *slow data*: drawing batches took more than half of the time in two windows of 20 steps.
    * *label noise*: too many labels contradict their neighbours, whatever the network says.

    Rules about layers must be broken on two samples in a row.

    Args:
        log: Receives a row per warning.
        networks: Where several networks are trained together, the first part of their layers'
            names; gradients vanish within one network.
    """

    def __init__(self, log: Log, *, networks: Sequence[str] = ("",)) -> None:
        self.warnings: list[dict[str, Any]] = []
        self._log = log
        self._networks = tuple(networks)
        self._seen = _Seen()
        self._warned: set[str] = set()
        self._data = self._total = 0.0
        self._steps = self._slow_steps = self._slow_windows = 0
        self._warm = False

    @property
    def suspicious(self) -> bool:
        """Whether the last sample broke a rule that a second one must confirm."""
        return not self._warned.issuperset(self._seen.hits)

    def check(self, row: Mapping[str, Any]) -> None:
        """Check the row of one training step."""
        self._check_losses(row)
        self._check_data_time(row)
        if self._seen.diverged:
            return
        if "layers" in row:
            self._check_activations(row["step"], row["layers"])
        if "layer_gradients" in row:
            self._check_gradients(row["step"], row["layer_gradients"])
        if "outputs" in row:
            self._check_outputs(row["step"], row["outputs"])

    def labels(self, step: int, noise: LabelNoise) -> None:
        """Check the labels that the run learns from."""
        if not noise.noisy:
            return
        if noise.rare_items:
            named = noise.rare_items[:NAMED_ITEMS]
            text = (
                f"O{noise.sentence[1:]}, above all {', '.join(named)}. Have them labelled again "
                "before training on."
            )
            self._warn(step, "label noise", "", noise.rare_share, text, items=list(named))
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
        known = {f.name for f in fields(_Seen)}
        self._seen = _Seen(**{k: v for k, v in state.items() if k in known})
        self.warnings = list(state["warnings"])
        self._warned = {_key(w["warning"], w["layer"]) for w in self.warnings}

    def _check_losses(self, row: Mapping[str, Any]) -> None:
        for name, value in row.items():  # of every step: kept short
            if name not in MEASURED and not math.isfinite(value):
                self._diverge(row["step"], value, f"{name} is no longer a number")
                return
        seen = self._seen
        if "update_to_weight" in row or "optimizers" in row:
            updates = row["optimizers"].values() if "optimizers" in row else [row]
            ratios = [update["update_to_weight"] for update in updates]
            # NaN where the weights were all zero
            seen.updates += [ratio for ratio in ratios if math.isfinite(ratio)]
            del seen.updates[:-RECENT_UPDATES]
        loss = row.get("loss")
        if loss is None:
            return
        if seen.first_loss is None:
            seen.first_loss = loss
        rise = (loss - seen.first_loss) / max(abs(seen.first_loss), 1e-12)
        if rise > DIVERGED_FACTOR and max(seen.updates, default=0.0) > THROWN:
            text = f"the loss has risen by {rise:.3g} times its first value"
            self._diverge(row["step"], loss, text)

    def _diverge(self, step: int, loss: float, what: str) -> None:
        self._seen.diverged = True
        text = f"Training has diverged: {what}. Lower the learning rate tenfold."
        self._warn(step, "diverged", "", loss, text)

    def _twice(self, kind: str, layer: str, broken: bool) -> bool:
        """Note whether a rule is broken; return whether it was on the last sample, too."""
        key, hits = _key(kind, layer), self._seen.hits
        before = key in hits
        if broken and not before:
            hits.append(key)
        elif before and not broken:
            hits.remove(key)
        return broken and before

    def _check_activations(self, step: int, layers: Mapping[str, Mapping[str, float]]) -> None:
        for name, seen in layers.items():
            zeros, silent = seen["zero_share"], seen.get("silent_units", 0.0)
            dead = zeros > DEAD_SHARE and not seen.get("affine", False)
            if self._twice("dead layer", name, dead):
                text = (
                    f"Layer {name} is dead: {zeros:.0%} of its outputs are zero, so almost no "
                    "gradient passes. Lower the learning rate or check the initialisation."
                )
                self._warn(step, "dead layer", name, zeros, text)
            units = silent > SILENT_UNITS and _key("dead layer", name) not in self._warned
            if self._twice("dead units", name, units and not dead):
                text = (
                    f"{silent:.0%} of the units of layer {name} are dead: they put out the same "
                    "for every item. Lower the learning rate or check the initialisation."
                )
                self._warn(step, "dead units", name, silent, text)
            saturated = seen.get("saturated_share", 0.0)
            if self._twice("saturated layer", name, saturated > SATURATED_SHARE):
                text = (
                    f"Layer {name} is saturated: {saturated:.0%} of its outputs lie where the "
                    "function is flat, so almost no gradient passes. Lower the learning rate, "
                    "scale its input, or use ReLU with batch norm."
                )
                self._warn(step, "saturated layer", name, saturated, text)

    def _check_gradients(self, step: int, gradients: Mapping[str, float]) -> None:
        if not gradients:
            return
        # No gradient passes a dead layer, which has its own warning.
        dead = any(hit.startswith("dead layer") for hit in self._seen.hits)
        for network in self._networks:
            # A gradient of exactly zero belongs to a layer that this step does not train.
            norms = {n: g for n, g in gradients.items() if n.startswith(network) and g > 0}
            if not norms:
                continue
            largest = max(norms.values())
            reached = next(n for n, g in norms.items() if g >= VANISHED_RATIO * largest)
            first = next(iter(norms))
            if not self._twice("vanishing gradients", network, reached != first and not dead):
                continue
            ratio = norms[first] / largest
            text = (
                f"Gradients vanish before layer {reached}: that of layer {first} is {ratio:.0e} "
                "of the largest, so the first layers hardly learn. Use ReLU with batch norm, "
                "skip connections or fewer layers."
            )
            self._warn(step, "vanishing gradients", network, ratio, text)

    def _check_outputs(self, step: int, outputs: Mapping[str, float]) -> None:
        """Look for networks that answer the same to everything; other rules name the cause."""
        others = any(not hit.startswith("constant output") for hit in self._seen.hits)
        for network, variation in outputs.items():
            constant = variation < CONSTANT_VARIATION and not others
            if self._twice("constant output", network, constant):
                text = (
                    f"The output{f' of {network}' if network else ''} is the same for every item "
                    f"(it varies by {variation:.0e} of its size): nothing of the input reaches it. "
                    "Lower the learning rate or the weight decay, and check the last layers."
                )
                self._warn(step, "constant output", network, variation, text)

    def _check_data_time(self, row: Mapping[str, Any]) -> None:
        data, compute = row["data_seconds"], row["compute_seconds"]
        self._data += data
        self._total += data + compute
        self._slow_steps += data > compute
        self._steps += 1
        if self._steps < _WINDOW_STEPS:
            return
        share = self._data / self._total if self._total else 0.0
        # The first window holds one-off costs (imports, caches); very short windows do not matter.
        slow = self._warm and share > DATA_SHARE and self._total > _WINDOW_SECONDS
        # One long wait in a window is the machine's, not the loader's.
        slow = slow and self._slow_steps >= _FEWEST_SLOW_STEPS
        self._slow_windows = self._slow_windows + 1 if slow else 0
        self._warm, self._steps, self._slow_steps, self._data, self._total = True, 0, 0, 0.0, 0.0
        if self._slow_windows >= 2:
            text = (
                f"Loading data takes {share:.0%} of the training time. Cache decoded data or "
                "move work out of the loader."
            )
            self._warn(row["step"], "slow data", "", share, text)

    def _warn(self, step: int, kind: str, layer: str, value: float, text: str, **more: Any) -> None:
        key = _key(kind, layer)
        if key in self._warned:
            return
        self._warned.add(key)
        row = {"step": step, "warning": kind, "layer": layer, "value": finite(value), "text": text}
        row |= more
        self.warnings.append(row)
        self._log(row)


def _key(kind: str, layer: str) -> str:
    return f"{kind}\t{layer}"
