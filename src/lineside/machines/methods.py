"""Every detector that a user can choose: fit, class, features, and the line of help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lineside.core.contract import MethodKind
from lineside.machines.models import autoencoders
from lineside.machines.models.gmm import Gmm, fit_gmm
from lineside.machines.models.isolation_forest import IsolationForest, fit_iforest
from lineside.machines.models.knn import Knn, fit_knn
from lineside.machines.models.mahalanobis import Mahalanobis, fit_mahalanobis
from lineside.machines.models.ocsvm import Ocsvm, fit_ocsvm
from lineside.machines.models.pca import Pca, fit_pca
from lineside.machines.models.reconstruction import Reconstruction
from lineside.machines.models.trend import Trend, fit_trend

Columns = Literal["compact", "levels", "bands", "mel"]
"""Features of a detector: a compact set per channel, levels only, all sub-bands, log-mel."""

LEVELS = ("rms", "kurtosis")
COMPACT = (
    "rms", "peak", "peak_to_peak", "crest", "kurtosis", "skew", "shape", "impulse", "clearance",
    "velocity", "envelope_level", "envelope_spread", "envelope_kurtosis", "envelope_line",
    "envelope_outer_race", "envelope_inner_race", "envelope_ball", "envelope_cage",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DetectorSpec:
    """One detector.

    Attributes:
        kind: ``deep``, ``classical`` or ``trivial``.
        fit: ``fit(rows, *, rng, log, **constants)`` returns the fitted detector.
        detector: Its class.
        help: One line.
        columns: Features that it gets.
    """

    kind: MethodKind
    fit: Callable[..., Any]
    detector: type
    help: str
    columns: Columns = "compact"


DETECTORS: dict[str, DetectorSpec] = {
    "pca": DetectorSpec(
        kind="classical", fit=fit_pca, detector=Pca, help="principal components, T2 and SPE"
    ),
    "trend": DetectorSpec(
        kind="trivial", fit=fit_trend, detector=Trend, columns="levels",
        help="RMS and kurtosis above normal",
    ),
    "mahalanobis": DetectorSpec(
        kind="classical", fit=fit_mahalanobis, detector=Mahalanobis,
        help="Mahalanobis distance, shrunk covariance",
    ),
    "gmm": DetectorSpec(kind="classical", fit=fit_gmm, detector=Gmm, help="Gaussian mixture"),
    "knn": DetectorSpec(
        kind="classical", fit=fit_knn, detector=Knn, help="distance to the nearest neighbours"
    ),
    "ocsvm": DetectorSpec(kind="classical", fit=fit_ocsvm, detector=Ocsvm, help="one-class SVM"),
    "iforest": DetectorSpec(
        kind="classical", fit=fit_iforest, detector=IsolationForest, help="isolation forest"
    ),
    "fc_ae": DetectorSpec(
        kind="deep", fit=autoencoders.fit_fc_ae, detector=Reconstruction, columns="bands",
        help="autoencoder with five hidden layers on sub-bands",
    ),
    "denoising_ae": DetectorSpec(
        kind="deep", fit=autoencoders.fit_denoising_ae, detector=Reconstruction, columns="bands",
        help="denoising autoencoder on sub-bands",
    ),
    "vae": DetectorSpec(
        kind="deep", fit=autoencoders.fit_vae, detector=Reconstruction, columns="bands",
        help="variational autoencoder on sub-bands",
    ),
    "lstm_ae": DetectorSpec(
        kind="deep", fit=autoencoders.fit_lstm_ae, detector=Reconstruction, columns="bands",
        help="LSTM autoencoder on sub-bands of successive snapshots",
    ),
    "conv_ae": DetectorSpec(
        kind="deep", fit=autoencoders.fit_conv_ae, detector=Reconstruction, columns="mel",
        help="convolutional autoencoder on log-mel spectra",
    ),
}  # fmt: skip


def choose_columns(columns: Columns, names: Sequence[str]) -> list[int]:
    """Return the indices of the features of a set.

    Slow values belong to the compact set; a machine without waveforms has them in every set.
    """
    if all(name.startswith("value.") for name in names):
        return list(range(len(names)))
    fixed = {"compact": COMPACT, "levels": LEVELS}
    chosen = []
    for index, name in enumerate(names):
        slow = name.startswith("value.")
        kind = name.rpartition(".")[2]
        if columns in fixed:
            fits = kind in fixed[columns] or (columns == "compact" and slow)
        else:
            fits = kind.startswith("band_" if columns == "bands" else "mel_") and not slow
        if fits:
            chosen.append(index)
    return chosen


def channel_columns(columns: Sequence[int], names: Sequence[str]) -> list[list[int]]:
    """Return, for each channel, the positions of its features among chosen columns."""
    channels: dict[str, list[int]] = {}
    for position, index in enumerate(columns):
        channels.setdefault(names[index].rpartition(".")[0], []).append(position)
    return list(channels.values())
