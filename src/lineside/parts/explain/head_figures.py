"""What the default method learned: patches, places, a map of cells, and its training.

All figures answer one question of a quality engineer: does it look at the defect, or at something
beside it that happened to go along with the labels?
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from scipy.stats import binomtest
from torch.nn import functional as F

from lineside.core.contract import Figure
from lineside.core.explain.embedding_map import embedding_map, neighbour_agreement, principal
from lineside.core.report import plots
from lineside.core.report.figures import Shown
from lineside.parts.data.items import GOOD
from lineside.parts.explain.exemplars import PATCH_PX, Library, crop_at
from lineside.parts.explain.head_training import Cells, HeadOnlooker, Separation
from lineside.parts.explain.overlays import Rgb, as_rgb, contact_sheet, sheet_figure
from lineside.parts.models.detector import Image, TrainingImage
from lineside.parts.models.feature_head.feature_head import FeatureHead
from lineside.parts.models.feature_head.head import Head

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TILES, TILE_PX = 10, 104
UNITS, UNIT_TILES = 4, 4
WRONG_EDGE = (224, 117, 45)
MOST_KINDS = 5
MAP_CELLS = 240
"""Faulty and good cells each in the map."""
BORDER = 0.1
"""Width of the border, as a fraction of the image; it is 36 % of its area."""
FIELDS = 5
"""Rows and columns of fields in which places are counted."""
FEWEST = 10
"""Pictures from which places are judged."""
MARGINS = {"left": 0.1, "right": 0.98, "bottom": 0.17, "top": 0.88, "wspace": 0.36}


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A patch to show: which example, where (row, column as fractions), and what to say."""

    number: int
    place: tuple[float, float]
    text: str = ""
    wrong: bool = False


def head_figures(
    detector: FeatureHead,
    examples: Sequence[TrainingImage],
    onlooker: HeadOnlooker,
    library: Library,
) -> list[Shown]:
    """Return what a fit of the default method learned, in the order of reading.

    Args:
        detector: Fitted.
        examples: What it was fitted on, in the order of the fit.
        onlooker: Looked at the fit.
        library: Known good patches, to compare with.
    """
    head, faulty, good = detector.head, onlooker.faulty, onlooker.good
    normal = normal_figures(examples, onlooker, library)
    if head is None or faulty is None or good is None or onlooker.separation is None:
        return [
            "nothing was learned from labels: no faulty picture was given, so there is no head. "
            "The model of good parts is all there is; shown is what it finds unusual in good ones.",
            *normal,
            place_of_deviations(onlooker),
        ]
    good = good.standardised(head)
    sheets = {
        "faulty": strongest_tiles(faulty, head, examples),
        "good": strongest_tiles(good, head, examples),
        "missed": weakest_tiles(faulty, head, examples),
    }
    units, share = strongest_units(head, faulty, good)
    rows = [unit_tiles(head, cells, units) for cells in (faulty, good)]
    wanted = [tile for tiles in sheets.values() for tile in tiles]
    wanted += [tile for row in rows for tiles in row for tile in tiles]
    patches = cut_patches(examples, wanted)
    blocks: list[Shown] = [
        strongest_figure(sheets["faulty"], patches, faulty),
        good_figure(sheets["good"], patches),
    ]
    if sheets["missed"]:
        blocks.append(missed_figure(sheets["missed"], patches, faulty))
    return [
        *blocks,
        place_figure(head, faulty, good),
        unit_figure(rows, units, share, patches),
        cell_map(onlooker, examples),
        training_figure(onlooker.separation),
        *normal,
    ]


def strongest_tiles(cells: Cells, head: Head, examples: Sequence[TrainingImage]) -> list[Tile]:
    """Return the strongest cell of the pictures with the strongest answers, strongest first."""
    best = sorted(cells.strongest().values(), key=lambda i: -cells.answer[i])[:TILES]
    return [_tile(cells, i, head, examples) for i in best]


def weakest_tiles(cells: Cells, head: Head, examples: Sequence[TrainingImage]) -> list[Tile]:
    """Return the strongest cell of faulty pictures that are not recognised, weakest first."""
    best = sorted(cells.strongest().values(), key=lambda i: cells.answer[i])
    missed = [i for i in best if cells.answer[i] <= 0][:TILES]
    return [_tile(cells, i, head, examples) for i in missed]


