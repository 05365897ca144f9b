"""Always-on recording of a training run: loss, time, activations, gradients, plain-words warnings.

Every loop (supervised, adversarial, reinforcement) calls the recorder around its steps::

    recorder.start(step); batch = draw(); recorder.loaded()
    loss.backward(); recorder.before_update(); optimizer.step()
    recorder.finish({"loss": loss})

There may be several named losses (heads); all are recorded, in training and in validation.
The recorder observes only: it draws no random number and changes no tensor, so a run gives the
same weights with and without it. Statistics of layers and gradients are taken on sampled steps
(every tenth at first); a budget controller stretches the interval when its own time exceeds
1 % of the run.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from lineside.core.audit.label_noise import LabelNoise, estimate_label_noise
from lineside.core.errors import UserError
from lineside.core.training.gradient_signal import GradientSignal, norm_of
from lineside.core.training.warnings import MEASURED, Health

Log = Callable[[dict[str, Any]], None]

# Activations beyond this count are not looked at: the first items of a batch are a fair sample.
_ELEMENTS = 1 << 18
_LONGEST_INTERVAL_STEPS = 320
_OBSERVED = (
    nn.Linear, nn.RNNBase, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish,
    nn.Tanh, nn.Sigmoid,
)  # fmt: skip


class Recorder:
    """Records one training run.

    Args:
        network: The bare module that is trained (several networks: an ``nn.ModuleDict``).
        optimizer: Its optimiser (or one of several), read for the learning rate.
        log: Receives rows, plain dictionaries with a ``step``; a later row for the same step
            (after a resume) replaces an earlier one.
        every_steps: Interval of the sampled statistics at the start.
        budget: Largest share of the run's time that recording may take.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        log: Log,
        *,
        every_steps: int = 10,
        budget: float = 0.01,
    ) -> None:
        self.interval_steps = every_steps
        names = [f"{n}." for n in network.keys()] if isinstance(network, nn.ModuleDict) else [""]  # noqa: SIM118
        self.health = Health(log, names)
        self._network = network
        self._optimizer = optimizer
        self._log = log
        self._budget = budget
        named = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
        self._weights = [p for _, p in named]
        # Vectors (biases, batch norm) are left out of a layer's gradient.
        self._layer_of = [n.rpartition(".")[0] if p.ndim > 1 else None for n, p in named]
        self._layer_norms: tuple[list[str], Tensor] | None = None
        self._pending: list[tuple[dict[str, Any], dict[str, Tensor]]] = []
        self._hooks: list[Any] = []
        self._activations: dict[str, list[Tensor]] = {}
        self._gradients = GradientSignal()
        self._row: dict[str, Any] = {}
        self._sums: dict[str, Tensor] = {}
        self._before: list[Tensor] = []
        self._sampled = False
        self._next_sample = 0
        self._samples = 0
        self._own_seconds = self._run_seconds = 0.0
        self._started = self._loaded = self._own_at_start = 0.0

    def start(self, step: int) -> None:
        """Begin a step (0-based), before its batch is drawn."""
        self._started = time.perf_counter()
        self._own_at_start = self._own_seconds
        self._row = {"step": step}
        self._sums = {}
        self._sampled = step >= self._next_sample
        if self._sampled:
            self._attach()
        self._own_seconds += time.perf_counter() - self._started

    def loaded(self) -> None:
        """Mark that the batch is there; what follows is compute."""
        self._loaded = time.perf_counter()

    def before_update(self) -> None:
        """Look at the gradients, after the backward pass and before the optimiser's step."""
        begin = time.perf_counter()
        self._row["lr"] = float(self._optimizer.param_groups[0]["lr"])
        if self._sampled:
            self._detach()
            self._look_at_gradients()
            self._before = [w.detach().clone() for w in self._weights]
        self._own_seconds += time.perf_counter() - begin

    def finish(self, losses: Mapping[str, Tensor]) -> None:
        """End a step with its losses by name.

        The one called ``"loss"``, if any, is expected to fall: ten times its first value is a
        divergence. Others (those of an adversarial pair) only have to stay numbers.

        Raises:
            UserError: if a loss has the name of something that the recorder measures itself.
        """
        begin = time.perf_counter()
        row = self._row
        if not MEASURED.isdisjoint(losses):
            raise UserError(
                f"losses {sorted(losses)}: a name is taken by the recorder", "rename that loss"
            )
        own = self._own_seconds - self._own_at_start
        row["data_seconds"] = self._loaded - self._started
        row["compute_seconds"] = max(begin - self._loaded - own, 0.0)
        self._sums.update({name: loss.detach() for name, loss in losses.items()})
        if self._sampled:
            change = torch._foreach_sub([w.detach() for w in self._weights], self._before)
            self._sums["update_norm"] = norm_of(change)
            self._sums["weight_norm"] = norm_of(self._before)
            self._before = []
        self._pending.append((row, self._sums))
        if self._sampled:
            self.flush()
            self._pace(row["step"])
        self._own_seconds += time.perf_counter() - begin
        self._run_seconds += time.perf_counter() - self._started

    def validation(self, step: int, measures: Mapping[str, float]) -> None:
        """Record measures on held-out data after `step` updates; ``"loss"`` is watched."""
        self.flush()
        row = {"step": step, **{f"validation_{k}": float(v) for k, v in measures.items()}}
        self._log(row)
        self.health.validation(step, measures)

    def labels(
        self,
        ids: Sequence[str],
        features: ArrayLike,
        labels: Sequence[str] | Sequence[bool] | Sequence[int],
        groups: Sequence[str],
        rng: np.random.Generator,
    ) -> LabelNoise:
        """Warn of labels that contradict their neighbours; see `estimate_label_noise`.

        Call it once, before training: it looks at fixed features, never at the network.
        """
        noise = estimate_label_noise(ids, features, labels, groups, rng)
        self.health.labels(self._row.get("step", 0), noise)
        return noise

    def flush(self) -> None:
        """Write what is pending; the only place that waits for the device."""
        pending, self._pending = self._pending, []
        tensors = [t.float().reshape(()) for _, sums in pending for t in sums.values()]
        numbers = iter(torch.stack(tensors).tolist() if tensors else [])
        for row, sums in pending:
            row.update({name: next(numbers) for name in sums})
            if "update_norm" in row:
                self._complete(row)
            self._log(row)
            self.health.step(row)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must keep for the warnings to survive a resume."""
        self.flush()
        return self.health.state()

    def restore(self, state: Mapping[str, Any], step: int) -> None:
        """Continue at `step` from what `state` returned."""
        self.health.restore(state)
        self._next_sample = step

    @property
    def overhead(self) -> float:
        """Share of the run's time that recording took so far."""
        return self._own_seconds / self._run_seconds if self._run_seconds else 0.0

    def _complete(self, row: dict[str, Any]) -> None:
        """Add the sampled statistics that need several numbers."""
        if self._layer_norms is not None:
            row["layer_gradients"] = _by_layer(*self._layer_norms)
        weight = row.pop("weight_norm")
        update = row.pop("update_norm")
        row["update_to_weight"] = update / weight if weight else math.nan
        snr = self._gradients.ratio()
        if snr is not None:
            row["gradient_snr"] = snr
        row["memory_mb"] = peak_memory_mb()
        layers = {name: torch.stack(seen).mean(0) for name, seen in self._activations.items()}
        if layers:
            table = torch.stack(list(layers.values())).tolist()
            row["layers"] = {
                name: {"mean": mean, "spread": spread, "zero_share": zero}
                for name, (mean, spread, zero) in zip(layers, table, strict=True)
            }
        self._activations = {}
        row["recorder_share"] = self.overhead

    def _pace(self, step: int) -> None:
        """Choose the next sampled step so that recording stays within its budget."""
        self._samples += 1
        if self._samples >= 3 and self.overhead > self._budget:
            self.interval_steps = min(2 * self.interval_steps, _LONGEST_INTERVAL_STEPS)
        self._next_sample = step + self.interval_steps

    def _look_at_gradients(self) -> None:
        """Take the gradients' norms, in total and by layer."""
        present = [i for i, w in enumerate(self._weights) if w.grad is not None]
        gradients = [self._weights[i].grad.detach() for i in present]  # type: ignore[union-attr]
        self._layer_norms = None
        if not gradients:
            return
        norms = torch.stack(torch._foreach_norm(gradients))
        self._sums["gradient_norm"] = torch.linalg.vector_norm(norms)
        self._gradients.add(gradients, self._sums["gradient_norm"])
        layered = [(k, self._layer_of[i]) for k, i in enumerate(present)]
        named = [(k, layer) for k, layer in layered if layer is not None]
        if named:
            self._layer_norms = [layer for _, layer in named], norms[[k for k, _ in named]]

    def _attach(self) -> None:
        self._activations = {}
        for name, module in self._network.named_modules():
            if isinstance(module, _OBSERVED):
                self._hooks.append(module.register_forward_hook(self._observe(name)))

    def _detach(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _observe(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            begin = time.perf_counter()
            output = output[0] if isinstance(output, tuple) else output  # recurrent: and states
            output = getattr(output, "data", output)  # packed sequences
            self._activations.setdefault(name, []).append(_moments(output.detach()))
            self._own_seconds += time.perf_counter() - begin

        return hook


def peak_memory_mb() -> float:
    """Return the peak memory of this process (or of its GPU) in MB; NaN where unknown."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    try:
        import resource
    except ImportError:  # no such module on Windows
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _by_layer(layers: list[str], norms: Tensor) -> dict[str, float]:
    """Gradient norm of each layer, in the network's order; a layer may have several weights."""
    squares: dict[str, float] = {}
    for layer, norm in zip(layers, norms.tolist(), strict=True):
        squares[layer] = math.hypot(squares.get(layer, 0.0), norm)
    return squares


def _moments(output: Tensor) -> Tensor:
    """Mean, spread and share of zeros of a layer's output, shape (3,)."""
    output = output[: max(1, _ELEMENTS // max(output[:1].numel(), 1))]
    count = max(output.numel(), 1)
    mean = output.sum() / count
    square = torch.linalg.vector_norm(output).square() / count
    zeros = 1.0 - torch.count_nonzero(output).to(mean.dtype) / count
    return torch.stack((mean, (square - mean.square()).clamp_min(0.0).sqrt(), zeros)).float()
