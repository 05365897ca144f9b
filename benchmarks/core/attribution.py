"""Attribution maps that no application shows: measured beside those of `core.explain`.

S(x) is the explained output (`target`). Inputs x have shape (batch, channel, time), (batch,
channel, height, width) or, for recurrent networks, (batch, time, feature).

function                       map                                             shape
gradient_times_input           x * dS/dx                                       of x
smoothgrad                     mean of dS/dx over noisy copies of x            of x
guided_grad_cam                guided_backprop * up-sampled grad_cam           of x
spectral_saliency              |dS/dc|, c the Fourier coefficients of x        (..., frequency)
spectral_gradient_times_input  c * dS/dc                                       (..., frequency)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lineside.core.explain.attribution import grad_cam, guided_backprop, saliency, upsample
from lineside.core.explain.probing import evaluation_mode, gradient


def gradient_times_input(network: nn.Module, inputs: Tensor, target: int = 0) -> Tensor:
    """Return gradient times input, shape of `inputs`: exact shares of a linear model's score."""
    return saliency(network, inputs, target) * inputs.detach()


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
    # (batch,) -> (batch, 1, ...): one standard deviation per item, broadcast over its elements
    spread = share * (flat.amax(1) - flat.amin(1)).reshape(-1, *[1] * (inputs.ndim - 1))
    with evaluation_mode(network):
        total = torch.zeros_like(inputs)
        for noise in standard_noise(inputs, samples, seed):
            total += gradient(network, inputs + spread * noise, target)
    return total / samples


def standard_noise(inputs: Tensor, samples: int, seed: int) -> Tensor:
    """Return the noise of `smoothgrad` before it is scaled, shape (samples, 1, ...)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(samples, 1, *inputs.shape[1:], generator=generator, dtype=torch.float64)
    return noise.to(inputs.device, inputs.dtype)


def guided_grad_cam(
    network: nn.Module, layer: nn.Module, inputs: Tensor, target: int = 0
) -> Tensor:
    """Return guided backpropagation times up-sampled Grad-CAM, shape of `inputs`.

    Selvaraju et al. 2017, section 3.2.
    """
    cam = upsample(grad_cam(network, layer, inputs, target), inputs.shape[2:])
    return guided_backprop(network, inputs, target) * cam.unsqueeze(1)


def spectral_saliency(
    network: nn.Module, inputs: Tensor, target: int = 0, *, axis: int = -1
) -> Tensor:
    """Return how fast the score can change with each Fourier coefficient, not negative.

    The length of the gradient by real and imaginary part of c_k, where the signal is
    sum_k c_k exp(2 pi i k t / n) over positive and negative frequencies: a sine of amplitude a
    has |c_k| = a/2.

    Args:
        network: The network, fed with signals.
        inputs: Signals.
        target: Index of the explained output.
        axis: The axis of time: -1 for (batch, channel, time), 1 for (batch, time, feature).

    Returns:
        Shape of `inputs`, but n // 2 + 1 frequencies along `axis` (see `numpy.fft.rfftfreq`).
    """
    _, by_part = _gradient_by_frequency(network, inputs, target, axis)
    length: Tensor = torch.linalg.vector_norm(by_part, dim=-1)
    return length


def spectral_gradient_times_input(
    network: nn.Module, inputs: Tensor, target: int = 0, *, axis: int = -1
) -> Tensor:
    """Return the share of each frequency in gradient times input, signed.

    Arguments and shape as in `spectral_saliency`; along `axis` the shares sum to the sum of
    `gradient_times_input`.
    """
    parts, by_part = _gradient_by_frequency(network, inputs, target, axis)
    return (by_part * parts).sum(-1)


def _gradient_by_frequency(
    network: nn.Module, inputs: Tensor, target: int, axis: int
) -> tuple[Tensor, Tensor]:
    """Return Fourier coefficients and the gradient by them, real and imaginary part last."""
    length, axis = inputs.shape[axis], axis % inputs.ndim

    def signal_of(parts: Tensor) -> Tensor:
        coefficients = torch.view_as_complex(parts.contiguous())
        signal: Tensor = torch.fft.irfft(coefficients, n=length, dim=axis, norm="forward")
        return signal

    with evaluation_mode(network):
        parts = torch.view_as_real(torch.fft.rfft(inputs.detach(), dim=axis, norm="forward"))
        return parts, gradient(lambda values: network(signal_of(values)), parts, target)
