"""The robustness chapter: pictures that get worse, grade by grade, and attacks on the patch CNN.

Whether the trace of an attack (`lineside.core.explain.adversarial_trace`) gives it away is measured
beside two simple detectors.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lineside.core.contract import Figure, Section, Table
from lineside.core.errors import UserError
from lineside.core.explain import adversarial_attacks as attacks
from lineside.core.explain import adversarial_trace as trace
from lineside.core.report import plots
from lineside.core.statistics.ranking import auroc, roc_curve
from lineside.core.study import Study
from lineside.parts.data.images import training_image
from lineside.parts.data.items import PartImage
from lineside.parts.models.crops import crop_pool, fixed_batch
from lineside.parts.models.patch_cnn.patch_cnn import PatchCNN
from lineside.parts.models.patch_cnn.vgg import LAST_MAPS
from lineside.parts.simulation.degradations import SEVERITIES, SUITE, degrade

Block = str | Table | Figure
Scores = NDArray[np.float64]

BUDGET_SECONDS = 20.0
"""Of the suite of degradations, and of the attacks."""
FEWEST, MOST = 12, 80
"""Test images that the suite degrades."""
MOST_CROPS = 160
"""Crops of each role; fewer on a slow machine or a large network."""
MOST_IMAGES = 60
PASSES = 60
"""Forward and backward passes that a test crop costs."""
FEWEST_SUCCESSES = 5
EPSILONS = (1, 2, 4, 8)
"""In grey levels of 255."""
SHOWN = "FGSM 4/255"
FALSE_ALARMS = 0.05
CAVEAT = (
    "This is a monitor, not a defence: an attacker who knows it can optimise against it as well. "
    "It also alarms on unmodified pictures with an unusual response."
)


def robustness(study: Study) -> Section:
    """Degrade test images by grade 1 to 5 and compare AUROC with the same images as they are.

    The number of images is chosen so that the suite takes about 20 s.
    """
    items = choose_items(study)
    model = study.best.model
    labels = np.array([float(item.faulty) for item in items])
    if len(np.unique(labels)) < 2:
        return Section(title="Robustness")
    examples = [training_image(item) for item in items]
    clean = auroc([model.predict_image(e.image()).score for e in examples], labels)
    rows, curves = [], {}
    for degradation in SUITE:
        values = [clean]
        for grade in SEVERITIES:
            worse = (degrade(e, degradation, grade, study.config.seed) for e in examples)
            values.append(auroc([model.predict_image(image).score for image in worse], labels))
        rows.append((degradation.name, *(f"{value:.3f}" for value in values), degradation.help))
        curves[degradation.name] = (np.arange(6, dtype=float), np.array(values))
    return Section(
        title="Robustness",
        lead=(
            f"The same {len(items)} test images, made worse in five grades. What drops here "
            "drops in production when lamps age, lenses get dirty or parts shift."
        ),
        blocks=(
            Table(
                title="Image AUROC by grade",
                columns=("degradation", "as is", *(f"grade {g}" for g in SEVERITIES), "what it is"),
                rows=tuple(rows),
                caption=f"From {len(items)} images: the trend counts, not the third digit.",
            ),
            plots.lines(
                "Robustness",
                "A steep line is a weakness; grade 0 is the picture as it is.",
                curves,
                x_label="grade of degradation",
                y_label="image AUROC [-]",
            ),
            *attacks_on_patch_cnn(study),
        ),
    )


def choose_items(study: Study) -> list[PartImage]:
    """Return as many test images as the time allows, good and faulty alternating by part."""
    outcomes = study.best.outcomes["test"]
    seconds = float(np.median([o.value["ms"] for o in outcomes])) / 1000 if outcomes else 0.1
    reads = BUDGET_SECONDS / max(seconds, 1e-3) / (1 + len(SEVERITIES) * len(SUITE))
    count = int(np.clip(reads, FEWEST, MOST))
    rng = study.run.rng("robustness items")
    chosen: list[PartImage] = []
    for faulty in (False, True):
        pool = [item for item in study.split.test if item.faulty == faulty]
        take = min(len(pool), count // 2)
        chosen += [pool[i] for i in sorted(rng.choice(len(pool), take, replace=False))]
    return chosen


# ---- attacks on the patch CNN


class OnPixels(nn.Module):
    """A network that takes pixels with values 0..1 and standardises them itself."""

    def __init__(self, network: nn.Module, mean: float, spread: float) -> None:
        super().__init__()
        self.network = network
        self.mean, self.spread = mean, spread

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits of pixels (batch, channel, height, width)."""
        x = (pixels - self.mean) / self.spread
        logits: Tensor = self.network(x.contiguous(memory_format=torch.channels_last))
        return logits


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """What an attack did to the test crops, and what each detector says (higher: more suspicious).

    Attributes:
        flipped: Whether the prediction of a correctly classified crop changed, shape (crop,).
        tried: Whether the crop was classified correctly before, shape (crop,).
        scores: Per detector, shape (crop,).
    """

    flipped: NDArray[np.bool_]
    tried: NDArray[np.bool_]
    scores: Mapping[str, Scores]


