"""Every detector of `machines`: where its fit is, which features it looks at, what it is."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lineside.core.contract import MethodKind

if TYPE_CHECKING:
    from torch import Tensor

    from lineside.machines.detectors.detection import Detector

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
        load_name: Function that rebuilds it, without ``load_``; its own name if empty.
        options: Constants of our own preset.
    """

    kind: MethodKind
    help: str
    columns: Columns = "compact"
    load_name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def fit(self, name: str) -> Callable[..., Detector]:
        """Return the function that fits the detector."""
        found: Callable[..., Detector] = getattr(_detectors(), f"fit_{name}")
        return found

    def load(self, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Detector:
        """Rebuild a detector."""
        found: Detector = getattr(_detectors(), f"load_{self.load_name}")(spec, tensors)
        return found


def _detectors() -> Any:
    return importlib.import_module("lineside.machines.detectors")


RECIPES: dict[str, Recipe] = {
    "pca": Recipe(
        kind="classical", load_name="pca", help="principal components, T2 and SPE",
    ),
    "trend": Recipe(
        kind="trivial", load_name="trend", columns="levels", help="RMS and kurtosis above normal",
    ),
    "mahalanobis": Recipe(
        kind="classical", load_name="mahalanobis", help="whitened distance, shrunk covariance",
    ),
    "gmm": Recipe(kind="classical", load_name="gmm", help="Gaussian mixture"),
    "knn": Recipe(kind="classical", load_name="knn", help="distance to the nearest neighbours"),
    "ocsvm": Recipe(kind="classical", load_name="ocsvm", help="one-class SVM"),
    "iforest": Recipe(kind="classical", load_name="iforest", help="isolation forest"),
    "fc_ae": Recipe(
        kind="deep", load_name="reconstruction", columns="bands",
        help="autoencoder with five hidden layers on sub-bands",
    ),
    "denoising_ae": Recipe(
        kind="deep", load_name="reconstruction", columns="bands",
        help="denoising autoencoder on sub-bands",
    ),
    "vae": Recipe(
        kind="deep", load_name="reconstruction", columns="bands",
        help="variational autoencoder on sub-bands",
    ),
    "lstm_ae": Recipe(
        kind="deep", load_name="reconstruction", columns="bands",
        help="LSTM autoencoder on sub-bands of successive snapshots",
    ),
    "conv_ae": Recipe(
        kind="deep", load_name="reconstruction", columns="mel",
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
