"""The deep detectors: networks that learn to give healthy rows back; novelty is what they miss.

Sizes, 50 epochs and batches of 20 rows follow Stadelmann et al., "Beyond ImageNet", 2019,
section 5; sizes that it does not publish are our choice and stand as keyword defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lineside.core.errors import UserError
from lineside.core.run.codec import built_by
from lineside.core.training.loop import Training, train
from lineside.machines.models.detector import Rows
from lineside.machines.models.networks import (
    DenseAutoencoder,
    LstmAutoencoder,
    MelAutoencoder,
    VariationalAutoencoder,
)
from lineside.machines.models.scaling import Floats, Scaling, ScalingKind, fit_scaling, shares

Log = Callable[[dict[str, Any]], None]
TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """How a network is fitted, and who is told.

    Attributes:
        epochs: Times that every row is seen.
        batch: Rows (or windows) per update.
        learning_rate: Of Adam.
        scaling: Of the rows.
        stop: Ends the training resumably when it answers True.
        checkpoint: Folder for exact resuming, or None.
    """

    epochs: int = 50
    batch: int = 20
    learning_rate: float = 1e-3
    scaling: ScalingKind = "standard"
    stop: Callable[[], bool] = field(default=lambda: False)
    checkpoint: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """A fitted network with its scaling.

    Attributes:
        kind: Which network, see `build_network`.
        sizes: Its numbers.
        scaling: Of the rows, chosen columns only.
        network: In evaluation mode.
        columns: Which features it sees, None for all.
        total: Features of a row.
        history: Rows that it sees before the judged one.
    """

    kind: str
    sizes: Mapping[str, Any]
    scaling: Scaling
    network: nn.Module = field(
        metadata=built_by(lambda own: build_network(own.kind, own.sizes, seed=0))
    )
    columns: tuple[int, ...] | None
    total: int
    history: int = 0

    def _residual(self, window: Floats) -> Floats:
        seen = torch.from_numpy(np.ascontiguousarray(window, dtype=np.float32))[None]
        with torch.inference_mode():
            out = self.network(seen)[0].numpy().astype(np.float64)
        return window[-1] - out

    def _scaled(self, rows: Rows) -> Floats:
        return self.scaling(rows if self.columns is None else rows[:, list(self.columns)])

    def score(self, rows: Rows) -> Floats:
        """Return the mean squared residual of every row that has its history."""
        scaled, length = self._scaled(rows), self.history + 1
        return np.array(
            [
                np.square(self._residual(scaled[i : i + length])).mean() + TINY
                for i in range(len(scaled) - self.history)
            ],
            dtype=np.float64,
        )

    def contributions(self, rows: Rows) -> Floats:
        """Return shares of the squared residual of the last row."""
        scaled = self._scaled(rows[-self.history - 1 :])
        parts = shares(np.square(self._residual(scaled)))
        if self.columns is None:
            return parts
        whole = np.zeros(self.total)
        whole[list(self.columns)] = parts
        return whole


def build_network(kind: str, sizes: Mapping[str, Any], seed: int) -> nn.Module:
    """Return an untrained network; the same seed gives the same weights."""
    builders: dict[str, Callable[..., nn.Module]] = {
        "dense": DenseAutoencoder,
        "vae": VariationalAutoencoder,
        "lstm": LstmAutoencoder,
        "mel": MelAutoencoder,
    }
    if kind not in builders:
        raise UserError(f"unknown network {kind!r}", f"networks are {', '.join(builders)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return builders[kind](**sizes)


def squared_error(network: nn.Module, window: Tensor) -> Tensor:
    """Return the mean squared residual of the last rows of windows."""
    error: Tensor = network(window) - window[:, -1]
    return error.square().mean()


def fit_reconstruction(
    kind: str,
    sizes: dict[str, Any],
    rows: Rows,
    rng: np.random.Generator,
    log: Log,
    fitting: Fitting,
    *,
    loss: Callable[[nn.Module, Tensor], Tensor] = squared_error,
    window: int = 1,
    columns: tuple[int, ...] | None = None,
) -> Reconstruction:
    """Scale healthy rows, cut them into windows, train a network, and wrap it.

    Args:
        kind: See `build_network`.
        sizes: Its numbers.
        rows: Shape (snapshot, feature), in order of time.
        rng: Random stream.
        log: Receives the recorder's rows.
        fitting: See `Fitting`.
        loss: Takes the network and windows, shape (batch, row, feature), to a loss.
        window: Rows of a window.
        columns: Which features the network sees, None for all.
    """
    seen = rows if columns is None else rows[:, list(columns)]
    scaling = fit_scaling(seen, fitting.scaling)
    scaled = torch.from_numpy(scaling(seen).astype(np.float32))
    windows = scaled.unfold(0, window, 1).transpose(1, 2).contiguous()
    weights_rng, batches_rng = rng.spawn(2)
    network = build_network(kind, sizes, seed=int(weights_rng.integers(2**31)))
    per_epoch = -(-len(windows) // fitting.batch)
    training = Training(
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), lr=fitting.learning_rate),
        draw=_epochs(windows, fitting.batch),
        loss=lambda model, batch: loss(model, batch[0]),
        steps=fitting.epochs * per_epoch,
        rng=batches_rng,
        clip_norm=5.0,
    )
    train(training, log=log, stop=fitting.stop, checkpoint=fitting.checkpoint)
    return Reconstruction(
        kind=kind, sizes=sizes, scaling=scaling, network=network.eval(), columns=columns,
        total=rows.shape[1], history=window - 1,
    )  # fmt: skip


def _epochs(windows: Tensor, batch: int) -> Callable[[np.random.Generator], tuple[Tensor, ...]]:
    """Draw batches afresh: an order over an epoch would be state beside the random stream."""

    def draw(rng: np.random.Generator) -> tuple[Tensor, ...]:
        size = min(batch, len(windows))
        return (windows[torch.from_numpy(rng.choice(len(windows), size=size, replace=False))],)

    return draw
