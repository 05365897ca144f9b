"""One fitted machine: feature layout, sensor norms, operating model, detectors and alarm rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lineside.core.run.codec import TRANSIENT, chosen_by, decode, encode
from lineside.machines.alarms.calibration import Calibration
from lineside.machines.alarms.logic import Rules
from lineside.machines.alarms.verdict import FIRST_DATED
from lineside.machines.methods import DETECTORS
from lineside.machines.models.detector import Detector, Rows
from lineside.machines.monitoring.operating_states import OperatingModel
from lineside.machines.signals.layout import Layout
from lineside.machines.signals.quality import Norms
from lineside.machines.training.baseline import LearningEntry

FALLBACK = "trend"
"""Method of the branch for speeds and loads outside of the trained range."""


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A detector on some of the features, and the calibration of its scores.

    Attributes:
        method: Name of its detector.
        detector: Fitted on healthy rows of these columns.
        columns: Indices of its features.
        calibration: From held-out healthy rows; None before it was calibrated.
    """

    method: str
    detector: Detector = field(metadata=chosen_by(lambda fields: DETECTORS[fields.method].detector))
    columns: tuple[int, ...]
    calibration: Calibration | None = field(default=None, metadata=TRANSIENT)

    def select(self, rows: Rows) -> Rows:
        """Return its features: (snapshot, feature) -> (snapshot, column)."""
        return np.ascontiguousarray(rows[:, list(self.columns)])

    @property
    def ceiling(self) -> float | None:
        """Largest possible score, None without a bound."""
        bound = getattr(self.detector, "ceiling", None)
        return None if bound is None else float(bound)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One fitted machine; immutable, plain JSON and tensors.

    Attributes:
        name: Name of the machine.
        layout: Names and columns of its features.
        norms: Healthy levels of its sensors.
        operating_model: Trained speeds and loads, and their effect on the features.
        main: Judges snapshots at trained speeds and loads.
        fallback: Judges snapshots at others, None if there is no feature for it.
        rules: The alarm logic.
        reference: Features of the healthy snapshots that were fitted, shape (snapshot, feature).
        reference_times: Their times in seconds.
        gap_seconds: A longer pause is a restart.
        warm_up: Snapshots after a restart that are not judged.
        learning_record: What was learned when, oldest first; the last entry is this baseline.
    """

    name: str
    layout: Layout
    norms: Norms
    operating_model: OperatingModel
    main: Branch
    fallback: Branch | None
    rules: Rules
    reference: Rows
    reference_times: tuple[float, ...]
    gap_seconds: float
    warm_up: int = 3
    learning_record: tuple[LearningEntry, ...] = ()

    def was_trained_on(self, time: float) -> bool:
        """Return whether a time lies in the training period, run-in included.

        Histories without dates each begin at 0, so that their times cannot be compared.
        """
        span = self.training_span
        return span is not None and time >= FIRST_DATED and span[0] <= time <= span[1]

    @property
    def training_span(self) -> tuple[float, float] | None:
        """Seconds of the first and the last snapshot of this training, run-in included."""
        if not self.learning_record:
            return None
        return self.learning_record[-1].started, self.learning_record[-1].last

    def operating(self) -> dict[str, Any]:
        """Return the calibrations as plain JSON."""
        return {
            name: None
            if branch is None or branch.calibration is None
            else encode(branch.calibration)[0]
            for name, branch in (("main", self.main), ("fallback", self.fallback))
        }

    def with_calibration(self, block: Mapping[str, Any]) -> Machine:
        """Return the machine with stored calibrations."""
        changed: dict[str, Any] = {}
        for name, branch in (("main", self.main), ("fallback", self.fallback)):
            stored = block.get(name)
            if branch is not None:
                point = None if stored is None else decode(Calibration, stored, {})
                changed[name] = dataclasses.replace(branch, calibration=point)
        return dataclasses.replace(self, **changed)
