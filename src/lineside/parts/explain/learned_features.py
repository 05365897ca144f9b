"""Learned features of a patch CNN, drawn after its fit from its own training crops.

Three figures: the filters of the first layer, crops optimised for the activation of a unit
(Olah et al. 2017), and for each unit the training crops with the highest activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import nn

from lineside.core.contract import Figure
from lineside.core.explain.feature_visualisation import (
    MaximisedInputs,
    Unit,
    colour_basis,
    first_filters,
    maximise_activation,
    most_activating,
    unit_activations,
)
from lineside.core.explain.sanity_checks import randomise_weights
from lineside.parts.explain.overlays import (
    Rgb,
    as_rgb,
    contact_sheet,
    enlarge,
    sheet_figure,
    signed_map,
)
from lineside.parts.models.crops import CropBatch, CropPool, join_bags
from lineside.parts.models.patch_cnn.patch_cnn import PatchCNN

DEFECT_CROPS, GOOD_CROPS = 240, 360
LAYERS = 4
STEPS = 160
NEAREST = 9
COLUMNS = 5
CELL_PX = 148
DEFECT_EDGE = (224, 117, 45)


@dataclass(frozen=True, kw_only=True)
class Feature:
    """A unit and its strongest inputs.

    Attributes:
        unit: The unit.
        name: For people.
        picture: The crop made for it, shape (crop, crop, channel), values 0..1.
        untrained_picture: The crop made for the same unit of an untrained network.
        reached: The unit's answer to `picture`.
        untrained_reached: The trained unit's answer to `untrained_picture`.
        percentile_99: Its answer that 1 % of the training crops exceed.
        nearest: Indices of the training crops that it answers most.
    """

    unit: Unit
    name: str
    picture: NDArray[np.float32]
    untrained_picture: NDArray[np.float32]
    reached: float
    untrained_reached: float
    percentile_99: float
    nearest: NDArray[np.int64]


def feature_figures(cnn: PatchCNN, pool: CropPool, rng: np.random.Generator) -> list[Figure]:
    """Return the figures of a network's features: filters, made crops, nearest training crops.

    Args:
        cnn: The fitted network.
        pool: The crops that it was fitted on.
        rng: Random stream of the sample of crops and of the made crops.
    """
    sample = crop_sample(pool, rng)
    found = features(cnn, sample, seed=int(rng.integers(2**31)))
    return [filter_figure(cnn), made_figure(found), nearest_figure(found, sample)]


def crop_sample(pool: CropPool, rng: np.random.Generator) -> CropBatch:
    """Return up to 240 crops with a defect, of as many pictures as possible, and 360 good ones.

    Crops of a defective picture without a mask count as crops with a defect.
    """
    defective = [crops for crops in (*pool.defect, *pool.bags) if len(crops)]
    turns = [rng.permutation(crops) for crops in defective]
    longest = max((len(crops) for crops in turns), default=0)
    by_turn = [crops[[turn]] for turn in range(longest) for crops in turns if turn < len(crops)]
    return join_bags(pool, by_turn[:DEFECT_CROPS], rng.permutation(pool.good)[:GOOD_CROPS])


def features(cnn: PatchCNN, sample: CropBatch, *, seed: int = 0) -> list[Feature]:
    """Return two units of each of four layers, and the logit in both directions.

    Of a layer, shown are the channels whose answer rises and falls most from good crops to crops
    with a defect (area under the ROC curve).
    """
    units, names, answers = chosen_units(cnn, sample)
    untrained_network = randomise_weights(cnn.network, seed)
    colours = sample.pixels.mean((0, 2, 3))
    made, untrained = (
        maximise_activation(
            network,
            units,
            (cnn.channels, cnn.crop_px, cnn.crop_px),
            low=(0.0 - cnn.mean) / cnn.spread,
            high=(1.0 - cnn.mean) / cnn.spread,
            seed=seed,
            steps=steps,
            centre=((colours - cnn.mean) / cnn.spread).tolist(),
            basis=colour_basis(sample.pixels),
        )
        for network, steps in ((cnn.network, STEPS), (untrained_network, STEPS // 2))
    )
    crossed = _answers(cnn, cnn.network, units, _pixels(cnn, untrained)).diagonal()
    pictures, others = (
        _pixels(cnn, each).transpose(0, 2, 3, 1).astype(np.float32) for each in (made, untrained)
    )
    return [
        Feature(
            unit=unit,
            name=names[place],
            picture=pictures[place],
            untrained_picture=others[place],
            reached=float(made.activations[place]),
            untrained_reached=float(crossed[place]),
            percentile_99=float(np.quantile(answers[:, place], 0.99)),
            nearest=most_activating(answers[:, place], NEAREST, sample.part),
        )
        for place, unit in enumerate(units)
    ]


def chosen_units(
    cnn: PatchCNN, sample: CropBatch
) -> tuple[list[Unit], list[str], NDArray[np.float64]]:
    """Return the units that are shown, their names and their answers (crop, unit).

    Channels are visualised before their ReLU, where a silent channel still has a gradient.
    """
    order = [
        (name, module.num_features)
        for name, module in cnn.network.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    places = [len(order) * (turn + 1) // LAYERS - 1 for turn in range(LAYERS)]
    everyone = [
        Unit(layer=order[place][0], channel=channel)
        for place in places
        for channel in range(order[place][1])
    ]
    everyone.extend([Unit(layer="", sign=1), Unit(layer="", sign=-1)])
    answers = _answers(cnn, cnn.network, everyone, sample.pixels)
    rise = roc_auc_by_column(sample.crop_labels > 0, answers)
    chosen, names = [], []
    for place in places:
        layer, _ = order[place]
        in_layer = np.flatnonzero([unit.layer == layer for unit in everyone])
        lowest, highest = in_layer[rise[in_layer].argmin()], in_layer[rise[in_layer].argmax()]
        for index, end in ((lowest, "good"), (highest, "defect")):
            chosen.append(int(index))
            channel = everyone[chosen[-1]].channel
            names.append(f"layer {place + 1}, ch. {channel}: {end}")
    chosen.extend([len(everyone) - 2, len(everyone) - 1])
    names.extend(["output: defect", "output: good"])
    return [everyone[index] for index in chosen], names, answers[:, chosen]


def roc_auc_by_column(
    labels: NDArray[np.bool_], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the area under the ROC curve of each column; 0.5 throughout for one class."""
    from sklearn.metrics import roc_auc_score

    if labels.all() or not labels.any():
        return np.full(values.shape[1], 0.5)
    return np.array([float(roc_auc_score(labels, column)) for column in values.T])


