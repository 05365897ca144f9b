"""f-AnoGAN beside its rivals on the same patches of magnetic tiles (development data).

Fold 0 of split 0 by part; training sees the good pictures of the training parts only. Every rival
reads the same patches with the same pooling, so the numbers compare reconstructions. Patch
size, reduction, pooling and normalisation were chosen with PCA on training parts.

Rehearsal: ``python -m benchmarks.parts.anogan`` (a tenth of the steps, nothing is published).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch

from benchmarks.checkpoints import checkpoint_folder
from benchmarks.parts import tiles as tile
from benchmarks.results import Say, plain
from lineside.core.contract import Estimate, Outcome
from lineside.core.run.codec import encode
from lineside.core.run.files import write_json
from lineside.core.run.folder import rng_of
from lineside.core.statistics.estimates import estimate, paired_difference
from lineside.parts.metrics import METRICS
from lineside.parts.models.anogan.anogan import AnoGAN, fit_anogan
from lineside.parts.models.anogan.figures import sample_figures
from lineside.parts.models.anogan.training import against_chance
from lineside.parts.models.detector import Detector, TrainingImage
from lineside.parts.models.reconstruction.autoencoder import fit_autoencoder
from lineside.parts.models.reconstruction.patch_pca import fit_patch_pca

STORE = checkpoint_folder("core/anogan", __file__)
STEPS, ENCODER_STEPS, BATCH = 600, 2000, 32
AUROC = METRICS[0]
NAMES = {
    "fanogan": "f-AnoGAN",
    "mean_patch": "the residual against the mean patch",
    "pca": "PCA of patches",
    "autoencoder": "the convolutional autoencoder",
    "fanogan_linear": "f-AnoGAN with a linear encoder",
}
Row = dict[str, Any]


def fanogan(say: Say, store: Path = STORE, share: float = 1.0) -> None:
    """f-AnoGAN (CPU preset), its linear encoder, autoencoder, PCA and mean patch on the tiles."""
    found = {name: _kept(name, store, share) for name in NAMES}
    outcomes = {name: [_outcome(row) for row in kept["outcomes"]] for name, kept in found.items()}
    for name, own in outcomes.items():
        auroc = estimate(own, AUROC, np.random.default_rng(0))
        say(f"{name}_auroc", auroc)
        sentence = against_chance(NAMES[name], auroc)
        if sentence:
            print(f"  {sentence}", file=sys.stderr)
        if name != "fanogan":
            say(f"fanogan_minus_{name}_auroc", _difference(outcomes["fanogan"], own))
    _costs(say, found)


def _difference(a: Sequence[Outcome], b: Sequence[Outcome]) -> Estimate:
    return paired_difference(a, b, AUROC, np.random.default_rng(0))


def _costs(say: Say, found: dict[str, Row]) -> None:
    """Publish times and updates; processor time, since other work may share the machine."""
    own = found["fanogan"]
    reason = f"by the clock of a shared machine; processor time {own['cpu_minutes']:.1f} minutes"
    say("fanogan_train_minutes", plain(own["minutes"], "min", 1, "lower", reason))
    for name in ("autoencoder", "pca"):
        minutes = found[name]["cpu_minutes"]
        say(f"{name}_train_minutes", plain(minutes, "min", 1, "lower", "processor time"))
    say("fanogan_steps", plain(own["steps"], "updates", 1, reason="of the generator"))
    say("fanogan_encoder_steps", plain(own["encoder_steps"], "updates", 1, reason="of the encoder"))
    for text in (own["shortfall"], *(row["text"] for row in own["warnings"])):
        print(f"  {text}", file=sys.stderr)


def _kept(name: str, store: Path, share: float) -> Row:
    """Return what a method said about the test pictures, computed if it is not stored."""
    path = store / f"{name}.json"
    if not path.exists():
        write_json(path, _computed(name, store, share))
        print(f"  {name}", file=sys.stderr, flush=True)
    kept: Row = json.loads(path.read_text(encoding="utf-8"))
    return kept


def _computed(name: str, store: Path, share: float) -> Row:
    pictures = tile.examples()
    train_index, test_index = tile.folds(0)[0]
    train = [pictures[i] for i in train_index if not pictures[i].faulty]
    test = [pictures[i] for i in test_index]
    rows: list[Row] = []
    begin, cpu = time.perf_counter(), time.process_time()
    detector = _fits(store, share)[name](train, [], rng=rng_of(0, _stream(name)), log=rows.append)
    found: Row = {
        "minutes": (time.perf_counter() - begin) / 60,
        "cpu_minutes": (time.process_time() - cpu) / 60,
        "warnings": [row for row in rows if "warning" in row],
        "outcomes": [_judged(detector, example) for example in test],
    }
    if isinstance(detector, AnoGAN):  # which may have been resumed: its own clock knows
        spent = rows[-1]
        found |= {
            "minutes": spent["seconds"] / 60, "cpu_minutes": spent["cpu_seconds"] / 60,
            "steps": detector.steps, "encoder_steps": detector.encoder_patches // BATCH,
            "shortfall": detector.shortfall, "curve": rows[:: max(1, len(rows) // 500)],
        }  # fmt: skip
        spec, tensors = encode(detector)
        write_json(store / name / "spec.json", spec)
        safetensors.torch.save_file(tensors, store / name / "model.safetensors")
        for number, figure in enumerate(sample_figures(detector, test, np.random.default_rng(0))):
            (store / name / f"figure-{number}.png").write_bytes(figure.image)
            print(f"  {figure.title}: {figure.caption}", file=sys.stderr)
    return found


def _stream(name: str) -> str:
    """The encoders share one adversarial training, and with it the random stream."""
    return "fanogan" if name.startswith("fanogan") else name


def _fits(store: Path, share: float) -> dict[str, Callable[..., Detector]]:
    """Return the fit of each method, with `share` of its steps."""
    gan = partial(
        fit_anogan, checkpoint=store / "checkpoint", batch=BATCH,
        steps=round(STEPS * share), encoder_steps=round(ENCODER_STEPS * share),
    )  # fmt: skip
    # By the clock, on a shared machine; the steps decide, so that the run can be repeated.
    return {
        "fanogan": partial(gan, minutes=60.0),
        "fanogan_linear": partial(gan, linear=True, minutes=120.0),
        "autoencoder": partial(
            fit_autoencoder, checkpoint=store / "autoencoder", steps=round(1000 * share)
        ),
        "pca": fit_patch_pca,
        "mean_patch": partial(fit_patch_pca, components=0),
    }


def _judged(detector: Detector, example: TrainingImage) -> Row:
    prediction = detector.predict(example.image())
    return {
        "item": example.id, "part": example.part, "kind": example.label,
        "score": prediction.score, "label": float(example.faulty),
    }  # fmt: skip


def _outcome(row: Row) -> Outcome:
    return Outcome(
        item=row["item"], groups=(row["part"],), slices={"kind": row["kind"]},
        value={"score": row["score"], "label": row["label"]},
    )  # fmt: skip


def main() -> None:
    """Rehearse with a tenth of the steps in a folder that is removed afterwards."""

    def say(name: str, value: Estimate) -> None:
        print(f"{name:<40} {value.value:.4f} [{value.low}, {value.high}] {value.unit}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        fanogan(say, Path(folder), 0.1)


if __name__ == "__main__":
    main()
