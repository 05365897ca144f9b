"""Information plane: mutual information of a layer T with input X and label Y, in bits.

I(X;T) = H(T) of the binned or noisy activations, I(T;Y) = H(T) - H(T|Y).

For a deterministic network every estimate of I(X;T) is a property of the estimator: without noise
it is infinite for continuous activations, after binning it equals the entropy of the bins (Saxe
et al. 2018; Geiger 2020). So two estimators are computed side by side on the same activations.
I(T;Y) is bounded by the label's entropy and depends far less on the estimator.
Shwartz-Ziv and Tishby 2017, "Opening the black box of deep neural networks via information".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from lineside.core.errors import UserError
from lineside.core.explain.probing import evaluation_mode

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.int64]

BINS = 30
DIMENSIONS = 16
NOISE_SHARE = 0.25
MOST_ITEMS = 1000
BLOCK = 1024
NON_LINEAR = (nn.ReLU, nn.Tanh, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Softmax)
AFFINE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, kw_only=True)
class Information:
    """What one layer carries at one moment, in bits: about the input and about the label."""

    input_bits: float
    label_bits: float


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """A way to estimate the information of activations of shape (items, units).

    Attributes:
        name: Short name for axes, with its constant, e.g. ``"30 quantile bins"``.
        measure: From activations (items, units) and integer labels (items,) to bits.
    """

    name: str
    measure: Callable[[Floats, Integers], Information]


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Information of every layer at every snapshot, by every estimator.

    Attributes:
        steps: Updates (or epochs) done at each snapshot.
        layers: Names, from input to output.
        estimators: Names of the estimators.
        input_bits: Estimated I(X;T), shape (steps, layers, estimators).
        label_bits: Estimated I(T;Y), same shape.
        items: Number of items N of the probe set.
        label_entropy_bits: H(Y) on the probe set.
        projected: Layers reduced by a fixed random projection, with their number of units.
        dimensions: To how many dimensions these were reduced.
    """

    steps: tuple[int, ...]
    layers: tuple[str, ...]
    estimators: tuple[str, ...]
    input_bits: Floats
    label_bits: Floats
    items: int
    label_entropy_bits: float
    projected: Mapping[str, int]
    dimensions: int

    @property
    def ceiling_bits(self) -> float:
        """The most that an estimate on N items can show: log2 N."""
        return float(np.log2(self.items))


def entropy(codes: Integers) -> float:
    """Return the plug-in entropy of discrete codes, in bits."""
    counts = np.unique(codes, return_counts=True)[1]
    shares = counts / counts.sum()
    return abs(float(-(shares * np.log2(shares)).sum()))


def quantile_codes(values: Floats, bins: int = BINS) -> Integers:
    """Return the joint bin of all units for each item, edges at each unit's own quantiles.

    Equal edges, as from the many zeros of a rectified unit, are merged; a value on an edge
    belongs to the bin above it.
    """
    x = np.asarray(values, dtype=np.float64)
    inner = np.quantile(x, np.arange(1, bins) / bins, axis=0)
    columns = [
        np.searchsorted(np.unique(inner[:, unit]), x[:, unit], side="right")
        for unit in range(x.shape[1])
    ]
    return np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def binned_information(codes: Integers, labels: Integers) -> Information:
    """Return H(T), which is I(X;T) of a deterministic network, and H(T) - H(T|Y), in bits."""
    return _information(entropy, codes, labels)


def kernel_information(values: Floats, labels: Integers, variance: float) -> Information:
    """Return the upper bound on I(X;T) by pairwise distances, and I(T;Y) from it, in bits.

    Kolchinsky and Tracey 2017, "Estimating mixture entropy with pairwise distances": a mixture
    of Gaussians of `variance` around each activation.
    """
    return _information(lambda rows: _kernel_bits(rows, variance), values, labels)


def _information(
    bits_of: Callable[[Any], float], rows: NDArray[Any], labels: Integers
) -> Information:
    """Return H(T) and H(T) - H(T|Y), given the entropy of rows in bits."""
    whole = bits_of(rows)
    within = sum(
        float((labels == label).mean()) * bits_of(rows[labels == label])
        for label in np.unique(labels)
    )
    return Information(input_bits=whole, label_bits=max(0.0, whole - within))


