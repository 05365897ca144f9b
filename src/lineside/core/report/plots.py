"""The plots that reports of all applications share, as SVG that follows light and dark.

Axes and text are drawn in one marker colour that becomes ``currentColor`` in the page; series
have colours that read on both backgrounds and differ in line style as well as in hue.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Estimate, Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKER = "#010203"
SERIES = ("#2f7fd8", "#e0752d", "#2a9d6f", "#b65fc9", "#c9a227", "#d64550", "#5b8c9e", "#8a8a8a")
STYLES = ("-", "--", "-.", ":", "-", "--", "-.", ":")
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.edgecolor": MARKER,
    "axes.labelcolor": MARKER,
    "text.color": MARKER,
    "xtick.color": MARKER,
    "ytick.color": MARKER,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.color": "#888888",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}

Array = NDArray[np.floating[Any]]


def draw(
    title: str,
    caption: str,
    paint: Callable[[Axes], None],
    *,
    size_inches: tuple[float, float] = (4.6, 3.0),
    wide: bool = False,
) -> Figure:
    """Return a figure whose axes `paint` has drawn on.

    Args:
        title: Short heading.
        caption: One sentence that reads the figure, with units.
        paint: Draws on the axes it is given.
        size_inches: Width and height.
        wide: Takes the full width of the page.
    """
    return panels(title, caption, [paint], size_inches=size_inches, wide=wide)


def panels(
    title: str,
    caption: str,
    painters: Sequence[Callable[[Axes], None]],
    *,
    size_inches: tuple[float, float] | None = None,
    wide: bool = True,
    margins: Mapping[str, float] | None = None,
) -> Figure:
    """Return one figure of axes side by side, each drawn on by its painter.

    Args:
        title: Short heading.
        caption: One sentence that reads the figure, with units.
        painters: Each draws on the axes it is given.
        size_inches: Width and height of the whole; 2.6 inches a panel if not given.
        wide: Takes the full width of the page.
        margins: Fixed margins, keywords of ``subplots_adjust``: five times as quick as measuring
            what labels and titles need.
    """
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context({**RC, "svg.hashsalt": title + caption}):
        canvas = Canvas(
            figsize=size_inches or (2.6 * len(painters), 2.7),
            layout=None if margins else "constrained",
        )
        if margins:
            canvas.subplots_adjust(**margins)
        for number, paint in enumerate(painters, start=1):
            paint(canvas.add_subplot(1, len(painters), number))
        stream = io.StringIO()
        canvas.savefig(stream, format="svg", transparent=True, metadata=NO_METADATA)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :].replace(MARKER, "currentColor")
    return Figure(title=title, image=svg.encode(), mime="image/svg+xml", caption=caption, wide=wide)


def lines(
    title: str,
    caption: str,
    series: Mapping[str, tuple[Array, Array]],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    y_range: tuple[float, float] | None = None,
    marks: Mapping[str, tuple[float, float]] | None = None,
    band: tuple[Array, Array] | None = None,
) -> Figure:
    """Return a line plot.

    Args:
        title: Short heading.
        caption: One sentence that reads the figure.
        series: Name to x and y values.
        x_label: With unit.
        y_label: With unit.
        log_x: Logarithmic horizontal axis.
        log_y: Logarithmic vertical axis.
        y_range: Limits of the vertical axis.
        marks: Named points, drawn as dots.
        band: Lower and upper end of the first series, drawn as an area.
    """

    def paint(axes: Axes) -> None:
        if band is not None:
            first = next(iter(series.values()))[0]
            axes.fill_between(first, *band, color=SERIES[0], alpha=0.2, linewidth=0)
        for i, (name, (x, y)) in enumerate(series.items()):
            style = STYLES[i % len(STYLES)]
            axes.plot(x, y, style, color=SERIES[i % len(SERIES)], label=name)
        for i, (name, (at, height)) in enumerate((marks or {}).items()):
            axes.plot([at], [height], "o", color=SERIES[-1 - i], label=name, markersize=7)
        axes.set(xlabel=x_label, ylabel=y_label)
        if log_x:
            axes.set_xscale("log")
        if log_y:
            axes.set_yscale("log")
        if y_range is not None:
            axes.set_ylim(*y_range)
        if len(series) + len(marks or {}) > 1:
            axes.legend(fontsize=8)

    return draw(title, caption, paint)


def histogram(
    title: str,
    caption: str,
    groups: Mapping[str, Array],
    *,
    x_label: str,
    y_label: str = "share of each group",
    lines_at: Mapping[str, float] | None = None,
) -> Figure:
    """Return overlaid histograms, each normalised to its own group, with named vertical lines."""
    everything = np.concatenate([np.asarray(v, float) for v in groups.values() if len(v)])
    edges = np.histogram_bin_edges(everything, bins=32).tolist()

    def paint(axes: Axes) -> None:
        for i, (name, values) in enumerate(groups.items()):
            if len(values):
                weights = np.full(len(values), 1 / len(values))
                color = SERIES[i % len(SERIES)]
                label = f"{name} ({len(values)})"
                axes.hist(values, edges, weights=weights, alpha=0.45, color=color, label=label)
                axes.hist(values, edges, weights=weights, histtype="step", color=color)
        for i, (name, x) in enumerate((lines_at or {}).items()):
            axes.axvline(x, color=SERIES[-3 - i], linestyle=STYLES[1 + i], label=name)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.legend(fontsize=8)

    return draw(title, caption, paint)


def forest(
    title: str, caption: str, rows: Mapping[str, Estimate], *, x_label: str, marked: str
) -> Figure:
    """Return estimates with their intervals, one row each, first on top, one row in colour."""
    names = list(rows)

    def paint(axes: Axes) -> None:
        for i, name in enumerate(names):
            row, color = rows[name], SERIES[0 if name == marked else 7]
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [-i, -i], color=color, linewidth=2)
            axes.plot([row.value], [-i], "o", color=color)
        axes.set_yticks([-i for i in range(len(names))], names)
        axes.set(xlabel=x_label)
        axes.grid(axis="y", alpha=0)

    return draw(title, caption, paint, size_inches=(6.4, 0.6 + 0.34 * len(names)), wide=True)


def bars(
    title: str,
    caption: str,
    rows: Mapping[str, Estimate],
    *,
    y_label: str,
) -> Figure:
    """Return vertical bars with intervals, e.g. recall by kind."""
    from matplotlib.ticker import MaxNLocator

    names = list(rows)

    def paint(axes: Axes) -> None:
        for i, name in enumerate(names):
            row = rows[name]
            axes.bar(i, row.value, color=SERIES[0], alpha=0.75, width=0.6)
            if row.low is not None and row.high is not None:
                axes.plot([i, i], [row.low, row.high], color=MARKER, linewidth=1.4)
        turned = 30 if len(names) > 4 else 0
        labels = [f"{name}\n(n = {rows[name].n})" for name in names]
        axes.set_xticks(range(len(names)), labels, rotation=turned)
        axes.set(ylabel=y_label)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="x", alpha=0)

    return draw(title, caption, paint)
