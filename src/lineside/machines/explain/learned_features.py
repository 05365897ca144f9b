"""What an autoencoder learned of a machine: error by feature over the training, codes, prototypes.

The unexplained share of feature j is mean (x_j - x'_j)^2 / variance of x_j over snapshots: 0 where
the network draws the feature exactly, 1 where it draws no more than its mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lineside.core.report.figures import Onlooker
from lineside.core.training.weight_snapshots import log_spaced
from lineside.machines.data.measurement import Measurement
from lineside.machines.models.detector import Floats, Rows
from lineside.machines.models.machine import Machine
from lineside.machines.models.reconstruction import Reconstruction
from lineside.machines.signals.layout import Layout

STEPS = 10
"""Steps of the training at which errors are measured."""
MOST_WATCHED, MOST_WINDOWS = 64, 200
"""Windows whose error is measured in the training, and snapshots of a map; spread over time."""
PROTOTYPES = 3
LEAST_IN_CLUSTER = 5
ROUNDS = 20


@dataclass(frozen=True, kw_only=True)
class LearnedFeatures:
    """What one network learned of one machine; F features, S snapshots, P prototypes.

    Attributes:
        machine: Its name.
        layout: Names and units of features.
        names: Of the network's features, shape (F,).
        steps: Updates after which errors were measured.
        unexplained: Shape (step, F), NaN where a feature is constant; see the module docstring.
        unexplained_later: The same of held-out snapshots at the end, shape (F,); all NaN if there
            are too few.
        codes: Two principal components of the latent codes, shape (S, 2).
        shown: Share of the codes' variance in the two.
        times: Seconds, shape (S,).
        speeds_hz: Shape (S,), NaN where unknown.
        loads: Shape (S,), NaN where unknown.
        fitted: Whether the network was fitted to a snapshot, shape (S,).
        prototypes: What is drawn for the centres of clusters of codes, as features, shape (P, F).
        members: Cluster of each snapshot, shape (S,).
        mean: Mean features of the fitted snapshots, shape (F,).
        spread: Their standard deviation, shape (F,).
    """

    machine: str
    layout: Layout
    names: tuple[str, ...]
    steps: tuple[int, ...]
    unexplained: Floats
    unexplained_later: Floats
    codes: Floats
    shown: float
    times: Floats
    speeds_hz: Floats
    loads: Floats
    fitted: NDArray[np.bool_]
    prototypes: Floats
    members: NDArray[np.int64]
    mean: Floats
    spread: Floats


class TrainingOnlooker(Onlooker):
    """Looks at the training of one machine's network, and at the network when it is fitted."""

    def __init__(self) -> None:
        super().__init__()
        self.learned: LearnedFeatures | None = None
        self._unexplained: dict[int, Floats] = {}
        self._steps: frozenset[int] = frozenset()

    def watch(self, done: int, planned: int, network: nn.Module, windows: Tensor) -> None:
        """Measure the error of each feature, at log-spaced steps."""
        self._steps = self._steps or frozenset(log_spaced(planned, STEPS))
        if self.failure or done not in self._steps:
            return
        with self.looking():
            training = network.training
            some = windows[torch.from_numpy(evenly(len(windows), MOST_WATCHED))]
            self._unexplained[done] = unexplained(network.eval(), some)
            network.train(training)

    def finish(
        self,
        machine: Machine,
        rows: Rows,
        later: Rows,
        times: Sequence[float],
        measurements: Sequence[Measurement],
    ) -> None:
        """Look at the fitted network.

        Args:
            machine: Fitted.
            rows: What it was fitted to, shape (snapshot, feature of the layout).
            later: The same of held-out snapshots.
            times: Of both.
            measurements: Those of these times, and maybe others.
        """
        detector = machine.main.detector
        if self.failure or not isinstance(detector, Reconstruction):
            return
        with self.looking():
            both = machine.main.select(np.vstack([rows, later]))
            at = {measurement.time: measurement for measurement in measurements}
            facts = [at[time] for time in times]
            self.learned = _look(
                machine, detector, both, len(rows), facts, dict(sorted(self._unexplained.items()))
            )


