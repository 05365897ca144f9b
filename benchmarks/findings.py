"""The original findings as published numbers: width, crop size, pretraining; three seeds each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import parts_findings, tile
from benchmarks.results import Say
from lineside.core.contract import Estimate

CROPS_PX = (32, 64, 128, 256)
Measured = dict[str, Any]


def findings(say: Say) -> None:
    """Does a quarter do as well as a half, which crop is best, does pretraining overfit?"""
    widths = {
        width: _seeds(lambda seed, w=width: parts_findings.vgg_width_ap(w, seed))
        for width in ("eighth", "quarter", "half")
    }
    for width, found in widths.items():
        say(f"vgg_{width}_ap", _mean([run["validation_ap"] for run in found]))
        say(f"vgg_{width}_train_ap", _mean([run["train_ap"] for run in found]))
    pairs = zip(widths["quarter"], widths["half"], strict=True)
    say(
        "vgg_quarter_minus_half_ap",
        _mean([q["validation_ap"] - h["validation_ap"] for q, h in pairs]),
    )
    for crop in CROPS_PX:
        found = _seeds(lambda seed, c=crop: parts_findings.crop_ap(c, seed))
        say(f"crop_ap_{crop}", _mean([run["validation_ap"] for run in found]))
    for pretrained, name in ((True, "pretrained"), (False, "random")):
        found = _seeds(lambda seed, p=pretrained: parts_findings.lite_ap(p, seed))
        say(f"{name}_validation_ap", _mean([run["validation_ap"] for run in found]))
        say(f"{name}_train_ap", _mean([run["train_ap"] for run in found]))
        gaps = [run["train_ap"] - run["validation_ap"] for run in found]
        say(f"{name}_gap", _mean(gaps, better="lower"))


def _seeds(run: Callable[[int], Measured]) -> list[Measured]:
    return [run(seed) for seed in tile.SEEDS]


def _mean(values: list[float], better: str = "higher") -> Estimate:
    """Return the mean over seeds with its t interval (3 seeds: 4.30 standard errors)."""
    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    return Estimate(
        value=mean, low=mean - 4.303 * error, high=mean + 4.303 * error, n=len(values),
        better=better, method="mean over seeds (other parts held out), t interval, 95 %",  # type: ignore[arg-type]
    )  # fmt: skip