DETECTORS = ("trace", "maximum softmax", "total variation")


def attacks_on_patch_cnn(study: Study) -> tuple[Block, ...]:
    """Return blocks for the robustness chapter; empty if no patch CNN is among the methods.

    The trace is calibrated on crops of validation parts and evaluated on crops of test parts.
    """
    detectors = [getattr(method.model, "detector", None) for method in study.methods]
    cnn = next((detector for detector in detectors if isinstance(detector, PatchCNN)), None)
    if cnn is None:
        return ()
    rng = study.run.rng("adversarial crops")
    clean = cut_crops(cnn, study.split.validation or study.split.calibration, rng)
    test = cut_crops(cnn, study.split.test, rng)
    if clean is None or test is None:
        return ("The patch CNN was not attacked: good and defective crops are both needed.",)
    return attack_blocks(cnn, clean[0], *test, seed=study.config.seed)


def cut_crops(
    cnn: PatchCNN, items: tuple[PartImage, ...], rng: np.random.Generator
) -> tuple[Tensor, Tensor] | None:
    """Return crops (crop, channel, height, width) and labels (1 defect); None without both.

    Of at most `MOST_IMAGES` images of each label; defects need a mask.
    """
    chosen: list[PartImage] = []
    for faulty in (False, True):
        pool = [i for i in items if i.faulty == faulty and (not faulty or i.mask or i.boxes)]
        picked = rng.permutation(len(pool))[:MOST_IMAGES]
        chosen += [pool[place] for place in sorted(picked)]
    examples = [training_image(item) for item in chosen]
    if not any(e.faulty for e in examples) or all(e.faulty for e in examples):
        return None
    crops = crop_pool(
        examples, crop_px=cnn.crop_px, rng=rng, crops_per_image=4, channels=cnn.channels
    )
    batch = fixed_batch(
        crops, per_image=4, good_per_defect=2, bag_crops=1, rng=rng, most_defects=MOST_CROPS // 2
    )
    keep = np.sort(rng.permutation(len(batch.labels))[:MOST_CROPS])
    return torch.from_numpy(batch.pixels[keep]), torch.from_numpy(batch.crop_labels[keep]).long()


def attack_blocks(
    cnn: PatchCNN, clean: Tensor, pixels: Tensor, labels: Tensor, *, seed: int
) -> tuple[Block, ...]:
    """Return the sentence, the table and the ROC figure of a network under attack.

    Args:
        cnn: The network.
        clean: Crops of validation parts, shape (crop, channel, height, width), values 0..1.
        pixels: Crops of test parts.
        labels: Their labels, 1 defect, shape (crop,).
        seed: Seed of random starts and noise.
    """
    network = OnPixels(cnn.network, cnn.mean, cnn.spread)
    layer = cnn.network.get_submodule(LAST_MAPS)
    try:
        started = time.perf_counter()
        fitted = trace.fit_trace(network, layer, clean)
        seconds = (time.perf_counter() - started) / (2 * len(clean))
    except UserError as error:
        return (f"The patch CNN could not be attacked: {error.message}; {error.hint}.",)
    count = int(np.clip(BUDGET_SECONDS / (PASSES * seconds), 20, len(pixels)))
    spread_out = torch.linspace(0, len(pixels) - 1, count).round().long().unique()
    pixels, labels = pixels[spread_out], labels[spread_out]
    results = _run_attacks(network, fitted, pixels, labels, torch.Generator().manual_seed(seed))
    threshold = float(np.quantile(fitted.score(clean), 1 - FALSE_ALARMS, method="higher"))
    return (_sentence(results, threshold), _table(results, labels), *_roc(results), CAVEAT)


def _run_attacks(
    network: nn.Module,
    fitted: trace.Trace,
    pixels: Tensor,
    labels: Tensor,
    generator: torch.Generator,
) -> dict[str, AttackResult]:
    """Return the result of every attack and control, the clean crops first."""
    right = attacks.predicted_class(attacks.outputs(network, pixels)) == labels

    def evaluate(moved: Tensor) -> AttackResult:
        logits = attacks.outputs(network, moved)
        scores = (
            fitted.score(moved),
            1.0 - attacks.confidence(logits),
            trace.total_variation(moved),
        )
        wrong = attacks.predicted_class(logits) != labels
        return AttackResult(
            flipped=(right & wrong).numpy(),
            tried=right.numpy(),
            scores=dict(zip(DETECTORS, scores, strict=True)),
        )

    results = {"clean": evaluate(pixels)}
    for epsilon in EPSILONS:
        moved = attacks.fgsm(network, pixels, labels, epsilon / 255)
        results[f"FGSM {epsilon}/255"] = evaluate(moved)
    for epsilon in (2, 4):
        moved = attacks.pgd(network, pixels, labels, epsilon / 255, generator=generator)
        results[f"PGD {epsilon}/255"] = evaluate(moved)
    noise = attacks.sign_noise(pixels, 4 / 255, generator=generator)
    results["noise 4/255"] = evaluate(noise)
    return results