def _tile(cells: Cells, index: int, head: Head, examples: Sequence[TrainingImage]) -> Tile:
    number, answer = int(cells.image[index]), float(cells.answer[index])
    label = examples[number].label
    wrong = (answer > 0) != (label != GOOD)
    row, column = cells.places(head)[index]
    text = f"{label[:9]} {answer:.1f} {'wrong' if wrong else 'right'}"
    return Tile(number=number, place=(float(row), float(column)), text=text, wrong=wrong)


def strongest_units(head: Head, faulty: Cells, good: Cells) -> tuple[list[int], float]:
    """Return the hidden units that tell faulty from good most, and their share of the difference.

    The contribution of a unit to the logit is its activation times its outgoing weight; compared
    are the strongest cells of faulty and of good pictures.
    """
    means = []
    for cells in (faulty, good):
        best = list(cells.strongest().values())
        means.append((_hidden(head, cells, best) * head.network.second.flatten()).mean(0))
    difference = (means[0] - means[1]).clamp(min=0)
    order = torch.argsort(difference, descending=True, stable=True)[:UNITS]
    return order.tolist(), float(difference[order].sum() / difference.sum().clamp(min=1e-9))


def unit_tiles(head: Head, cells: Cells, units: Sequence[int]) -> list[list[Tile]]:
    """Return for each unit the cells that it answers most, one per picture."""
    hidden = _hidden(head, cells, list(range(len(cells.image))))[:, list(units)].numpy()
    places = cells.places(head)
    tiles = []
    for values in hidden.T:
        order = np.argsort(-values, kind="stable")
        first = dict[int, int]()
        for i in order.tolist():
            first.setdefault(int(cells.image[i]), i)
        tiles.append(
            [
                Tile(number=number, place=(float(places[i, 0]), float(places[i, 1])))
                for number, i in list(first.items())[:UNIT_TILES]
            ]
        )
    return tiles


def _hidden(head: Head, cells: Cells, index: Sequence[int]) -> torch.Tensor:
    """Activations of all hidden units of the head's members, shape (cell, member * hidden)."""
    network = head.network
    with torch.inference_mode():
        x = cells.inputs[list(index)].float()
        return F.relu(F.linear(x, network.first, network.first_bias))


def cut_patches(
    examples: Sequence[TrainingImage], tiles: Sequence[Tile]
) -> dict[tuple[int, tuple[float, float]], Rgb]:
    """Return the patch of each tile by its image and place; every image is decoded once."""
    places: dict[int, set[tuple[float, float]]] = {}
    for tile in tiles:
        places.setdefault(tile.number, set()).add(tile.place)
    patches = {}
    for number, own in sorted(places.items()):
        image = examples[number].image()
        for place in own:
            patches[number, place] = as_rgb(_patch(image, place))
    return patches


def _patch(image: Image, place: tuple[float, float]) -> Image:
    return crop_at(image, place[0] * image.shape[0], place[1] * image.shape[1])


Patches = Mapping[tuple[int, tuple[float, float]], Rgb]


def _sheet(title: str, caption: str, tiles: Sequence[Tile], patches: Patches) -> Figure:
    pictures = []
    for tile in tiles:
        picture = _enlarged(patches[tile.number, tile.place])
        if tile.wrong:
            picture[:4], picture[-4:], picture[:, :4], picture[:, -4:] = (WRONG_EDGE,) * 4
        pictures.append(picture)
    texts = [tile.text for tile in tiles]
    return sheet_figure(title, caption, pictures, texts, columns=5, cell_px=TILE_PX)


def _enlarged(patch: Rgb) -> Rgb:
    size = (TILE_PX, TILE_PX)
    return np.array(Pillow.fromarray(patch).resize(size, Pillow.Resampling.BICUBIC))


def strongest_figure(tiles: Sequence[Tile], patches: Patches, cells: Cells) -> Figure:
    """Return the patches of faulty pictures with the strongest answers."""
    marked = [i for i in cells.strongest().values() if cells.target[i] >= 0]
    hits = sum(cells.target[i] == 1 for i in marked)
    where = (
        f" In {hits} of {len(marked)} pictures with a marked defect the strongest of the sampled "
        "cells lies in the mark."
        if marked
        else ""
    )
    caption = (
        f"Patches of {PATCH_PX} x {PATCH_PX} pixels round the cell with the head's strongest "
        "answer, one per faulty picture; the number is the logit: above 0 the head takes the cell "
        f"for a defect.{where} Look for the defect in the middle. Suspicious: a fixture, a border, "
        "a reflection or a label is there instead."
    )
    return _sheet("Faulty, strongest answers", caption, tiles, patches)


