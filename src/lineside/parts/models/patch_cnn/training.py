"""Training a patch network on crops: shared by the VGG from scratch and the ImageNet backbone.

The loss is a class-weighted binary cross-entropy, in which the few defects count as much as the
many good crops: sum w_i bce_i / sum w_i with w = N_neg / N_pos for a defect and 1 for a good item.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional

from lineside.core.audit.label_noise import estimate_label_noise
from lineside.core.errors import UserError
from lineside.core.run.folder import rng_of
from lineside.core.training.loop import Hooks, Trained, Training, train
from lineside.core.training.recorder import Recorder
from lineside.core.training.step_function import Batch, supervised_step
from lineside.parts.audit.survey import describe
from lineside.parts.models.crops import (
    CropBatch,
    CropPool,
    augment,
    crop_pool,
    draw_batch,
    fixed_batch,
)
from lineside.parts.models.detector import TrainingImage

GRADIENT_QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
GREY_QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.75, 0.95, 0.99, 1.0)
SCALES_PX = (1, 2, 4)
BLOB_QUANTILES = (0.001, 0.01, 0.99, 0.999)


def describe_crop(grey: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return radial spectrum, quantiles of grey and of the gradient, and blobs at three scales.

    Args:
        grey: Shape (height, width), values 0..1.

    Returns:
        Shape (57,); all but the spectrum's last two do not depend on brightness and contrast.
    """
    x = grey.astype(np.float64)
    spread = x.std() + 1e-6
    gradient = np.hypot(*np.gradient(x)) / spread
    deviation = x - np.median(x)
    z = deviation / (1.4826 * np.median(np.abs(deviation)) + 1e-3)
    features = [
        describe(grey),
        np.quantile(gradient, GRADIENT_QUANTILES),
        np.quantile(z, GREY_QUANTILES),
    ]
    for scale in SCALES_PX:
        band = gaussian_filter(x, scale) - gaussian_filter(x, 2 * scale)
        sharp = band / (band.std() + 1e-6)
        features.append(np.quantile(band, BLOB_QUANTILES) / spread)
        features.append(np.array([sharp.min(), sharp.max(), (sharp**4).mean() ** 0.25]))
    return np.concatenate(features)


def positive_weight(labels: Tensor) -> float:
    """Return N_neg / N_pos, the weight at which both classes count alike.

    Args:
        labels: 0 (good) and 1 (defect), any shape.

    Raises:
        ValueError: if one class is absent.
    """
    positives = int((labels > 0.5).sum())
    negatives = labels.numel() - positives
    if not positives or not negatives:
        raise ValueError(f"need both classes, got {negatives} good and {positives} defect labels")
    return negatives / positives


def balanced_bce(logits: Tensor, labels: Tensor, pos_weight: float) -> Tensor:
    """Return the binary cross-entropy whose defect terms weigh `pos_weight`, averaged.

    The sum is divided by the sum of weights, so that the value is comparable between class
    ratios (0.693 at logit 0).

    Args:
        logits: Shape (item,).
        labels: Shape (item,), 0 or 1.
        pos_weight: Weight of a defect term relative to a good term.
    """
    return weighted_bce(logits, labels, class_weights(labels, pos_weight))


def class_weights(labels: Tensor, pos_weight: float) -> Tensor:
    """Return `pos_weight` for each defect and 1 for each good item, shape (item,)."""
    return torch.where(labels > 0.5, pos_weight, 1.0)


