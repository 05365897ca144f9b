"""What every detector of `machines` takes and gives: rows of features in, novelty out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    pass

Rows = NDArray[np.float32]
"""Features of snapshots in order of time, shape (snapshot, feature)."""


class Detector(Protocol):
    """A fitted detector of one machine.

    It is made by ``fit_NAME(rows, *, rng, log, **constants)`` from rows of healthy snapshots, and
    calibrated elsewhere on rows that it was not fitted on. It scales its input by itself, keeps no
    state between calls, and gives the same score whether rows come one by one or all at once.
    """

    @property
    def history(self) -> int:
        """How many rows before the judged one it looks at; 0 for all but sequence models."""
        ...

    def score(self, rows: Rows) -> NDArray[np.float64]:
        """Return the novelty of every row that has its history, shape (snapshot - history,).

        Larger is more unusual. Scores are positive, on whatever scale; they may saturate.
        """
        ...

    def contributions(self, rows: Rows) -> NDArray[np.float64]:
        """Return each feature's share of the last row's novelty, shape (feature,); sum 1."""
        ...