def good_figure(tiles: Sequence[Tile], patches: Patches) -> Figure:
    """Return the patches of good pictures with the strongest answers."""
    caption = (
        "The same of good pictures, by members of the head that did not see them: what it would "
        "take for a defect. Orange frame: it does, wrongly. Suspicious: a real defect (the label "
        "is wrong), or the same thing again and again (give more such good pictures)."
    )
    return _sheet("Good, strongest answers", caption, tiles, patches)


def missed_figure(tiles: Sequence[Tile], patches: Patches, cells: Cells) -> Figure:
    """Return the strongest patches of the faulty pictures that the head does not recognise."""
    total, hidden = len(cells.strongest()), len(tiles)
    more = "at least " if hidden == TILES else ""
    caption = (
        f"Of {total} faulty pictures the head does not recognise {more}{hidden}; shown is the "
        "patch that comes nearest. Only the model of good parts can find these. Look for a kind "
        "that is rare in training, or too faint at this resolution; or the label is wrong."
    )
    return _sheet("Faulty, not recognised", caption, tiles, patches)


def unit_figure(
    rows: Sequence[Sequence[Sequence[Tile]]], units: Sequence[int], share: float, patches: Patches
) -> Figure:
    """Return the patches that the strongest hidden units answer most: faulty above, good below."""
    pictures, texts = [], []
    for name, row in zip(("faulty", "good"), rows, strict=True):
        for unit, tiles in zip(units, row, strict=True):
            own = [patches[tile.number, tile.place] for tile in tiles]
            pictures.append(contact_sheet(own, columns=2, cell_px=PATCH_PX, gap_px=2))
            texts.append(f"unit {unit}: {name}")
    caption = (
        f"The {len(units)} hidden units that tell faulty from good most ({share:.0%} of the "
        "difference of the logit), each with the faulty patches (above) and good patches (below) "
        "that it answers most. Look for one thing in common above that is absent below. "
        "Suspicious: above and below look alike, or what is common above is not the defect."
    )
    title = "What single units answer to"
    return sheet_figure(title, caption, pictures, texts, columns=len(units), cell_px=134, wide=True)


def place_figure(head: Head, faulty: Cells, good: Cells) -> Figure:
    """Draw where in the picture the strongest cell of every picture lies."""
    points = {
        name: cells.places(head)[list(cells.strongest().values())]
        for name, cells in (("faulty", faulty), ("good", good))
    }

    def paint(axes: Axes) -> None:
        for name, marker, color, fill in (
            ("good", "o", plots.SERIES[0], "none"), ("faulty", "^", plots.SERIES[1], None),
        ):  # fmt: skip
            row, column = points[name].T
            axes.plot(
                column, row, marker, color=color, markersize=5, markerfacecolor=fill or color,
                label=name,
            )  # fmt: skip
        ends = [BORDER, 1 - BORDER, 1 - BORDER, BORDER, BORDER]
        axes.plot(ends, [*ends[1:], ends[1]], ":", color="#888888", linewidth=1.0)
        axes.set(xlim=(0, 1), ylim=(1, 0), xlabel="column / width", ylabel="row / height")
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1])
        axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)

    found = " ".join(describe_places(name, places) for name, places in points.items())
    caption = (
        "Every mark is the strongest cell of one picture, by its place in the picture; dotted: the "
        f"outer tenth (36 % of the area). {found} Suspicious: marks pile up where no defect is "
        "expected, such as a fixture, a printed label or the border."
    )
    return plots.panels(
        "Where the head answers", caption, [paint], size_inches=(4.6, 3.4), wide=False,
        margins={"left": 0.13, "right": 0.96, "bottom": 0.15, "top": 0.88},
    )  # fmt: skip


def describe_places(name: str, places: NDArray[np.float64]) -> str:
    """Return how many strongest cells lie in the border and in one field, and if it is suspicious.

    Args:
        name: Of the pictures.
        places: Row and column as fractions, shape (picture, 2).
    """
    count = len(places)
    border = int(((places < BORDER) | (places > 1 - BORDER)).any(1).sum())
    fields = Counter(map(tuple, np.minimum((places * FIELDS).astype(int), FIELDS - 1).tolist()))
    most = max(fields.values(), default=0)
    text = f"{name.capitalize()}: {border} of {count} in the border."
    if count < FEWEST:
        return text
    area = 1 - (1 - 2 * BORDER) ** 2
    if border > 0.6 * count and binomtest(border, count, area, "greater").pvalue < 0.001:
        text += " SUSPICIOUS: most lie in the border; expected only if defects are there."
    if most > count / 2:
        text += (
            f" SUSPICIOUS: {most} lie in one of {FIELDS**2} fields; expected only if defects are."
        )
    return text


