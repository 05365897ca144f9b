"""The five deep detectors: network, loss and sizes of each.

Sizes follow Stadelmann et al., "Beyond ImageNet", 2019, section 5, where it publishes them; the
others are our choice and stand as keyword defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from lineside.core.errors import UserError
from lineside.machines.models.detector import Rows
from lineside.machines.models.networks import LstmAutoencoder, VariationalAutoencoder
from lineside.machines.models.reconstruction import Reconstruction, fit_reconstruction


def fit_fc_ae(
    rows: Rows, *, hidden: Sequence[int] = (64, 32, 8, 32, 64), **training: Any
) -> Reconstruction:
    """Fit a fully connected sigmoid autoencoder with five hidden layers.

    Args:
        rows: Healthy rows in order of time, shape (snapshot, feature).
        hidden: Sizes of the hidden layers.
        training: ``rng``, ``log`` and ``fitting``, see `fit_reconstruction`.

    Raises:
        UserError: too few rows, or NaN.
        Stopped: `fitting.stop` returned True.
    """
    sizes = {"features": rows.shape[1], "hidden": list(hidden)}
    return fit_reconstruction("dense", sizes, rows, **training)


def fit_denoising_ae(
    rows: Rows, *, hidden: int = 10, noise: float = 0.3, **training: Any
) -> Reconstruction:
    """Fit an autoencoder with one hidden layer to rows with Gaussian noise; see `fit_fc_ae`.

    Args:
        rows: Healthy rows, shape (snapshot, feature).
        hidden: Units of the hidden layer.
        noise: Standard deviation of the noise, in scaled units.
        training: ``rng``, ``log`` and ``fitting``, see `fit_reconstruction`.
    """
    sizes = {"features": rows.shape[1], "hidden": [hidden], "noise": noise}
    return fit_reconstruction("dense", sizes, rows, **training)


def fit_vae(
    rows: Rows, *, hidden: int = 32, latent: int = 4, divergence: float = 1.0, **training: Any
) -> Reconstruction:
    """Fit a variational autoencoder; see `fit_fc_ae`.

    Args:
        rows: Healthy rows, shape (snapshot, feature).
        hidden: Units of the hidden layers.
        latent: Length of the code.
        divergence: Weight of the divergence from the prior.
        training: ``rng``, ``log`` and ``fitting``, see `fit_reconstruction`.
    """
    sizes = {"features": rows.shape[1], "hidden": hidden, "latent": latent}

    def loss(network: nn.Module, window: Tensor) -> Tensor:
        # One process: accelerate hands back the module itself; under DDP it is one level down.
        inner = cast(VariationalAutoencoder, getattr(network, "module", network))
        return inner.loss(window, divergence)

    return fit_reconstruction("vae", sizes, rows, loss=loss, **training)


def fit_lstm_ae(
    rows: Rows, *, outer: int = 10, inner: int = 4, window: int = 5, **training: Any
) -> Reconstruction:
    """Fit an LSTM autoencoder to windows of rows that follow each other; see `fit_fc_ae`.

    Args:
        rows: Healthy rows in order of time, shape (snapshot, feature).
        outer: Units of the first and last layer.
        inner: Units of the middle layer.
        window: Rows of a window; the last one is scored.
        training: ``rng``, ``log`` and ``fitting``, see `fit_reconstruction`.
    """
    sizes = {"features": rows.shape[1], "outer": outer, "inner": inner}

    def loss(network: nn.Module, drawn: Tensor) -> Tensor:
        module = cast(LstmAutoencoder, getattr(network, "module", network))
        return (module.window(drawn) - drawn).square().mean()

    return fit_reconstruction("lstm", sizes, rows, loss=loss, window=window, **training)


def fit_conv_ae(
    rows: Rows,
    *,
    columns: Sequence[Sequence[int]],
    width: int = 8,
    latent: int = 8,
    **training: Any,
) -> Reconstruction:
    """Fit a convolutional autoencoder to the log-mel columns; see `fit_fc_ae`.

    Args:
        rows: Healthy rows, shape (snapshot, feature).
        columns: Indices of the log-mel features, one sequence of equal length per channel.
        width: Feature maps of the first convolution.
        latent: Length of the code.
        training: ``rng``, ``log`` and ``fitting``, see `fit_reconstruction`.

    Raises:
        UserError: there are no such columns, or channels differ in length.
    """
    lengths = {len(channel) for channel in columns}
    if len(lengths) != 1 or min(lengths) < 4:
        raise UserError(
            "conv_ae needs the same log-mel features, 4 at least, for every channel",
            "leave the method out for slow values without waveforms",
        )
    sizes = {"channels": len(columns), "mels": min(lengths), "width": width, "latent": latent}
    flat = tuple(int(column) for channel in columns for column in channel)
    return fit_reconstruction("mel", sizes, rows, columns=flat, **training)
