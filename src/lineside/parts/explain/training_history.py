"""How a patch CNN learned, drawn after its fit from weight snapshots of the training.

Three figures: a gallery of the same crops with their saliency at steps of the training, a map of
the embedding at its beginning, middle and end, and the information plane.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor, nn

from lineside.core.contract import Figure
from lineside.core.explain.embedding_map import embedding_map, neighbour_agreement, principal, tsne
from lineside.core.explain.information_plane import (
    activations,
    default_layers,
    estimate_plane,
    stratified_probe,
)
from lineside.core.explain.information_plots import plane_figures
from lineside.core.explain.sanity_checks import agreement_with_random
from lineside.core.training.weight_snapshots import load_snapshots
from lineside.parts.explain.overlays import enlarge, sheet_figure, signed_map
from lineside.parts.models.crops import CropBatch, CropPool
from lineside.parts.models.patch_cnn.patch_cnn import PatchCNN, cam_map, guided_map
from lineside.parts.models.patch_cnn.training import CropData

GALLERY = 4
"""Crops of each label in the gallery."""
STAGES = 6
"""Steps of the training that the gallery shows."""
CELL_PX = 128
LEAST_PROBE, MOST_PROBE = 250, 1000
"""Crops that the information plane is estimated from."""
_PASSES = 1e13
"""Bound of weights x pixels x crops x steps for it: about 10 s on one core."""


Past = tuple[int, nn.Module]
"""Number of updates, and the network as it was after them."""


def training_figures(
    cnn: PatchCNN, data: CropData, folder: Path, rng: np.random.Generator
) -> list[Figure]:
    """Return all figures of a training, from its crops and the weight snapshots in a folder."""
    crops = data.validation or data.train
    past = past_of(cnn, folder, STAGES)
    return [
        *gallery(cnn, past, crops),
        embedding(cnn, past, crops, int(rng.integers(2**31))),
        *information(cnn, data.pool, folder, rng),
    ]


def past_of(cnn: PatchCNN, folder: Path, most: int) -> list[Past]:
    """Return up to `most` snapshots of the network, spread over the steps, the last included."""
    states = list(load_snapshots(folder))
    count = min(most, len(states))
    indices = np.unique(np.linspace(0, len(states) - 1, count).round().astype(int))
    history = []
    for index in indices.tolist():
        step, weights = states[index]
        network = copy.deepcopy(cnn.network)
        network.load_state_dict(weights)
        history.append((step, network.eval()))
    return history


def gallery(cnn: PatchCNN, past: Sequence[Past], crops: CropBatch) -> list[Figure]:
    """Return sheets of the same crops with guided backprop and Grad-CAM at steps of the fit.

    Args:
        cnn: The fitted network.
        past: States of it, in order.
        crops: Crops that it was not fitted on, where there are any.
    """
    chosen = np.concatenate(
        [np.flatnonzero(crops.crop_labels == value)[:GALLERY] for value in (1.0, 0.0)]
    )
    pixels = crops.pixels[chosen]
    x = cnn.standardise(pixels)
    maps = {"Guided backprop": partial(guided_map, x=x), "Grad-CAM": partial(cam_map, x=x)}
    with torch.inference_mode():
        probability = np.stack([expit(network(x).double().numpy()) for _, network in past])
    truth = crops.crop_labels[chosen]
    figures = []
    for name, map_of in maps.items():
        caption = (
            f"Each row is a crop, each column a step of the training; below each map the "
            "network's output. All maps of a column share one scale. Rank correlation with "
            f"random weights {agreement_with_random(past[-1][1], map_of):.2f}: the "
            "nearer to 1, the less a map says about what was learned."
        )
        tiles, captions = _tiles(pixels, truth, past, map_of, probability)
        title, columns = f"{name} while it learned", 1 + len(past)
        figures.append(
            sheet_figure(
                title, caption, tiles, captions, columns=columns, cell_px=CELL_PX, wide=True
            )
        )
    return figures


def embedding(cnn: PatchCNN, past: Sequence[Past], crops: CropBatch, seed: int) -> Figure:
    """Return maps of the embedding at the beginning, the middle and the end of the fit.

    Args:
        cnn: The fitted network.
        past: States of it, in order.
        crops: What is mapped; crops of parts that it was not fitted on, where there are any.
        seed: Seed of t-SNE.
    """
    x = cnn.standardise(crops.pixels)
    labels = ["defect" if label else "good" for label in crops.crop_labels]
    shown = [past[index] for index in sorted({0, len(past) // 2, len(past) - 1})]
    vectors = {step: _embed(network, x) for step, network in shown}
    maps = {f"step {step}, PCA": principal(values) for step, values in vectors.items()}
    last = shown[-1][0]
    maps[f"step {last}, t-SNE"] = tsne(vectors[last], seed)
    agreement = ", ".join(
        f"{neighbour_agreement(values, labels, crops.part.tolist()):.2f} at step {step}"
        for step, values in vectors.items()
    )
    return embedding_map(
        "Map of the embedding",
        f"Each point is one of {len(labels)} crops. Share of the ten nearest crops of other parts "
        f"with the same label (0.5 is chance): {agreement}. Distances between far groups of a "
        "t-SNE map mean nothing.",
        maps,
        labels,
        ("good", "defect"),
    )


def information(
    cnn: PatchCNN, pool: CropPool, folder: Path, rng: np.random.Generator
) -> list[Figure]:
    """Return the information plane of the training on a fixed sample of its crops.

    The sample and the number of steps shrink with the network, so that this takes some seconds.
    """
    labels = np.zeros(len(pool.pixels), dtype=np.int64)
    marked = np.concatenate(pool.defect or pool.bags)
    labels[marked] = 1
    known = np.concatenate([pool.good, marked])
    weights = sum(weight.numel() for weight in cnn.network.parameters())
    passes = _PASSES / (weights * cnn.crop_px**2)
    steps = int(np.clip(passes / LEAST_PROBE, 4, 12))
    count = int(np.clip(passes / steps, 128, MOST_PROBE))
    chosen = known[stratified_probe(labels[known], n=count, rng=rng)]
    x = cnn.standardise(pool.pixels[chosen].astype(np.float32))
    layers = default_layers(cnn.network)
    moments = (
        (step, activations(network, x, layers)) for step, network in past_of(cnn, folder, steps)
    )
    return plane_figures(estimate_plane(moments, labels[chosen], seed=int(rng.integers(2**31))))


def _tiles(
    pixels: NDArray[np.float32],
    truth: NDArray[np.float32],
    past: Sequence[Past],
    map_of: Any,
    probability: NDArray[np.float64],
) -> tuple[list[NDArray[Any]], list[str]]:
    """Return pictures and captions of a gallery, row by row: a crop, then its map at each step."""
    maps = [map_of(network).numpy() for _, network in past]
    scales = [float(np.quantile(np.abs(values), 0.995)) for values in maps]
    tiles, captions = [], []
    for row, crop in enumerate(pixels):
        picture = enlarge(crop.transpose(1, 2, 0), CELL_PX)
        tiles.append(picture)
        captions.append("defect" if truth[row] else "good")
        for column, (step, _) in enumerate(past):
            values = enlarge(maps[column][row], CELL_PX)
            tiles.append(signed_map(values, picture, scale=scales[column]))
            captions.append(f"step {step}: {probability[column, row]:.2f}")
    return tiles, captions


def _embed(network: nn.Module, x: Tensor) -> NDArray[np.float64]:
    """Inputs of the last linear layer, shape (crops, features)."""
    inputs: list[Tensor] = []
    head = [m for m in network.modules() if isinstance(m, nn.Linear)][-1]
    handle = head.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    try:
        with torch.inference_mode():
            for block in x.split(32):
                network(block)
    finally:
        handle.remove()
    vectors: NDArray[np.float64] = torch.cat(inputs).flatten(1).double().numpy()
    return vectors