def _auc(
    results: Mapping[str, AttackResult], name: str, detector: str, which: NDArray[np.bool_]
) -> str:
    """AUC of chosen crops of one condition against all clean crops, as text."""
    if which.sum() < FEWEST_SUCCESSES:
        return "too few"
    return f"{auroc(*_against_clean(results, name, detector, which)):.2f}"


def _against_clean(
    results: Mapping[str, AttackResult], name: str, detector: str, which: NDArray[np.bool_]
) -> tuple[Scores, Scores]:
    """Return a detector's scores of clean crops and of chosen moved ones, and labels 1 if moved."""
    clean, moved = results["clean"].scores[detector], results[name].scores[detector][which]
    if name == "clean":
        clean = clean[~which]
    return np.concatenate([clean, moved]), np.repeat([0.0, 1.0], [len(clean), len(moved)])


def _table(results: Mapping[str, AttackResult], labels: Tensor) -> Table:
    shown = results[SHOWN].flipped
    rows = []
    for name, one in results.items():
        attack = name not in ("clean", "noise 4/255")
        which = one.flipped if attack else shown
        title = {"clean": "the same crops unchanged", "noise 4/255": "random signs 4/255"}
        success = f"{one.flipped.sum()} of {one.tried.sum()}" if name != "clean" else "-"
        aucs = [_auc(results, name, detector, which) for detector in DETECTORS]
        rows.append((title.get(name, name), success, *aucs))
    accuracy = float(results["clean"].tried.mean())
    return Table(
        title="Attacks on the patch CNN",
        columns=("change", "predictions flipped", *(f"AUC {name}" for name in DETECTORS)),
        rows=tuple(rows[1:] + rows[:1]),
        caption=(
            f"{len(labels)} crops of test parts, {accuracy:.0%} of them classified correctly "
            "before; only those are counted. AUC: successful attacks against all clean crops, 0.5 "
            f"is chance. The last two rows are controls on the crops that {SHOWN} flipped: noise, "
            "and the unchanged crops."
        ),
    )


def _roc(results: Mapping[str, AttackResult]) -> tuple[Figure, ...]:
    which = results[SHOWN].flipped
    if which.sum() < FEWEST_SUCCESSES:
        return ()
    curves = {}
    for detector in DETECTORS:
        fpr, recall, _ = roc_curve(*_against_clean(results, SHOWN, detector, which))
        curves[detector] = (fpr, recall)
    caption = (
        f"Share of {which.sum()} successful {SHOWN} attacks detected, against the share of "
        f"{len(which)} clean crops with a false alarm."
    )
    return (
        plots.lines(
            "Detection of attacks", caption, curves,
            x_label="false alarms, share of clean crops",
            y_label="attacks detected, share",
        ),
    )  # fmt: skip


def _sentence(results: Mapping[str, AttackResult], threshold: float) -> str:
    """Return the conclusion from the table in plain words."""
    shown = results[SHOWN]
    successes, tried = int(shown.flipped.sum()), int(shown.tried.sum())
    start = (
        f"An attacker who knows the network and changes every pixel by at most 4 of 255 grey "
        f"levels (FGSM) flips {successes} of {tried} correct predictions. "
    )
    if successes < FEWEST_SUCCESSES:
        return start + "That is too few to estimate how many attacks are detected."

    def caught(name: str, which: NDArray[np.bool_]) -> float:
        return float((results[name].scores["trace"][which] > threshold).mean())

    everyone = np.ones_like(shown.flipped)
    aucs = {d: float(_auc(results, SHOWN, d, shown.flipped)) for d in DETECTORS}
    best = max(aucs, key=lambda name: aucs[name])
    baseline = (
        "No simpler detector does better."
        if best == "trace"
        else f"The {best} alone does better (AUC {aucs[best]:.2f})"
        + (
            "."
            if best == "maximum softmax"
            else ", but that detects any noise, adversarial or not."
        )
    )
    return start + (
        "The trace measures how far the network's response lies from the usual one of the "
        "predicted class; it detects that the response does not fit the predicted class, not "
        f"the attack as such. Its limit, set to alarm on {FALSE_ALARMS:.0%} of the clean "
        f"validation crops, detects {caught(SHOWN, shown.flipped):.0%} of the successful "
        f"attacks and alarms on {caught('clean', everyone):.0%} of the clean test crops "
        f"(AUC {aucs['trace']:.2f}). {baseline}"
    )
