"""Figures of what the autoencoders learned: errors by feature, map of the codes, prototypes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Figure
from lineside.core.report import plots
from lineside.core.report.figures import Onlooker, Shown, draw_figures
from lineside.core.run.folder import Run
from lineside.machines.explain.learned_features import LearnedFeatures, TrainingOnlooker
from lineside.machines.models.detector import Floats
from lineside.machines.monitoring.operating_states import VARIES
from lineside.machines.signals.layout import feature_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NAMED = 8
SHADES = 5
"""Colours of a map, each for as many snapshots: few marks with a colour of their own draw fast."""
MOST_ROWS = 24
"""Groups of neighbouring features in the picture of errors."""
MOST_VALUES = 10
LEARNED, UNKNOWN = 0.5, 0.8
"""Unexplained share below which a feature counts as learned, and above which as not learned."""
DECIDES = 0.5
"""Share of the codes' variance from which time, speed or load is said to decide them."""
WARNINGS = {
    "time": "SUSPICIOUS: the machine was changing while it was learned.",
    "speed": "The speed still decides the code although its effect was taken out, as with lines "
    "that move with it: suspicious if other speeds will come.",
    "load": "The load still decides the code although its effect was taken out: suspicious if "
    "other loads will come.",
}
DAY, HOUR = 86400.0, 3600.0
NAMES = ("A", "B", "C")
MARKS = ("o", "s", "^")
MARGINS = {"left": 0.14, "right": 0.97, "bottom": 0.16, "top": 0.97}


def show_learned(run: Run, method: str, onlookers: Sequence[TrainingOnlooker]) -> None:
    """Draw and store what the networks of a method learned."""
    total = Onlooker(
        seconds=sum(each.seconds for each in onlookers),
        failure=next((each.failure for each in onlookers if each.failure), ""),
    )
    learned = [each.learned for each in onlookers if each.learned is not None]
    draw_figures(run, method, lambda: learned_figures(learned), total)


def learned_figures(learned: Sequence[LearnedFeatures]) -> list[Shown]:
    """Return how much is unexplained on each machine, and the figures of the least explained one.

    One machine, since drawing must cost little beside the fits.
    """
    if not learned:
        return []
    left = [float(_mean(_at_the_end(each)[None])[0]) for each in learned]
    shown = learned[int(np.nanargmax(left)) if np.isfinite(left).any() else 0]
    ranked = sorted(zip(left, [each.machine for each in learned], strict=True), reverse=True)
    numbers = ", ".join(f"{name} {share:.2f}" for share, name in ranked[:MOST_NAMED])
    more = f" and {len(ranked) - MOST_NAMED} more" if len(ranked) > MOST_NAMED else ""
    return [
        f"share of the changes of healthy snapshots that it cannot draw (0: all drawn, 1: it draws "
        f"the mean only): {numbers}{more}. Pictures: {shown.machine}.",
        draw_errors(shown),
        draw_codes(shown),
        draw_prototypes(shown),
    ]


def _at_the_end(learned: LearnedFeatures) -> Floats:
    """Unexplained shares on held-out snapshots where there are some, else on the fitted ones."""
    later = learned.unexplained_later
    return later if np.isfinite(later).any() else learned.unexplained[-1]