def quantile_bins(bins: int = BINS) -> Estimator:
    """Return the estimator that follows each unit's own distribution, see `quantile_codes`."""

    def measure(values: Floats, labels: Integers) -> Information:
        return binned_information(quantile_codes(values, bins), labels)

    return Estimator(name=f"{bins} quantile bins", measure=measure)


def relative_kernel(share: float = NOISE_SHARE) -> Estimator:
    """Return the pairwise-distance bound with noise in proportion to the layer's own spread.

    The noise's deviation in every direction is `share` of the root of the layer's total variance,
    so that it is blind to a mere growth of the activations and does not saturate in wide layers.
    """

    def measure(values: Floats, labels: Integers) -> Information:
        total = float(np.asarray(values, dtype=np.float64).var(axis=0).sum())
        return kernel_information(values, labels, max(share**2 * total, 1e-30))

    return Estimator(name=f"kernel bound, noise {share:.0%} of spread", measure=measure)


def estimate_plane(
    snapshots: Iterable[tuple[int, Mapping[str, Floats]]],
    labels: ArrayLike,
    estimators: Sequence[Estimator] | None = None,
    *,
    dimensions: int = DIMENSIONS,
    seed: int = 0,
) -> Plane:
    """Estimate the information of every layer at every snapshot.

    A layer of shape (items, channels, *grid) is averaged over its grid. More than `dimensions`
    units are reduced by a random orthogonal projection, the same one for all snapshots, scaled
    so that squared distances keep their size on average.

    Args:
        snapshots: (updates or epochs done, activations by layer) in order; may be a generator.
        labels: The class of each item.
        estimators: Quantile bins and the relative kernel bound if not given.
        dimensions: Largest number of dimensions of a layer that is estimated.
        seed: Of the projection.

    Raises:
        UserError: If there is no snapshot, or a layer has another number of items than labels.
    """
    chosen = tuple(estimators or (quantile_bins(), relative_kernel()))
    classes = np.unique(np.asarray(labels), return_inverse=True)[1].astype(np.int64)
    steps, rows, units = [], [], {}
    for step, layers in snapshots:
        flat = {name: _flat(name, values, len(classes)) for name, values in layers.items()}
        units = {name: values.shape[1] for name, values in flat.items()}
        small = [_project(values, dimensions, seed) for values in flat.values()]
        rows.append([[each.measure(x, classes) for each in chosen] for x in small])
        steps.append(step)
    if not rows:
        raise UserError("No snapshot of the training.", "Record weights while training.")
    return Plane(
        steps=tuple(steps),
        layers=tuple(units),
        estimators=tuple(each.name for each in chosen),
        input_bits=np.array([[[e.input_bits for e in layer] for layer in row] for row in rows]),
        label_bits=np.array([[[e.label_bits for e in layer] for layer in row] for row in rows]),
        items=len(classes),
        label_entropy_bits=entropy(classes),
        projected={name: count for name, count in units.items() if count > dimensions},
        dimensions=dimensions,
    )


def stratified_probe(
    labels: ArrayLike, *, n: int = MOST_ITEMS, rng: np.random.Generator
) -> Integers:
    """Return sorted indices of at most `n` items with every class in its own proportion.

    Args:
        labels: The class of each item; each keeps at least one item if `n` allows.
        n: Number of items.
        rng: Source of chance.
    """
    known = np.asarray(labels)
    if len(known) <= n:
        return np.arange(len(known), dtype=np.int64)
    classes, counts = np.unique(known, return_counts=True)
    exact = counts * n / len(known)
    quota = np.maximum(np.floor(exact), 1).astype(int)
    # The classes that were rounded down most get the remaining items.
    for index in np.argsort(quota - exact, kind="stable")[: max(0, n - int(quota.sum()))]:
        quota[index] += 1
    chosen = [
        rng.permutation(np.flatnonzero(known == name))[:count]
        for name, count in zip(classes, quota, strict=True)
    ]
    return np.sort(np.concatenate(chosen)).astype(np.int64)[:n]


