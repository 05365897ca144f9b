"""The information plane of the 12-10-7-5-4-3-2 network, with tanh and with ReLU.

Repeats the experiment of Shwartz-Ziv and Tishby 2017 (arXiv 1703.00810) on an equivalent symmetric
rule: the twelve bits of a pattern sit on the vertices of an icosahedron and the label depends on a
sum that no rotation or reflection changes. It is not the original label file, and it takes fewer
epochs (600 against 8000), seeds (3 against about 50) and snapshots (25 against about 400); layers,
initial weights, optimiser, learning rate, batch and bins are the original's.

Run ``python examples/information_plane.py`` (about a minute of one core); it prints the numbers and
writes one HTML page. With these settings the sign of the change of I(X;T) depends on the
estimator in the ReLU net; in the tanh net both estimators fall, by very different amounts.
"""

from __future__ import annotations

import argparse
import html
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lineside.core.contract import Figure
from lineside.core.explain import information_plane as information
from lineside.core.explain.information_plots import plane_figures
from lineside.core.training.weight_snapshots import log_spaced

WIDTH = 1 / 15
"""Width of a fixed bin: 30 over the range of tanh, from -1 to 1."""
WIDTHS = (12, 10, 7, 5, 4, 3, 2)
THRESHOLD = 8.519687
LEARNING_RATE, BATCH, TRAIN_SHARE = 4e-4, 512, 0.8
EPOCHS, SEEDS, SNAPSHOTS = 600, 3, 25
NETS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "ReLU": nn.ReLU}
WATCHED = {"tanh": ("hidden 5", 32), "ReLU": ("hidden 4", 1)}
"""Layer whose change of I(X;T) is reported, and from about which epoch on."""
STYLE = (
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;"
    "margin:2rem auto;padding:0 1rem}svg{width:100%;height:auto}figcaption{font-size:.9rem}"
    "figure{margin:2rem 0}"
)


def fixed_codes(values: information.Floats) -> information.Integers:
    """Return the joint bin of all units for each item, bins of one width with an edge at 0.

    Args:
        values: Activations, (items, units).
    """
    bins = np.floor(np.asarray(values, dtype=np.float64) / WIDTH).astype(np.int64)
    return np.unique(bins, axis=0, return_inverse=True)[1].reshape(-1)


def fixed_information(
    values: information.Floats, labels: information.Integers
) -> information.Information:
    """Measure as the original paper did: bins of one fixed width, see `fixed_codes`."""
    return information.binned_information(fixed_codes(values), labels)


FIXED_BINS = information.Estimator(name=f"fixed bins, width {WIDTH:.3f}", measure=fixed_information)
ESTIMATORS = (FIXED_BINS, information.quantile_bins())


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One training: its plane, and the share of right answers on all patterns at the end."""

    plane: information.Plane
    accuracy: float


def icosahedron() -> NDArray[np.float64]:
    """Return the twelve vertices on the unit sphere, shape (12, 3)."""
    golden = (1 + 5**0.5) / 2
    corners = [(0.0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
    every = [np.roll(corner, turn) for turn in range(3) for corner in corners]
    return np.array(every) / np.hypot(1, golden)


def rule() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return all 4096 patterns of 12 bits, the symmetric sum of each, and its label."""
    patterns = (np.arange(4096)[:, None] >> np.arange(12) & 1).astype(np.float64)
    vertices = icosahedron()
    pair = np.exp(3 * (vertices @ vertices.T - 1))
    sums = np.round(np.einsum("ni,ij,nj->n", patterns, pair, patterns), 6)
    labels = (sums >= THRESHOLD).astype(np.int64)
    if len(np.unique(sums)) != 64 or labels.sum() != 2118:
        raise AssertionError("the symmetric rule must give 64 sums and 2118 ones")
    return patterns, sums, labels


def network(activation: type[nn.Module], chance: torch.Generator) -> nn.Sequential:
    """Return the untrained net, weights truncated normal with deviation 1 / sqrt(fan-in)."""
    net = nn.Sequential()
    for number, (fan_in, fan_out) in enumerate(pairwise(WIDTHS), start=1):
        linear, last = nn.Linear(fan_in, fan_out), number == len(WIDTHS) - 1
        spread = fan_in**-0.5
        nn.init.trunc_normal_(
            linear.weight, std=spread, a=-2 * spread, b=2 * spread, generator=chance
        )
        nn.init.zeros_(linear.bias)
        net.add_module(f"linear {number}", linear)
        net.add_module(*(("output", nn.Softmax(1)) if last else (f"hidden {number}", activation())))
    return net


