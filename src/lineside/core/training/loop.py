"""One training loop around any step function, on Hugging Face accelerate.

A method says what one update is; the loop does the rest: checkpoints and exact resume, stop and
time limit, weight snapshots, the recorder and its warnings, validation, several processes::

    def step(update: Update) -> dict[str, Tensor]:
        (real,) = update.draw(batch_of)  # batch_of(rng) -> tuple of tensors
        loss = critic(real).mean()
        update.descend(loss, "critic")  # backward pass and step of one optimiser
        return {"loss": loss}

    training = Training(
        network=nn.ModuleDict({"critic": critic, "generator": generator}),
        optimizers={"critic": adam, "generator": another}, step=step, steps=1000, rng=rng,
    )
    train(training, Hooks(checkpoint=folder))

The step function of supervised training is `supervised_step`. A run that is killed at any moment
resumes from its last checkpoint and ends with bit-identical weights (same machine, same number of
threads).

Several processes (``torchrun --nproc-per-node 2 -m ...``): every process draws the same batch from
the same random stream and takes its share of the rows; gradients and losses are averaged, so that
the loss curve is that of one process. Process 0 alone logs, validates and writes.
"""

from __future__ import annotations

import atexit
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lineside.core.run.folder import Stopped
from lineside.core.training.checkpoint import (
    State,
    collect_training,
    job_of,
    load_checkpoint,
    restore_training,
    save_checkpoint,
)
from lineside.core.training.recorder import Recorder
from lineside.core.training.step_function import Losses, Update
from lineside.core.training.synchronised_batch_norm import synchronised_batch_norm
from lineside.core.training.warnings import Log, Monitor
from lineside.core.training.weight_snapshots import WeightSnapshots


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training is: updates done and planned, the last loss, seconds so far and left."""

    step: int
    total: int
    loss: float
    seconds: float
    seconds_left: float


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What a training reports to, what stops it, and its folders.

    Attributes:
        log: Receives the recorder's rows.
        progress: Called after every step.
        stop: Asked before every step; True ends the training resumably.
        checkpoint: Folder of the checkpoint; resumed if it holds one. None: no checkpoint.
        snapshots: Folder for the weights at log-spaced steps, see `weight_snapshots`.
    """

    log: Log = lambda row: None
    progress: Callable[[Progress], None] = lambda progress: None
    stop: Callable[[], bool] = lambda: False
    checkpoint: Path | None = None
    snapshots: Path | None = None


NO_HOOKS = Hooks()


