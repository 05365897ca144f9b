"""The supervised training loop of every deep method, on Hugging Face accelerate.

accelerate prepares the network and the optimiser (CPU, one GPU, or several processes under
``torchrun``) and runs the backward pass. Checkpoints are our own (`checkpoint.py`):
a run killed at any moment goes on from its last checkpoint and ends with bit-identical weights
(same machine, same number of threads).
"""

from __future__ import annotations

import atexit
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from lineside.core.run.files import sha256
from lineside.core.run.folder import Stopped
from lineside.core.training.checkpoint import (
    load_checkpoint,
    optimizer_groups,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    under,
)
from lineside.core.training.recorder import Recorder
from lineside.core.training.weight_snapshots import Snapshots

Batch = tuple[Tensor, ...]
"""The tensors that one update is computed from; several processes draw one batch each."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training is: updates done and planned, the last loss, seconds so far and left."""

    step: int
    total: int
    loss: float
    seconds: float
    seconds_left: float


@dataclass(frozen=True, kw_only=True)
class Training:
    """What to train and how; flat, built by the fit of each method.

    Attributes:
        network: The module; it is trained in place.
        optimizer: Over the network's parameters.
        scheduler: Learning-rate schedule stepped after every update, or None.
        draw: Makes the batch of one step from the training's random stream.
        loss: Takes the network and a batch to the loss, or to named losses with ``"loss"``.
        steps: Number of updates.
        rng: Random stream of the batches (and the seed of dropout); part of the checkpoint.
        clip_norm: Largest gradient norm, or None.
        validate: Measures on held-out data (``{"loss": ..., "ap": ...}``), or None.
        validate_every: Updates between validations; the last step is always validated.
        labels: Called once before the first update, to let the recorder judge the labels.
        keep: Name of the measure whose highest value chooses the weights (ties: the later one),
            or None to keep the last weights.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    draw: Callable[[np.random.Generator], Batch]
    loss: Callable[[nn.Module, Batch], Tensor | Mapping[str, Tensor]]
    steps: int
    rng: np.random.Generator
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
    clip_norm: float | None = None
    validate: Callable[[], Mapping[str, float]] | None = None
    validate_every: int = 100
    labels: Callable[[Recorder], object] | None = None
    keep: str | None = None


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The end of a training: the step whose weights were kept, and all validations."""

    step: int
    history: list[dict[str, float]] = field(default_factory=list)
    warnings: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class _State:
    """What changes while training, beside the tensors."""

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_step: int = -1
    best_value: float = -math.inf
    best: dict[str, Tensor] = field(default_factory=dict)


def train(
    training: Training,
    *,
    log: Callable[[dict[str, Any]], None] = lambda row: None,
    progress: Callable[[Progress], None] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
    checkpoint: Path | None = None,
    checkpoint_every: int = 100,
    snapshots: Path | None = None,
) -> Trained:
    """Train a network in place, with the recorder always on.

    Args:
        training: The network, its data, loss and optimiser.
        log: Receives the recorder's rows.
        progress: Called after every update.
        stop: Asked before every update; True ends the training resumably.
        checkpoint: Folder of the checkpoint; taken up again if it holds one. None: no checkpoint.
        checkpoint_every: Updates between checkpoints.
        snapshots: Folder for the weights at log-spaced steps, see `weight_snapshots`.

    Returns:
        The kept step, the validations and the recorder's warnings.

    Raises:
        Stopped: `stop` answered True; the checkpoint has been written.
        UserError: the checkpoint belongs to another training.
    """
    home = next(training.network.parameters()).device
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    if accelerator.num_processes > 1:
        atexit.register(accelerator.end_training)
    recorder = Recorder(
        training.network,
        training.optimizer,
        log if accelerator.is_main_process else lambda row: None,
    )
    keep = (
        Snapshots(snapshots, training.network, training.steps).take
        if snapshots is not None and accelerator.is_main_process
        else lambda step, network: None
    )
    # Dropout draws from torch's global stream: it gets a seed of its own and is put back after.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(training.rng.integers(2**62)))
        state = _run(
            training, accelerator, recorder, progress, stop, checkpoint, checkpoint_every, keep
        )
    recorder.flush()
    if training.keep is not None and state.best:
        training.network.load_state_dict(state.best)
    training.network.to(home).eval()
    kept = state.best_step if training.keep is not None and state.best else state.step
    return Trained(step=kept, history=state.history, warnings=recorder.health.warnings)