def default_layers(network: nn.Module, most: int = 6) -> list[str]:
    """Return names of at most `most` layers, spread from input to output.

    Outputs of non-linear modules and of the last linear one; of linear and convolutional modules
    if the network has no non-linear module of its own.
    """
    leaves = [(name, it) for name, it in network.named_modules() if not list(it.children())]
    names = [name for name, it in leaves if isinstance(it, NON_LINEAR)]
    affine = [name for name, it in leaves if isinstance(it, AFFINE)]
    order = [name for name, _ in leaves]
    if not names:
        names = affine
    elif affine and order.index(affine[-1]) > order.index(names[-1]):
        names.append(affine[-1])
    if not names:
        return []
    shown = np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int)
    return [names[index] for index in shown]


def activations(
    network: nn.Module, inputs: Tensor, layers: Sequence[str], batch_size: int = 256
) -> dict[str, Floats]:
    """Return the outputs of named modules in evaluation mode, (items, channels), float32.

    Outputs with a grid (items, channels, *grid) are averaged over it batch by batch. A module
    used twice counts at its last use.

    Args:
        network: Any module that maps a batch to something.
        inputs: Items first; moved to the network's device by batches.
        layers: Names as in ``named_modules``.
        batch_size: Items at a time.
    """
    missing = sorted(set(layers) - dict(network.named_modules()).keys())
    if missing:
        raise UserError(f"The network has no layer {missing[0]!r}.", "See its named_modules().")
    outputs: dict[str, Tensor] = {}

    def recorder(name: str) -> Callable[..., None]:
        def record(module: nn.Module, given: object, output: Tensor | tuple[Tensor, ...]) -> None:
            first = output if isinstance(output, Tensor) else output[0]
            rows = first.detach().float()
            # (items, channels, *grid) -> (items, channels)
            outputs[name] = rows.flatten(2).mean(2) if rows.ndim > 2 else rows.flatten(1).clone()

        return record

    batches: dict[str, list[Floats]] = {name: [] for name in layers}
    device = next(network.parameters(), inputs).device
    with evaluation_mode(network), torch.no_grad(), ExitStack() as hooks:
        for name in layers:
            hooks.enter_context(network.get_submodule(name).register_forward_hook(recorder(name)))
        for batch in torch.split(inputs, batch_size):
            network(batch.to(device))
            for name in layers:
                batches[name].append(outputs.pop(name).cpu().numpy())
    return {name: np.concatenate(rows) for name, rows in batches.items()}


def _kernel_bits(values: Floats, variance: float) -> float:
    """-1/N sum_i log2 1/N sum_j exp(-|x_i - x_j|^2 / (2 variance)), in blocks of rows.

    The exponent is the Kullback-Leibler distance of two Gaussians of this variance.
    """
    x = np.asarray(values, dtype=np.float64)
    x = x - x.mean(axis=0)
    squares = (x**2).sum(axis=1)
    total = 0.0
    for start in range(0, len(x), BLOCK):
        rows = slice(start, start + BLOCK)
        # (block, items): squared distances as |a|^2 + |b|^2 - 2 a.b
        distance = np.maximum(squares[rows, None] + squares - 2 * x[rows] @ x.T, 0.0)
        total -= float(np.log2(np.exp(distance / (-2 * variance)).mean(axis=1)).sum())
    return abs(total / len(x))


def _flat(name: str, values: Floats, items: int) -> Floats:
    """Return activations (items, channels, *grid) averaged over the grid, (items, channels)."""
    x = np.asarray(values)
    if len(x) != items:
        raise UserError(
            f"Layer {name} has {len(x)} items, but there are {items} labels.",
            "Use the same probe set for activations and labels.",
        )
    x = x.reshape(items, -1) if x.ndim < 3 else x.reshape(*x.shape[:2], -1).mean(axis=2)
    return np.nan_to_num(x.astype(np.float64))


def _project(values: Floats, dimensions: int, seed: int) -> Floats:
    """Return (items, dimensions): a random orthogonal projection of (items, units)."""
    units = values.shape[1]
    if units <= dimensions:
        return values
    gaussian = np.random.default_rng(seed).standard_normal((units, dimensions))
    return np.asarray(values @ np.linalg.qr(gaussian)[0] * np.sqrt(units / dimensions))