def filter_figure(cnn: PatchCNN) -> Figure:
    """Return the kernels of the first convolution on one scale, mean over colours."""
    kernels = first_filters(cnn.network).mean(1)
    scale = float(np.abs(kernels).max())
    shown = kernels[:: max(1, len(kernels) // 16)][:16]
    tiles = [signed_map(enlarge(kernel, 72), scale=scale) for kernel in shown]
    side = " x ".join(map(str, kernels.shape[1:]))
    caption = (
        f"{len(shown)} of {len(kernels)} filters of the first layer, {side} pixels each: "
        f"orange weights add, blue ones subtract (full colour: {scale:.2g} per unit of "
        "standardised grey). Opposite colours side by side find edges."
    )
    return sheet_figure("First-layer filters", caption, tiles, columns=8, cell_px=72, jpeg=False)


def made_figure(found: Sequence[Feature]) -> Figure:
    """Return the crops made for units, above those made for the same units without training."""
    tiles: list[Any] = []
    names: list[str] = []
    for first in range(0, len(found), COLUMNS):
        row = found[first : first + COLUMNS]
        tiles.extend(_smooth(feature.picture) for feature in row)
        names.extend(feature.name for feature in row)
        tiles.extend(_smooth(feature.untrained_picture) for feature in row)
        names.extend("same, untrained" for _ in row)
    above = sum(feature.reached > feature.percentile_99 for feature in found)
    without = sum(feature.untrained_reached > feature.percentile_99 for feature in found)
    side = found[0].picture.shape[0]
    caption = (
        f"Synthetic crops of {side} x {side} pixels, optimised for the activation of one unit "
        "(not photographs). Of four convolution layers the "
        "channels (ch.) that rise most on good crops and on defects, then the output both "
        "ways; what raises 'good' is the absence of defects, so it looks like plain surface. "
        "Below each the crop made for an untrained network. "
        f"{above} of the {len(found)} made crops are answered more strongly than 99 % of the "
        f"training crops, and {without} of those made for the untrained network."
    )
    title = "Strongest inputs of units"
    return sheet_figure(title, caption, tiles, names, columns=COLUMNS, cell_px=CELL_PX, wide=True)


def nearest_figure(found: Sequence[Feature], sample: CropBatch) -> Figure:
    """Return for each unit the training crops that it answers most, defects with a frame."""
    mosaics = [_mosaic(sample, feature.nearest) for feature in found]
    shares = [float(sample.crop_labels[feature.nearest].mean()) for feature in found]
    names = [f.name for f in found]
    parts = len(set(sample.part.tolist()))
    caption = (
        f"For each unit the {len(found[0].nearest)} strongest of {len(sample.pixels)} "
        f"training crops, one per part where {parts} parts allow; an orange frame marks a "
        f"crop with a defect: {shares[-2]:.0%} of those that the output calls most defective, "
        f"{shares[-1]:.0%} of those that it calls best."
    )
    title = "Training crops that units answer most"
    return sheet_figure(title, caption, mosaics, names, columns=COLUMNS, cell_px=CELL_PX, wide=True)


def _answers(
    cnn: PatchCNN, network: nn.Module, units: Sequence[Unit], pixels: NDArray[np.float32]
) -> NDArray[np.float64]:
    batches = (cnn.standardise(pixels[first : first + 32]) for first in range(0, len(pixels), 32))
    return unit_activations(network, units, batches)


def _pixels(cnn: PatchCNN, made: MaximisedInputs) -> NDArray[np.float32]:
    """Made inputs as crops (unit, channel, height, width), values 0..1."""
    return np.clip(made.inputs * np.float32(cnn.spread) + np.float32(cnn.mean), 0, 1)


def _mosaic(sample: CropBatch, chosen: NDArray[np.int64]) -> Rgb:
    """Crops in a square, each with a frame."""
    tiles = []
    for index in chosen:
        tile = as_rgb(enlarge(sample.pixels[index].transpose(1, 2, 0), CELL_PX // 3 - 2)).copy()
        if sample.crop_labels[index]:
            tile[:3], tile[-3:], tile[:, :3], tile[:, -3:] = (DEFECT_EDGE,) * 4
        tiles.append(tile)
    return contact_sheet(tiles, columns=3, cell_px=tiles[0].shape[0], gap_px=1)


def _smooth(picture: NDArray[np.float32]) -> Rgb:
    """A made crop at the size of a cell."""
    shown = Pillow.fromarray(as_rgb(picture))
    return np.asarray(shown.resize((CELL_PX, CELL_PX), Pillow.Resampling.BICUBIC))
