"""Feature visualisation: inputs that activate a unit of a network most, made and picked.

`maximise_activation` makes them by gradient ascent (Olah, Mordvintsev and Schubert 2017, "Feature
Visualization", Distill, sections on regularisation and preconditioning); `most_activating` picks
them from data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lineside.core.explain.probing import evaluation_mode

_START = 0.01
_CONTRAST = 4.0
_SHIFT_ONLY_SHARE = 1 / 3
"""Share of the last steps with shifts by whole pixels only: scaling and rotation interpolate, and
an input optimised under blur is too sharp without it."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A channel of a layer, or an output.

    Attributes:
        layer: Name of the module with output (batch, channel, ...); "" for the network's output.
        channel: Which of its channels.
        sign: 1 to maximise its activation, -1 to minimise it.
    """

    layer: str
    channel: int = 0
    sign: int = 1


@dataclass(frozen=True, kw_only=True)
class MaximisedInputs:
    """Inputs that maximise the activation of units.

    Attributes:
        inputs: One per unit, shape (unit, channel, *grid), between `low` and `high`.
        activations: The unit's mean activation times its sign, without augmentation, (unit,).
    """

    inputs: NDArray[np.float32]
    activations: NDArray[np.float64]


def maximise_activation(
    network: nn.Module,
    units: Sequence[Unit],
    shape: tuple[int, ...],
    *,
    low: float,
    high: float,
    seed: int = 0,
    steps: int = 256,
    rate: float = 0.05,
    jitter: float = 1 / 16,
    scaling: float = 0.05,
    rotation_degrees: float = 5.0,
    centre: Sequence[float] | None = None,
    basis: NDArray[np.floating[Any]] | None = None,
) -> MaximisedInputs:
    """Return one input per unit that maximises its mean activation, all in one optimisation.

    input = low + (high - low) * sigmoid(basis @ irfft(c / frequency) + offset). Adam optimises the
    coefficients c; every step sees a randomly shifted, scaled and rotated copy.

    Args:
        network: Takes (batch, channel, *grid); it is not changed.
        units: One input each; several copies of one unit differ by their start.
        shape: Of one input: (channel, time) or (channel, height, width).
        low: Smallest value of an input.
        high: Largest value.
        seed: Seed of the start and of the augmentation.
        steps: Of Adam.
        rate: Learning rate of Adam.
        jitter: Largest shift as a share of the side, in every step.
        scaling: Largest change of scale (2-D only).
        rotation_degrees: Largest rotation (2-D only).
        centre: Value per channel at which the optimisation starts; the middle of the range.
        basis: Matrix of `colour_basis`; None keeps channels apart (grey, signals).
    """
    generator = torch.Generator().manual_seed(seed)
    like = next(network.parameters())
    spectrum = _initial_spectrum(len(units), shape, generator).to(like)
    mix = (torch.eye(shape[0]) if basis is None else torch.as_tensor(np.asarray(basis))).to(like)
    middle = [(low + high) / 2] * shape[0] if centre is None else centre
    offset = torch.logit((torch.tensor(middle) - low) / (high - low), eps=0.02).to(like)
    offset = offset.reshape(-1, *[1] * (len(shape) - 1))

    def render() -> Tensor:
        # (colour d, colour c) x (unit, colour c, *grid) -> (unit, colour d, *grid)
        plane = torch.einsum("dc,uc...->ud...", mix, _inverse_fourier(spectrum, shape))
        return low + (high - low) * torch.sigmoid(plane + offset)

    with evaluation_mode(network), Activations(network, units) as activations:
        spectrum.requires_grad_(True)
        optimizer = torch.optim.Adam([spectrum], lr=rate)
        for step in range(steps):
            warp = float(step < (1 - _SHIFT_ONLY_SHARE) * steps)  # 1 or 0
            views = _augment(render(), generator, jitter, warp * scaling, warp * rotation_degrees)
            gain = activations.of(views).diagonal().sum()  # (input, unit): own input of each unit
            (spectrum.grad,) = torch.autograd.grad(-gain, spectrum)
            optimizer.step()
        with torch.no_grad():
            reached = activations.of(inputs := render()).diagonal().double()
    return MaximisedInputs(inputs=inputs.float().cpu().numpy(), activations=reached.cpu().numpy())


def colour_basis(pixels: NDArray[np.floating[Any]]) -> NDArray[np.float64] | None:
    """Return the square root of the colour covariance of data (item, channel, ...), or None.

    Scaled so that its largest column has length 1. None for one channel.
    """
    channels = pixels.shape[1]
    if channels == 1:
        return None
    # (item, channel, ...) -> (channel, every pixel)
    colours = np.moveaxis(np.asarray(pixels, dtype=np.float64), 1, 0).reshape(channels, -1)
    values, vectors = np.linalg.eigh(np.cov(colours) + 1e-9 * np.eye(channels))
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    return np.asarray(root / np.linalg.norm(root, axis=0).max())


def unit_activations(
    network: nn.Module, units: Sequence[Unit], batches: Iterable[Tensor]
) -> NDArray[np.float64]:
    """Return each unit's mean activation over its grid times its sign, shape (item, unit)."""
    rows = []
    with evaluation_mode(network), torch.no_grad(), Activations(network, units) as activations:
        for batch in batches:
            rows.append(activations.of(batch).double().cpu().numpy())
    return np.concatenate(rows)


