"""Detectors of `machines`, one file each: healthy rows in, novelty out, all with one interface."""

from lineside.machines.models.autoencoders import (
    fit_conv_ae,
    fit_denoising_ae,
    fit_fc_ae,
    fit_lstm_ae,
    fit_vae,
)
from lineside.machines.models.gmm import fit_gmm
from lineside.machines.models.isolation_forest import fit_iforest
from lineside.machines.models.knn import fit_knn
from lineside.machines.models.mahalanobis import fit_mahalanobis
from lineside.machines.models.ocsvm import fit_ocsvm
from lineside.machines.models.pca import fit_pca
from lineside.machines.models.presets import preset
from lineside.machines.models.reconstruction import Fitting
from lineside.machines.models.trend import fit_trend

__all__ = [
    "Fitting", "fit_conv_ae", "fit_denoising_ae", "fit_fc_ae", "fit_gmm", "fit_iforest", "fit_knn",
    "fit_lstm_ae", "fit_mahalanobis", "fit_ocsvm", "fit_pca", "fit_trend", "fit_vae", "preset",
]  # fmt: skip
