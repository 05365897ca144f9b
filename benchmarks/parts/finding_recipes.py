"""Do the original work's findings on patch networks hold here? Blowhole and Crack of magnetic tile.

Stadelmann et al. 2018 reported for 64-px crops that a quarter-width VGG19 equals the full one,
that more context than 64 to 128 px hurts, and that pretraining overfits. The same comparison on
public tiles (Huang et al.), with crops of held-out parts: average precision at nine good crops
per defect crop, equal steps, the same parts and crops for all networks of a seed.

Run: ``python -m benchmarks.parts.finding_recipes --list``,
``python -m benchmarks.parts.finding_recipes --only vgg_quarter [--seed 0] [--steps 300]``.
Results and checkpoints lie in ``~/lineside-checkpoints``; a stopped run goes on from there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from benchmarks.checkpoints import checkpoint_folder
from benchmarks.parts import sets
from benchmarks.parts import tiles as tile
from benchmarks.parts.efficientnet_crops import LiteCrops, fit_lite_crops
from lineside.core.errors import UserError
from lineside.core.run.files import write_json
from lineside.core.run.folder import rng_of
from lineside.core.statistics.ranking import average_precision
from lineside.core.training.loop import Progress
from lineside.parts.data.images import training_image
from lineside.parts.models.crops import CropBatch, crop_pool, fixed_batch
from lineside.parts.models.detector import TrainingImage
from lineside.parts.models.patch_cnn.patch_cnn import PatchCNN, Width, fit_patch_cnn

STORE = checkpoint_folder("parts/findings", __file__)
KINDS = ("good", "blowhole", "crack")
STEPS = 300
"""Updates of every network: at most ten minutes on one core, and validation AP is level by then."""
PARTS_OUT = 3
"""One third of the parts of each kind is held out."""

CropNetwork = PatchCNN | LiteCrops
Fit = Callable[..., CropNetwork]
Measured = dict[str, Any]


def vgg_width_ap(width: Width, seed: int, steps: int = STEPS, data: str = "tile") -> Measured:
    """Return train and validation AP of a VGG19 of a width on 64-px crops."""
    return _result(
        f"vgg_{width}", seed, steps, data, fit_patch_cnn, width=width, size_corrected=False
    )


def crop_ap(crop_px: int, seed: int, steps: int = STEPS, data: str = "tile") -> Measured:
    """Return train and validation AP of the eighth-width VGG19 at a crop size."""
    if crop_px == 64:
        return vgg_width_ap("eighth", seed, steps, data)
    options: dict[str, Any] = {"width": "eighth", "crop_px": crop_px, "size_corrected": False}
    return _result(f"crop_{crop_px}", seed, steps, data, fit_patch_cnn, **options)


def lite_ap(pretrained: bool, seed: int, steps: int = STEPS, data: str = "tile") -> Measured:
    """Return train and validation AP of EfficientNet-Lite0 on 64-px crops."""
    name = "lite_pretrained" if pretrained else "lite_random"
    return _result(name, seed, steps, data, fit_lite_crops, pretrained=pretrained)


def parts_split(seed: int, data: str) -> tuple[list[TrainingImage], list[TrainingImage]]:
    """Return training and held-out examples: no part is in both, kinds in proportion."""
    if data == "demo":
        chosen = [training_image(item) for item in sets.demo_items()]
    else:
        chosen = [example for example in tile.examples() if example.label in KINDS]
    kinds = [example.label for example in chosen]
    groups = [example.part for example in chosen]
    splitter = StratifiedGroupKFold(PARTS_OUT, shuffle=True, random_state=seed)
    train, held_out = next(iter(splitter.split(np.zeros(len(chosen)), kinds, groups)))
    return [chosen[i] for i in train], [chosen[i] for i in held_out]


def _result(name: str, seed: int, steps: int, data: str, fit: Fit, **options: Any) -> Measured:
    """Fit and measure, or take what is stored."""
    folder = STORE / f"{'' if data == 'tile' else data + '-'}{name}-{steps}-{seed}"
    stored = folder / "result.json"
    if stored.exists():
        found: dict[str, Any] = json.loads(stored.read_text(encoding="utf-8"))
        return found
    train, held_out = parts_split(seed, data)
    rows: list[dict[str, Any]] = []
    start = time.process_time()
    detector = fit(
        train,
        held_out,
        rng=rng_of(seed, "findings"),
        log=rows.append,
        steps=steps,
        validations=5,
        checkpoint=folder / "checkpoint",
        progress=_reporter(f"{name} seed {seed}"),
        **options,
    )
    found = {
        "name": name,
        "seed": seed,
        "steps": steps,
        "cpu_seconds": time.process_time() - start,
        "weights": sum(p.numel() for p in detector.network.parameters()),
        "train_ap": _ap(detector, train, seed),
        "validation_ap": _ap(detector, held_out, seed),
        **{
            f"validation_ap_{k}": _ap(detector, _with(held_out, k), seed)
            for k in sorted({e.label for e in held_out if e.faulty})
        },
        "parts": len({e.part for e in held_out}),
        "defect_parts": len({e.part for e in held_out if e.faulty}),
        "curve": [[r["step"], r["validation_ap"]] for r in rows if "validation_ap" in r],
        "warnings": [r["text"] for r in rows if "warning" in r],
    }
    write_json(stored, found)
    return found


def _ap(detector: CropNetwork, examples: Sequence[TrainingImage], seed: int) -> float:
    """Patch-level AP on crops that are the same for all networks of a crop size."""
    scores, labels = crop_scores(detector, examples, rng_of(seed, "findings crops"))
    return average_precision(scores, labels)


def evaluation_crops(
    detector: CropNetwork,
    examples: Sequence[TrainingImage],
    rng: np.random.Generator,
    *,
    per_image: int = 4,
    good_per_defect: int = 9,
) -> CropBatch:
    """Return the crops of held-out parts for `crop_scores`: defects with a mask only."""
    usable = [e for e in examples if not e.faulty or e.mask() is not None]
    pool = crop_pool(usable, crop_px=detector.crop_px, rng=rng)
    return fixed_batch(
        pool, per_image=per_image, good_per_defect=good_per_defect, bag_crops=1, rng=rng
    )


def crop_scores(
    detector: CropNetwork, examples: Sequence[TrainingImage], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return logits and labels (0 good, 1 defect) of crops, about nine good ones per defect."""
    batch = evaluation_crops(detector, examples, rng)
    pixels = batch.pixels
    if pixels.shape[1] != detector.channels:
        pixels = np.repeat(pixels.mean(1, keepdims=True), detector.channels, axis=1)
    return detector.logits(pixels), batch.labels


