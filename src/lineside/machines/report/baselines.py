"""Simple detectors with the inputs of a deep one: is it the depth, or what it looks at?

A deep detector may win because it sees sub-bands where the simple ones see compact features, or a
window of successive snapshots where they see one. Here simple detectors get exactly that: the same
columns, and for a sequence model the rows of its window laid side by side. They are fitted on the
same healthy snapshots, calibrated and judged by the same sessions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lineside.core.contract import Split
from lineside.core.errors import UserError
from lineside.core.run.folder import rng_of
from lineside.machines.config import Config
from lineside.machines.data import load_measurements
from lineside.machines.data.items import Snapshot
from lineside.machines.methods import DETECTORS
from lineside.machines.model import MachinesModel
from lineside.machines.models.detector import Detector, Rows
from lineside.machines.models.machine import Branch, Machine
from lineside.machines.models.scaling import Floats
from lineside.machines.outcomes import calibrate, outcomes
from lineside.machines.report.method_choice import Record, decide, make_record

if TYPE_CHECKING:
    from lineside.core.study import Study

RIVALS = ("pca", "mahalanobis", "gmm", "knn")


@dataclass(frozen=True, kw_only=True)
class Stacked:
    """A detector on windows of successive rows, laid side by side.

    Attributes:
        detector: Fitted on windows, oldest row first.
        history: Rows of a window before the judged one.
    """

    detector: Detector
    history: int

    @property
    def ceiling(self) -> float | None:
        """Largest score that there is, None without a bound."""
        found: float | None = getattr(self.detector, "ceiling", None)
        return found

    def score(self, rows: Rows) -> Floats:
        """Return the score of every row that has its history, shape (snapshot - history,)."""
        return self.detector.score(windows(rows, self.history))

    def contributions(self, rows: Rows) -> Floats:
        """Return each feature's share, over all rows of the last window."""
        shares = self.detector.contributions(windows(rows[-self.history - 1 :], self.history))
        return np.asarray(shares.reshape(self.history + 1, -1).sum(axis=0))


def windows(rows: Rows, history: int) -> Rows:
    """Return windows of successive rows, shape (snapshot - history, (history + 1) * feature)."""
    count = len(rows) - history
    return np.concatenate([rows[i : i + count] for i in range(history + 1)], axis=1)


def baseline_records(study: Study, machine: str, found: Sequence[Record]) -> list[Record]:
    """Return the records of simple detectors with the inputs of a deep one that won on a machine.

    Args:
        study: The finished run.
        machine: The machine to look at.
        found: What `worth.records` returned; nothing is tried where no deep detector won.
    """
    made = decide(found)
    if made.choice != "deep":
        return []
    winner = next(method for method in study.methods if method.name == made.use.method)
    return fit_same_inputs(winner.model, machine, study.split, study.config)


def fit_same_inputs(
    model: MachinesModel,
    machine: str,
    split: Split,
    config: Config,
    names: Sequence[str] = RIVALS,
) -> list[Record]:
    """Return the records of simple detectors with the inputs of a fitted one, best first.

    Args:
        model: The fitted and calibrated deep model.
        machine: The machine to look at.
        split: What it was fitted, calibrated and tested on.
        config: Seed and budget.
        names: Which simple detectors.
    """
    learned = model.machines[machine]
    branch = learned.main
    history = branch.detector.history
    rows = windows(branch.select(_fitted_rows(learned, split.train)), history)
    what = f"windows of {history + 1} snapshots" if history else "features"
    found = []
    for name in names:
        rng = rng_of(config.seed, f"rival {name} {machine}")
        try:
            fitted = DETECTORS[name].fit(rows, rng=rng)
            rival = Branch(
                method=name,
                detector=Stacked(detector=fitted, history=history),
                columns=branch.columns,
            )
            own = dataclasses.replace(learned, main=rival)
            found.append(_record(f"{name} on the same {what}", own, split, config))
        except UserError:
            continue  # too few windows: no rival, and none is told of
    return sorted(found, key=lambda record: record.order)


def _fitted_rows(machine: Machine, train: Sequence[Snapshot]) -> Rows:
    """Rows that the machine was fitted on, without what speed and load explain."""
    known = dict(zip(machine.reference_times, machine.reference, strict=True))
    own = [s for s in train if s.machine == machine.name and s.time in known]
    measurements, _ = load_measurements(own)
    rows = [machine.operating_model.compensate(m, known[m.time]) for m in measurements]
    return np.stack(rows).astype(np.float32)


def _record(name: str, machine: Machine, split: Split, config: Config) -> Record:
    model = MachinesModel(method=name, machines={machine.name: machine})
    held = [s for s in split.calibration if s.machine == machine.name]
    tested = [s for s in split.test if s.machine == machine.name]
    model = calibrate(model, list(outcomes(model, held)), config)
    return make_record(name, "classical", list(outcomes(model, tested)))
