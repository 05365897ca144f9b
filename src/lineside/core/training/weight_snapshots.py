"""Weights of a network at log-spaced steps of its training, for figures drawn after the fit.

Storing them costs a training almost nothing; the figures (how saliency, embedding and mutual
information changed while the network learned) are computed when it is over.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from lineside.core.errors import UserError
from lineside.core.run.files import sha256, write_bytes

MAX_SNAPSHOTS = 25
MAX_BYTES = 200_000_000
DIGITS = 16
"""Of the hash in the name of a file."""


def log_spaced(total: int, count: int) -> list[int]:
    """Return at most `count` integers from 0 to `total`, evenly spaced in their logarithm.

    Example:
        >>> log_spaced(100, 5)
        [0, 1, 5, 22, 100]
    """
    between = np.geomspace(1, max(total, 1), count - 1).round() if count > 2 else np.zeros(0)
    return sorted({0, total, *between.astype(int).tolist()})


class WeightSnapshots:
    """Saves a network's weights to a folder, one file per snapshot.

    Matrices and kernels are saved in half precision, vectors (biases, running statistics) in full.

    Args:
        folder: Of the files; made when the first is written.
        network: Whose weights are saved; a large network gets fewer snapshots, at least two.
        total_steps: Steps of the training; the untrained and the last weights are always saved.
    """

    def __init__(self, folder: Path, network: nn.Module, total_steps: int) -> None:
        size = sum(t.numel() * t.element_size() for t in _compact(network).values())
        count = int(np.clip(MAX_BYTES // max(size, 1), 2, MAX_SNAPSHOTS))
        self._folder = folder
        self._steps = frozenset(log_spaced(total_steps, count))

    def save(self, step: int, network: nn.Module) -> None:
        """Save the weights after `step` updates, if a snapshot is due."""
        if step in self._steps:
            content = safetensors.torch.save(_compact(network))
            name = f"{step:09d}-{sha256(content)[:DIGITS]}.safetensors"
            write_bytes(self._folder / name, content)


def load_snapshots(folder: Path) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield (updates done, weights in single precision) in order of the steps.

    Raises:
        UserError: if one was altered.
    """
    for path in sorted(folder.glob("*.safetensors")):
        step, _, digest = path.stem.partition("-")
        content = path.read_bytes() if path.is_file() else b""
        if sha256(content)[:DIGITS] != digest:
            raise UserError(
                f"{path} was altered", "remove it: the figures are drawn without that step"
            )
        tensors = safetensors.torch.load(content)
        yield (
            int(step),
            {n: t.float() if t.dtype == torch.half else t for n, t in tensors.items()},
        )


def _compact(network: nn.Module) -> dict[str, Tensor]:
    return {
        name: (tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor)
        .detach().cpu().contiguous().clone()
        for name, tensor in network.state_dict().items()
    }  # fmt: skip
