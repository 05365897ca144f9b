"""Simple detectors with the inputs of a deep one: is the depth the reason, or the inputs?

A deep detector may be better because it gets sub-bands where the simple ones get compact features,
or a window of successive snapshots where they get one. Here simple detectors get exactly that: the
same columns, and for a sequence model the rows of its window side by side. They are fitted on the
same healthy snapshots, calibrated and judged by the same sessions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from lineside.core.contract import Split
from lineside.core.errors import UserError
from lineside.core.run.folder import rng_of
from lineside.core.study import Study
from lineside.machines.config import Config
from lineside.machines.data import load_measurements
from lineside.machines.data.items import Snapshot
from lineside.machines.methods import DETECTORS
from lineside.machines.model import MachinesModel
from lineside.machines.models.detector import Detector, Floats, Rows
from lineside.machines.models.machine import Branch, Machine
from lineside.machines.outcomes import calibrate, outcomes
from lineside.machines.report.method_choice import DetectorRecord, choose_detector, make_record

BASELINES = ("pca", "mahalanobis", "gmm", "knn")


@dataclass(frozen=True, kw_only=True)
class WindowDetector:
    """A detector on windows of successive rows, laid side by side.

    Attributes:
        detector: Fitted on windows, oldest row first.
        history: Rows of a window before the scored one.
    """

    detector: Detector
    history: int

    @property
    def ceiling(self) -> float | None:
        """Largest possible score, None without a bound."""
        return cast(float | None, getattr(self.detector, "ceiling", None))

    def score(self, rows: Rows) -> Floats:
        """Return the score of every row that has its history, shape (snapshot - history,)."""
        return self.detector.score(stack_windows(rows, self.history))

    def contributions(self, rows: Rows) -> Floats:
        """Return each feature's share, summed over the rows of the last window."""
        shares = self.detector.contributions(stack_windows(rows[-self.history - 1 :], self.history))
        # ((history + 1) * feature,) -> (history + 1, feature) -> (feature,)
        return np.asarray(shares.reshape(self.history + 1, -1).sum(axis=0))


def stack_windows(rows: Rows, history: int) -> Rows:
    """Return windows: (snapshot, feature) -> (snapshot - history, (history + 1) * feature)."""
    count = len(rows) - history
    return np.concatenate([rows[i : i + count] for i in range(history + 1)], axis=1)


def baseline_records(
    study: Study, machine: str, records: Sequence[DetectorRecord]
) -> list[DetectorRecord]:
    """Return the records of simple detectors with the inputs of the best deep one.

    Args:
        study: The finished run.
        machine: The machine.
        records: Of its detectors; nothing is fitted unless a deep one is clearly better.
    """
    chosen = choose_detector(records)
    if chosen.choice != "deep":
        return []
    deep = next(method for method in study.methods if method.name == chosen.use.method)
    return fit_baselines(deep.model, machine, study.split, study.config)


def fit_baselines(
    model: MachinesModel,
    machine: str,
    split: Split,
    config: Config,
    names: Sequence[str] = BASELINES,
) -> list[DetectorRecord]:
    """Return the records of simple detectors with the inputs of a fitted one, best first.

    Args:
        model: The fitted and calibrated deep model.
        machine: The machine.
        split: What the model was fitted, calibrated and tested on.
        config: Seed and budget.
        names: Simple detectors to fit.
    """
    learned = model.machines[machine]
    branch = learned.main
    history = branch.detector.history
    rows = stack_windows(branch.select(_fitted_rows(learned, split.train)), history)
    inputs = f"windows of {history + 1} snapshots" if history else "features"
    records = []
    for name in names:
        rng = rng_of(config.seed, f"rival {name} {machine}")
        try:
            detector = WindowDetector(detector=DETECTORS[name].fit(rows, rng=rng), history=history)
            baseline = Branch(method=name, detector=detector, columns=branch.columns)
            copy = dataclasses.replace(learned, main=baseline)
            records.append(_evaluate(f"{name} on the same {inputs}", copy, split, config))
        except UserError:
            continue  # too few windows for this detector
    return sorted(records, key=lambda record: record.order)


def _fitted_rows(machine: Machine, train: Sequence[Snapshot]) -> Rows:
    """Return the rows that the machine was fitted on, without the effect of speed and load."""
    reference = dict(zip(machine.reference_times, machine.reference, strict=True))
    snapshots = [s for s in train if s.machine == machine.name and s.time in reference]
    measurements, _ = load_measurements(snapshots)
    rows = [machine.operating_model.compensate(m, reference[m.time]) for m in measurements]
    return np.stack(rows).astype(np.float32)


def _evaluate(name: str, machine: Machine, split: Split, config: Config) -> DetectorRecord:
    """Calibrate and test a machine with a baseline."""
    model = MachinesModel(method=name, machines={machine.name: machine})
    held_out = [s for s in split.calibration if s.machine == machine.name]
    tested = [s for s in split.test if s.machine == machine.name]
    model = calibrate(model, list(outcomes(model, held_out)), config)
    return make_record(name, "classical", list(outcomes(model, tested)))
