"""The picture of `figure`: novelty over time of all detectors, and before the defect."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from PIL import Image

from benchmarks.machines.histories import HELD_OUT, ONSET, Floats
from benchmarks.machines.traces import (
    CLASSICAL,
    DEAD,
    DEEP,
    FACTOR,
    LATER_ONSET,
    PROTOCOLS,
    SIMPLE,
    Protocol,
    readings,
    seeds_of,
    trace_of,
)
from benchmarks.results import ROOT

PICTURE = ROOT / "docs" / "figures" / "machines_novelty.png"
TITLES = {
    "in_sample": "in-sample: rows 0-199 are fitted and say what is normal",
    "held_out": "held out: rows 0-133 are fitted, 134-199 say what is normal",
}
COLOURS = {
    "rms": "#111111", "kurtosis": "#8a8a8a",
    "ocsvm": "#9ecae1", "gmm": "#4f9bd0", "pca_maha": "#2166ac", "pca_auto": "#08306b",
    "fc_ae": "#fdae6b", "lstm_ae": "#d64550", "denoising_ae": "#e0752d", "vae": "#a63603",
}  # fmt: skip
LOWEST, HIGHEST = 0.3, 1e6
RED = "#c01020"


def draw_novelty(path: Path = PICTURE) -> Path:
    """Draw the figure and return where it lies."""
    rc: dict[Any, Any] = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(rc):
        canvas = Canvas(figsize=(13, 4.4), layout="constrained", dpi=100)
        grid = canvas.add_gridspec(1, 3, width_ratios=(1.0, 1.0, 0.6))
        axes = [canvas.add_subplot(grid[0, place]) for place in range(3)]
        for place, protocol in enumerate(PROTOCOLS):
            _over_time(axes[place], protocol)
        axes[0].set_ylabel("(score − median) / MAD, smoothed")
        _before(axes[2])
        handles, labels = axes[0].get_legend_handles_labels()
        canvas.legend(
            handles, labels, loc="outside lower center", ncols=10, frameon=False,
            title="RMS and kurtosis; classical (blue); deep (dashed, median of five seeds)",
        )  # fmt: skip
        stream = io.BytesIO()
        canvas.savefig(stream, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(stream).convert("RGB").quantize(96).save(path, optimize=True)
    return path


def _over_time(axes: Axes, protocol: Protocol) -> None:
    for name in (*SIMPLE, *CLASSICAL, *DEEP):
        axes.semilogy(
            np.arange(DEAD), _line(name, protocol), "--" if name in DEEP else "-", label=name,
            color=COLOURS[name], linewidth=1.8 if name == "rms" else 1.0,
        )  # fmt: skip
    for row, words in ((ONSET, "defect, row"), (LATER_ONSET, "other label,")):
        axes.axvline(row, color=RED, linewidth=1.0, linestyle="-" if row == ONSET else ":")
        axes.text(
            row - 6, 0.7 * HIGHEST, f"{words} {row}", rotation=90, ha="right", va="top", color=RED
        )
    axes.axvspan(0, HELD_OUT, color="#888888", alpha=0.12, linewidth=0)
    axes.text(4, 0.7 * HIGHEST, "learned from", va="top")
    axes.set_title(TITLES[protocol], size=9)
    axes.set_xlabel("snapshot of IMS test 2, one in 10 minutes")
    axes.set_xlim(0, DEAD)
    axes.set_ylim(LOWEST, HIGHEST)
    axes.grid(alpha=0.2)


def _before(axes: Axes) -> None:
    """95th percentile of z before the defect: in-sample (ring) and held out (dot), with range."""
    names = (*SIMPLE, *CLASSICAL, *DEEP)
    for place, name in enumerate(names):
        for shift, protocol in ((-0.15, "in_sample"), (0.15, "held_out")):
            found = [r.p95 for r in readings(name, protocol, ONSET)]  # type: ignore[arg-type]
            y = place + shift
            axes.plot([min(found), max(found)], [y, y], color=COLOURS[name], linewidth=1.2)
            face = "white" if protocol == "in_sample" else COLOURS[name]
            axes.plot(np.median(found), y, "o", color=COLOURS[name], markerfacecolor=face)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(-0.4, None)
    axes.set_title("○ in-sample   ● held out", size=9)
    axes.set_xlabel(f"95th percentile of z, rows {HELD_OUT}-{ONSET - 1}")
    axes.grid(alpha=0.2)


def _line(name: str, protocol: Protocol) -> Floats:
    """Median of the seeds' novelty, smoothed as the product smooths, not below `LOWEST`."""
    runs = []
    for seed in seeds_of(name):
        novelty = np.maximum(trace_of(name, seed, protocol).novelty()[:DEAD], LOWEST)
        smooth = np.full(DEAD, np.nan)
        last = np.nan
        for i, value in enumerate(np.log(novelty)):
            last = value if np.isnan(last) else FACTOR * value + (1 - FACTOR) * last
            smooth[i] = last
        runs.append(np.exp(smooth))
    return np.asarray(np.median(runs, axis=0))
