"""Checkpoints of any training loop: atomic, exact, without pickle.

A checkpoint is one safetensors file and ``state.json``, which names it and is renamed into
place last: a process killed at any moment leaves the previous checkpoint or the new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from lineside.core.errors import UserError
from lineside.core.run.files import read_json, sha256, write_bytes, write_json

_FORMAT = 1


def save_checkpoint(
    folder: Path, step: int, job: Mapping[str, Any], tensors: Mapping[str, Tensor], state: Any
) -> None:
    """Write a checkpoint and remove older ones.

    Args:
        folder: Where it lies; made if needed.
        step: Updates done.
        job: What a training that takes it up must agree with, plain JSON.
        tensors: All tensors by name.
        state: Everything else, plain JSON; NaN and infinity become null.
    """
    content = safetensors.torch.save({k: _plain(v) for k, v in tensors.items()})
    name = f"step-{step}.safetensors"
    write_bytes(folder / name, content)
    write_json(
        folder / "state.json",
        {
            "format": _FORMAT,
            "job": dict(job),
            "step": step,
            "tensors": name,
            "sha256": sha256(content),
            "state": state,
        },
    )
    for old in folder.glob("step-*.safetensors"):
        if old.name != name:
            old.unlink()


def load_checkpoint(
    folder: Path, job: Mapping[str, Any]
) -> tuple[int, dict[str, Tensor], Any] | None:
    """Return (step, tensors, state), or None if the folder holds no checkpoint.

    Raises:
        UserError: the checkpoint is of another job, or damaged.
    """
    if not (folder / "state.json").exists():
        return None
    saved = read_json(folder / "state.json")
    if saved.get("format") != _FORMAT or saved.get("job") != dict(job):
        raise UserError(
            f"the checkpoint in {folder} belongs to another training",
            "remove that folder, or repeat the command that began it",
        )
    try:
        content = (folder / saved["tensors"]).read_bytes()
    except OSError:
        content = b""
    if sha256(content) != saved["sha256"]:
        raise UserError(f"the checkpoint in {folder} is damaged", "remove that folder")
    return saved["step"], safetensors.torch.load(content), saved["state"]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's tensors, named ``INDEX.NAME``."""
    entries = optimizer.state_dict()["state"].items()
    return {f"{index}.{name}": v for index, state in entries for name, v in state.items()}


def optimizer_groups(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return the optimiser's numbers (learning rate, betas ...), plain JSON."""
    groups: list[dict[str, Any]] = optimizer.state_dict()["param_groups"]
    return groups


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    """Put back what `optimizer_tensors` and `optimizer_groups` returned.

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
    kept = [
        {k: tuple(v) if isinstance(mine.get(k), tuple) else v for k, v in group.items()}
        for mine, group in zip(optimizer_groups(optimizer), groups, strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": kept})


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose name begins with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _plain(tensor: Tensor) -> Tensor:
    """The tensor as safetensors takes it: on the CPU, contiguous, in memory of its own."""
    return tensor.detach().cpu().contiguous().clone()
