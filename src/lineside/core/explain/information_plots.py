"""Figures of the information plane, one panel per estimator of the same activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lineside.core.contract import Figure
from lineside.core.explain.information_plane import Floats, Plane
from lineside.core.report import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKS = ("o", "^", "s", "D", "v", "P", "X", "*")
COLOURS = ("#3f7fe0", "#b65fc9", "#e8862e")
NEAR_BITS = 0.05


def plane_figures(
    plane: Plane, *, unit: str = "step", title: str = "Information plane"
) -> list[Figure]:
    """Return the plane, and I(X;T) against time, each with all estimators side by side.

    Args:
        plane: What was estimated.
        unit: What the snapshots count: ``"step"`` or ``"epoch"``.
        title: Heading of the plane.
    """
    count = len(plane.estimators)
    size = (3.6 * count + 0.6, 3.3)
    return [
        plots.panels(
            title,
            plane_caption(plane, unit),
            [_plane_painter(plane, number, unit) for number in range(count)],
            size_inches=size,
        ),
        plots.panels(
            f"{title}: estimated I(X;T) while training",
            _course_caption(plane, unit),
            [_course_painter(plane, number, unit) for number in range(count)],
            size_inches=size,
        ),
    ]


def plane_caption(plane: Plane, unit: str) -> str:
    """Return what a reader may conclude from the plane, and what not."""
    last = plane.label_bits[-1]
    apart = float(np.ptp(last, axis=1).max())
    text = (
        f"Each point is one layer after one number of {unit}s (colour, early to late), for "
        f"N = {plane.items} items: information about the label (upwards, bits, at most H(Y) = "
        f"{plane.label_entropy_bits:.2f}) against estimated information about the input "
        f"(rightwards, bits, at most log2 N = {plane.ceiling_bits:.2f}). The shape along I(X;T) "
        "depends on the estimator and on the activation function and says nothing about "
        "generalisation (Saxe et al. 2018; Geiger 2020); I(T;Y) is more robust: at the end the "
        f"estimators differ by at most {apart:.2f} bit."
    )
    return text + _projection(plane) + _saturation(plane)


def _projection(plane: Plane) -> str:
    if not plane.projected:
        return ""
    return (
        f" Layers of more than {plane.dimensions} units were reduced to {plane.dimensions} "
        "dimensions by one fixed random projection."
    )


def _saturation(plane: Plane) -> str:
    share = (plane.input_bits > plane.ceiling_bits - NEAR_BITS).mean(axis=(0, 1))
    full = [
        f"{name}: {part:.0%}"
        for name, part in zip(plane.estimators, share, strict=True)
        if part > 0.1
    ]
    if not full:
        return ""
    return (
        f" Points at the ceiling ({'; '.join(full)}) mean only that all items fall apart; there "
        "I(T;Y) equals H(Y) whatever the network knows."
    )


def _course_caption(plane: Plane, unit: str) -> str:
    starts = sorted({min(1, len(plane.steps) - 1), len(plane.steps) // 2})
    against = [
        f"{layer} from {unit} {plane.steps[start]} on"
        for index, layer in enumerate(plane.layers)
        for start in starts
        if _opposed(plane.input_bits[-1, index] - plane.input_bits[start, index])
    ]
    text = (
        f"Estimated I(X;T) in bits against {unit}s (logarithmic), one line per layer, dotted: "
        f"log2 N = {plane.ceiling_bits:.2f} bits. "
    )
    if against:
        return text + f"The estimators disagree even about up or down for: {', '.join(against)}."
    return text + (
        "From the second and from the middle snapshot to the last, the estimators contradict each "
        "other about up or down in no layer."
    )


def _opposed(change: Floats) -> bool:
    return bool(change.min() < -NEAR_BITS and change.max() > NEAR_BITS)


def _shown(steps: Sequence[int]) -> list[float]:
    """Zero has no logarithm: the untrained network is drawn at a half."""
    return [float(step) if step > 0 else 0.5 for step in steps]


def _plane_painter(plane: Plane, number: int, unit: str) -> Callable[[Axes], None]:
    from matplotlib import cm, colors

    colour_map = colors.LinearSegmentedColormap.from_list("time", COLOURS)

    def paint(axes: Axes) -> None:
        times = _shown(plane.steps)
        scale = colors.LogNorm(min(times), max(*times, min(times) * 2))
        for index, layer in enumerate(plane.layers):
            x, y = plane.input_bits[:, index, number], plane.label_bits[:, index, number]
            axes.plot(x, y, color="#888888", linewidth=0.7, alpha=0.6)
            mark = MARKS[index % len(MARKS)]
            axes.scatter(x, y, c=times, cmap=colour_map, norm=scale, marker=mark, s=20, zorder=3)
            axes.plot([], [], mark, color=plots.MARKER, label=layer, markersize=5)
        axes.axvline(plane.ceiling_bits, color=plots.MARKER, linestyle=":", linewidth=1)
        axes.set_title(plane.estimators[number], fontsize=9)
        axes.set(
            xlabel=f"estimated I(X;T) [bits], {plane.estimators[number]}, N = {plane.items}",
            ylabel="estimated I(T;Y) [bits]",
            xlim=(-0.3, plane.ceiling_bits * 1.04),
            ylim=(-0.03, max(plane.label_entropy_bits, float(plane.label_bits.max())) * 1.06),
        )
        axes.xaxis.label.set_fontsize(8)
        if number == 0:
            axes.legend(fontsize=7, loc="best", title="layer", title_fontsize=7)
        if number == len(plane.estimators) - 1:
            bar = axes.figure.colorbar(cm.ScalarMappable(scale, colour_map), ax=axes)
            bar.set_label(f"{unit} (logarithmic)")

    return paint


def _course_painter(plane: Plane, number: int, unit: str) -> Callable[[Axes], None]:
    def paint(axes: Axes) -> None:
        for index, layer in enumerate(plane.layers):
            colour = plots.SERIES[index % len(plots.SERIES)]
            style = plots.STYLES[index % len(plots.STYLES)]
            y = plane.input_bits[:, index, number]
            axes.plot(_shown(plane.steps), y, style, color=colour, label=layer)
        axes.axhline(plane.ceiling_bits, color=plots.MARKER, linestyle=":", linewidth=1)
        axes.set_xscale("log")
        axes.set_title(plane.estimators[number], fontsize=9)
        axes.set(xlabel=f"{unit} (untrained at 0.5)", ylabel="estimated I(X;T) [bits]")
        axes.set_ylim(-0.3, plane.ceiling_bits * 1.05)
        if number == 0:
            axes.legend(fontsize=7, title="layer", title_fontsize=7)

    return paint