def weighted_bce(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of the binary cross-entropy; all arguments have shape (item,)."""
    losses = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (weights * losses).sum() / weights.sum()


Standardise = Callable[[NDArray[np.float32]], Tensor]
"""Takes crops (crop, channel, height, width) with values 0..1 to a network's input."""

_EVALUATION_BATCH = 32
_EVALUATION_DEFECTS = 40
_LABEL_CROPS = 3
"""Crops of an image in the label-noise check."""


@dataclass(frozen=True, kw_only=True)
class CropTraining:
    """How a patch network is trained.

    Attributes:
        steps: Updates.
        batch: Crops per update.
        good_per_defect: Good crops for each defect crop; about 9 in the original work, but on
            few updates 3 learn faster.
        learning_rate: Peak of the one-cycle schedule (AdamW).
        weight_decay: Of AdamW.
        crops_per_image: Crops kept in memory of each image.
        pool_bytes: Bound of the crops' memory.
        bag_crops: Crops drawn of an image of which only the label is known.
        top_crops: Such a bag's logit is the mean of this many strongest crops.
        validations: How often the validation crops are evaluated.
    """

    steps: int = 600
    batch: int = 32
    good_per_defect: int = 3
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    crops_per_image: int = 48
    pool_bytes: int = 256_000_000
    bag_crops: int = 8
    top_crops: int = 2
    validations: int = 10


@dataclass(frozen=True, kw_only=True)
class CropData:
    """Training crops, and the fixed crops that are evaluated (None without validation parts)."""

    pool: CropPool
    train: CropBatch
    validation: CropBatch | None
    mean: float
    spread: float

    @property
    def channels(self) -> int:
        """1 grey or 3 RGB."""
        return int(self.pool.pixels.shape[1])


def crop_data(
    train_set: Sequence[TrainingImage],
    validation_set: Sequence[TrainingImage],
    *,
    crop_px: int,
    settings: CropTraining,
    rng: np.random.Generator,
    channels: int | None = None,
) -> CropData:
    """Cut all crops of a training; `channels` is that of the first image unless given.

    Raises:
        UserError: if there is no good or no defective training image.
    """
    faulty = sum(example.faulty for example in train_set)
    if not 0 < faulty < len(train_set):
        raise UserError(
            f"the patch CNN needs good and defective images, got {len(train_set) - faulty} good "
            f"and {faulty} defective",
            "use the methods that learn from good images only",
        )
    train_rng, validation_rng, fixed_rng = rng.spawn(3)

    cut = partial(
        crop_pool,
        crop_px=crop_px,
        crops_per_image=settings.crops_per_image,
        pool_bytes=settings.pool_bytes,
    )
    pool = cut(train_set, rng=train_rng, channels=channels)
    validation = None
    if any(e.faulty for e in validation_set) and not all(e.faulty for e in validation_set):
        held_out = cut(validation_set, rng=validation_rng, channels=pool.pixels.shape[1])
        validation = _fixed_crops(held_out, settings, fixed_rng)
    sample = pool.pixels[:: max(1, len(pool.pixels) // 2000)].astype(np.float32)
    return CropData(
        pool=pool,
        train=_fixed_crops(pool, settings, fixed_rng),
        validation=validation,
        mean=float(sample.mean()),
        spread=float(sample.std()) or 1.0,
    )


def train_on_crops(
    network: nn.Module,
    data: CropData,
    standardise: Standardise,
    settings: CropTraining,
    rng: np.random.Generator,
    hooks: Hooks,
) -> Trained:
    """Train a network of one logit per crop in place.

    Args:
        network: Takes (crop, channel, height, width) to logits (crop,).
        data: What it learns from and is validated on.
        standardise: Takes crops with values 0..1 to the network's input.
        settings: Steps, batch and so on.
        rng: Random stream of batches, augmentation and dropout.
        hooks: Log, progress, stop and checkpoint.
    """
    rate = settings.learning_rate
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=settings.weight_decay)
    cycle = settings.steps + 1
    scheduler = torch.optim.lr_scheduler.OneCycleLR(  # a rise of no step would divide by zero
        optimizer, rate, total_steps=cycle, pct_start=max(0.2, 2 / cycle), cycle_momentum=False
    )

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        pixels, bag, labels, weights = batch
        return weighted_bce(pool_bags(model(pixels), bag, settings.top_crops), labels, weights)

    def validate() -> Mapping[str, float]:
        assert data.validation is not None
        return evaluate(network, data.validation, standardise, settings.top_crops)

    return train(
        Training(
            network=network,
            optimizers={"adamw": optimizer},
            schedulers=(scheduler,),
            step=supervised_step(
                _draw_function(data.pool, standardise, settings), loss, shard=shard_bags
            ),
            steps=settings.steps,
            rng=rng,
            validate=validate if data.validation is not None else None,
            validate_every=max(1, settings.steps // settings.validations),
            labels=partial(_check_labels, pool=data.pool),
        ),
        hooks,
    )


def shard_bags(batch: Batch, process: int, processes: int) -> tuple[Batch, float]:
    """Return the crops of every `processes`-th bag, and their share of the sum of weights.

    Args:
        batch: Pixels (crop, channel, height, width), bag of each crop (crop,), labels and
            weights (bag,).
        process: Which share.
        processes: Number of shares.
    """
    pixels, bag, labels, weights = batch
    crops = bag % processes == process
    part = weights[process::processes]
    share = processes * float(part.sum() / weights.sum())
    return (pixels[crops], bag[crops] // processes, labels[process::processes], part), share


def _check_labels(recorder: Recorder, *, pool: CropPool) -> None:
    """Give the recorder crops with a mask, to look for labels that contradict their neighbours."""
    rng = rng_of(0, "labels")  # a stream of its own, so that the check does not change the training
    chosen: list[int] = []
    for crops in (pool.good, np.concatenate([np.zeros(0, np.int64), *pool.defect])):
        count: dict[str, int] = {}
        for crop in rng.permutation(crops).tolist():
            source = str(pool.source[crop])
            if count.get(source, 0) < _LABEL_CROPS:
                count[source] = count.get(source, 0) + 1
                chosen.append(crop)
    faulty = np.isin(chosen, np.concatenate([np.zeros(0, np.int64), *pool.defect]))
    if not faulty.any() or faulty.all():
        return
    descriptors = [describe_crop(pool.pixels[i].mean(0).astype(np.float32)) for i in chosen]
    parts = pool.part[chosen].tolist()
    # A faulty image gives good crops too, far from its mask: they are items of their own.
    ids = [
        f"{pool.source[crop]} ({'defect' if bad else 'good'} crop)"
        for crop, bad in zip(chosen, faulty, strict=True)
    ]
    looks = np.stack(descriptors)
    labels = ["defect" if bad else "good" for bad in faulty]
    recorder.labels(estimate_label_noise(ids, looks, labels, parts, rng))


def _draw_function(
    pool: CropPool, standardise: Standardise, settings: CropTraining
) -> Callable[[np.random.Generator], tuple[Tensor, ...]]:
    """The function that draws one augmented training batch: input, bag, labels, weights."""

    def draw(rng: np.random.Generator) -> Batch:
        batch = draw_batch(
            pool,
            crops=settings.batch,
            good_per_defect=settings.good_per_defect,
            bag_crops=settings.bag_crops,
            rng=rng,
        )
        pixels = standardise(augment(batch.pixels, rng))
        labels = torch.from_numpy(batch.labels)
        weights = class_weights(labels, positive_weight(labels))
        return pixels, torch.from_numpy(batch.bag), labels, weights

    return draw


def evaluate(
    network: nn.Module, batch: CropBatch, standardise: Standardise, top_crops: int
) -> dict[str, float]:
    """Return balanced loss and average precision of fixed crops; the network is in eval mode."""
    from sklearn.metrics import average_precision_score

    logits = crop_logits(network, batch.pixels, standardise)
    pooled = pool_bags(torch.from_numpy(logits), torch.from_numpy(batch.bag), top_crops)
    labels = torch.from_numpy(batch.labels)
    return {
        "loss": float(balanced_bce(pooled, labels, positive_weight(labels))),
        "ap": float(average_precision_score(batch.labels, pooled.numpy())),
    }


def crop_logits(
    network: nn.Module, pixels: NDArray[np.float32], standardise: Standardise
) -> NDArray[np.float32]:
    """Return logits of crops in fixed, padded batches: a crop's logit never depends on others."""
    device = next(network.parameters()).device
    logits = [np.zeros(0, dtype=np.float32)]
    for first in range(0, len(pixels), _EVALUATION_BATCH):
        block = pixels[first : first + _EVALUATION_BATCH]
        padded = np.zeros((_EVALUATION_BATCH, *pixels.shape[1:]), dtype=np.float32)
        padded[: len(block)] = block
        with torch.inference_mode():
            batch = network(standardise(padded).to(device))
        logits.append(batch[: len(block)].cpu().numpy())
    return np.concatenate(logits)


def pool_bags(logits: Tensor, bag: Tensor, top_crops: int) -> Tensor:
    """Return one logit per bag: the mean of its strongest crops, shape (bag,).

    Args:
        logits: Shape (crop,).
        bag: Index of each crop's bag, ascending, shape (crop,).
        top_crops: How many crops of a bag count.
    """
    sizes = torch.bincount(bag).tolist()
    if len(sizes) == len(logits):
        return logits
    parts = torch.split(logits, sizes)
    return torch.stack([part.topk(min(top_crops, len(part))).values.mean() for part in parts])


def _fixed_crops(pool: CropPool, settings: CropTraining, rng: np.random.Generator) -> CropBatch:
    return fixed_batch(
        pool,
        per_image=2,
        good_per_defect=settings.good_per_defect,
        bag_crops=2 * settings.bag_crops,
        rng=rng,
        most_defects=_EVALUATION_DEFECTS,
    )