@dataclass(frozen=True, kw_only=True)
class Training:
    """What to train and how; flat, built by the fit of each method.

    Attributes:
        network: Trained in place; several networks by name: an ``nn.ModuleDict``. State that is
            not trained (a target network, a memory) belongs here too, as modules and buffers.
        optimizers: By name.
        step: The step function: does one update of everything, see `Update`.
        steps: Number of steps.
        rng: Random stream of the batches; part of the checkpoint.
        schedulers: Learning-rate schedules, each stepped after every step.
        seed: Of torch's global stream (dropout); drawn from `rng` if None.
        validate: Measures on held-out data (``{"loss": ..., "ap": ...}``), or None.
        validate_every: Steps between validations; the last step is always validated.
        keep: Name of the measure whose highest value chooses the weights (ties: the later one),
            or None to keep the last weights.
        labels: Called once before the first step, to let the recorder check the labels.
        monitors: Make monitors of their own kind of fault, see `warnings.Monitor`.
        most_seconds: Time limit over all resumes, after which training is finished.
        checkpoint_every: Steps between checkpoints.
        settings: What else a checkpoint must agree with to be resumed, plain JSON.
    """

    network: nn.Module
    optimizers: Mapping[str, torch.optim.Optimizer]
    step: Callable[[Update], Losses]
    steps: int
    rng: np.random.Generator
    schedulers: Sequence[torch.optim.lr_scheduler.LRScheduler] = ()
    seed: int | None = None
    validate: Callable[[], Mapping[str, float]] | None = None
    validate_every: int = 100
    keep: str | None = None
    labels: Callable[[Recorder], object] | None = None
    monitors: Sequence[Callable[[Log], Monitor]] = ()
    most_seconds: float = math.inf
    checkpoint_every: int = 100
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The end of a training.

    Attributes:
        step: After which step the kept weights are.
        history: All validations.
        warnings: Of all monitors.
        seconds: Wall clock, over all resumes.
        cpu_seconds: Processor time of this process, summed over threads and resumes.
    """

    step: int
    history: list[dict[str, float]]
    warnings: list[dict[str, Any]]
    seconds: float
    cpu_seconds: float


def train(training: Training, hooks: Hooks = NO_HOOKS) -> Trained:
    """Train in place, with the recorder always on; the networks end in evaluation mode.

    Raises:
        Stopped: asked to stop; the checkpoint has been written.
        UserError: the checkpoint belongs to another training.
    """
    home = next(training.network.parameters()).device
    processes = Processes()
    training.network.to(processes.device)
    seed = int(training.rng.integers(2**62)) if training.seed is None else training.seed
    # Dropout draws from torch's global stream: it is seeded here and put back afterwards.
    with torch.random.fork_rng(devices=[]), processes.synchronised(training.network):
        torch.manual_seed(seed + processes.index)
        loop = _Loop(training, hooks if processes.main else NO_HOOKS, processes)
        loop.load()
        with loop.recorder:
            loop.run()
    training.network.load_state_dict(processes.from_main(loop.weights()))
    training.network.to(home).eval()
    trained: Trained = processes.from_main(loop.result())
    return trained


class Processes:
    """The processes that train together, one unless torchrun or accelerate started more."""

    def __init__(self) -> None:
        from accelerate import Accelerator, InitProcessGroupKwargs

        self._accelerator = Accelerator(
            cpu=not torch.cuda.is_available(), mixed_precision="no",
            # The others wait while process 0 works alone; torchrun ends them if it dies.
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=7))],
        )  # fmt: skip
        self.device = self._accelerator.device
        self.count, self.index = self._accelerator.num_processes, self._accelerator.process_index
        self.main = self.index == 0
        if self.count > 1:
            atexit.register(self._accelerator.end_training)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over processes."""
        mean: Tensor = self._accelerator.reduce(values, reduction="mean")
        return mean

    def average_gradients(self, weights: Sequence[Tensor]) -> None:
        """Replace gradients by their means: all of them flattened into one all-reduce."""
        gradients = [w.grad for w in weights if w.grad is not None]
        if self.count == 1 or not gradients:
            return
        flat = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        means = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view(gradient.shape))

    def synchronised(self, network: nn.Module) -> AbstractContextManager[None]:
        """Let batch norm see the whole batch, where several processes have a share of it each."""
        return synchronised_batch_norm(network) if self.count > 1 else nullcontext()

    def decide(self, number: int) -> int:
        """Return the number of process 0: a decision that all must take alike."""
        from accelerate.utils import broadcast

        if self.count == 1:
            return number
        return int(broadcast(torch.tensor(number, device=self.device)))

    def from_main(self, value: Any) -> Any:
        """Return the value of process 0."""
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0] if self.count > 1 else value

    def gather(self, tensor: Tensor) -> Tensor:
        """Return the tensors of all processes, shape (process, ...)."""
        stack: Tensor = self._accelerator.gather(tensor[None].to(self.device))
        return stack.cpu()


_GO, _STOP, _TIME_IS_UP = range(3)


