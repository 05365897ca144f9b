"""Presets: the constants of published studies as keyword arguments of the fits."""

from __future__ import annotations

from typing import Any

from lineside.core.errors import UserError
from lineside.machines.models.reconstruction import Fitting


def preset(name: str) -> dict[str, dict[str, Any]]:
    """Return the constants of a preset by method, none for ``default``.

    ``beyond-imagenet`` is Stadelmann et al., "Beyond ImageNet: deep learning in industrial
    practice", Applied Data Science, Springer 2019, section 5: energies of 100 equal sub-bands,
    the first 200 snapshots, median and MAD, eight detectors. A run fits two thirds of its learning
    snapshots, so that ``--learn 300`` fits the study's 200; it always holds later ones out for
    calibration, which the study does not. The study does not publish the sizes of the five hidden
    layers, the window of the LSTM, the noise of the denoising autoencoder, the optimiser and its
    learning rate, the covariances of the mixture and the kernel width of the SVM: they are ours.

    Returns:
        Keyword arguments of each fit, and ``features``, the set of its columns.

    Raises:
        UserError: there is no such preset.
    """
    if name == "default":
        return {}
    if name != "beyond-imagenet":
        raise UserError(f"unknown preset {name!r}", "presets are default, beyond-imagenet")
    scaled = {"features": "bands", "scaling": "energies"}
    deep = {"features": "bands", "fitting": Fitting(epochs=50, batch=20, scaling="energies")}
    return {
        "ocsvm": {"nu": 0.1, **scaled},
        "gmm": {"components": 16, "rows_per_component": 1, **scaled},
        "mahalanobis": {"components": 50, **scaled},
        "pca": {"components": 50, "statistic": "spe", **scaled},
        "fc_ae": {"hidden": (64, 32, 8, 32, 64), **deep},
        "lstm_ae": {"outer": 10, "inner": 4, **deep},
        "denoising_ae": {"hidden": 10, **deep},
        "vae": {"hidden": 32, "latent": 4, **deep},
    }
