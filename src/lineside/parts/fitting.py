"""Fits the methods of `parts` on one split, and draws the figures of those that learn features."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from lineside.core.contract import Method, Split
from lineside.core.report.figures import draw_figures
from lineside.core.run.folder import Run
from lineside.parts.config import Config
from lineside.parts.data.images import ignored_by, training_image
from lineside.parts.methods import METHODS
from lineside.parts.model import PartsModel, Settings, fit_references, make_model

if TYPE_CHECKING:
    from lineside.parts.explain.head_training import HeadOnlooker
    from lineside.parts.models.patch_cnn.patch_cnn import PatchCNN
    from lineside.parts.models.patch_cnn.training import CropData


def methods(config: Config) -> Sequence[Method]:
    """Return the methods that the config names, the predicting one first."""
    return tuple(
        Method(
            name=name,
            kind=METHODS[name].kind,
            help=METHODS[name].help,
            fit=partial(fit, name),
            several_processes=METHODS[name].resumable,
        )
        for name in config.methods
    )


def fit(name: str, split: Split, config: Config, run: Run) -> PartsModel:
    """Fit one method on the training and validation parts of a split.

    Only the patch CNN takes settings from the user.
    """
    train = [training_image(item) for item in split.train]
    validation = [training_image(item) for item in split.validation]
    method = METHODS[name]
    options: dict[str, Any] = {}
    if method.resumable:
        options = {"checkpoint": run.folder / "checkpoint" / name, "stop": run.stopping}
    onlooker = _head_onlooker() if name == "detector" and config.insight else None
    if name == "detector":
        options["executor"] = run.executor
    if onlooker is not None:
        options["watch"] = onlooker
    if name == "patch_cnn":
        options |= {"crop_px": config.crop_px, "width": config.width, "steps": config.cnn_steps}
        if config.insight:
            options["snapshots"] = run.folder / "snapshots" / name
            options["fitted"] = partial(_draw_training, name, run)

    def log(row: Mapping[str, Any]) -> None:
        if not method.resumable:
            run.check_stop()
        run.log({"method": name, **row})

    detector = method.fit(train, validation, rng=run.rng(name), log=log, **options)
    if name == "anogan" and config.insight:
        from lineside.parts.models.anogan.figures import sample_figures

        draw_figures(
            run, name,
            lambda: sample_figures(cast(Any, detector), validation or train, run.rng("figures")),
        )  # fmt: skip
    shared = run.shared("references", lambda: fit_references(train, run.rng("library")))
    if onlooker is not None:
        from lineside.parts.explain.head_figures import head_figures

        examples, library = [*train, *validation], shared.library
        draw_figures(
            run, name,
            lambda: head_figures(cast(Any, detector), examples, onlooker, library), onlooker,
        )  # fmt: skip
    return make_model(name, detector, Settings.of(config), shared, ignored_by(config))


def _head_onlooker() -> HeadOnlooker:
    from lineside.parts.explain.head_training import HeadOnlooker

    return HeadOnlooker()


def _draw_training(name: str, run: Run, cnn: PatchCNN, data: CropData) -> None:
    """Draw what a network learned and how; its weight snapshots are deleted."""
    from lineside.parts.explain.learned_features import feature_figures
    from lineside.parts.explain.training_history import training_figures

    snapshots = run.folder / "snapshots" / name
    if not snapshots.exists():  # drawn already, before the run was killed
        return
    draw_figures(
        run, name,
        lambda: [
            *feature_figures(cnn, data.pool, run.rng("features")),
            *training_figures(cnn, data, snapshots, run.rng("figures")),
        ],
    )  # fmt: skip
    shutil.rmtree(snapshots, ignore_errors=True)
