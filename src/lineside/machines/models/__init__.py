"""Detectors of `machines`: healthy rows in, novelty out; all with one interface."""

from lineside.machines.models.autoencoders import (
    fit_conv_ae,
    fit_denoising_ae,
    fit_fc_ae,
    fit_lstm_ae,
    fit_vae,
)
from lineside.machines.models.borders import Neighbours, SupportVectors, fit_knn, fit_ocsvm
from lineside.machines.models.densities import Mahalanobis, Mixture, fit_gmm, fit_mahalanobis
from lineside.machines.models.isolation_forest import Forest, fit_iforest
from lineside.machines.models.pca import Pca, fit_pca
from lineside.machines.models.presets import Preset, preset
from lineside.machines.models.reconstruction import Fitting, Reconstruction
from lineside.machines.models.trend import Trend, fit_trend

__all__ = [
    "Fitting", "Forest", "Mahalanobis", "Mixture", "Neighbours", "Pca", "Preset", "Reconstruction",
    "SupportVectors", "Trend", "fit_conv_ae", "fit_denoising_ae", "fit_fc_ae", "fit_gmm",
    "fit_iforest", "fit_knn", "fit_lstm_ae", "fit_mahalanobis", "fit_ocsvm", "fit_pca", "fit_trend",
    "fit_vae", "preset",
]  # fmt: skip
