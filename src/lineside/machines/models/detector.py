"""The interface of every detector: rows of features in, one novelty score per row out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
"""Features of snapshots in order of time, shape (snapshot, feature)."""
Floats = NDArray[np.float64]
Log = Callable[[dict[str, Any]], None]
"""Receives the recorder's rows of a fit."""
TINY = 1e-12
"""Keeps scores positive and divisors above zero."""


def no_log(row: dict[str, Any]) -> None:
    """Discard a row of the recorder: the default of every fit."""


class Detector(Protocol):
    """A fitted detector of one machine.

    It is made by ``fit_NAME(rows, *, rng, log, **constants)`` from rows of healthy snapshots, and
    calibrated elsewhere on rows that it was not fitted on. It scales its input by itself, keeps no
    state between calls, and gives the same score whether rows come one by one or all at once.
    """

    @property
    def history(self) -> int:
        """Rows before the scored one that it needs; 0 for all but sequence models."""
        ...

    def score(self, rows: Rows) -> Floats:
        """Return the novelty of every row that has its history, shape (snapshot - history,).

        Larger is more unusual. Scores are positive, on whatever scale; they may saturate.
        """
        ...

    def contributions(self, rows: Rows) -> Floats:
        """Return each feature's share of the last row's novelty, shape (feature,); sum 1."""
        ...
