"""Pages degraded by augraphy (Groleau et al. 2023): the second family, never trained on.

Ink, paper and machine as in augraphy's own pipeline: uneven or running ink; texture and the back of
the leaf; then what a photocopier or a fax does. Only recipes that leave every symbol where it is,
so that the truth of a page stays. augraphy is no dependency of lineside: ``pip install augraphy``.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lineside.core.errors import UserError

VERSION = "8.2.6"

Step = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def recipes() -> tuple[dict[str, Step], ...]:
    """Return the recipes of ink, paper and machine; of each phase a page gets one.

    Sizes are for staff spaces of about 10 pixels: augraphy's defaults suit 300 dpi.

    Raises:
        UserError: if augraphy is not installed.
    """
    try:
        import augraphy as a
    except ImportError as error:
        raise UserError("augraphy is missing", f"pip install augraphy=={VERSION}") from error
    ink = {
        "plain": lambda image: image,
        "ink bleed": a.InkBleed(intensity_range=(0.3, 0.6), kernel_size=(3, 3), p=1),
        "letterpress": a.Letterpress(
            n_samples=(100, 300), n_clusters=(200, 400), std_range=(1500, 5000),
            value_range=(90, 200), p=1,
        ),
        "low ink lines": a.LowInkRandomLines(count_range=(20, 60), use_consistent_lines=False, p=1),
        "periodic low ink": a.LowInkPeriodicLines(
            count_range=(2, 5), period_range=(16, 40), use_consistent_lines=False, p=1
        ),
        "mottled ink": a.InkMottling(p=1),
    }  # fmt: skip
    paper = {
        "plain": lambda image: image,
        "noise texture": a.NoiseTexturize(p=1),
        "brightness texture": a.BrightnessTexturize(p=1),
        "bleed-through": a.BleedThrough(alpha=0.3, p=1),
        "uneven light": a.LightingGradient(max_brightness=255, min_brightness=90, p=1),
    }
    machine = {
        "subtle noise": a.SubtleNoise(subtle_range=25, p=1),
        "dirty drum": a.DirtyDrum(
            line_width_range=(2, 5), line_concentration=0.08, noise_intensity=0.15, p=1
        ),
        "bad photocopy": a.BadPhotoCopy(
            noise_type=1, noise_iteration=(1, 2), noise_size=(1, 2), noise_sparsity=(0.3, 0.6),
            noise_concentration=(0.1, 0.4), wave_pattern=0, edge_effect=0, p=1,
        ),
        "dithering": a.Dithering(dither="Floyd Steinberg", p=1),
        "jpeg": a.Jpeg(quality_range=(20, 50), p=1),
    }  # fmt: skip
    return ink, paper, machine


def degrade(image: NDArray[np.uint8], seed: int) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Return a page, grey of shape (height, width), degraded, and the names of its recipes.

    The same seed gives the same bytes: augraphy draws from the global generators, which are seeded.
    """
    import cv2

    phases = recipes()
    random.seed(seed)
    np.random.seed(seed)
    cv2.setRNGSeed(seed)
    names = []
    for phase in phases:
        name = random.choice(list(phase))
        names.append(name)
        changed = np.asarray(phase[name](image.copy()))
        if changed.ndim == 3:
            changed = changed[..., :3].mean(axis=-1)
        image = np.clip(changed, 0, 255).astype(np.uint8)
    return image, tuple(names)