def _run(
    training: Training,
    accelerator: Accelerator,
    recorder: Recorder,
    progress: Callable[[Progress], None],
    stop: Callable[[], bool],
    checkpoint: Path | None,
    checkpoint_every: int,
    keep: Callable[[int, nn.Module], None],
) -> _State:
    """Do the updates that are left, with checkpoints between them."""
    model, optimizer = accelerator.prepare(training.network, training.optimizer)
    state = _load(training, recorder, checkpoint)
    keep(state.step, training.network)
    if training.labels is not None and state.step == 0:
        training.labels(recorder)
    first, begin = state.step, time.perf_counter()
    while state.step < training.steps:
        if stop():
            _save(training, recorder, state, checkpoint, accelerator)
            raise Stopped
        loss = _update(training, accelerator, recorder, model, optimizer, state.step)
        state.step += 1
        keep(state.step, training.network)
        last = state.step == training.steps
        if training.validate and (state.step % training.validate_every == 0 or last):
            _validate(training, recorder, state)
        if state.step % checkpoint_every == 0 or last:
            _save(training, recorder, state, checkpoint, accelerator)
        seconds = time.perf_counter() - begin
        left = seconds / (state.step - first) * (training.steps - state.step)
        progress(
            Progress(
                step=state.step,
                total=training.steps,
                loss=loss,
                seconds=seconds,
                seconds_left=left,
            )
        )
    return state


def _update(
    training: Training,
    accelerator: Accelerator,
    recorder: Recorder,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> float:
    """Do one update and return its loss."""
    recorder.start(step)
    batch = _draw(training, accelerator)
    recorder.loaded()
    model.train()
    value = training.loss(model, batch)
    losses = value if isinstance(value, Mapping) else {"loss": value}
    optimizer.zero_grad(set_to_none=True)
    accelerator.backward(losses["loss"])
    if training.clip_norm is not None:
        accelerator.clip_grad_norm_(model.parameters(), training.clip_norm)
    recorder.before_update()
    optimizer.step()
    recorder.finish(losses)
    if training.scheduler is not None:
        training.scheduler.step()
    return float(losses["loss"].detach())


def _draw(training: Training, accelerator: Accelerator) -> Batch:
    """This process's batch on its device.

    Every process draws the batches of all, so that they share one random stream.
    """
    batches = [training.draw(training.rng) for _ in range(accelerator.num_processes)]
    own = batches[accelerator.process_index]
    return tuple(part.to(accelerator.device, non_blocking=True) for part in own)


def _validate(training: Training, recorder: Recorder, state: _State) -> None:
    """Measure on held-out data and remember the weights if they are the best so far."""
    assert training.validate is not None
    training.network.eval()
    measures = {name: float(value) for name, value in training.validate().items()}
    recorder.validation(state.step, measures)
    state.history.append({"step": state.step, **measures})
    if training.keep is not None and measures[training.keep] >= state.best_value:
        state.best_value, state.best_step = measures[training.keep], state.step
        state.best = {k: v.detach().clone() for k, v in training.network.state_dict().items()}


def _save(
    training: Training,
    recorder: Recorder,
    state: _State,
    folder: Path | None,
    accelerator: Accelerator,
) -> None:
    """Write all that `_load` needs to go on exactly here."""
    if folder is None or not accelerator.is_main_process:
        return
    optimizer = optimizer_tensors(training.optimizer)
    tensors = {f"network.{k}": v for k, v in training.network.state_dict().items()}
    tensors.update({f"best.{k}": v for k, v in state.best.items()})
    tensors.update({f"optimizer.{k}": v for k, v in optimizer.items()})
    tensors["torch_rng"] = torch.get_rng_state()
    values = {
        "history": state.history,
        "best_step": state.best_step,
        "best_value": state.best_value,
        "rng": training.rng.bit_generator.state,
        "param_groups": optimizer_groups(training.optimizer),
        "scheduler": _schedule(training),
        "recorder": recorder.state(),
    }
    save_checkpoint(folder, state.step, _job(training), tensors, values)


def _load(training: Training, recorder: Recorder, folder: Path | None) -> _State:
    """Put back everything that `_save` kept; without a checkpoint start afresh."""
    found = load_checkpoint(folder, _job(training)) if folder is not None else None
    if found is None:
        return _State()
    step, tensors, saved = found
    training.network.load_state_dict(under(tensors, "network."))
    restore_optimizer(training.optimizer, under(tensors, "optimizer."), saved["param_groups"])
    if training.scheduler is not None:
        training.scheduler.load_state_dict(saved["scheduler"])
    training.rng.bit_generator.state = saved["rng"]
    torch.set_rng_state(tensors["torch_rng"])
    recorder.restore(saved["recorder"], step)
    value = saved["best_value"]
    return _State(
        step=step,
        history=saved["history"],
        best_step=saved["best_step"],
        best_value=-math.inf if value is None else value,
        best=under(tensors, "best."),
    )


def _job(training: Training) -> dict[str, Any]:
    """What must agree between a checkpoint and the training that takes it up."""
    shapes = {k: list(v.shape) for k, v in training.network.state_dict().items()}
    return {
        "steps": training.steps,
        "keep": training.keep,
        "optimizer": type(training.optimizer).__name__,
        "network": sha256(repr(sorted(shapes.items())).encode()),
    }


def _schedule(training: Training) -> dict[str, Any] | None:
    """The schedule's numbers; its functions are made again by the code."""
    if training.scheduler is None:
        return None
    plain = (int, float, str, bool, list, tuple, type(None))
    return {k: v for k, v in training.scheduler.state_dict().items() if isinstance(v, plain)}
