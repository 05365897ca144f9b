"""Settings of `scores` that a user decides; all other constants are keywords of their method."""

from __future__ import annotations

from dataclasses import dataclass

from lineside.core.errors import UserError

METHOD_NAMES = ("watershed", "run_length", "blobs")
"""Methods that run by default."""
OPTIONAL_NAMES = ("centre_points",)
"""Methods that run on request."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one run; flag, JSON key and Python argument are the same thing."""

    seed: int = 0
    """Seed of every random stream."""
    methods: tuple[str, ...] = METHOD_NAMES
    """Methods to run; the first one predicts. Also available: centre_points."""
    steps: int = 2000
    """Training steps of the deep detectors."""
    max_miss: float = 0.05
    """Of each class at most this share of the symbols is missed, as far as that can be had."""
    insight: bool = True
    """Draw figures of what the networks learned, and how."""

    def __post_init__(self) -> None:
        known = (*METHOD_NAMES, *OPTIONAL_NAMES)
        unknown = [name for name in self.methods if name not in known]
        if unknown or not self.methods:
            raise UserError(
                f"unknown method {unknown[0]!r}" if unknown else "no method is given",
                f"methods are {', '.join(known)}",
            )
        if len(set(self.methods)) < len(self.methods):
            raise UserError("a method is given twice", "give each once")
        if self.steps <= 0 or self.seed < 0:
            raise UserError("steps must be positive, seed not negative", "see --help")
        if not 0.0 < self.max_miss < 1.0:
            raise UserError(f"max_miss is {self.max_miss}", "it is a fraction between 0 and 1")