def cell_map(onlooker: HeadOnlooker, examples: Sequence[TrainingImage]) -> Figure:
    """Draw a map of good and faulty cells, as the head gets them and as its hidden layer sees them.

    Of a faulty picture without a mask the three strongest cells count as faulty, the others are
    left out, as are unmarked cells of a marked one.
    """
    cells = onlooker.probe
    assert cells is not None, "a head was trained"
    labels = np.array([examples[number].label for number in cells.image])
    top = np.zeros(len(labels), bool)
    for number in np.unique(cells.image):
        own = np.flatnonzero(cells.image == number)
        top[own[np.argsort(-cells.answer[own], kind="stable")[:3]]] = True
    faulty = (labels != GOOD) & ((cells.target == 1) | ((cells.target < 0) & top))
    keep = [np.flatnonzero(each) for each in (labels == GOOD, faulty)]
    chosen = np.concatenate(
        [own[np.linspace(0, len(own) - 1, min(len(own), MAP_CELLS)).astype(int)] for own in keep]
    )
    common = [kind for kind, _ in Counter(labels[faulty].tolist()).most_common(MOST_KINDS)]
    names = [n if n == GOOD or n in common else "other kinds" for n in labels[chosen].tolist()]
    classes = [GOOD, *common, *(["other kinds"] if "other kinds" in names else [])]
    before = cells.inputs[torch.from_numpy(chosen)].double().numpy()
    hidden = onlooker.hidden[chosen]
    halves = ["good" if name == GOOD else "faulty" for name in names]
    parts = [examples[number].part for number in cells.image[chosen]]
    agreement = [neighbour_agreement(x, halves, parts) for x in (before, hidden)]
    held_out = onlooker.probe_held_out[chosen]
    caption = (
        f"Each mark is a grid cell of 8 x 8 pixels ({len(chosen)} of {len(labels)} looked at). "
        "Left: by the features that the head gets; right: by the hidden layer of a network that "
        f"did not see the pictures whose marks have a dark edge ({int(held_out.sum())}). Of the "
        f"ten nearest cells of other parts, {agreement[0]:.0%} (left) and {agreement[1]:.0%} "
        "(right) agree on good or faulty; 50 % is chance. Look for faulty cells apart from good "
        "ones, those with an edge too. Suspicious: good cells with an edge among the faulty ones, "
        "or a kind in the middle of the good ones: it was not learned."
    )
    return embedding_map(
        "Map of good and faulty cells", caption,
        {"before the head": principal(before), "in the head": principal(hidden)},
        names, classes, marked=held_out.tolist(), size_inches=(5.6, 2.9),
        margins={"left": 0.01, "right": 0.99, "bottom": 0.02, "top": 0.9, "wspace": 0.04},
    )  # fmt: skip


