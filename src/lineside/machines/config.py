"""Settings of `machines` that a user decides; all other constants are keywords of their method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lineside.core.errors import UserError

METHOD_NAMES = (
    "pca",
    "trend",
    "mahalanobis",
    "gmm",
    "knn",
    "ocsvm",
    "iforest",
    "fc_ae",
    "denoising_ae",
    "vae",
    "lstm_ae",
    "conv_ae",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one run; flag, JSON key and Python argument are the same thing."""

    seed: int = 0
    """Seed of every random stream."""
    methods: tuple[str, ...] = METHOD_NAMES
    """Detectors to run; the first one predicts."""
    preset: Literal["default", "beyond-imagenet"] = "default"
    """Constants of the detectors: our own, or those of the study of 2019, which fitted 200
    snapshots (``--learn 300``: two thirds are fitted)."""
    learn: int = 200
    """Number of snapshots, the earliest ones of each machine, that its baseline is learned from."""
    run_in_hours: float = 0.0
    """Hours at the beginning of each history that are left out of the training."""
    budget: float = 0.1
    """Acceptable false alarm episodes per machine-month."""
    robustness: bool = True
    """Run the robustness suite on the test snapshots."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in METHOD_NAMES]
        if unknown or not self.methods:
            raise UserError(
                f"unknown method {unknown[0]!r}" if unknown else "no method is given",
                f"methods are {', '.join(METHOD_NAMES)}",
            )
        if len(set(self.methods)) < len(self.methods):
            raise UserError("a method is given twice", "give each once")
        if self.learn < 30:
            raise UserError(f"learn is {self.learn}", "at least 30 snapshots are needed")
        if self.budget <= 0 or self.run_in_hours < 0 or self.seed < 0:
            raise UserError(
                "budget must be positive, run_in_hours and seed not negative", "see --help"
            )