def _with(examples: Sequence[TrainingImage], kind: str) -> list[TrainingImage]:
    return [example for example in examples if not example.faulty or example.label == kind]


def _reporter(title: str) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.step % 50 == 0:
            print(
                f"  {title}: {progress.step}/{progress.total}, loss {progress.loss:.3f}, "
                f"{progress.seconds_left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    return report


RESULTS: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "vgg_eighth": lambda seed, steps: vgg_width_ap("eighth", seed, steps),
    "vgg_quarter": lambda seed, steps: vgg_width_ap("quarter", seed, steps),
    "vgg_half": lambda seed, steps: vgg_width_ap("half", seed, steps),
    "vgg_full": lambda seed, steps: vgg_width_ap("full", seed, steps),
    "crop_32": lambda seed, steps: crop_ap(32, seed, steps),
    "crop_64": lambda seed, steps: crop_ap(64, seed, steps),
    "crop_128": lambda seed, steps: crop_ap(128, seed, steps),
    "crop_256": lambda seed, steps: crop_ap(256, seed, steps),
    "lite_pretrained": lambda seed, steps: lite_ap(True, seed, steps),
    "lite_random": lambda seed, steps: lite_ap(False, seed, steps),
}


def main() -> int:
    """Print the named results as JSON lines, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=RESULTS, default=None)
    parser.add_argument("--seed", action="append", type=int, default=None)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.list:
        print("\n".join(RESULTS))
        return 0
    try:
        for name in options.only or RESULTS:
            for seed in options.seed or tile.SEEDS:
                print(json.dumps(RESULTS[name](seed, options.steps)), flush=True)
    except UserError as error:
        print(f"skipped: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
