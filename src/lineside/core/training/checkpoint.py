"""Checkpoints of a training: atomic, exact, without pickle.

A checkpoint is one safetensors file and ``state.json``, which names it and is renamed into
place last: a process killed at any moment leaves the previous checkpoint or the new one. The seal
of ``state.json`` covers the hash of the tensors: what was cut or edited is not resumed.
`collect_training` and `restore_training` say what belongs in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor

from lineside.core.errors import UserError
from lineside.core.run.files import read_json, sha256, write_bytes
from lineside.core.run.seal import check_seal, write_sealed

if TYPE_CHECKING:
    from lineside.core.training.loop import Training
    from lineside.core.training.recorder import Recorder

_FORMAT = 3

Stored = tuple[int, dict[str, Tensor], Any]
"""Step, tensors by name, everything else as plain JSON."""


@dataclass
class State:
    """How far a training is.

    Attributes:
        step: Steps done.
        finished: All steps are done, or the time was up.
        seconds: Wall clock over all resumes, up to the last checkpoint.
        cpu_seconds: Processor time, likewise.
        history: Validations.
        best_step: Step of the best validation, -1 before the first.
        best_value: Its measure.
        best: Its weights; empty unless a measure chooses the weights.
    """

    step: int = 0
    finished: bool = False
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best_step: int = -1
    best_value: float = -math.inf
    best: dict[str, Tensor] = field(default_factory=dict)


def collect_training(
    training: Training, state: State, recorder: Recorder, torch_streams: Tensor
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the plain values from which a training continues exactly.

    Args:
        training: Networks, optimisers, schedules and random stream.
        state: How far it is.
        recorder: Its warnings.
        torch_streams: State of torch's random stream, shape (process, bytes).
    """
    tensors = {f"network.{k}": v for k, v in training.network.state_dict().items()}
    tensors |= {f"best.{k}": v for k, v in state.best.items()}
    for name, optimizer in training.optimizers.items():
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{name}.{index}.{k}": v for k, v in moments.items()}
    tensors["torch_rng"] = torch_streams
    values = {
        **{name: value for name, value in vars(state).items() if name != "best"},
        "rng": training.rng.bit_generator.state,
        "param_groups": {n: o.state_dict()["param_groups"] for n, o in training.optimizers.items()},
        "schedulers": [_numbers(scheduler) for scheduler in training.schedulers],
        "recorder": recorder.state(),
    }
    return tensors, values


def restore_training(
    training: Training, recorder: Recorder, stored: Stored, process: int = 0
) -> State:
    """Put back what `collect_training` returned.

    Args:
        training: Gets networks, optimisers, schedules and random stream.
        recorder: Gets its warnings.
        stored: From `load_checkpoint`.
        process: Which of the torch streams is continued.
    """
    step, tensors, values = stored
    training.network.load_state_dict(under(tensors, "network."))
    for name, optimizer in training.optimizers.items():
        groups = values["param_groups"][name]
        restore_optimizer(optimizer, under(tensors, f"optimizer.{name}."), groups)
    for scheduler, numbers in zip(training.schedulers, values["schedulers"], strict=True):
        scheduler.load_state_dict(numbers)
    training.rng.bit_generator.state = values["rng"]
    if process < len(tensors["torch_rng"]):  # else there are more processes than before
        torch.set_rng_state(tensors["torch_rng"][process].clone())
    recorder.restore(values["recorder"], step)
    stored_state = {name: values[name] for name in vars(State()) if name in values}
    if stored_state["best_value"] is None:  # JSON has no infinity
        stored_state["best_value"] = -math.inf
    return State(**stored_state, best=under(tensors, "best."))


def job_of(training: Training) -> dict[str, Any]:
    """Return what must agree between a checkpoint and the training that resumes it."""
    shapes = {k: list(v.shape) for k, v in training.network.state_dict().items()}
    return {
        "steps": training.steps,
        "keep": training.keep,
        "optimizers": {name: type(o).__name__ for name, o in training.optimizers.items()},
        "network": sha256(repr(sorted(shapes.items())).encode()),
        **training.settings,
    }


def save_checkpoint(
    folder: Path, step: int, job: Mapping[str, Any], tensors: Mapping[str, Tensor], state: Any
) -> None:
    """Write a checkpoint and remove older ones.

    Args:
        folder: Its folder; made if needed.
        step: Steps done.
        job: What a training that resumes it must agree with, plain JSON.
        tensors: All tensors by name.
        state: Everything else, plain JSON; NaN and infinity become null.
    """
    content = safetensors.torch.save({k: _plain(v) for k, v in tensors.items()})
    name = f"step-{step}.safetensors"
    write_bytes(folder / name, content)
    write_sealed(
        folder / "state.json",
        {
            "format": _FORMAT,
            "job": dict(job),
            "step": step,
            "tensors": name,
            "tensors_sha256": sha256(content),
            "state": state,
        },
    )
    for old in folder.glob("step-*.safetensors"):
        if old.name != name:
            old.unlink()


def load_checkpoint(folder: Path, job: Mapping[str, Any]) -> Stored | None:
    """Return (step, tensors, state), or None if the folder holds no checkpoint.

    Raises:
        UserError: the checkpoint is of another job, damaged or altered.
    """
    if not (folder / "state.json").exists():
        return None
    path, hint = folder / "state.json", f"remove {folder} to train from the first step again"
    try:
        found = read_json(path)
    except UserError as error:
        raise UserError(error.message, hint) from error
    older = isinstance(found, dict) and found.get("format") != _FORMAT  # it has no seal
    saved = {} if older else check_seal(path, found, hint)
    if saved.get("job") != dict(job):
        raise UserError(
            f"the checkpoint in {folder} belongs to another training",
            "remove that folder, or repeat the command that started it",
        )
    try:
        stored = folder / saved["tensors"]
        content = stored.read_bytes() if stored.is_file() else b""
    except OSError:
        content = b""
    if sha256(content) != saved["tensors_sha256"]:
        raise UserError(f"the checkpoint in {folder} is damaged", hint)
    return saved["step"], safetensors.torch.load(content), saved["state"]


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    """Put back moments, named ``INDEX.NAME``, and numbers (learning rate, betas ...).

    Moments take the memory layout of the weight they belong to, so that the next update is
    computed by the same kernels as if there had been no interruption.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        weight = weights[int(index)]
        if value.shape == weight.shape:
            value = torch.empty_like(weight, dtype=value.dtype).copy_(value)
        state.setdefault(int(index), {})[name] = value
    # JSON has no tuples: values keep the type that the optimiser itself gave them.
    groups = [
        {k: tuple(v) if isinstance(current.get(k), tuple) else v for k, v in group.items()}
        for current, group in zip(optimizer.state_dict()["param_groups"], groups, strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose name begins with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _plain(tensor: Tensor) -> Tensor:
    """The tensor as safetensors takes it: on the CPU, contiguous, in memory of its own."""
    return tensor.detach().cpu().contiguous().clone()


def _numbers(scheduler: torch.optim.lr_scheduler.LRScheduler) -> dict[str, Any]:
    """The schedule's numbers; its functions are made again by the code."""
    plain = (int, float, str, bool, list, tuple, type(None))
    return {k: v for k, v in scheduler.state_dict().items() if isinstance(v, plain)}
