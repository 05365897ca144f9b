"""Every detector of `machines`: where its fit is, which features it looks at, what it is."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lineside.core.contract import MethodKind

if TYPE_CHECKING:
    from lineside.machines.models.detector import Detector

Columns = Literal["compact", "levels", "bands", "mel"]

LEVELS = ("rms", "kurtosis")
COMPACT = (
    "rms", "peak", "peak_to_peak", "crest", "kurtosis", "skew", "shape", "impulse", "clearance",
    "velocity", "envelope_level", "envelope_spread", "envelope_kurtosis", "envelope_line",
    "envelope_outer_race", "envelope_inner_race", "envelope_ball", "envelope_cage",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to judge rows of features.

    Attributes:
        kind: ``deep``, ``classical`` or ``trivial``.
        help: One line.
        columns: Which features: a compact set per channel, levels only, all sub-bands, log-mel.
        detector_name: Class of the fitted detector.
        options: Constants of our own preset.
    """

    kind: MethodKind
    help: str
    detector_name: str
    columns: Columns = "compact"
    options: Mapping[str, Any] = field(default_factory=dict)

    def fit(self, name: str) -> Callable[..., Detector]:
        """Return the function that fits the detector."""
        found: Callable[..., Detector] = getattr(_detectors(), f"fit_{name}")
        return found

    def detector(self) -> type[Detector]:
        """Return the class of the fitted detector."""
        found: type[Detector] = getattr(_detectors(), self.detector_name)
        return found


def _detectors() -> Any:
    return importlib.import_module("lineside.machines.models")


RECIPES: dict[str, Recipe] = {
    "pca": Recipe(
        kind="classical", detector_name="Pca", help="principal components, T2 and SPE",
    ),
    "trend": Recipe(
        kind="trivial", detector_name="Trend", columns="levels",
        help="RMS and kurtosis above normal",
    ),
    "mahalanobis": Recipe(
        kind="classical", detector_name="Mahalanobis", help="whitened distance, shrunk covariance",
    ),
    "gmm": Recipe(kind="classical", detector_name="Mixture", help="Gaussian mixture"),
    "knn": Recipe(
        kind="classical", detector_name="Neighbours", help="distance to the nearest neighbours"
    ),
    "ocsvm": Recipe(kind="classical", detector_name="SupportVectors", help="one-class SVM"),
    "iforest": Recipe(kind="classical", detector_name="Forest", help="isolation forest"),
    "fc_ae": Recipe(
        kind="deep", detector_name="Reconstruction", columns="bands",
        help="autoencoder with five hidden layers on sub-bands",
    ),
    "denoising_ae": Recipe(
        kind="deep", detector_name="Reconstruction", columns="bands",
        help="denoising autoencoder on sub-bands",
    ),
    "vae": Recipe(
        kind="deep", detector_name="Reconstruction", columns="bands",
        help="variational autoencoder on sub-bands",
    ),
    "lstm_ae": Recipe(
        kind="deep", detector_name="Reconstruction", columns="bands",
        help="LSTM autoencoder on sub-bands of successive snapshots",
    ),
    "conv_ae": Recipe(
        kind="deep", detector_name="Reconstruction", columns="mel",
        help="convolutional autoencoder on log-mel spectra",
    ),
}  # fmt: skip


def choose_columns(wish: Columns, names: Sequence[str]) -> list[int]:
    """Return the places of the features that a recipe looks at.

    Slow values belong to every set but log-mel; where a machine has nothing else, they are all.
    """
    waves = [name for name in names if not name.startswith("value.")]
    if not waves:
        return list(range(len(names)))
    wanted = {"compact": COMPACT, "levels": LEVELS}
    found = []
    for place, name in enumerate(names):
        kind = name.rpartition(".")[2]
        if wish in wanted:
            fits = kind in wanted[wish] or (wish == "compact" and name.startswith("value."))
        else:
            start = "band_" if wish == "bands" else "mel_"
            fits = kind.startswith(start) and not name.startswith("value.")
        if fits:
            found.append(place)
    return found


def channel_columns(places: Sequence[int], names: Sequence[str]) -> list[list[int]]:
    """Return, for each channel, where in the chosen columns its features stand."""
    channels: dict[str, list[int]] = {}
    for position, place in enumerate(places):
        channels.setdefault(names[place].rpartition(".")[0], []).append(position)
    return list(channels.values())
