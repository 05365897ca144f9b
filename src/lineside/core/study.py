"""What a finished training run found: everything that its report and model cards are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lineside.core.contract import Application, Check, Estimate, Outcome, Refusal, Split

if TYPE_CHECKING:
    from lineside.core.run.folder import Run


@dataclass(frozen=True, kw_only=True)
class MethodStudy:
    """What one method did on the common split.

    Attributes:
        name: Name of the method.
        kind: ``deep``, ``classical`` or ``trivial``.
        model: The fitted and calibrated model.
        fit_seconds: Wall time of the fit, features included.
        outcomes: Outcomes by role (``calibration``, ``test``).
        estimates: Test estimates by metric name.
        differences: Paired differences to the chosen method (this minus chosen), by metric name.
        help: One line that says what the method is.
    """

    name: str
    kind: str
    model: Any
    fit_seconds: float
    outcomes: Mapping[str, Sequence[Outcome]]
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    differences: Mapping[str, Estimate] = field(default_factory=dict)
    help: str = ""


@dataclass(frozen=True, kw_only=True)
class MethodFailure:
    """A method that could not be fitted, calibrated or judged; the others are studied without it.

    Attributes:
        name: Name of the method.
        kind: ``deep``, ``classical`` or ``trivial``.
        reason: What went wrong, in one line.
        help: One line that says what the method is.
    """

    name: str
    kind: str
    reason: str
    help: str = ""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A finished training run, everything that its report is made of.

    `methods` holds those that can be used, `failures` the rest.
    """

    application: Application
    run: Run
    data: Path
    config: Any
    split: Split
    checks: Sequence[Check]
    methods: Sequence[MethodStudy]
    chosen: str
    refusals: Sequence[Refusal] = ()
    failures: Sequence[MethodFailure] = ()

    @property
    def best(self) -> MethodStudy:
        """The chosen method's study (chosen beforehand, not by its test result)."""
        return next(method for method in self.methods if method.name == self.chosen)
