"""The learned model of one machine: feature layout, sensor norms, operation, two detectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lineside.core.run.codec import TRANSIENT, chosen_by, decode, encode
from lineside.machines.alarms import Calibration, Learned, Rules
from lineside.machines.alarms.verdict import FIRST_DATED
from lineside.machines.methods import DETECTORS
from lineside.machines.models.detector import Detector, Rows
from lineside.machines.monitoring.operating_states import Operation
from lineside.machines.signals import Layout, Norms

FREE = "trend"
"""Detector of the branch for speeds and loads outside of the learned ones."""


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
    """One learned machine; immutable, stored as plain JSON and tensors.

    Attributes:
        name: The machine.
        layout: Names and order of its features.
        norms: Usual level and rate of its sensors.
        operation: Learned speeds, loads and levels.
        main: For snapshots at learned speeds and loads.
        free: For snapshots at others, None if there is no feature for it.
        rules: The alarm logic.
        reference: Rows of the healthy snapshots that were fitted, shape (snapshot, feature).
        reference_times: Their times in seconds.
        gap_seconds: A longer silence is a restart.
        warm_up: Snapshots after a restart that are not judged.
        ledger: What was learned when, oldest first; the last row is this normal.
    """

    name: str
    layout: Layout
    norms: Norms
    operation: Operation
    main: Branch
    free: Branch | None
    rules: Rules
    reference: Rows
    reference_times: tuple[float, ...]
    gap_seconds: float
    warm_up: int = 3
    ledger: tuple[Learned, ...] = ()

    def learned_from(self, time: float) -> bool:
        """Return whether a snapshot of this date was learned from, or left out as the run-in.

        Undated histories begin at 0 each, so that their times tell nothing.
        """
        span = self.learned_span
        return span is not None and time >= FIRST_DATED and span[0] <= time <= span[1]

    @property
    def learned_span(self) -> tuple[float, float] | None:
        """Seconds of the first and the last snapshot behind this normal, run-in included."""
        if not self.ledger:
            return None
        row = self.ledger[-1]
        return row.first if row.began is None else row.began, row.last

    def operating(self) -> dict[str, Any]:
        """Return the calibrations as plain JSON."""
        return {
            name: None
            if branch is None or branch.calibration is None
            else encode(branch.calibration)[0]
            for name, branch in (("main", self.main), ("free", self.free))
        }

    def with_operating(self, block: Mapping[str, Any]) -> Machine:
        """Return the machine with stored calibrations."""
        changed: dict[str, Any] = {}
        for name, branch in (("main", self.main), ("free", self.free)):
            stored = block.get(name)
            if branch is not None:
                point = None if stored is None else decode(Calibration, stored, {})
                changed[name] = dataclasses.replace(branch, calibration=point)
        return dataclasses.replace(self, **changed)