class _Loop:
    """One call of `train`."""

    def __init__(self, training: Training, hooks: Hooks, processes: Processes) -> None:
        self._training, self._hooks, self._processes = training, hooks, processes
        self.recorder = Recorder(
            training.network, training.optimizers, hooks.log, steps=training.steps,
            monitors=[monitor(hooks.log) for monitor in training.monitors],
        )  # fmt: skip
        self._snapshots = (
            WeightSnapshots(hooks.snapshots, training.network, training.steps)
            if hooks.snapshots
            else None
        )
        self._state = State()
        self._begin, self._cpu_begin = time.perf_counter(), time.process_time()

    def run(self) -> None:
        """Do the steps that are left, with checkpoints between them."""
        training, state = self._training, self._state
        first, begin = state.step, time.perf_counter()
        self._save_snapshot()
        if training.labels and state.step == 0 and self._processes.main:
            training.labels(self.recorder)
        if state.step >= training.steps and not state.finished:  # a training of 0 steps
            self._finish()
        while not state.finished:
            decision = self._processes.decide(self._decision())
            if decision == _STOP:
                self._save()
                raise Stopped
            if decision == _TIME_IS_UP:
                self._finish()
                break
            loss = self._step()
            self._save_snapshot()
            last = state.step == training.steps
            if training.validate and (state.step % training.validate_every == 0 or last):
                self._validate()
            if last:
                self._finish()
            elif state.step % training.checkpoint_every == 0:
                self._save()
            seconds = time.perf_counter() - begin
            left = seconds / (state.step - first) * (training.steps - state.step)
            self._hooks.progress(
                Progress(
                    step=state.step, total=training.steps, loss=loss, seconds=seconds,
                    seconds_left=min(left, max(training.most_seconds - self._seconds(), 0.0)),
                )
            )  # fmt: skip

    def result(self) -> Trained:
        """Return what the caller is told."""
        state = self._state
        return Trained(
            step=state.best_step if state.best else state.step, history=state.history,
            warnings=self.recorder.warnings, seconds=state.seconds, cpu_seconds=state.cpu_seconds,
        )  # fmt: skip

    def weights(self) -> Mapping[str, Tensor]:
        """Return the best weights where a measure chooses them, else the last."""
        weights: Mapping[str, Tensor] = self._state.best or self._training.network.state_dict()
        return weights

    def load(self) -> None:
        """Continue from the checkpoint, if there is one; process 0 reads it for all."""
        training, folder = self._training, self._hooks.checkpoint
        stored = load_checkpoint(folder, job_of(training)) if folder is not None else None
        stored = self._processes.from_main(stored)
        if stored is not None:
            process = self._processes.index
            self._state = restore_training(training, self.recorder, stored, process)

    def _save(self) -> None:
        training, state = self._training, self._state
        streams = self._processes.gather(torch.get_rng_state())
        state.seconds, state.cpu_seconds = self._seconds(), self._cpu_seconds()
        self._begin, self._cpu_begin = time.perf_counter(), time.process_time()
        if self._hooks.checkpoint is not None:
            tensors, values = collect_training(training, state, self.recorder, streams)
            save_checkpoint(self._hooks.checkpoint, state.step, job_of(training), tensors, values)

    def _decision(self) -> int:
        if self._hooks.stop():
            return _STOP
        return _TIME_IS_UP if self._seconds() > self._training.most_seconds else _GO

    def _step(self) -> float:
        """Do one step and return its loss, NaN if it has none."""
        training = self._training
        self.recorder.start(self._state.step)
        training.network.train()
        update = Update(training, self.recorder, self._processes)
        losses = update.average(training.step(update))
        self.recorder.finish(losses)
        for scheduler in training.schedulers:
            scheduler.step()
        self._state.step += 1
        first = next(iter(losses.values()), None)  # an adversarial pair may have no "loss"
        loss = losses.get("loss", first)
        return math.nan if loss is None else float(loss.detach())

    def _validate(self) -> None:
        """Measure on held-out data and remember the weights if they are the best so far."""
        training, state = self._training, self._state
        if not self._processes.main or training.validate is None:
            return
        training.network.eval()
        measures = {name: float(value) for name, value in training.validate().items()}
        self.recorder.validation(state.step, measures)
        state.history.append({"step": state.step, **measures})
        if training.keep is not None and measures[training.keep] >= state.best_value:
            state.best_value, state.best_step = measures[training.keep], state.step
            state.best = {k: v.detach().clone() for k, v in training.network.state_dict().items()}

    def _finish(self) -> None:
        self._state.finished = True
        self.recorder.close(self._state.step)
        self._save()

    def _save_snapshot(self) -> None:
        if self._snapshots:
            self._snapshots.save(self._state.step, self._training.network)

    def _seconds(self) -> float:
        return self._state.seconds + time.perf_counter() - self._begin

    def _cpu_seconds(self) -> float:
        return self._state.cpu_seconds + time.process_time() - self._cpu_begin
