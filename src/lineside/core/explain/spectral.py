"""Attribution of a signal's score to its frequencies, through the inverse Fourier transform."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lineside.core.explain.probing import gradient, undisturbed


def spectral_saliency(
    network: nn.Module, inputs: Tensor, target: int = 0, *, axis: int = -1
) -> Tensor:
    """Return how fast the score can change with each spectral coefficient, not negative.

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
    with undisturbed(network):
        parts, signal_of = _by_frequency(inputs, axis)
        by_part = gradient(lambda p: network(signal_of(p)), parts, target)
    length: Tensor = torch.linalg.vector_norm(by_part, dim=-1)
    return length


def spectral_gradient_times_input(
    network: nn.Module, inputs: Tensor, target: int = 0, *, axis: int = -1
) -> Tensor:
    """Return the share of each frequency in gradient times input, signed.

    Arguments and shape as in `spectral_saliency`; along `axis` the shares sum to the sum of
    `gradient_times_input`.
    """
    with undisturbed(network):
        parts, signal_of = _by_frequency(inputs, axis)
        by_part = gradient(lambda p: network(signal_of(p)), parts, target)
    return (by_part * parts).sum(-1)


def _by_frequency(inputs: Tensor, axis: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Real and imaginary parts of a signal's coefficients, and the way back to the signal."""
    length = inputs.shape[axis]
    coefficients = torch.fft.rfft(inputs.detach(), dim=axis % inputs.ndim, norm="forward")

    def signal_of(parts: Tensor) -> Tensor:
        whole = torch.view_as_complex(parts.contiguous())
        signal: Tensor = torch.fft.irfft(whole, n=length, dim=axis % inputs.ndim, norm="forward")
        return signal

    return torch.view_as_real(coefficients), signal_of
