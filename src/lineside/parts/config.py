"""Settings of `parts` that a user decides; all other constants are keywords of their method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lineside.core.errors import UserError

METHOD_NAMES = (
    "detector",
    "memory",
    "patch_cnn",
    "texture",
    "gaussian",
    "pca",
    "golden_template",
    "brightness",
)
"""Methods that run by default."""
OPTIONAL_NAMES = ("anogan", "autoencoder", "patch_pca")
"""Methods that run on request: reconstruction takes minutes and seldom wins."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one run; flag, JSON key and Python argument are the same thing."""

    seed: int = 0
    """Seed of every random stream."""
    methods: tuple[str, ...] = METHOD_NAMES
    """Methods to run; the first one predicts. Also available: anogan, autoencoder, patch_pca."""
    view_rule: Literal["any", "every"] = "any"
    """A part is faulty if any of its views is, or only if every view is."""
    part_pattern: str = ""
    """Regular expression whose first group is the part in a file name, e.g. '(.*)_view'."""
    max_escape: float = 0.05
    """Guarantee: at most this share of the faulty parts escapes."""
    confidence: float = 0.95
    """Confidence of the guarantee."""
    review_budget: float = 0.05
    """Largest share of good parts that a person reviews."""
    prevalence: float = 0.005
    """Share of faulty parts in production, for costs and escapes per million."""
    cost_ratio: float = 100.0
    """Cost of one escaped faulty part, in units of the cost of one rejected good part."""
    review_cost: float = 0.2
    """Cost of a person who looks at one part, in the same units."""
    crop_px: Literal[32, 64, 128, 256] = 64
    """Side of the unscaled crops of the patch CNN, in pixels."""
    width: Literal["full", "half", "quarter", "eighth"] = "eighth"
    """Width of the patch CNN (VGG19)."""
    cnn_steps: int = 600
    """Training steps of the patch CNN."""
    px_per_mm: float = 0.0
    """Pixels per millimetre, to state sizes in mm; 0 if unknown."""
    ignore: str = ""
    """Mask of what must not count in any picture, e.g. a fixture: white is ignored. It has the
    shape of the pictures, and the model keeps it."""
    robustness: bool = True
    """Run the graded robustness suite on test parts."""
    insight: bool = True
    """Draw figures of what the networks learned, and how."""

    def __post_init__(self) -> None:
        for name in ("max_escape", "confidence", "review_budget", "prevalence"):
            value = getattr(self, name)
            if not 0.0 < value < 1.0:
                raise UserError(f"{name} is {value}", "it is a fraction between 0 and 1")
        known = (*METHOD_NAMES, *OPTIONAL_NAMES)
        unknown = [name for name in self.methods if name not in known]
        if unknown or not self.methods:
            raise UserError(
                f"unknown method {unknown[0]!r}" if unknown else "no method is given",
                f"methods are {', '.join(known)}",
            )
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}", "it is 0 or more")
        if len(set(self.methods)) < len(self.methods):
            raise UserError("a method is given twice", "give each once")
        if min(self.cnn_steps, self.cost_ratio, self.review_cost) <= 0 or self.px_per_mm < 0:
            raise UserError(
                "cnn_steps, cost_ratio and review_cost must be positive, px_per_mm not negative",
                "see --help",
            )
