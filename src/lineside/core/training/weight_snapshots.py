"""Weights of a training at log-spaced steps, for the pictures that are drawn after the fit.

Storing them costs a training almost nothing; what they show (how saliency, embedding and
information changed while the network learned) is computed when the training is over.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from lineside.core.run.files import write_bytes

MOST = 25
MOST_BYTES = 200_000_000


def log_spaced(total: int, count: int) -> list[int]:
    """Return at most `count` whole numbers from 0 to `total`, evenly spaced in their logarithm.

    Example:
        >>> log_spaced(100, 5)
        [0, 1, 5, 22, 100]
    """
    between = np.geomspace(1, max(total, 1), count - 1).round() if count > 2 else np.zeros(0)
    return sorted({0, total, *between.astype(int).tolist()})


class Snapshots:
    """Keeps a network's weights in a folder, one file for each of its steps.

    Matrices and kernels are kept in half precision, vectors (biases, running statistics) in full.

    Args:
        folder: Where the files lie; made when the first is written.
        network: Whose weights are kept; a large network gets fewer steps, two at least.
        total_steps: Steps of the training; the untrained and the last weights are always kept.
    """

    def __init__(self, folder: Path, network: nn.Module, total_steps: int) -> None:
        size = sum(t.numel() * t.element_size() for t in _compact(network).values())
        count = int(np.clip(MOST_BYTES // max(size, 1), 2, MOST))
        self._folder = folder
        self._steps = frozenset(log_spaced(total_steps, count))

    def take(self, step: int, network: nn.Module) -> None:
        """Keep the weights after `step` updates, if it is one of the steps to keep."""
        if step in self._steps:
            content = safetensors.torch.save(_compact(network))
            write_bytes(self._folder / f"{step:09d}.safetensors", content)


def snapshots(folder: Path) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield (updates done, weights in single precision) in order of the steps."""
    for path in sorted(folder.glob("*.safetensors")):
        tensors = safetensors.torch.load_file(path)
        yield int(path.stem), {name: _single(tensor) for name, tensor in tensors.items()}


def forget(folder: Path) -> None:
    """Remove the snapshots of a folder, when everything was drawn from them."""
    shutil.rmtree(folder, ignore_errors=True)


def _compact(network: nn.Module) -> dict[str, Tensor]:
    return {
        name: (tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor)
        .detach().cpu().contiguous().clone()
        for name, tensor in network.state_dict().items()
    }  # fmt: skip


def _single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.float16 else tensor
