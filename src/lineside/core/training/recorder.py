"""Always-on recording of a training run: loss, time, activations, gradients, warnings.

The training loop calls the recorder around every step, and so can a loop of its own::

    recorder.start(step); batch = draw(); recorder.loaded()
    loss.backward(); recorder.before_update(); optimizer.step()
    recorder.finish({"loss": loss})

There may be several named losses (heads), and several networks and optimisers by name (generator
and critic, actor and critic): ``before_update("critic")``. The recorder observes only: it draws no
random number and changes no tensor, so a run gives the same weights with and without it.
Statistics of layers and gradients are taken on sampled steps (every tenth at first); a budget
controller stretches the interval when its own time exceeds 1 % of the run.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from lineside.core.audit.label_noise import LabelNoise
from lineside.core.errors import UserError
from lineside.core.training.update_statistics import UpdateStatistics
from lineside.core.training.warnings import MEASURED, Log, Monitor, TrainingMonitor

# Activations beyond this count are not measured: the first items of a batch are a fair sample.
_MEASURED_ACTIVATIONS = 1 << 18
_LONGEST_INTERVAL_STEPS = 320
_OBSERVED = (
    nn.Linear, nn.RNNBase, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish,
    nn.Tanh, nn.Sigmoid,
)  # fmt: skip


class Recorder:
    """Records one training run.

    Args:
        network: The module that is trained; several networks: an ``nn.ModuleDict`` by name.
        optimizer: Its optimiser; several optimisers: a mapping by name.
        log: Receives rows, plain dictionaries with a ``step``; a later row for the same step
            (after a resume) replaces an earlier one.
        monitors: Check the rows too, beside `TrainingMonitor`; see `warnings.Monitor`.
        usual_loss: See `TrainingMonitor`.
        every_steps: Interval of the sampled statistics at the start.
        budget: Largest share of the run's time that recording may take.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer | Mapping[str, torch.optim.Optimizer],
        log: Log,
        *,
        monitors: Sequence[Monitor] = (),
        usual_loss: float | None = None,
        every_steps: int = 10,
        budget: float = 0.01,
    ) -> None:
        self.interval_steps = every_steps
        names = list(network.keys()) if isinstance(network, nn.ModuleDict) else []
        prefixes = [f"{name}." for name in names] or [""]
        self.monitor = TrainingMonitor(log, networks=prefixes, usual_loss=usual_loss)
        self._monitors = tuple(monitors)
        self._network = network
        optimizers = optimizer if isinstance(optimizer, Mapping) else {"optimizer": optimizer}
        weights = list(network.named_parameters())
        self._statistics = {n: UpdateStatistics(o, weights) for n, o in optimizers.items()}
        self._updated: list[str] = []  # optimisers that were measured in this step
        self._log = log
        self._budget = budget
        self._pending: list[tuple[dict[str, Any], dict[str, Tensor]]] = []
        self._hooks = ExitStack()
        self._activations: dict[str, list[Tensor]] = {}
        self._row: dict[str, Any] = {}
        self._sampled = False
        self._next_sample = 0
        self._samples = 0
        self._own_seconds = self._run_seconds = 0.0
        self._started = self._loaded = self._own_at_start = 0.0

    @property
    def warnings(self) -> list[dict[str, Any]]:
        """All warnings so far."""
        others = [warning for monitor in self._monitors for warning in monitor.warnings]
        return [*self.monitor.warnings, *others]

    @property
    def overhead(self) -> float:
        """Share of the run's time that recording took so far."""
        return self._own_seconds / self._run_seconds if self._run_seconds else 0.0

    def start(self, step: int) -> None:
        """Begin a step (0-based), before its batch is drawn."""
        self._started = time.perf_counter()
        self._own_at_start = self._own_seconds
        self._row = {"step": step}
        self._updated = []
        self._sampled = step >= self._next_sample
        if self._sampled:
            self._attach()
        self._own_seconds += time.perf_counter() - self._started

    def loaded(self) -> None:
        """Mark that the batch is loaded; what follows is compute."""
        self._loaded = time.perf_counter()

    def before_update(self, name: str | None = None) -> None:
        """Measure gradients, between the backward pass and the optimiser's step.

        If an optimiser updates several times in a step (a critic), the first gradient is taken.

        Args:
            name: Which optimiser; may be left out if there is one.
        """
        begin = time.perf_counter()
        first = next(iter(self._statistics))
        name = first if name is None else name
        statistics = self._statistics[name]
        if name == first:
            self._row["lr"] = statistics.learning_rate
        if self._sampled and name not in self._updated:
            statistics.before_update()
            self._updated.append(name)
        self._own_seconds += time.perf_counter() - begin

    def finish(self, losses: Mapping[str, Tensor]) -> None:
        """End a step with its losses by name.

        The one called ``"loss"``, if any, is expected to fall: ten times its first value is a
        divergence. Others (those of an adversarial pair) only have to stay finite.

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
        scalars = {name: loss.detach() for name, loss in losses.items()}
        for name in self._updated:
            norms = self._statistics[name].after_update()
            scalars.update({f"{name} {key}": norm for key, norm in norms.items()})
        self._pending.append((row, scalars))
        if self._sampled:
            self._hooks.close()
            self.flush()
            self._pace(row["step"])
        self._own_seconds += time.perf_counter() - begin
        self._run_seconds += time.perf_counter() - self._started

    def validation(self, step: int, measures: Mapping[str, float]) -> None:
        """Record measures on held-out data after `step` updates; ``"loss"`` is monitored."""
        self.flush()
        row = {"step": step, **{f"validation_{k}": float(v) for k, v in measures.items()}}
        self._log(row)
        self.monitor.validation(step, measures)

    def labels(self, noise: LabelNoise) -> None:
        """Warn of label noise, estimated before the training on fixed features of its items."""
        self.monitor.labels(self._row.get("step", 0), noise)

    def flush(self) -> None:
        """Write pending rows; the only place that waits for the device."""
        pending, self._pending = self._pending, []
        tensors = [t.float().reshape(()) for _, scalars in pending for t in scalars.values()]
        numbers = iter(torch.stack(tensors).tolist() if tensors else [])
        for row, scalars in pending:
            row.update({name: next(numbers) for name in scalars})
            if self._sampled and row is self._row:
                self._complete(row)
            self._log(row)
            self.monitor.check(row)
            for monitor in self._monitors:
                monitor.check(row)

    def close(self, step: int) -> None:
        """Write what is pending and let the monitors judge the whole training."""
        self.flush()
        for monitor in self._monitors:
            monitor.close(step)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold for the warnings to survive a resume."""
        self.flush()
        monitors = [monitor.state() for monitor in self._monitors]
        return {"training": self.monitor.state(), "monitors": monitors}

    def restore(self, state: Mapping[str, Any], step: int) -> None:
        """Continue at `step` from what `state` returned."""
        self.monitor.restore(state["training"])
        for monitor, stored in zip(self._monitors, state["monitors"], strict=True):
            monitor.restore(stored)
        self._next_sample = step

    def _complete(self, row: dict[str, Any]) -> None:
        """Add the sampled statistics: of the first optimiser by themselves, of several by name."""
        by_name = {n: self._update_measures(n, row) for n in self._statistics if n in self._updated}
        row |= next(iter(by_name.values()), {})
        row["layer_gradients"] = {}
        for name in by_name:
            row["layer_gradients"] |= self._statistics[name].layer_gradients()
        if len(self._statistics) > 1:
            row["optimizers"] = by_name
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

    def _update_measures(self, name: str, row: dict[str, Any]) -> dict[str, float]:
        """Take the norms of one optimiser out of the row; return what is logged instead."""
        statistics = self._statistics[name]
        update, weight = row.pop(f"{name} update_norm"), row.pop(f"{name} weight_norm")
        measures = {"lr": statistics.learning_rate}
        if f"{name} gradient_norm" in row:
            measures["gradient_norm"] = row.pop(f"{name} gradient_norm")
        measures["update_to_weight"] = update / weight if weight else math.nan
        snr = statistics.signal.ratio()
        if snr is not None:
            measures["gradient_snr"] = snr
        return measures

    def _pace(self, step: int) -> None:
        """Choose the next sampled step so that recording stays within its budget."""
        self._samples += 1
        if self._samples >= 3 and self.overhead > self._budget:
            self.interval_steps = min(2 * self.interval_steps, _LONGEST_INTERVAL_STEPS)
        self._next_sample = step + self.interval_steps

    def _attach(self) -> None:
        self._activations = {}
        for name, module in self._network.named_modules():
            if isinstance(module, _OBSERVED):
                self._hooks.enter_context(module.register_forward_hook(self._observe(name)))

    def _observe(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            begin = time.perf_counter()
            output = output[0] if isinstance(output, tuple) else output  # recurrent: and states
            output = getattr(output, "data", output)  # packed sequences
            self._activations.setdefault(name, []).append(_moments(output.detach()))
            self._own_seconds += time.perf_counter() - begin

        return hook


def peak_memory_mb() -> float:
    """Return the peak memory of this process (or of its GPU) in MB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _moments(output: Tensor) -> Tensor:
    """Mean, spread and share of zeros of a layer's output, shape (3,)."""
    output = output[: max(1, _MEASURED_ACTIVATIONS // max(output[:1].numel(), 1))]
    count = max(output.numel(), 1)
    mean = output.sum() / count
    square = torch.linalg.vector_norm(output).square() / count
    zeros = 1.0 - torch.count_nonzero(output).to(mean.dtype) / count
    return torch.stack((mean, (square - mean.square()).clamp_min(0.0).sqrt(), zeros)).float()
