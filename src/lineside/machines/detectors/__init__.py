"""Detectors of `machines`: healthy rows in, novelty out; all with one interface."""

from lineside.machines.detectors.autoencoders import (
    fit_conv_ae,
    fit_denoising_ae,
    fit_fc_ae,
    fit_lstm_ae,
    fit_vae,
)
from lineside.machines.detectors.borders import (
    fit_knn,
    fit_ocsvm,
    load_knn,
    load_ocsvm,
)
from lineside.machines.detectors.components import fit_pca, load_pca
from lineside.machines.detectors.densities import (
    fit_gmm,
    fit_mahalanobis,
    load_gmm,
    load_mahalanobis,
)
from lineside.machines.detectors.forest import fit_iforest, load_iforest
from lineside.machines.detectors.presets import Preset, preset
from lineside.machines.detectors.reconstruction import Fitting, load_reconstruction
from lineside.machines.detectors.trend import fit_trend, load_trend

__all__ = [
    "Fitting", "Preset", "fit_conv_ae", "fit_denoising_ae", "fit_fc_ae", "fit_gmm", "fit_iforest",
    "fit_knn", "fit_lstm_ae", "fit_mahalanobis", "fit_ocsvm", "fit_pca", "fit_trend", "fit_vae",
    "load_gmm", "load_iforest", "load_knn", "load_mahalanobis", "load_ocsvm", "load_pca",
    "load_reconstruction", "load_trend", "preset",
]  # fmt: skip
