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
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import median
from time import perf_counter
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

_CALLS = 2.0
"""What the four calls of a step cost that is not sampled, relative to `finish` without its end."""
_Step = tuple[
    int, float | None, tuple[float, float, float], dict[str, float], dict[str, Any] | None
]
"""A step before it is a row; see `_row`. It is made on every step, hence as little as possible."""


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
        self._lead = optimizers[self._first]
        self._due: set[str] = set()  # optimisers that are still to be measured
        self._updated: tuple[str, ...] = ()  # those that were measured in this step
        self._log = log
        self._budget = budget
        self._every_steps = every_steps
        self._pace = Pace(every_steps, None if steps is None else steps - 1)
        self._pending: list[_Step] = []
        self._unread: list[tuple[dict[str, float], str, Tensor]] = []  # losses on a device
        self._on_cpu = False  # whether all losses of the last sample were
        self._step = 0
        self._lr: float | None = None  # of this step, if the first optimiser has updated
        self._hooked = False  # in this step
        self._row_interval, self._since_row = 1, 0
        # Of the last flushes: seconds of a written row; share of the time beside samples.
        self._row_costs, self._base_shares = deque[float](maxlen=9), deque[float](maxlen=9)
        self._step_costs = deque[float](maxlen=9)  # of steps that were not sampled
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
        self._started = self._loaded = perf_counter()
        self._step, self._lr, self._updated = step, None, ()
        pace = self._pace
        if self._hooked or self._run_seconds >= pace.next_seconds or step in pace.last_steps:
            self._observe()

    def loaded(self) -> None:
        """Mark that the batch is loaded; what follows is compute."""
        self._loaded = perf_counter()

    def before_update(self, name: str | None = None) -> None:
        """Measure gradients, between the backward pass and the optimiser's step.

        If an optimiser updates several times in a step (a critic), the first gradient is taken.

        Args:
            name: Which optimiser; may be left out if there is one.
        """
        if name is None or name == self._first:
            self._lr = float(self._lead.param_groups[0]["lr"])
        if self._due:
            self._measure_gradients(self._first if name is None else name)

    def finish(self, losses: Mapping[str, Tensor]) -> None:
        """End a step with its losses by name, none if it has none.

        The one called ``"loss"``, if any, is expected to be minimised; see `TrainingMonitor` for
        when it has diverged. Others (those of an adversarial pair) only have to stay finite.

        Raises:
            UserError: if a loss has the name of something that the recorder measures itself.
        """
        begin = perf_counter()
        values: dict[str, float] = {}
        for name, loss in losses.items():
            if self._on_cpu or loss.is_cpu:
                values[name] = loss.item()
            else:  # read later, not to wait for the device in every step
                values[name] = math.nan
                self._unread.append((values, name, loss.detach()))
        measured = self._complete(losses, begin) if self._hooked or self._updated else None
        times = self._started, self._loaded, begin
        self._pending.append((self._step, self._lr, times, values, measured))
        self._run_seconds += begin - self._started
        if measured is not None or len(self._pending) >= _MOST_PENDING:
            self._end_block(begin, measured)

    def validation(self, step: int, measures: Mapping[str, float]) -> None:
        """Record measures on held-out data after `step` updates; ``"loss"`` is monitored."""
        self.flush()
        row = {"step": step, **{f"validation_{k}": float(v) for k, v in measures.items()}}
        self._log(row)
        self.monitor.validation(step, measures)

    def labels(self, noise: LabelNoise) -> None:
        """Warn of label noise, estimated before the training on fixed features of its items."""
        self.monitor.labels(self._step, noise)

    def flush(self) -> None:
        """Write pending rows; the only place that waits for the device."""
        pending, self._pending = self._pending, []
        unread, self._unread = self._unread, []
        numbers = _numbers([loss for *_, loss in unread])
        for (values, name, _), number in zip(unread, numbers, strict=True):
            values[name] = number
        written, seconds = 0, 0.0
        for step in pending:
            row = _row(*step)
            self._since_row += 1
            if self._since_row >= self._row_interval or "memory_mb" in row:
                begin = perf_counter()
                self._log(row)
                seconds += perf_counter() - begin
                written, self._since_row = written + 1, 0
            self.monitor.check(row)
            for monitor in self._monitors:
                monitor.check(row)
        self._steps += len(pending)
        if self._step_costs:
            self._own_seconds += len(pending) * median(self._step_costs)
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

    def _observe(self) -> None:
        """Hang hooks on what is to be measured: by a sample that begins, or left by the last."""
        self._own = 0.0
        if self._hooked:
            self._activations.detach()  # the last step was not finished
        if self._pace.due(self._step, self._run_seconds):
            self._pace.begin(self._step, self._run_seconds)
            self._activations.expect()
            self._due = set(self._statistics)
        self._hooked = self._activations.attach()
        if self._hooked:
            self._own = perf_counter() - self._started

    def _measure_gradients(self, name: str) -> None:
        if name not in self._due:
            return
        begin = perf_counter()
        self._statistics[name].before_update()
        self._updated = (*self._updated, name)
        self._due.discard(name)
        self._own += perf_counter() - begin

    def _complete(self, losses: Mapping[str, Tensor], begin: float) -> dict[str, Any]:
        """Return what was measured: of the first optimiser by itself, of several by name."""
        measured: dict[str, Any] = {}
        if self._hooked:
            self._activations.detach()
            measured |= self._activations.take()
            self._own += self._activations.seconds
        _check_names(losses)
        measured["compute_seconds"] = max(begin - self._loaded - self._own, 0.0)
        by_name = {name: self._update_measures(name) for name in self._updated}
        if by_name:
            measured |= by_name.get(self._first, {})
            measured["layer_gradients"] = {}
        for name in by_name:
            measured["layer_gradients"] |= self._statistics[name].layer_gradients()
        if by_name and len(self._statistics) > 1:
            measured["optimizers"] = by_name
        if by_name or "layers" in measured:
            measured["memory_mb"] = peak_memory_mb()
            measured["recorder_share"] = self.overhead
        self._on_cpu = bool(losses) and all(loss.is_cpu for loss in losses.values())
        cost = self._own + perf_counter() - begin
        self._own_seconds += cost
        self._sample_seconds += cost
        self._pace.spend(cost)
        self._own = 0.0
        return measured

    def _end_block(self, begin: float, measured: Mapping[str, Any] | None) -> None:
        """Write the pending rows, account for the time, and plan on."""
        end = perf_counter()
        if measured is None:
            self._step_costs.append(_CALLS * (end - begin))
        if len(self._pending) >= _MOST_PENDING or (measured and "memory_mb" in measured):
            start = end
            self.flush()
            end = perf_counter()
            self._own_seconds += end - start
        self._run_seconds += end - begin
        if not self._pending:
            self._plan()

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


def _row(
    step: int, lr: float | None, times: tuple[float, float, float], losses: dict[str, float],
    measured: dict[str, Any] | None,
) -> dict[str, Any]:  # fmt: skip
    """Return the row of a step; times are those of its start, of the batch, and of its end."""
    _check_names(losses)
    started, loaded, ended = times
    row: dict[str, Any] = {"step": step}
    if lr is not None:
        row["lr"] = lr
    row["data_seconds"], row["compute_seconds"] = loaded - started, ended - loaded
    row |= losses
    return row | measured if measured else row


def _check_names(losses: Mapping[str, Any]) -> None:
    if not MEASURED.isdisjoint(losses):
        raise UserError(
            f"losses {sorted(losses)}: a name is taken by the recorder", "rename that loss"
        )


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
