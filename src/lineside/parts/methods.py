"""The detectors of `parts` by the names that users give: deep, classical and trivial.

A method is a fit function and the frozen dataclass that it returns; docs/adding_a_method.md adds
one. `fitting` runs them.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lineside.core.contract import MethodKind

if TYPE_CHECKING:
    from lineside.parts.models.detector import Detector, TrainingImage

_MODELS = "lineside.parts.models"


@dataclass(frozen=True, kw_only=True)
class DetectorMethod:
    """How a detector is fitted, and what it is in one line.

    Attributes:
        kind: Deep, classical or trivial.
        help: One line for people.
        module: Where the next two are; imported when needed, since some take seconds.
        fit_function: Fits a detector; see `fit`.
        detector: Name of the dataclass that it returns and that a stored model is decoded to.
        resumable: The fit function takes ``checkpoint`` (a folder) and ``stop``, and ends by itself
            when it is told to.
    """

    kind: MethodKind
    help: str
    module: str
    fit_function: str
    detector: str
    resumable: bool = False

    def fit(
        self, train: Sequence[TrainingImage], validation: Sequence[TrainingImage], **options: Any
    ) -> Detector:
        """Fit a detector.

        Args:
            train: Labelled images.
            validation: Images of other parts; may be empty.
            options: ``rng`` (all randomness), ``log`` (receives one record per stage), and keywords
                of the method's own.
        """
        fit = getattr(importlib.import_module(self.module), self.fit_function)
        detector: Detector = fit(train, validation, **options)
        return detector

    def detector_class(self) -> type[Detector]:
        """Return the class of its fitted detectors."""
        cls: type[Detector] = getattr(importlib.import_module(self.module), self.detector)
        return cls


METHODS: dict[str, DetectorMethod] = {
    "detector": DetectorMethod(
        kind="deep", module=f"{_MODELS}.feature_head.feature_head",
        fit_function="fit_detector", detector="FeatureHead",
        help="good-only model plus a head that learns from labelled defects",
    ),
    "memory": DetectorMethod(
        kind="deep", module=f"{_MODELS}.patchcore.patchcore",
        fit_function="fit_patchcore", detector="PatchCore",
        help="memory of good ImageNet features, nearest neighbour",
    ),
    "patch_cnn": DetectorMethod(
        kind="deep", module=f"{_MODELS}.patch_cnn.patch_cnn",
        fit_function="fit_patch_cnn", detector="PatchCNN", resumable=True,
        help="VGG19 on unscaled crops, from scratch",
    ),
    "texture": DetectorMethod(
        kind="classical", module=f"{_MODELS}.classical.texture",
        fit_function="fit_texture_patches", detector="TexturePatches",
        help="LBP and HOG of patches, linear model",
    ),
    "gaussian": DetectorMethod(
        kind="classical", module=f"{_MODELS}.classical.gaussian",
        fit_function="fit_gaussian", detector="Gaussian",
        help="Gaussian of multi-scale filter responses of good images",
    ),
    "pca": DetectorMethod(
        kind="classical", module=f"{_MODELS}.classical.pca",
        fit_function="fit_pca", detector="Pca",
        help="what a PCA of good patches cannot reconstruct",
    ),
    "golden_template": DetectorMethod(
        kind="classical", module=f"{_MODELS}.classical.golden_template",
        fit_function="fit_golden_template", detector="GoldenTemplate",
        help="deviation from the mean of registered good images",
    ),
    "brightness": DetectorMethod(
        kind="trivial", module=f"{_MODELS}.classical.brightness",
        fit_function="fit_brightness", detector="Brightness",
        help="brightness, contrast and size of the whole image",
    ),
    "anogan": DetectorMethod(
        kind="deep", module=f"{_MODELS}.anogan.anogan",
        fit_function="fit_anogan", detector="AnoGAN", resumable=True,
        help="f-AnoGAN: what a generator of good patches cannot rebuild",
    ),
    "autoencoder": DetectorMethod(
        kind="deep", module=f"{_MODELS}.reconstruction.autoencoder",
        fit_function="fit_autoencoder", detector="Autoencoder", resumable=True,
        help="convolutional autoencoder on good patches",
    ),
    "patch_pca": DetectorMethod(
        kind="classical", module=f"{_MODELS}.reconstruction.patch_pca",
        fit_function="fit_patch_pca", detector="PatchPca",
        help="principal components of good patches",
    ),
}  # fmt: skip
