"""Every method of `parts`, deep, classical and trivial; all are fitted on the same split."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from lineside.core.contract import Method, MethodKind, Split
from lineside.core.run.folder import Run
from lineside.parts.config import Config
from lineside.parts.data.images import training_image
from lineside.parts.models.detector import Detector, TrainingImage

if TYPE_CHECKING:
    from torch import Tensor

    from lineside.parts.model import PartsModel
    from lineside.parts.models.patch_cnn.patch_cnn import PatchCNN
    from lineside.parts.models.patch_cnn.training import CropData


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Where a method's fit and load functions are, and what it is in one line."""

    kind: MethodKind
    module: str
    name: str
    help: str

    def fit(self) -> Callable[..., Detector]:
        """Return the function that fits a detector."""
        found: Callable[..., Detector] = getattr(
            importlib.import_module(self.module), f"fit_{self.name}"
        )
        return found

    def load(self, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Detector:
        """Rebuild a detector."""
        found: Detector = getattr(importlib.import_module(self.module), f"load_{self.name}")(
            spec, tensors
        )
        return found


MODELS = "lineside.parts.models"
RESUMABLE = ("patch_cnn", "anogan", "autoencoder")
"""Methods that stop by themselves, with a checkpoint."""
RECIPES: dict[str, Recipe] = {
    "detector": Recipe(
        kind="deep", module=f"{MODELS}.feature_head.feature_head", name="detector",
        help="good-only model plus a head that learns from labelled defects",
    ),
    "memory": Recipe(
        kind="deep", module=f"{MODELS}.patchcore.patchcore", name="patchcore",
        help="memory of good ImageNet features, nearest neighbour",
    ),
    "patch_cnn": Recipe(
        kind="deep", module=f"{MODELS}.patch_cnn.patch_cnn", name="patch_cnn",
        help="VGG19 on unscaled crops, from scratch",
    ),
    "texture": Recipe(
        kind="classical", module=f"{MODELS}.classical.texture", name="texture_patches",
        help="LBP and HOG of patches, linear model",
    ),
    "gaussian": Recipe(
        kind="classical", module=f"{MODELS}.classical.gaussian", name="gaussian",
        help="Gaussian of multi-scale filter responses of good images",
    ),
    "pca": Recipe(
        kind="classical", module=f"{MODELS}.classical.pca", name="pca",
        help="what a PCA of good patches cannot reconstruct",
    ),
    "golden_template": Recipe(
        kind="classical", module=f"{MODELS}.classical.golden_template", name="golden_template",
        help="deviation from the mean of registered good images",
    ),
    "brightness": Recipe(
        kind="trivial", module=f"{MODELS}.classical.brightness", name="brightness",
        help="brightness, contrast and size of the whole image",
    ),
    "anogan": Recipe(
        kind="deep", module=f"{MODELS}.anogan.anogan", name="anogan",
        help="f-AnoGAN: what a generator of good patches cannot rebuild",
    ),
    "autoencoder": Recipe(
        kind="deep", module=f"{MODELS}.reconstruction.autoencoder", name="autoencoder",
        help="convolutional autoencoder on good patches",
    ),
    "patch_pca": Recipe(
        kind="classical", module=f"{MODELS}.reconstruction.patch_pca", name="patch_pca",
        help="principal components of good patches",
    ),
}  # fmt: skip


def methods(config: Config) -> Sequence[Method]:
    """Return the methods that the config names, the predicting one first."""
    return tuple(
        Method(name=name, kind=RECIPES[name].kind, help=RECIPES[name].help, fit=partial(_fit, name))
        for name in config.methods
    )


def _fit(name: str, split: Split, config: Config, run: Run) -> PartsModel:
    from lineside.parts.model import Settings, make_model
    from lineside.parts.references import fit_references

    train = [training_image(item) for item in split.train]
    validation = [training_image(item) for item in split.validation]
    detector = fit_detector_of(name, train, validation, config, run)
    references = run.shared("references", lambda: fit_references(train, run.rng("library")))
    return make_model(name, detector, Settings.of(config), references)


def fit_detector_of(
    name: str,
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    config: Config,
    run: Run,
) -> Detector:
    """Fit one method's detector; only the patch CNN takes settings from the user."""
    options: dict[str, Any] = {}
    if name in RESUMABLE:
        options = {"checkpoint": run.folder / "checkpoint" / name, "stop": run.stopping}
    if name == "patch_cnn":
        options |= {"crop_px": config.crop_px, "width": config.width, "steps": config.cnn_steps}
        if config.insight:
            options["snapshots"] = run.folder / "snapshots" / name
            options["fitted"] = partial(_draw_training, name, run)

    def log(row: Mapping[str, Any]) -> None:
        if name not in RESUMABLE:
            run.check_stop()
        run.log({"method": name, **row})

    detector = RECIPES[name].fit()(train, validation, rng=run.rng(name), log=log, **options)
    if name == "anogan" and config.insight:
        _draw_samples(name, run, detector, validation or train)
    return detector


def _draw_samples(name: str, run: Run, detector: Any, examples: Sequence[TrainingImage]) -> None:
    """Keep the figures that show what a generator makes and rebuilds."""
    from lineside.core.report.figures import keep_figures
    from lineside.parts.models.anogan.figures import sample_figures

    keep_figures(run.folder, name, sample_figures(detector, examples, run.rng("figures")))


def _draw_training(name: str, run: Run, cnn: PatchCNN, data: CropData) -> None:
    """Keep the figures that show what a network learned and how; its snapshots are used up."""
    from lineside.core.report.figures import keep_figures
    from lineside.core.training.weight_snapshots import forget
    from lineside.parts.explain.learned_features import feature_figures
    from lineside.parts.explain.training_history import training_figures

    snapshots = run.folder / "snapshots" / name
    if not snapshots.exists():  # drawn already, before the run was killed
        return
    figures = [
        *feature_figures(cnn, data.pool, run.rng("features")),
        *training_figures(cnn, data, snapshots, run.rng("figures")),
    ]
    keep_figures(run.folder, name, figures)
    forget(snapshots)
