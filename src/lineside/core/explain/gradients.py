"""Attributions by gradients: plain, times input, integrated, guided and smoothed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from lineside.core.explain.probing import Hooks, gradient, undisturbed

_RECTIFIERS = (nn.ReLU, nn.ReLU6)


def saliency(network: nn.Module, inputs: Tensor, target: int = 0) -> Tensor:
    """Return the signed gradient of the score by the input, shape of `inputs`.

    Simonyan et al. 2014, section 3 (there with the absolute value).
    """
    with undisturbed(network):
        return gradient(network, inputs, target)


def gradient_times_input(network: nn.Module, inputs: Tensor, target: int = 0) -> Tensor:
    """Return gradient times input, shape of `inputs`: exact shares of a linear model's score."""
    return saliency(network, inputs, target) * inputs.detach()


def integrated_gradients(
    network: nn.Module,
    inputs: Tensor,
    target: int = 0,
    *,
    baseline: float | Tensor = 0.0,
    nodes: int = 50,
) -> Tensor:
    """Return integrated gradients, shape of `inputs`; they sum to S(input) - S(baseline).

    Sundararajan et al. 2017, section 3, integrated by Gauss-Legendre quadrature.
    """
    points, weights = np.polynomial.legendre.leggauss(nodes)
    inputs = inputs.detach()
    start = torch.as_tensor(baseline, dtype=inputs.dtype, device=inputs.device).expand_as(inputs)
    with undisturbed(network):
        total = torch.zeros_like(inputs)
        for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
            along = start + float(point) * (inputs - start)
            total += float(weight) * gradient(network, along, target)
    return total * (inputs - start)


def guided_backprop(network: nn.Module, inputs: Tensor, target: int = 0) -> Tensor:
    """Return the guided-backpropagation map, shape of `inputs`.

    The backward pass through a ReLU keeps what is positive, at places where the forward input
    was positive (Springenberg et al. 2015, section 3.4). It acts on `nn.ReLU` and `nn.ReLU6`
    modules only, a functional ReLU is not seen: use one module per place, not in-place.
    The map looks sharp but depends little on the upper layers (Adebayo et al. 2018): show it
    beside Grad-CAM, with its `agreement_with_random`.
    """

    def positive(module: nn.Module, inward: tuple[Tensor, ...], outward: object) -> tuple[Tensor]:
        return (inward[0].clamp_min(0.0),)

    with undisturbed(network), Hooks() as hooks:
        for module in network.modules():
            if isinstance(module, _RECTIFIERS):
                hooks.add(module.register_full_backward_hook(positive))
        return gradient(network, inputs, target)


def smoothgrad(
    network: nn.Module,
    inputs: Tensor,
    target: int = 0,
    *,
    samples: int = 25,
    share: float = 0.15,
    seed: int = 0,
) -> Tensor:
    """Return the mean gradient over noisy copies of the input, shape of `inputs`.

    Smilkov et al. 2017, section 3. All items get the same noise, each scaled by its own range,
    so that an item's map does not depend on its batch.

    Args:
        network: The network.
        inputs: What is explained.
        target: Index of the explained output.
        samples: Noisy copies.
        share: Standard deviation of the noise as a share of an item's range (maximum minus
            minimum); 0 gives the plain gradient.
        seed: Seed of the noise.
    """
    inputs = inputs.detach()
    flat = inputs.flatten(1)
    spread = share * (flat.amax(1) - flat.amin(1)).reshape(-1, *[1] * (inputs.ndim - 1))
    with undisturbed(network):
        total = torch.zeros_like(inputs)
        for noise in standard_noise(inputs, samples, seed):
            total += gradient(network, inputs + spread * noise, target)
    return total / samples


def standard_noise(inputs: Tensor, samples: int, seed: int) -> Tensor:
    """Return the noise of `smoothgrad` before it is scaled, shape (samples, 1, ...)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(samples, 1, *inputs.shape[1:], generator=generator, dtype=torch.float64)
    return noise.to(inputs.device, inputs.dtype)
