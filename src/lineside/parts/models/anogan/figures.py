"""Pictures of what f-AnoGAN learned, for the report: reconstructions, samples, residuals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lineside.core.contract import Figure
from lineside.parts.explain.overlays import Rgb, enlarge, sheet_figure, signed_map
from lineside.parts.models.anogan.anogan import AnoGAN, score_patches
from lineside.parts.models.detector import Image, TrainingImage, good_of
from lineside.parts.models.reconstruction.patch_scoring import example_patches

_SHOWN_PX = 96
_COLUMNS = 8


def sample_figures(
    detector: AnoGAN, examples: Sequence[TrainingImage], rng: np.random.Generator
) -> list[Figure]:
    """Return reconstructions of good patches, random samples, and residuals of good and faulty.

    Args:
        detector: Fitted.
        examples: Good images, and faulty ones where there are any; preferably of parts that the
            detector was not trained on.
        rng: Chooses patches and codes.
    """
    good = good_of(examples)
    faulty = [example for example in examples if example.faulty]
    figures = [_samples(detector, rng)]
    if good:
        patches, _ = example_patches(good, detector.scorer.patches, rng, _COLUMNS)
        figures.insert(0, _reconstructions(detector, patches))
    if good or faulty:
        figures.append(_residuals(detector, good, faulty, rng))
    return figures


def _reconstructions(detector: AnoGAN, patches: Tensor) -> Figure:
    reconstructions = detector.reconstruct(patches)
    error = float((patches - reconstructions).square().mean().sqrt())
    spread = float((patches - patches.mean(0)).square().mean().sqrt())
    tiles = [_grey(patch) for patch in (*patches, *reconstructions)]
    caption = (
        f"Good patches (above) and what the network makes of them, G(E(x)) (below): they differ "
        f"by {error:.2f} on a scale from -1 to 1 (root mean square), where the patches differ "
        f"from their mean by {spread:.2f}. {_verdict(error, spread)} {detector.shortfall}"
    )
    title = "Good patches and their reconstructions"
    return sheet_figure(
        title,
        caption.strip(),
        tiles,
        columns=len(patches),
        cell_px=_SHOWN_PX,
        jpeg=False,
        wide=True,
    )


def _samples(detector: AnoGAN, rng: np.random.Generator) -> Figure:
    samples = detector.sample(2 * _COLUMNS, rng)
    caption = (
        f"Patches made of random codes, G(z), after {detector.steps:,} updates of the generator: "
        "they should look like good parts and differ from each other."
    )
    tiles = [_grey(patch) for patch in samples]
    title = "What the generator makes up"
    return sheet_figure(
        title, caption, tiles, columns=_COLUMNS, cell_px=_SHOWN_PX, jpeg=False, wide=True
    )


def _residuals(
    detector: AnoGAN,
    good: Sequence[TrainingImage],
    faulty: Sequence[TrainingImage],
    rng: np.random.Generator,
) -> Figure:
    """Rows: patch, reconstruction, signed residual; columns: good, then faulty pictures."""
    groups = [
        example_patches(group, detector.scorer.patches, rng, _COLUMNS // 2)
        for group in (good, faulty)
        if group
    ]
    patches = [patch for group, _ in groups for patch in group]
    labels = [label for _, group in groups for label in group]
    rows: tuple[list[Image | Rgb], ...] = ([], [], [])
    scores = []
    residuals = []
    for patch in patches:
        score, residual = score_patches(
            detector.networks, patch[None], feature_weight=detector.feature_weight
        )
        scores.append(float(score[0]))
        residuals.append(residual[0].detach().numpy())
        rows[0].append(_grey(patch))
        rows[1].append(_grey(detector.reconstruct(patch[None])[0]))
    limit = float(np.quantile(np.abs(residuals), 0.995))
    rows[2].extend(signed_map(enlarge(residual, _SHOWN_PX), scale=limit) for residual in residuals)
    texts = [f"{label} {score:.2g}" for label, score in zip(labels, scores, strict=True)]
    texts += [""] * (2 * len(patches))  # below reconstructions and residuals
    tiles = [picture for row in rows for picture in row]
    caption = (
        "Patch with its label and anomaly score A(x), its reconstruction, and the residual "
        f"(orange: brighter than reconstructed, blue: darker; full colour at {limit:.2f} of the "
        "contrast). A useful method leaves the residual of a defect stronger than that of "
        "good texture."
    )
    title, columns = "What could not be reconstructed", len(patches)
    return sheet_figure(
        title, caption, tiles, texts, columns=columns, cell_px=_SHOWN_PX, jpeg=False, wide=True
    )


def _verdict(error: float, spread: float) -> str:
    if error >= spread:
        return "That is no better than showing the mean patch each time."
    return f"It explains {1 - (error / spread) ** 2:.0%} of their variance."


def _grey(patch: Tensor) -> NDArray[Any]:
    """A patch (1, side, side), values -1..1, as an enlarged picture."""
    return enlarge((patch[0].numpy() + 1.0) / 2.0, _SHOWN_PX)[..., None]