def unexplained(network: nn.Module, windows: Tensor) -> Floats:
    """Return the unexplained share of each feature of the last rows, shape (feature,)."""
    with torch.inference_mode():
        error = (network(windows) - windows[:, -1]).double().square().mean(0).numpy()
    variance = windows[:, -1].double().var(0, correction=0).numpy()
    changes = variance > 1e-9
    return np.where(changes, error / np.where(changes, variance, 1.0), np.nan)


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """Return at most `most` indices below `count`, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _look(
    machine: Machine,
    detector: Reconstruction,
    rows: Rows,
    fitted: int,
    facts: Sequence[Measurement],
    errors: Mapping[int, Floats],
) -> LearnedFeatures:
    """Return what the network learned; rows are the fitted ones, then the held-out ones."""
    length = detector.history + 1
    scaled = torch.from_numpy(detector.scaled(rows).astype(np.float32))
    windows = scaled.unfold(0, length, 1).transpose(1, 2)  # (S - length + 1, length, F)
    usable = np.flatnonzero(torch.isfinite(windows).all(2).all(1).numpy())
    chosen = usable[evenly(len(usable), MOST_WINDOWS)]
    windows, last = windows[torch.from_numpy(chosen)].contiguous(), chosen + detector.history
    network = cast(Any, detector.network)
    with torch.inference_mode():
        latent = network.latent(windows).double().numpy()
        codes, shown = _two_axes(latent)
        members, centres = _clusters(latent, codes[:, 0])
        drawn = network.decode(torch.from_numpy(centres).float()).double().numpy()
    known = last < fitted
    later = windows[torch.from_numpy(~known)]
    enough = len(later) >= 2 * LEAST_IN_CLUSTER
    nothing = np.full(windows.shape[2], np.nan)
    columns = list(range(rows.shape[1])) if detector.columns is None else list(detector.columns)
    own = rows[:fitted, columns].astype(np.float64)
    return LearnedFeatures(
        machine=machine.name, layout=machine.layout,
        names=tuple(machine.layout.names[machine.main.columns[c]] for c in columns),
        steps=tuple(errors), unexplained=np.array(list(errors.values())),
        unexplained_later=unexplained(detector.network, later) if enough else nothing,
        codes=codes, shown=shown, times=np.array([facts[i].time for i in last]),
        speeds_hz=np.array([facts[i].speed_hz for i in last], dtype=np.float64),
        loads=np.array([facts[i].load for i in last], dtype=np.float64),
        fitted=known, prototypes=detector.scaling.undo(drawn), members=members,
        mean=own.mean(0), spread=own.std(0),
    )  # fmt: skip


def _two_axes(codes: Floats) -> tuple[Floats, float]:
    """Return two principal components of codes (S, Z), shape (S, 2), and their share of variance.

    A component points to where its largest value is, so that a map is the same on every machine.
    """
    left, size, _ = np.linalg.svd(codes - codes.mean(0), full_matrices=False)
    axes = np.zeros((len(codes), 2))
    axes[:, : min(2, len(size))] = (left * size)[:, :2]
    axes *= np.sign(axes[np.abs(axes).argmax(0), [0, 1]] + 1e-300)
    total = float(np.square(size).sum())
    return axes, float(np.square(size[:2]).sum() / total) if total > 0 else 0.0


def _clusters(codes: Floats, axis: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Return the cluster of each code (S, Z) and the centres (P, Z), the earliest cluster first.

    k-means from the thirds along an axis (S,): no random numbers. Equal codes are one cluster.
    """
    count = int(np.clip(len(codes) // LEAST_IN_CLUSTER, 1, PROTOTYPES))
    thirds = np.array_split(np.argsort(axis, kind="stable"), count)
    centres = np.stack([codes[third].mean(0) for third in thirds])
    for _ in range(ROUNDS):
        members = np.square(codes[:, None] - centres).sum(2).argmin(1)  # (S, P, Z) -> (S,)
        names = list(dict.fromkeys(members.tolist()))
        centres = np.stack([codes[members == name].mean(0) for name in names])
    return np.array([names.index(name) for name in members.tolist()]), centres
