"""Always-on recording of a training run: loss, time, activations, gradients, warnings.

The training loop calls the recorder around every step, and so can a loop of its own::

    with Recorder(network, optimizer, log) as recorder:
        for step in range(steps):
            recorder.start(step); batch = draw(); recorder.loaded()
            loss.backward(); recorder.before_update(); optimizer.step()
            recorder.finish({"loss": loss})

There may be several named losses (heads), and several networks and optimisers by name (generator
and critic, actor and critic): ``before_update("critic")``. A step may update any of them or none.
The recorder observes only: it draws no random number and changes no tensor, so a run gives the
same weights with and without it.

Statistics of layers and gradients are taken on sampled steps, every tenth at first; then a budget
spaces them (`Pace`). What a sampled step does not call or update (a network whose turn is later,
accumulated gradients) is measured on the next step that does. All losses are checked, but where
steps are so short that writing their rows would exceed the budget, only some rows are written.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import median
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from lineside.core.audit.label_noise import LabelNoise
from lineside.core.errors import UserError
from lineside.core.training.activation_statistics import ActivationStatistics
from lineside.core.training.pace import Pace
from lineside.core.training.update_statistics import UpdateStatistics
from lineside.core.training.warnings import MEASURED, Log, Monitor, TrainingMonitor

_MOST_PENDING = 256
_LEAST_SHARE = 0.25
"""Of the budget: what samples get, and what written rows get, at the least and at the most."""


class Recorder:
    """Records one training run; as a context manager it leaves no hook behind, whatever happens.

    Args:
        network: The module that is trained; several networks: an ``nn.ModuleDict`` by name.
        optimizer: Its optimiser; several optimisers: a mapping by name.
        log: Receives rows, plain dictionaries with a ``step``; a later row for the same step
            (after a resume) replaces an earlier one.
        monitors: Check the rows too, beside `TrainingMonitor`; see `warnings.Monitor`.
        every_steps: Fewest steps between samples.
        budget: Largest share of the run's time that recording may take.
        steps: Length of the training, if it is known: its end is sampled.

    Attributes:
        interval_steps: About how many steps lie between samples at present.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer | Mapping[str, torch.optim.Optimizer],
        log: Log,
        *,
        monitors: Sequence[Monitor] = (),
        every_steps: int = 10,
        budget: float = 0.01,
        steps: int | None = None,
    ) -> None:
        self.interval_steps: float = every_steps
        networks = dict(network.items()) if isinstance(network, nn.ModuleDict) else {"": network}
        prefixes = [f"{name}." if name else "" for name in networks] or [""]
        self.monitor = TrainingMonitor(log, networks=prefixes)
        self._monitors = tuple(monitors)
        self._activations = ActivationStatistics(networks)
        optimizers = optimizer if isinstance(optimizer, Mapping) else {"optimizer": optimizer}
        weights = list(network.named_parameters())
        self._statistics = {n: UpdateStatistics(o, weights) for n, o in optimizers.items()}
        self._first = next(iter(self._statistics))
        self._due: set[str] = set()  # optimisers that are still to be measured
        self._updated: list[str] = []  # those that were measured in this step
        self._log = log
        self._budget = budget
        self._every_steps = every_steps
        self._pace = Pace(every_steps, None if steps is None else steps - 1)
        self._pending: list[tuple[dict[str, Any], dict[str, Tensor]]] = []
        self._row: dict[str, Any] = {}
        self._hooked = False  # in this step
        self._row_interval, self._since_row = 1, 0
        # Of the last flushes: seconds of a written row; share of the time beside samples.
        self._row_costs, self._base_shares = deque[float](maxlen=9), deque[float](maxlen=9)
        self._steps = 0
        self._own_seconds = self._sample_seconds = self._run_seconds = 0.0
        self._planned = (0.0, 0.0)  # seconds of the run, and of recording beside samples
        self._started = self._loaded = self._own = 0.0

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._activations.detach()

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
        self._started = self._loaded = time.perf_counter()
        self._own = 0.0
        if self._hooked:
            self._activations.detach()  # the last step was not finished
        self._row, self._updated = {"step": step}, []
        if self._pace.due(step, self._run_seconds):
            self._pace.begin(step, self._run_seconds)
            self._activations.expect()
            self._due = set(self._statistics)
        self._hooked = self._activations.attach()
        if self._hooked:
            self._own = time.perf_counter() - self._started

    def loaded(self) -> None:
        """Mark that the batch is loaded; what follows is compute."""
        self._loaded = time.perf_counter()

    def before_update(self, name: str | None = None) -> None:
        """Measure gradients, between the backward pass and the optimiser's step.

        If an optimiser updates several times in a step (a critic), the first gradient is taken.

        Args:
            name: Which optimiser; may be left out if there is one.
        """
        name = self._first if name is None else name
        statistics = self._statistics[name]
        if name == self._first:
            self._row["lr"] = statistics.learning_rate
        if name in self._due:
            begin = time.perf_counter()
            statistics.before_update()
            self._updated.append(name)
            self._due.discard(name)
            self._own += time.perf_counter() - begin

    def finish(self, losses: Mapping[str, Tensor]) -> None:
        """End a step with its losses by name, none if it has none.

        The one called ``"loss"``, if any, is expected to be minimised; see `TrainingMonitor` for
        when it has diverged. Others (those of an adversarial pair) only have to stay finite.

        Raises:
            UserError: if a loss has the name of something that the recorder measures itself.
        """
        begin = time.perf_counter()
        row = self._row
        if not MEASURED.isdisjoint(losses):
            self._activations.detach()
            raise UserError(
                f"losses {sorted(losses)}: a name is taken by the recorder", "rename that loss"
            )
        own = self._own + (self._activations.seconds if self._hooked else 0.0)
        row["data_seconds"] = self._loaded - self._started
        row["compute_seconds"] = max(begin - self._loaded - own, 0.0)
        waiting = {}
        for name, loss in losses.items():
            if loss.is_cpu:
                row[name] = loss.item()
            else:  # read later, not to wait for the device in every step
                waiting[name] = loss.detach()
        self._pending.append((row, waiting))
        sampled = self._hooked or bool(self._updated)
        if sampled:
            self._complete(row)
            cost = own + time.perf_counter() - begin
            self._sample_seconds += cost
            self._pace.spend(cost)
        full = "memory_mb" in row or len(self._pending) >= _MOST_PENDING
        if full:
            self.flush()
        end = time.perf_counter()
        self._steps += 1
        self._run_seconds += end - self._started
        self._own_seconds += own + end - begin
        if full:
            self._plan()

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
        numbers = iter(_numbers([t for _, waiting in pending for t in waiting.values()]))
        written, seconds = 0, 0.0
        for row, waiting in pending:
            for name in waiting:
                row[name] = next(numbers)
            self._since_row += 1
            if self._since_row >= self._row_interval or "memory_mb" in row:
                begin = time.perf_counter()
                self._log(row)
                seconds += time.perf_counter() - begin
                written, self._since_row = written + 1, 0
            self.monitor.check(row)
            for monitor in self._monitors:
                monitor.check(row)
        if written:
            self._row_costs.append(seconds / written)

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
        self._pace.resume(step)

    def _complete(self, row: dict[str, Any]) -> None:
        """Add the sampled statistics: of the first optimiser by themselves, of several by name."""
        if self._hooked:
            self._activations.detach()
            row |= self._activations.take()
        by_name = {name: self._update_measures(name) for name in self._updated}
        if by_name:
            row |= by_name.get(self._first, {})
            row["layer_gradients"] = {}
        for name in by_name:
            row["layer_gradients"] |= self._statistics[name].layer_gradients()
        if by_name and len(self._statistics) > 1:
            row["optimizers"] = by_name
        if by_name or "layers" in row:
            row["memory_mb"] = peak_memory_mb()
            row["recorder_share"] = self.overhead

    def _update_measures(self, name: str) -> dict[str, float]:
        """Return what is logged of one optimiser's update."""
        statistics = self._statistics[name]
        tensors = statistics.after_update()
        norms = dict(zip(tensors, _numbers(list(tensors.values())), strict=True))
        measures = {"lr": statistics.learning_rate}
        if "gradient_norm" in norms:
            measures["gradient_norm"] = norms["gradient_norm"]
        update, weight = norms["update_norm"], norms["weight_norm"]
        measures["update_to_weight"] = update / weight if weight else math.nan
        snr = statistics.signal.ratio()
        if snr is not None:
            measures["gradient_snr"] = snr
        return measures

    def _plan(self) -> None:
        """Plan the next sample and the rows between, so that recording stays within its budget."""
        least = _LEAST_SHARE * self._budget
        step_seconds = self._run_seconds / self._steps
        now = self._run_seconds, self._own_seconds - self._sample_seconds
        run, base = now[0] - self._planned[0], now[1] - self._planned[1]
        self._base_shares.append(base / run)
        self._planned = now
        share = max(self._budget - median(self._base_shares), least)
        wait = self._pace.plan(share, confirm=self.monitor.suspicious)
        self.interval_steps = max(self._every_steps, wait / step_seconds)
        if self._steps > _MOST_PENDING and self._row_costs:
            ratio = median(self._row_costs) / (step_seconds * max(least, 1e-9))
            self._row_interval = max(1, math.ceil(min(ratio, 1e6)))


def peak_memory_mb() -> float:
    """Return the peak memory of this process (or of its GPU) in MB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _numbers(tensors: Sequence[Tensor]) -> list[float]:
    """The values of scalars; on an accelerator it is waited for once."""
    if not tensors or tensors[0].is_cpu:
        return [tensor.item() for tensor in tensors]
    return [float(v) for v in torch.stack([t.float().reshape(()) for t in tensors]).tolist()]
