"""What was learned of one machine: layout, sensors, operation, and calibrated branches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lineside.core.training.checkpoint import under
from lineside.machines.alarms import Calibration, Learned, Rules
from lineside.machines.detectors.detection import Detector, Rows
from lineside.machines.operation import Operation
from lineside.machines.recipes import RECIPES
from lineside.machines.signals import Layout, Norms
from lineside.machines.verdict import FIRST_DATED

FREE = "trend"
"""Detector of the branch that judges unlearned speeds and loads."""


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A detector on some of the features, with what its scores mean.

    Attributes:
        method: Name of its recipe.
        detector: Fitted on healthy rows of these columns.
        columns: Places of the features it looks at.
        calibration: From held-out healthy rows; None before it was calibrated.
    """

    method: str
    detector: Detector
    columns: tuple[int, ...]
    calibration: Calibration | None = None

    def of(self, rows: Rows) -> Rows:
        """Return the features it looks at, shape (snapshot, column)."""
        return np.ascontiguousarray(rows[:, list(self.columns)])

    @property
    def ceiling(self) -> float | None:
        """Largest score that there is, None without a bound."""
        bound = getattr(self.detector, "ceiling", None)
        return None if bound is None else float(bound)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One machine as it was learned; immutable, plain JSON and tensors.

    Attributes:
        name: The machine.
        layout: Names and places of its features.
        norms: What its sensors give while they are well.
        operation: Speeds, loads and levels that were learned.
        main: Judges snapshots at learned speeds and loads.
        free: Judges snapshots at others, None if there is no feature for it.
        rules: The alarm logic.
        reference: Rows of the healthy snapshots that were fitted, shape (snapshot, feature).
        reference_times: Their times in seconds.
        gap_seconds: A longer silence is a restart.
        settle: Snapshots after a restart that are not judged.
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
    settle: int = 3
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

    def spec(self) -> dict[str, Any]:
        """Return everything but arrays and calibrations as plain JSON."""
        return {
            "name": self.name,
            "layout": self.layout.spec(),
            "norms": self.norms.spec(),
            "operation": self.operation.spec(),
            "main": _branch_spec(self.main),
            "free": None if self.free is None else _branch_spec(self.free),
            "rules": self.rules.spec(),
            "reference_times": list(self.reference_times),
            "gap_seconds": self.gap_seconds,
            "settle": self.settle,
            "ledger": [row.spec() for row in self.ledger],
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return all arrays by name."""
        found = {f"main.{k}": v for k, v in self.main.detector.tensors().items()}
        if self.free is not None:
            found.update({f"free.{k}": v for k, v in self.free.detector.tensors().items()})
        for name, array in self.operation.arrays().items():
            found[f"operation.{name}"] = torch.from_numpy(np.ascontiguousarray(array))
        found["reference"] = torch.from_numpy(np.ascontiguousarray(self.reference))
        return found

    def operating(self) -> dict[str, Any]:
        """Return the calibrations as plain JSON."""
        return {
            name: None
            if branch is None or branch.calibration is None
            else branch.calibration.spec()
            for name, branch in (("main", self.main), ("free", self.free))
        }

    def with_operating(self, block: Mapping[str, Any]) -> Machine:
        """Return the machine with stored calibrations."""
        changed: dict[str, Any] = {}
        for name, branch in (("main", self.main), ("free", self.free)):
            stored = block.get(name)
            if branch is not None:
                point = None if stored is None else Calibration(**stored)
                changed[name] = dataclasses.replace(branch, calibration=point)
        return dataclasses.replace(self, **changed)


def load_machine(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Machine:
    """Rebuild a machine from `Machine.spec` and `Machine.tensors`."""
    operation = {k: v.numpy() for k, v in under(tensors, "operation.").items()}
    return Machine(
        name=spec["name"],
        layout=Layout.from_spec(spec["layout"]),
        norms=Norms.from_spec(spec["norms"]),
        operation=Operation.from_spec(spec["operation"], operation),
        main=_load_branch(spec["main"], under(tensors, "main.")),
        free=_load_branch(spec["free"], under(tensors, "free.")) if spec["free"] else None,
        rules=Rules.from_spec(spec["rules"]),
        reference=tensors["reference"].numpy(),
        reference_times=tuple(spec["reference_times"]),
        gap_seconds=spec["gap_seconds"],
        settle=spec["settle"],
        ledger=tuple(Learned.from_spec(row) for row in spec.get("ledger", ())),
    )


def _branch_spec(branch: Branch) -> dict[str, Any]:
    return {
        "method": branch.method,
        "columns": list(branch.columns),
        "detector": branch.detector.spec(),
    }


def _load_branch(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Branch:
    return Branch(
        method=spec["method"],
        columns=tuple(spec["columns"]),
        detector=RECIPES[spec["method"]].load(spec["detector"], tensors),
    )