def training_figure(separation: Separation) -> Figure:
    """Draw how the answers to good and faulty pictures part over the training."""
    steps = np.arange(len(separation.steps))
    ticks = steps[:: max(1, len(steps) // 4)].tolist()
    held = np.array([separation.auroc(row) for row in separation.pooled])
    seen = np.array([separation.auroc(row) for row in separation.seen])
    areas = {"not seen": held, "seen": seen, "cells, not seen": separation.cells}

    def paint_answers(axes: Axes) -> None:
        for name, own, style, color in (
            ("good", ~separation.faulty, "-", plots.SERIES[0]),
            ("faulty", separation.faulty, "--", plots.SERIES[1]),
        ):
            low, middle, high = np.quantile(separation.pooled[:, own], (0.1, 0.5, 0.9), axis=1)
            axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
            axes.plot(steps, middle, style, color=color, label=name)
        axes.axhline(0.0, color=plots.MARKER, linewidth=0.8)
        axes.set_ylabel("strongest logit of a picture")

    def paint_area(axes: Axes) -> None:
        for i, (name, values) in enumerate(areas.items()):
            if np.isfinite(values).any():
                axes.plot(steps, values, plots.STYLES[i], color=plots.SERIES[i], label=name)
        axes.set_ylabel("AUROC (0.5: chance)")

    def framed(paint: Callable[[Axes], None], title: str) -> Callable[[Axes], None]:
        def both(axes: Axes) -> None:
            paint(axes)
            axes.set_xticks(ticks, [str(separation.steps[i]) for i in ticks])
            axes.locator_params(axis="y", nbins=5)
            axes.set_xlabel("updates of the training")
            axes.set_title(title, fontsize=9)
            axes.legend(fontsize=8)

        return both

    return plots.panels(
        "How the head learned",
        _describe_training(separation, held, seen),
        [framed(paint_answers, "answers"), framed(paint_area, "separation")],
        size_inches=(5.6, 2.9),
        wide=False,
        margins=MARGINS,
    )


def _describe_training(
    separation: Separation, held: NDArray[np.float64], seen: NDArray[np.float64]
) -> str:
    good, faulty = (int((separation.held_out & own).sum()) for own in
                    (~separation.faulty, separation.faulty))  # fmt: skip
    count = int(separation.faulty.sum())
    by = (
        "all judged by networks that did not see them"
        if faulty == count
        else f"good ones ({good}) judged by networks that did not see them, of the faulty ones "
        f"{faulty} of {count}; the others were seen, so that this side looks better than it is"
    )
    whole = held[-1]
    losses = {name: whole - value for name, value in separation.without.items()}
    text = ", ".join(f"{name} {value:.2f}" for name, value in separation.without.items())
    caption = (
        "Left: middle and 80 % of the answers (strongest of the sampled cells) to "
        f"{len(separation.faulty)} training pictures; {by}. Right: how well they part, {whole:.2f} "
        "at the "
        f"end, and {seen[-1]:.2f} by networks that saw them. Without one group of inputs (set to "
        f"their mean) it is: {text}. Look for bands that part early and stay apart. "
        "Suspicious: far better on seen pictures, or most is lost without the position."
    )
    gap = seen[-1] - whole
    if gap > 0.1:
        caption += f" SUSPICIOUS: {gap:.2f} less on unseen pictures: it learns by heart."
    if losses["position"] > 0.1 and losses["position"] >= max(losses.values()):
        caption += (
            " SUSPICIOUS: the position matters most: it learned where defects were, not what they "
            "look like."
        )
    return caption


def normal_figures(
    examples: Sequence[TrainingImage], onlooker: HeadOnlooker, library: Library
) -> list[Figure]:
    """Return where good pictures deviate most from good, each beside the nearest good patch."""
    good = [number for number, example in enumerate(examples) if not example.faulty]
    pictures: list[Rgb] = []
    texts = []
    for unusual in onlooker.unusual:
        example = examples[good[unusual.number]]
        patch = _patch(example.image(), unusual.place)
        pictures.append(_enlarged(as_rgb(patch)))
        texts.append(f"score {unusual.score:.1f}")
        near = [i for i, _ in library.nearest(patch, faulty=False) if
                library.sources[i] != example.id]  # fmt: skip
        if near:
            pictures.append(_enlarged(library.patches[near[0]].numpy()))
            texts.append("nearest good")
    if not pictures:
        return []
    caption = (
        f"Good pictures that deviate most from the other good ones, judged by models that did not "
        f"see them: the patch of {PATCH_PX} x {PATCH_PX} pixels that deviates most (score in "
        "standard deviations above the average good picture), and the most similar known patch of "
        "another good picture. Harmless variety: give more pictures like it. Suspicious: a defect "
        "(the label is wrong), or a fixture, border or label in many of them."
    )
    title = "Most unusual good pictures"
    return [sheet_figure(title, caption, pictures, texts, columns=6, cell_px=TILE_PX, wide=True)]


def place_of_deviations(onlooker: HeadOnlooker) -> Figure:
    """Draw where good pictures deviate on average, when they are held out."""
    values = onlooker.mean_map

    def paint(axes: Axes) -> None:
        picture = axes.imshow(values, cmap="cividis", extent=(0, 1, 1, 0), aspect="auto")
        axes.figure.colorbar(picture, ax=axes)
        axes.grid(visible=False)
        axes.set(xlabel="column / width", ylabel="row / height")
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1])

    return plots.panels(
        "Where good pictures deviate",
        "Mean deviation of good pictures from models that did not see them, by place; light: more, "
        "in standard deviations of a picture's largest deviation. Look for an even surface. "
        "Suspicious: one light spot or border: something beside the part changes there.",
        [paint],
        size_inches=(4.6, 3.2),
        wide=False,
        margins={"left": 0.13, "right": 0.98, "bottom": 0.16, "top": 0.95},
    )
