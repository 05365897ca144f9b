"""Findings of both kinds: printed sizes, and what the original work found, three seeds each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.parts import finding_recipes as parts_findings
from benchmarks.parts import tiles as tile
from benchmarks.parts.finding_sizes import finding_sizes
from benchmarks.results import Say, plain
from lineside.core.contract import Better, Estimate
from lineside.parts.models.patch_cnn.patch_cnn import Width

CROPS_PX = (32, 64, 128, 256)
WIDTHS: tuple[Width, ...] = ("eighth", "quarter", "half")
STEPS = 300
"""Equal for all networks; more steps did not help on held-out parts."""
Measured = dict[str, Any]


def findings(say: Say) -> None:
    """Printed sizes; does a quarter do as well as a half, which crop is best, and pretraining?"""
    finding_sizes(say)
    _sizes(say, "tile", "")
    for pretrained, name in ((True, "pretrained"), (False, "random")):
        found = _seeds(lambda seed, p=pretrained: parts_findings.lite_ap(p, seed, STEPS))
        say(f"{name}_validation_ap", _mean([run["validation_ap"] for run in found]))
        say(f"{name}_train_ap", _mean([run["train_ap"] for run in found]))
        gaps = [run["train_ap"] - run["validation_ap"] for run in found]
        say(f"{name}_gap", _mean(gaps, better="lower"))


def findings_demo(say: Say) -> None:
    """The same questions of width and crop size on the self-made catheters."""
    _sizes(say, "demo", "demo_")


def _sizes(say: Say, data: str, prefix: str) -> None:
    widths = {
        width: _seeds(lambda seed, w=width: parts_findings.vgg_width_ap(w, seed, STEPS, data))
        for width in WIDTHS
    }
    for width, found in widths.items():
        say(f"{prefix}vgg_{width}_ap", _mean([run["validation_ap"] for run in found]))
        say(f"{prefix}vgg_{width}_train_ap", _mean([run["train_ap"] for run in found]))
    pairs = zip(widths["quarter"], widths["half"], strict=True)
    differences = [q["validation_ap"] - h["validation_ap"] for q, h in pairs]
    say(f"{prefix}vgg_quarter_minus_half_ap", _mean(differences))
    for crop in CROPS_PX:
        found = _seeds(lambda seed, c=crop: parts_findings.crop_ap(c, seed, STEPS, data))
        say(f"{prefix}crop_ap_{crop}", _mean([run["validation_ap"] for run in found]))


def _seeds(run: Callable[[int], Measured]) -> list[Measured]:
    return [run(seed) for seed in tile.SEEDS]


def _mean(values: list[float], better: Better = "higher") -> Estimate:
    """Return the mean over seeds with its t interval (3 seeds: 4.30 standard errors)."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return plain(mean, "fraction", len(values), better, "one seed")
    error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    reach = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return Estimate(
        value=mean,
        low=max(mean - reach, -1.0),  # fractions, or differences of two
        high=min(mean + reach, 1.0),
        n=len(values),
        better=better,
        method="mean over seeds (other parts held out), t interval, 95 %",
    )
