"""Reconstruction detectors: a network reconstructs healthy rows; novelty is the squared error.

For the last row x of a window and its reconstruction x', both scaled, the score is the mean of
(x - x')^2 over the features; each feature's share of the sum is its contribution. 50 epochs and
batches of 20 rows follow Stadelmann et al., "Beyond ImageNet", 2019, section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lineside.core.run.codec import built_by
from lineside.core.training.loop import Hooks, Training, train
from lineside.core.training.step_function import supervised_step
from lineside.machines.models.detector import TINY, Floats, Log, Rows, no_log
from lineside.machines.models.networks import build_network
from lineside.machines.models.scaling import Scaling, ScalingKind, as_shares, fit_scaling

Watch = Callable[[int, int, nn.Module, Tensor], None]


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """Settings of the training of a network.

    Attributes:
        epochs: Passes over the rows.
        batch: Rows (or windows) per update.
        learning_rate: Of Adam.
        scaling: Of the rows.
        stop: Ends the training resumably when it returns True.
        watch: Looks at the training, before the first update and after each: gets the number of
            updates done and planned, the network and all windows (snapshot, row, feature), and
            leaves them as they are.
    """

    epochs: int = 50
    batch: int = 20
    learning_rate: float = 1e-3
    scaling: ScalingKind = "standard"
    stop: Callable[[], bool] = field(default=lambda: False)
    watch: Watch = field(default=lambda done, planned, network, windows: None)


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """A fitted network with its scaling.

    Attributes:
        kind: Of the network, see `build_network`.
        sizes: Its keyword arguments.
        scaling: Of the rows, chosen columns only.
        network: In evaluation mode.
        columns: Indices of its features, None for all.
        total: Features of a row.
        history: Rows of a window before the scored one.
    """

    kind: str
    sizes: Mapping[str, Any]
    scaling: Scaling
    network: nn.Module = field(
        metadata=built_by(lambda fields: build_network(fields.kind, fields.sizes, seed=0))
    )
    columns: tuple[int, ...] | None
    total: int
    history: int = 0

    def _residual(self, window: Floats) -> Floats:
        """Return x - x' of the last row: (row, feature) -> (feature,)."""
        # one window at a time, as a batch of 1: larger batches may round differently
        batch = torch.from_numpy(np.ascontiguousarray(window, dtype=np.float32))[None]
        with torch.inference_mode():
            out = self.network(batch)[0].numpy().astype(np.float64)
        return window[-1] - out

    def scaled(self, rows: Rows) -> Floats:
        """Return its features as the network takes them: (snapshot, feature) -> the same."""
        return self.scaling(rows if self.columns is None else rows[:, list(self.columns)])

    def score(self, rows: Rows) -> Floats:
        """Return the mean squared residual of every row that has its history."""
        scaled, length = self.scaled(rows), self.history + 1
        return np.array(
            [
                np.square(self._residual(scaled[i : i + length])).mean() + TINY
                for i in range(len(scaled) - self.history)
            ],
            dtype=np.float64,
        )

    def contributions(self, rows: Rows) -> Floats:
        """Return shares of the squared residual of the last row."""
        scaled = self.scaled(rows[-self.history - 1 :])
        parts = as_shares(np.square(self._residual(scaled)))
        if self.columns is None:
            return parts
        shares = np.zeros(self.total)
        shares[list(self.columns)] = parts
        return shares


def squared_error(network: nn.Module, window: Tensor) -> Tensor:
    """Return the mean squared residual of the last rows of windows."""
    error: Tensor = network(window) - window[:, -1]
    return error.square().mean()


def fit_reconstruction(
    kind: str,
    sizes: dict[str, Any],
    rows: Rows,
    *,
    rng: np.random.Generator,
    log: Log = no_log,
    fitting: Fitting | None = None,
    loss: Callable[[nn.Module, Tensor], Tensor] = squared_error,
    window: int = 1,
    columns: tuple[int, ...] | None = None,
) -> Reconstruction:
    """Scale healthy rows, cut them into windows, train a network, and wrap it.

    Args:
        kind: See `build_network`.
        sizes: Its keyword arguments.
        rows: Shape (snapshot, feature), in order of time.
        rng: Random stream.
        log: Receives the recorder's rows.
        fitting: See `Fitting`.
        loss: Takes the network and windows, shape (batch, row, feature), to a loss.
        window: Rows of a window.
        columns: Indices of the network's features, None for all.
    """
    fitting = fitting or Fitting()
    chosen = rows if columns is None else rows[:, list(columns)]
    scaling = fit_scaling(chosen, fitting.scaling)
    scaled = torch.from_numpy(scaling(chosen).astype(np.float32))
    # (snapshot, feature) -> overlapping windows (snapshot - window + 1, window, feature)
    windows = scaled.unfold(0, window, 1).transpose(1, 2).contiguous()
    weights_rng, batches_rng = rng.spawn(2)
    network = build_network(kind, sizes, seed=int(weights_rng.integers(2**31)))
    per_epoch = -(-len(windows) // fitting.batch)
    training = Training(
        network=network,
        optimizers={"adam": torch.optim.Adam(network.parameters(), lr=fitting.learning_rate)},
        step=supervised_step(
            _batch_sampler(windows, fitting.batch),
            lambda model, batch: loss(model, batch[0]),
            clip_norm=5.0,
        ),
        steps=fitting.epochs * per_epoch,
        rng=batches_rng,
    )

    def watch(done: int) -> None:
        fitting.watch(done, training.steps, network, windows)

    watch(0)
    hooks = Hooks(log=log, stop=fitting.stop, progress=lambda now: watch(now.step))
    train(training, hooks)
    return Reconstruction(
        kind=kind, sizes=sizes, scaling=scaling, network=network.eval(), columns=columns,
        total=rows.shape[1], history=window - 1,
    )  # fmt: skip


def _batch_sampler(
    windows: Tensor, batch: int
) -> Callable[[np.random.Generator], tuple[Tensor, ...]]:
    """Return a function that draws a batch without replacement.

    Batches are independent: a permutation of an epoch would be state beside the random stream.
    """

    def draw(rng: np.random.Generator) -> tuple[Tensor, ...]:
        size = min(batch, len(windows))
        return (windows[torch.from_numpy(rng.choice(len(windows), size=size, replace=False))],)

    return draw