def most_activating(
    activations: NDArray[np.floating[Any]], k: int, groups: Sequence[str] | NDArray[Any]
) -> NDArray[np.int64]:
    """Return the indices of the `k` items with the highest activation, highest first.

    Args:
        activations: Shape (item,).
        k: Number of items; fewer if there are fewer.
        groups: The independent unit of each item. Each gives one item as long as there are
            others that have given none, so that one part does not fill the list.
    """
    order = np.argsort(-np.asarray(activations), kind="stable")
    chosen = round_robin(order, groups)[:k]
    best_first = np.argsort(-np.asarray(activations)[chosen], kind="stable")
    return chosen[best_first].astype(np.int64)


def round_robin(
    items: NDArray[np.int64], groups: Sequence[str] | NDArray[Any]
) -> NDArray[np.int64]:
    """Reorder items so that each group has one before any has a second, stable otherwise."""
    counts: dict[Any, int] = {}
    turns = []
    for item in items:
        group = groups[item]
        turns.append(counts.get(group, 0))
        counts[group] = turns[-1] + 1
    return items[np.argsort(turns, kind="stable")]


def first_filters(network: nn.Module) -> NDArray[np.float64]:
    """Return the kernels of the first convolution, shape (filter, channel, *kernel).

    Raises:
        ValueError: if the network has none.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            weights: NDArray[np.float64] = module.weight.detach().double().cpu().numpy()
            return weights
    raise ValueError("the network has no convolution")


class Activations:
    """Mean activations of units, recorded by forward hooks while the context is open."""

    def __init__(self, network: nn.Module, units: Sequence[Unit]) -> None:
        self._network, self._units = network, units
        self._outputs: dict[str, Tensor] = {}
        self._hooks = ExitStack()

    def of(self, inputs: Tensor) -> Tensor:
        """Return each unit's mean over its grid times its sign, shape (input, unit)."""
        self._outputs[""] = self._network(inputs)
        return torch.stack([unit.sign * self._mean(unit) for unit in self._units], dim=1)

    def _mean(self, unit: Unit) -> Tensor:
        # (input, channel, *grid) -> (input, *grid) -> (input,)
        output = self._outputs[unit.layer]
        channel = output if output.ndim == 1 else output[:, unit.channel]
        return channel.flatten(1).mean(1) if channel.ndim > 1 else channel

    def __enter__(self) -> Activations:
        for name in sorted({unit.layer for unit in self._units} - {""}):

            def record(module: nn.Module, given: object, output: Tensor, name: str = name) -> None:
                self._outputs[name] = output

            handle = self._network.get_submodule(name).register_forward_hook(record)
            self._hooks.enter_context(handle)
        return self

    def __exit__(self, *exception: object) -> None:
        self._hooks.close()
        self._outputs.clear()


def _initial_spectrum(count: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Small random Fourier coefficients (unit, channel, *half grid, 2), real and imaginary last."""
    half = (*shape[1:-1], shape[-1] // 2 + 1)
    return _START * torch.randn(count, shape[0], *half, 2, generator=generator)


def _inverse_fourier(spectrum: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return (unit, channel, *grid): the inverse transform of coefficients over frequency.

    Dividing by the frequency gives start and steps the 1/f spectrum of natural images.
    """
    grid = shape[1:]
    squares = torch.zeros(spectrum.shape[2:-1], dtype=spectrum.dtype, device=spectrum.device)
    for axis, size in enumerate(grid):
        last = axis == len(grid) - 1
        frequency = torch.fft.rfftfreq(size) if last else torch.fft.fftfreq(size)
        along = [-1 if other == axis else 1 for other in range(len(grid))]
        squares = squares + (frequency.to(squares) ** 2).reshape(along)
    scale = 1 / squares.sqrt().clamp_min(1 / max(grid))
    coefficients = torch.view_as_complex(spectrum) * scale
    axes = tuple(range(2, 2 + len(grid)))
    plane: Tensor = torch.fft.irfftn(coefficients, s=grid, dim=axes, norm="ortho")
    return plane / _CONTRAST


def _augment(
    inputs: Tensor,
    generator: torch.Generator,
    jitter: float,
    scaling: float,
    rotation_degrees: float,
) -> Tensor:
    """Shift inputs at random; images are also scaled and rotated, each by its own amount."""
    count = len(inputs)
    draw = (2 * torch.rand(4, count, generator=generator) - 1).to(inputs)
    if inputs.ndim == 3:
        return torch.roll(inputs, round(float(draw[0, 0]) * jitter * inputs.shape[2]), dims=2)
    # width, height as a column: grid_sample has x before y and coordinates from -1 to 1
    sides = torch.tensor(inputs.shape[:1:-1]).to(inputs)[:, None]
    shift_x, shift_y = 2 * (jitter * sides * draw[2:]).round() / sides
    angle = draw[0] * math.radians(rotation_degrees)
    size = 1 + scaling * draw[1]
    cos, sin = angle.cos() / size, angle.sin() / size
    # affine matrices, shape (unit, 2, 3)
    rows = [torch.stack([cos, -sin, shift_x], 1)]
    rows.append(torch.stack([sin, cos, shift_y], 1))
    grid = functional.affine_grid(torch.stack(rows, 1), list(inputs.shape), align_corners=False)
    return functional.grid_sample(
        inputs, grid, padding_mode="reflection", align_corners=False
    ).contiguous(memory_format=torch.channels_last)
