"""Presets: the constants of published studies as keyword arguments of the fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lineside.core.errors import UserError
from lineside.machines.models.reconstruction import Fitting


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One protocol.

    Attributes:
        name: As on the command line.
        bands: Equal sub-bands of the spectrum, whose energies are the features; 0: all features.
        learn: Snapshots of the fit. A run fits two thirds of its learning snapshots, so that
            ``--learn 300`` fits the study's 200.
        held_out: Whether later snapshots are held out for calibration. The study has none; a run
            always has, and ``benchmarks`` show both.
        detectors: Keyword arguments by name in the study; ``fit`` is the method, ``features``
            its columns.
        unpublished: Constants that the study does not publish and we chose.
    """

    name: str
    bands: int
    learn: int
    held_out: bool
    detectors: dict[str, dict[str, Any]]
    unpublished: tuple[str, ...] = ()


def preset(name: str) -> Preset:
    """Return a preset.

    ``beyond-imagenet`` is Stadelmann et al., "Beyond ImageNet: deep learning in industrial
    practice", Applied Data Science, Springer 2019, section 5: energies of 100 equal sub-bands,
    the first 200 snapshots, median and MAD, eight detectors.

    Raises:
        UserError: there is no such preset.
    """
    if name == "default":
        return Preset(name=name, bands=0, learn=200, held_out=True, detectors={})
    if name != "beyond-imagenet":
        raise UserError(f"unknown preset {name!r}", "presets are default, beyond-imagenet")
    scaled = {"features": "bands", "scaling": "energies"}
    deep = {"features": "bands", "fitting": Fitting(epochs=50, batch=20, scaling="energies")}
    detectors: dict[str, dict[str, Any]] = {
        "ocsvm": {"fit": "ocsvm", "nu": 0.1, **scaled},
        "gmm": {"fit": "gmm", "components": 16, "rows_per_component": 1, **scaled},
        "pca_maha": {"fit": "mahalanobis", "components": 50, **scaled},
        "pca_auto": {"fit": "pca", "components": 50, "statistic": "spe", **scaled},
        "fc_ae": {"fit": "fc_ae", "hidden": (64, 32, 8, 32, 64), **deep},
        "lstm_ae": {"fit": "lstm_ae", "outer": 10, "inner": 4, **deep},
        "denoising_ae": {"fit": "denoising_ae", "hidden": 10, **deep},
        "vae": {"fit": "vae", "hidden": 32, "latent": 4, **deep},
    }
    unpublished = (
        "sizes of the five hidden layers", "window of the LSTM", "noise of the denoising AE",
        "optimiser and learning rate", "covariances of the mixture", "kernel width of the SVM",
    )  # fmt: skip
    return Preset(
        name=name,
        bands=100,
        learn=200,
        held_out=False,
        detectors=detectors,
        unpublished=unpublished,
    )
