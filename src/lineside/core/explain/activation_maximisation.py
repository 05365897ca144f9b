"""Inputs that a unit answers most, found by gradient ascent.

Olah, Mordvintsev and Schubert 2017, "Feature Visualization" (Distill), sections on
regularisation and preconditioning: the input is given by Fourier coefficients scaled by
1/frequency in colours that the data decorrelate, and it is moved a little in every step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lineside.core.explain.probing import undisturbed
from lineside.core.explain.units import Activations, Unit

_START = 0.01
_CONTRAST = 4.0
_SETTLING = 1 / 3
"""Share of the last steps with shifts by whole pixels only: scaling and turning blur, and a
picture made under blur is too sharp without it."""


@dataclass(frozen=True, kw_only=True)
class Maximised:
    """Inputs that units answer most.

    Attributes:
        inputs: One per unit, shape (unit, channel, *grid), between `low` and `high`.
        activations: The unit's mean activation times its sign, without any motion, (unit,).
    """

    inputs: NDArray[np.float32]
    activations: NDArray[np.float64]


def maximise(
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
) -> Maximised:
    """Return one input per unit that raises its mean activation, all in one optimisation.

    Args:
        network: Takes (batch, channel, *grid); it is not changed.
        units: What is maximised, one input each; several units of one kind differ by their start.
        shape: Of one input: (channel, time) or (channel, height, width).
        low: Smallest value of an input.
        high: Largest value, reached through a sigmoid.
        seed: Seed of the start and of the motion.
        steps: Of Adam.
        rate: Learning rate of Adam.
        jitter: Largest shift as a share of the side, in every step.
        scaling: Largest change of scale (2-D only).
        rotation_degrees: Largest rotation (2-D only).
        centre: Value per channel at which the optimisation starts; the middle of the range.
        basis: Colour matrix of `colour_basis`; None keeps channels apart (grey, signals).
    """
    generator = torch.Generator().manual_seed(seed)
    like = next(network.parameters())
    spectrum = _start(len(units), shape, generator).to(like)
    mix = torch.eye(shape[0]) if basis is None else torch.as_tensor(np.asarray(basis))
    middle = [(low + high) / 2] * shape[0] if centre is None else centre
    offset = torch.logit((torch.tensor(middle) - low) / (high - low), eps=0.02)

    def made() -> Tensor:
        plane = torch.einsum("dc,uc...->ud...", mix.to(like), _plane(spectrum, shape))
        shifted = plane + offset.to(like).reshape(-1, *[1] * (len(shape) - 1))
        return low + (high - low) * torch.sigmoid(shifted)

    with undisturbed(network), Activations(network, units) as activations:
        spectrum = spectrum.detach().requires_grad_(True)
        optimizer = torch.optim.Adam([spectrum], lr=rate)
        for step in range(steps):
            free = float(step < (1 - _SETTLING) * steps)
            moved = _moved(made(), generator, jitter, free * scaling, free * rotation_degrees)
            gained = activations.of(moved).diagonal().sum()
            (spectrum.grad,) = torch.autograd.grad(-gained, spectrum)
            optimizer.step()
        with torch.no_grad():
            final = made()
            reached = activations.of(final).diagonal()
    return Maximised(
        inputs=final.detach().float().cpu().numpy(),
        activations=reached.detach().double().cpu().numpy(),
    )


def colour_basis(pixels: NDArray[np.floating[Any]]) -> NDArray[np.float64] | None:
    """Return the square root of the colour covariance of data (item, channel, ...), or None.

    Scaled so that its largest column has length 1. None for one channel.
    """
    channels = pixels.shape[1]
    if channels == 1:
        return None
    colours = np.moveaxis(np.asarray(pixels, dtype=np.float64), 1, 0).reshape(channels, -1)
    values, vectors = np.linalg.eigh(np.cov(colours) + 1e-9 * np.eye(channels))
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    return np.asarray(root / np.linalg.norm(root, axis=0).max())


def _start(count: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Small random Fourier coefficients, real and imaginary parts last."""
    half = (*shape[1:-1], shape[-1] // 2 + 1)
    return _START * torch.randn(count, shape[0], *half, 2, generator=generator)


def _plane(spectrum: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The inputs before colour and range: coefficients divided by their frequency."""
    grid = shape[1:]
    squares = torch.zeros(spectrum.shape[2:-1], dtype=spectrum.dtype, device=spectrum.device)
    for axis, size in enumerate(grid):
        last = axis == len(grid) - 1
        frequency = torch.fft.rfftfreq(size) if last else torch.fft.fftfreq(size)
        along = [-1 if other == axis else 1 for other in range(len(grid))]
        squares = squares + (frequency.to(squares) ** 2).reshape(along)
    scale = 1 / squares.sqrt().clamp_min(1 / max(grid))
    whole = torch.view_as_complex(spectrum) * scale
    axes = tuple(range(2, 2 + len(grid)))
    plane: Tensor = torch.fft.irfftn(whole, s=grid, dim=axes, norm="ortho")
    return plane / _CONTRAST


def _moved(
    inputs: Tensor,
    generator: torch.Generator,
    jitter: float,
    scaling: float,
    rotation_degrees: float,
) -> Tensor:
    """Inputs shifted, and pictures also scaled and turned, a little and at random."""
    count = len(inputs)
    draw = (2 * torch.rand(4, count, generator=generator) - 1).to(inputs)
    if inputs.ndim == 3:
        return torch.roll(inputs, round(float(draw[0, 0]) * jitter * inputs.shape[2]), dims=2)
    sides = torch.tensor(inputs.shape[:1:-1]).to(inputs)[:, None]
    shift_x, shift_y = 2 * (jitter * sides * draw[2:]).round() / sides
    angle = draw[0] * math.radians(rotation_degrees)
    size = 1 + scaling * draw[1]
    cos, sin = angle.cos() / size, angle.sin() / size
    rows = [torch.stack([cos, -sin, shift_x], 1)]
    rows.append(torch.stack([sin, cos, shift_y], 1))
    grid = functional.affine_grid(torch.stack(rows, 1), list(inputs.shape), align_corners=False)
    return functional.grid_sample(
        inputs, grid, padding_mode="reflection", align_corners=False
    ).contiguous(memory_format=torch.channels_last)