def draw_errors(learned: LearnedFeatures) -> Figure:
    """Draw the unexplained share of groups of features over the training, and on new snapshots."""
    groups = _groups(learned)
    names = [_group_name(learned, group) for group in groups]
    # (step, F) -> (group, step): mean over the features of a group that change at all
    errors = np.array([_mean(learned.unexplained[:, group]) for group in groups])
    later = np.array([_mean(learned.unexplained_later[None, group])[0] for group in groups])
    gap = np.full(len(groups), np.nan)
    picture = np.clip(np.column_stack([errors, gap, later]), 0.0, 1.0)
    steps = len(learned.steps)

    def paint(axes: Axes) -> None:
        axes.imshow(
            picture, aspect="auto", cmap="cividis", vmin=0.0, vmax=1.0, interpolation="nearest"
        )
        ticks = [0, steps // 3, 2 * steps // 3, steps - 1, steps + 1]
        axes.set_xticks(ticks, [*(str(learned.steps[i]) for i in ticks[:-1]), "new"])
        rows = np.unique(np.linspace(0, len(groups) - 1, 8).round().astype(int)).tolist()
        axes.set_yticks(rows, [names[i] for i in rows], fontsize=8)
        axes.grid(visible=False)
        axes.set_xlabel("update of the training; new: held-out snapshots")

    return plots.panels(
        f"{learned.machine}, what was learned first",
        _describe_errors(learned, names, errors, later),
        [paint],
        size_inches=(4.6, 3.4),
        wide=False,
        margins={**MARGINS, "left": 0.34, "bottom": 0.14},
    )


def _describe_errors(
    learned: LearnedFeatures, names: Sequence[str], errors: Floats, later: Floats
) -> str:
    end = errors[:, -1]
    below = errors < LEARNED
    first = np.where(below.any(1), below.argmax(1), len(learned.steps))
    order = [i for i in np.argsort(first, kind="stable").tolist() if below[i].any()]
    if order:
        early = ", ".join(f"{names[i]} (update {learned.steps[first[i]]})" for i in order[:3])
        text = f"Learned first: {early}."
    else:
        text = "No group of features was learned to a half."
    never = [names[i] for i in np.flatnonzero(end > UNKNOWN).tolist()]
    if never:
        more = f" and {len(never) - 3} others" if len(never) > 3 else ""
        text += (
            f" Never learned: {', '.join(never[:3])}{more}; what only fluctuates by chance cannot "
            "be, and a change there is seen only when it is large."
        )
    worse = int((later - end > LEARNED).sum())  # none where nothing is held out: NaN
    if worse > len(names) / 2:
        text += (
            f" SUSPICIOUS: {worse} of {len(names)} groups are drawn far worse on later "
            "healthy snapshots than on those learned: too few were learned, or the machine changed."
        )
    return (
        "Share of a feature's changes that the network does not draw: dark is 0 (drawn exactly), "
        f"light is 1 (no better than its mean). {text} Suspicious: the range where you expect a "
        "fault stays light, or all of it does."
    )


def draw_codes(learned: LearnedFeatures) -> Figure:
    """Draw the snapshots by their codes, coloured by time and by what else changed."""
    unit, seconds = _time_unit(learned)
    start = learned.times.min()
    facts = {f"time [{unit}]": (learned.times - start) / seconds}
    for name, values in (("speed [Hz]", learned.speeds_hz), ("load", learned.loads)):
        finite = np.isfinite(values)
        if finite.all() and np.ptp(values) > VARIES * np.abs(values).max() and len(facts) < 2:
            facts[name] = values
    painters = [_code_painter(learned, name, values) for name, values in facts.items()]
    shares = {name.partition(" [")[0]: _decided(learned.codes, v) for name, v in facts.items()}
    found = " and ".join(f"{share:.0%} by the {name}" for name, share in shares.items())
    text = " ".join(WARNINGS[name] for name, share in shares.items() if share > DECIDES)
    return plots.panels(
        f"{learned.machine}, map of the codes",
        f"Each mark is a snapshot, placed by the network's code (two main directions, "
        f"{learned.shown:.0%} of its variance); triangles were not learned from. Colour, from dark "
        "to light: fifths of the range in the title. Look for groups that an operating state "
        f"explains. The place in the map is decided to {found} (0 %: not at all). {text}".strip(),
        painters,
        size_inches=(4.6, 2.7),
        wide=False,
        margins={"left": 0.02, "right": 0.98, "bottom": 0.03, "top": 0.88, "wspace": 0.06},
    )


def _code_painter(learned: LearnedFeatures, name: str, values: Floats) -> Callable[[Axes], None]:
    shade = _fifths(values)

    def paint(axes: Axes) -> None:
        from matplotlib import colormaps

        for known, marker in ((True, "o"), (False, "^")):
            for number, color in enumerate(colormaps["cividis"](np.linspace(0.0, 0.95, SHADES))):
                x, y = learned.codes[(learned.fitted == known) & (shade == number)].T
                axes.plot(
                    x, y, marker, color=color, markersize=4, markeredgecolor="#888888",
                    markeredgewidth=0.3,
                )  # fmt: skip
        quantity, _, unit = name.partition(" ")
        low, high = (f"{end:.3g}" for end in (values.min(), values.max()))
        axes.set_title(f"{quantity}: {low} to {high} {unit.strip('[]')}".strip(), fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)

    return paint


def draw_prototypes(learned: LearnedFeatures) -> Figure:
    """Draw what the network makes of typical codes: spectra, or the features that differ most."""
    known = learned.members[learned.fitted]
    unit, seconds = _time_unit(learned)
    labels = []
    for number in range(len(learned.prototypes)):
        members = learned.members == number
        text = f"{NAMES[number]}: {(known == number).mean():.0%} of the snapshots"
        middle = np.median(learned.times[members] - learned.times.min()) / seconds
        text += f", median {unit.rstrip('s')} {middle:.1f}"
        speed = learned.speeds_hz[members]
        if np.isfinite(speed).all():
            text += f" and {np.median(speed):.3g} Hz"
        labels.append(text)
    spectral = any(learned.layout.frequencies_hz(name) for name in learned.names)
    caption = (
        "What the network draws for its most typical codes ("
        + "; ".join(labels)
        + "), with the effect of speed and load taken out. Dotted: the mean of the "
        "learned snapshots. Look for the humps and lines that this machine is known for. "
        "Suspicious: they are missing, all curves are equal although the machine has several "
        "operating states, or one of them stands for early or late snapshots only."
    )
    painters = _spectrum_painters(learned) if spectral else [_value_painter(learned)]
    return plots.panels(
        f"{learned.machine}, typical healthy snapshots",
        caption,
        painters,
        size_inches=(4.6, 2.9),
        wide=False,
        margins=MARGINS if spectral else {**MARGINS, "left": 0.4},
    )


def _spectrum_painters(learned: LearnedFeatures) -> list[Callable[[Axes], None]]:
    """One panel: the channel whose prototypes differ most."""
    channels = [name.rpartition(".")[0] for name in learned.names]
    spread = learned.prototypes.std(0)
    by_channel = {
        name: float(spread[[c == name for c in channels]].mean())
        for name in dict.fromkeys(channels)
    }
    channel = max(by_channel, key=lambda name: by_channel[name])
    own = np.flatnonzero([c == channel for c in channels])
    edges = [learned.layout.frequencies_hz(learned.names[i]) or (0.0, 0.0) for i in own]
    hertz = np.array([sum(edge) / 2 for edge in edges])
    group = next(g for g in learned.layout.groups if channel in g.channels)

    def paint(axes: Axes) -> None:
        decibel = 10.0 / np.log(10.0)  # rows are natural logarithms of energies
        axes.plot(hertz, decibel * learned.mean[own], ":", color="#888888", linewidth=2.4)
        for number, drawn in enumerate(learned.prototypes):
            axes.plot(
                hertz, decibel * drawn[own], plots.STYLES[number], color=plots.SERIES[number],
                label=NAMES[number], linewidth=1.2,
            )  # fmt: skip
        axes.set(xlabel="frequency [Hz]", ylabel=f"{channel}, level [dB re 1 ({group.unit})²]")
        axes.locator_params(nbins=5)
        axes.legend(fontsize=8)

    return [paint]


def _value_painter(learned: LearnedFeatures) -> Callable[[Axes], None]:
    """The features whose prototypes differ most, in standard deviations of the healthy ones."""
    change = (learned.prototypes - learned.mean) / np.maximum(learned.spread, 1e-9)
    shown = np.argsort(-change.std(0), kind="stable")[:MOST_VALUES]
    labels = []
    for i in shown:
        name = learned.names[i]
        low, high = (
            learned.layout.to_physical(name, float(end))
            for end in (learned.prototypes[:, i].min(), learned.prototypes[:, i].max())
        )
        labels.append(f"{feature_label(name)[:22]}: {low:.3g} to {high:.3g}")

    def paint(axes: Axes) -> None:
        places = np.arange(len(shown))
        for number, values in enumerate(change[:, shown]):
            axes.plot(
                values, places, MARKS[number], color=plots.SERIES[number], label=NAMES[number]
            )
        axes.set_yticks(places.tolist(), labels, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel("difference from the mean [standard deviations]")
        axes.legend(fontsize=8)

    return paint


def _groups(learned: LearnedFeatures) -> list[NDArray[np.int64]]:
    """Indices of neighbouring features of one channel, at most about `MOST_ROWS` groups."""
    channels = [name.rpartition(".")[0] for name in learned.names]
    own = [np.flatnonzero([c == channel for c in channels]) for channel in dict.fromkeys(channels)]
    each = max(1, MOST_ROWS // len(own))
    return [part for group in own for part in np.array_split(group, min(each, len(group)))]


def _group_name(learned: LearnedFeatures, group: NDArray[np.int64]) -> str:
    first, last = (learned.names[i] for i in (group[0], group[-1]))
    ends = learned.layout.frequencies_hz(first), learned.layout.frequencies_hz(last)
    if ends[0] is None or ends[1] is None:
        return feature_label(first)[:22]
    channel = first.rpartition(".")[0][-12:]
    return f"{channel} {ends[0][0]:.0f}-{ends[1][1]:.0f} Hz"


def _mean(values: Floats) -> Floats:
    """Mean over the last axis without NaN; NaN where there is nothing else."""
    known = np.isfinite(values)
    return np.where(
        known.any(-1), np.where(known, values, 0.0).sum(-1) / np.maximum(known.sum(-1), 1), np.nan
    )


def _fifths(values: Floats) -> NDArray[np.int64]:
    return np.searchsorted(np.quantile(values, np.arange(1, SHADES) / SHADES), values)


def _decided(codes: Floats, values: Floats) -> float:
    """Share of the variance of the codes (S, 2) between the fifths of a quantity (eta squared)."""
    fifth, total = _fifths(values), float(np.square(codes - codes.mean(0)).sum())
    means = np.zeros_like(codes)
    for number in np.unique(fifth):
        means[fifth == number] = codes[fifth == number].mean(0)
    return float(np.square(means - codes.mean(0)).sum() / total) if total > 0 else 0.0


def _time_unit(learned: LearnedFeatures) -> tuple[str, float]:
    return ("hours", HOUR) if np.ptp(learned.times) < 2 * DAY else ("days", DAY)