def snapshots(
    net: nn.Sequential, inputs: Tensor, labels: Tensor, epochs: int, chance: torch.Generator
) -> Iterator[tuple[int, dict[str, NDArray[np.floating[Any]]]]]:
    """Train and yield (epochs done, activations of all patterns by layer) at log-spaced epochs."""
    layers = [name for name, _ in net.named_children() if not name.startswith("linear")]
    train = torch.randperm(len(inputs), generator=chance)[: int(TRAIN_SHARE * len(inputs))]
    optimiser = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    wanted = set(log_spaced(epochs, SNAPSHOTS))
    scores = net[:-1]
    for epoch in range(epochs + 1):
        if epoch in wanted:
            yield epoch, information.activations(net, inputs, layers, 4096)
        if epoch == epochs:
            return
        order = train[torch.randperm(len(train), generator=chance)]
        for batch in order.split(BATCH):
            loss = nn.functional.cross_entropy(scores(inputs[batch]), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def trained(kind: str, seed: int, epochs: int = EPOCHS) -> Trained:
    """Train one net and return its plane."""
    patterns, _, known = rule()
    chance = torch.Generator().manual_seed(seed)
    inputs, labels = torch.tensor(2 * patterns - 1, dtype=torch.float32), torch.tensor(known)
    net = network(NETS[kind], chance)
    found = information.estimate_plane(
        snapshots(net, inputs, labels, epochs, chance), known, ESTIMATORS
    )
    with torch.no_grad():
        accuracy = float((net(inputs).argmax(1) == labels).float().mean())
    return Trained(plane=found, accuracy=accuracy)


def mean(runs: list[Trained]) -> information.Plane:
    """Return the plane averaged over runs."""
    return replace(
        runs[0].plane,
        input_bits=np.mean([run.plane.input_bits for run in runs], axis=0),
        label_bits=np.mean([run.plane.label_bits for run in runs], axis=0),
    )


def changes(kind: str, plane: information.Plane) -> NDArray[np.floating[Any]]:
    """Return the change of I(X;T) of the watched layer in bits, one for each estimator."""
    layer, epoch = WATCHED[kind]
    start = int(np.argmin(np.abs(np.array(plane.steps) - epoch)))
    bits = plane.input_bits[:, plane.layers.index(layer)]
    return np.asarray(bits[-1] - bits[start])


def label_difference(plane: information.Plane) -> float:
    """Return by how much the estimators differ in I(T;Y) at the end, in bits, mean over layers."""
    return float(np.ptp(plane.label_bits[-1], axis=1).mean())


def page(figures: list[Figure]) -> str:
    """Return one self-contained page."""
    body = "".join(
        f"<figure><h2>{html.escape(each.title)}</h2>{each.image.decode()}"
        f"<figcaption>{html.escape(each.caption)}</figcaption></figure>"
        for each in figures
    )
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    return (
        f'<!doctype html><html lang="en"><head>{head}<title>Information plane</title>'
        f"<style>{STYLE}</style></head><body><h1>Information plane</h1>{body}</body></html>"
    )


def tell(kind: str, runs: list[Trained]) -> None:
    """Print what came out for one kind of net."""
    average, (layer, epoch) = mean(runs), WATCHED[kind]
    shares = ", ".join(f"{run.accuracy:.3f}" for run in runs)
    print(f"{kind}: right answers on all patterns, by seed: {shares}")
    for name, change in zip(average.estimators, changes(kind, average), strict=True):
        way = "up" if change > 0 else "down"
        print(f"  {name}: I(X;T) of {layer} goes {way} by {abs(change):.2f} bit from {epoch} on")
    for name, bits in zip(average.estimators, average.label_bits[-1].T, strict=True):
        print(f"  {name}: I(T;Y) at the end by layer {bits.round(2).tolist()}")
    print(f"  I(T;Y) at the end differs by {label_difference(average):.2f} bit on average")


def main() -> None:
    """Train the nets, print the numbers and write the page."""
    parser = argparse.ArgumentParser(description="Information plane of a small dense net.")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="trainings that are averaged")
    parser.add_argument("--out", type=Path, default=Path("information_plane.html"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: list[Figure] = []
    for kind in NETS:
        runs = [trained(kind, seed, options.epochs) for seed in range(options.seeds)]
        tell(kind, runs)
        title = f"{kind} net, mean of {options.seeds} trainings"
        figures += plane_figures(mean(runs), unit="epoch", title=title)
    options.out.write_text(page(figures), encoding="utf-8")
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
