"""The detectors of `scores` by the names that users give: deep, classical and trivial."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from lineside.core.contract import Method, MethodKind, Split
from lineside.core.run.folder import Run
from lineside.scores.config import Config

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lineside.core.training.loop import Hooks
    from lineside.scores.model import ScoresModel
    from lineside.scores.models.watershed.decoding import Detections
    from lineside.scores.training.crops import Pages

KINDS: dict[str, tuple[MethodKind, str]] = {
    "watershed": ("deep", "Deep Watershed Detector: energy, class and box maps, watershed cut"),
    "centre_points": ("deep", "CenterNet: a heat map of centres per class, regressed boxes"),
    "run_length": ("classical", "staff lines removed by run lengths, components, glyph classifier"),
    "blobs": ("trivial", "every blob as large as a notehead is a black notehead"),
}


CLASSES = {
    "watershed": ("watershed.detector", "WatershedDetector"),
    "centre_points": ("centre_points.centre_points", "CentrePoints"),
    "run_length": ("run_length.detector", "RunLengthDetector"),
    "blobs": ("blobs", "Blobs"),
}
"""Module and dataclass of the detectors of each method."""


class Detector(Protocol):
    """Finds symbols on a page whose staff space is `interline_px`."""

    @property
    def interline_px(self) -> float: ...
    def detect(self, grey: NDArray[np.uint8]) -> Detections: ...


def methods(config: Config) -> Sequence[Method]:
    """Return the methods that the config names, the predicting one first."""
    return tuple(
        Method(
            name=name, kind=KINDS[name][0], help=KINDS[name][1], fit=partial(fit, name),
            several_processes=KINDS[name][0] == "deep",
        )
        for name in config.methods
    )  # fmt: skip


def detector_class(name: str) -> type:
    """Return the dataclass of a method's detectors; its module is imported only now."""
    module, class_name = CLASSES[name]
    found: type = getattr(importlib.import_module(f"lineside.scores.models.{module}"), class_name)
    return found


def fit(name: str, split: Split, config: Config, run: Run) -> ScoresModel:
    """Fit one method on the training pages of a split."""
    from lineside.scores.model import ScoresModel
    from lineside.scores.training.crops import Pages

    pages = run.shared("pages", lambda: Pages([item.source.path for item in split.train]))
    return ScoresModel(method=name, detector=FITS[name](pages, config, run))


def _fit_watershed(pages: Pages, config: Config, run: Run) -> Detector:
    from lineside.scores.models.watershed.fitting import fit_watershed
    from lineside.scores.models.watershed.training import WatershedTraining

    training, hooks = WatershedTraining(steps=config.steps), _hooks("watershed", run)
    return fit_watershed(pages, rng=run.rng("watershed"), training=training, hooks=hooks)


def _fit_centre_points(pages: Pages, config: Config, run: Run) -> Detector:
    from lineside.scores.models.centre_points.centre_points import fit_centre_points
    from lineside.scores.models.watershed.fitting import ScanModel

    name = "centre_points"
    return fit_centre_points(
        pages, rng=run.rng(name), steps=config.steps, hooks=_hooks(name, run),
        degrade=ScanModel(interline_px=pages.interline_px),
    )  # fmt: skip


def _fit_run_length(pages: Pages, config: Config, run: Run) -> Detector:
    from lineside.scores.models.run_length.detector import fit_run_length

    return fit_run_length(pages, rng=run.rng("run_length"))


def _fit_blobs(pages: Pages, config: Config, run: Run) -> Detector:
    from lineside.scores.models.blobs import Blobs

    return Blobs(interline_px=pages.interline_px)


def _hooks(name: str, run: Run) -> Hooks:
    """Return what a training reports to and what stops it."""
    from lineside.core.training.loop import Hooks

    return Hooks(
        log=lambda row: run.log({"method": name, **row}), stop=run.stopping,
        checkpoint=run.folder / "checkpoint" / name,
    )  # fmt: skip


FITS: Mapping[str, Callable[[Pages, Config, Run], Detector]] = {
    "watershed": _fit_watershed,
    "centre_points": _fit_centre_points,
    "run_length": _fit_run_length,
    "blobs": _fit_blobs,
}
