"""Networks on crops of the magnetic tiles, their attacked test crops, and what is seen in them.

Trained weights and measured values are kept below `STORE`, one file each, so a stop loses little.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor, nn

from benchmarks.checkpoints import checkpoint_folder
from benchmarks.core.one_pixel_attack import Search, change_points
from benchmarks.parts import tiles as tile
from lineside.core.explain import adversarial_attacks as attacks
from lineside.core.explain import adversarial_trace as trace
from lineside.core.run.files import read_json, write_json
from lineside.core.run.folder import rng_of
from lineside.core.training.loop import NO_HOOKS, Training, train
from lineside.core.training.step_function import supervised_step
from lineside.parts.models.crops import augment, crop_pool, draw_batch
from lineside.parts.models.detector import TrainingImage
from lineside.parts.models.patch_cnn.patch_cnn import channels_last
from lineside.parts.models.patch_cnn.training import (
    CropTraining,
    balanced_bce,
    crop_data,
    train_on_crops,
)
from lineside.parts.models.patch_cnn.vgg import initialise
from lineside.parts.report.robustness import OnPixels
from lineside.parts.simulation import degradations as robustness

STORE = checkpoint_folder("core/adversarial", __file__)
KINDS = ("good", "blowhole", "crack")
CROP_PX = 64
FOLDS = 5
NETS = tuple(range(FOLDS))
"""Folds that are attacked."""
STEPS = {"plain": 400, "shifted": 800}
"""Updates by recipe: as the product trains, or with shifted crops."""
RATE = 3e-3
SHIFT_PX = 16
EPSILONS = (1, 2, 4, 8)
"""In steps of 8-bit grey, of 255."""
POINTS = (1, 3, 5)
POINT_CROPS = 12
"""Crops of each class that the search for points is tried on, per network."""
CONTROLS = {"blur": 2, "jpeg": 3, "darker": 2, "brighter": 2}
"""Grades of the degradations that are no attack."""
LAYER = "blocks.4.5"
"""The last ReLU."""
GOOD_CROPS = {"validation": 2, "test": 1}
DEFECT_CROPS = {"validation": 6, "test": 6}
"""Crops of each image."""


class SmallVGG(nn.Module):
    """VGG11 with batch norm, one logit, at quarter width (Simonyan 2015, table 1, column A)."""

    def __init__(self) -> None:
        super().__init__()
        blocks, before = [], 1
        for count, width in zip((1, 1, 2, 2, 2), (16, 32, 64, 128, 128), strict=True):
            layers: list[nn.Module] = []
            for _ in range(count):
                layers += [nn.Conv2d(before, width, 3, padding=1, bias=False)]
                layers += [nn.BatchNorm2d(width), nn.ReLU()]
                before = width
            blocks.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(before, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.blocks(x)).flatten(1))
        return logits.squeeze(1)


@dataclass(frozen=True)
class Net:
    """Which network: how it is trained and which fold it is attacked on."""

    recipe: str
    fold: int

    def path(self, name: str) -> Path:
        """Return where something of this network is kept."""
        return STORE / self.recipe / name


def nets_of(recipe: str) -> tuple[Net, ...]:
    """Return the networks of a recipe, one per fold."""
    return tuple(Net(recipe, fold) for fold in NETS)


@dataclass(frozen=True)
class Crops:
    """Crops with values 0..1, their labels (1 defect) and parts."""

    pixels: Tensor
    labels: Tensor
    parts: tuple[str, ...]


@functools.cache
def roles(fold: int) -> tuple[list[TrainingImage], list[TrainingImage], list[TrainingImage]]:
    """Return training, validation and test images; no part is in two roles."""
    pictures = [e for e in tile.examples() if e.label in KINDS]
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    kinds, parts = [e.label for e in pictures], [e.part for e in pictures]
    folds = [set(test.tolist()) for _, test in splitter.split(kinds, kinds, parts)]
    test, validation = folds[fold], folds[(fold + 1) % FOLDS]
    rest = set(range(len(pictures))) - test - validation
    found = [[pictures[i] for i in sorted(role)] for role in (rest, validation, test)]
    return found[0], found[1], found[2]


@functools.cache
def crops_of(net: Net, role: str) -> Crops:
    """Return some crops of every image, more of the few defective ones."""
    examples = roles(net.fold)[1 if role == "validation" else 2]
    rng = rng_of(net.fold, f"adversarial crops {role}")
    pixels, labels, parts = [], [], []
    for example in examples:
        count = (DEFECT_CROPS if example.faulty else GOOD_CROPS)[role]
        pool = crop_pool([example], crop_px=CROP_PX, rng=rng, crops_per_image=count)
        chosen = pool.pixels[np.concatenate(pool.defect) if example.faulty else pool.good]
        pixels.append(chosen.astype(np.float32))
        labels += [int(example.faulty)] * len(chosen)
        parts += [example.part] * len(chosen)
    return Crops(torch.from_numpy(np.concatenate(pixels)), torch.tensor(labels), tuple(parts))


@functools.cache
def fitted(net: Net) -> OnPixels:
    """Return a trained network that takes pixels 0..1, from the store if there."""
    path = net.path(f"net-{net.fold}.safetensors")
    if not path.exists():
        fit = _train_plain if net.recipe == "plain" else _train_shifted
        network, mean, spread = fit(net)
        tensors = {k: v.contiguous() for k, v in network.state_dict().items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path)
        write_json(path.with_suffix(".json"), {"mean": mean, "spread": spread})
        print(f"  {net.recipe} net {net.fold} trained", file=sys.stderr, flush=True)
    network = channels_last(SmallVGG())
    network.load_state_dict(load_file(path))
    return OnPixels(network.eval(), **read_json(path.with_suffix(".json")))


def _train_plain(net: Net) -> tuple[nn.Module, float, float]:
    """Train as the product does, on as many defective as good crops; keep the last weights."""
    recipe = CropTraining(steps=STEPS[net.recipe], good_per_defect=1, crops_per_image=24)
    crops_rng, weights_rng, batches_rng = rng_of(net.fold, "adversarial a").spawn(3)
    shown, validation, _ = roles(net.fold)
    data = crop_data(shown, validation, crop_px=CROP_PX, settings=recipe, rng=crops_rng)
    network = channels_last(SmallVGG())
    initialise(network, int(weights_rng.integers(2**31)))

    def standardise(pixels: NDArray[np.float32]) -> Tensor:
        x = (torch.from_numpy(np.ascontiguousarray(pixels)) - data.mean) / data.spread
        return x.contiguous(memory_format=torch.channels_last)

    train_on_crops(network, data, standardise, recipe, batches_rng, NO_HOOKS)
    return network, data.mean, data.spread


def _train_shifted(net: Net) -> tuple[nn.Module, float, float]:
    """Train on shifted crops: defects at the border of a picture are seen as well."""
    steps = STEPS[net.recipe]
    cut_rng, weights_rng, batches_rng = rng_of(net.fold, "adversarial net").spawn(3)
    pool = crop_pool(roles(net.fold)[0], crop_px=CROP_PX, rng=cut_rng, crops_per_image=24)
    sample = pool.pixels[::7].astype(np.float32)
    mean, spread = float(sample.mean()), float(sample.std())
    network = channels_last(SmallVGG())
    initialise(network, int(weights_rng.integers(2**31)))
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-2)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=steps + 1, pct_start=0.2, cycle_momentum=False
    )

    def draw(rng: np.random.Generator) -> tuple[Tensor, ...]:
        batch = draw_batch(pool, crops=32, good_per_defect=1, bag_crops=1, rng=rng)
        pixels = displaced(augment(batch.pixels, rng), rng)
        return torch.from_numpy(pixels), torch.from_numpy(batch.crop_labels)

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return balanced_bce(model(batch[0]), batch[1], 1.0)

    training = Training(
        network=OnPixels(network, mean, spread), optimizers={"adamw": optimizer},
        schedulers=(scheduler,), step=supervised_step(draw, loss), steps=steps, rng=batches_rng,
    )  # fmt: skip
    train(training)
    return network, mean, spread


def displaced(pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return crops shifted by up to `SHIFT_PX` both ways, mirrored at the border."""
    wide = np.pad(pixels, ((0, 0), (0, 0), (SHIFT_PX, SHIFT_PX), (SHIFT_PX, SHIFT_PX)), "reflect")
    corners = rng.integers(0, 2 * SHIFT_PX + 1, (len(pixels), 2)).tolist()
    return np.stack(
        [w[:, y : y + CROP_PX, x : x + CROP_PX] for w, (y, x) in zip(wide, corners, strict=True)]
    )


def changed(net: Net, role: str) -> dict[str, Callable[[], Tensor]]:
    """Return what is done to the crops of a role, by name; every entry is made when called."""
    network, crops = fitted(net), crops_of(net, role)
    x, y = crops.pixels, crops.labels

    def seeded(name: str) -> torch.Generator:
        return torch.Generator().manual_seed(
            int(rng_of(net.fold, f"{role} {name}").integers(2**31))
        )

    made: dict[str, Callable[[], Tensor]] = {"clean": lambda: x}
    for e in EPSILONS if role == "test" else (4,):
        made[f"fgsm_{e}"] = lambda e=e: attacks.fgsm(network, x, y, e / 255)
    if role == "validation":
        return made
    for e in EPSILONS:
        made[f"noise_{e}"] = lambda e=e: attacks.sign_noise(
            x, e / 255, generator=seeded(f"noise {e}")
        )
        made[f"pgd_{e}"] = lambda e=e: attacks.pgd(
            network, x, y, e / 255, generator=seeded(f"pgd {e}")
        )
    for degradation in robustness.SUITE:
        if degradation.name in CONTROLS:
            made[degradation.name] = lambda d=degradation: _degraded(x, d, CONTROLS[d.name])
    for count in POINTS:
        made[f"points_{count}"] = lambda c=count: _pointed(net, network, crops, c)
    return made


def _degraded(pixels: Tensor, degradation: robustness.Degradation, grade: int) -> Tensor:
    rng = np.random.default_rng(0)
    images = [degradation.apply(image.transpose(1, 2, 0), grade, rng) for image in pixels.numpy()]
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())


def point_crops(crops: Crops) -> list[int]:
    """Return the crops that the search for points is tried on, spread over parts."""
    chosen: list[int] = []
    for label in (0, 1):
        pool = np.flatnonzero(crops.labels.numpy() == label)
        chosen += pool[np.linspace(0, len(pool) - 1, POINT_CROPS).round().astype(int)].tolist()
    return chosen


def _pointed(net: Net, network: nn.Module, crops: Crops, count: int) -> Tensor:
    """Crops with the worst points found; those that were not searched stay as they are."""
    moved = crops.pixels.clone()
    for i in point_crops(crops):
        rng = rng_of(net.fold, f"points {count} {i}")
        label = int(crops.labels[i])
        search = Search(points=count, population=24, generations=9)
        moved[i] = change_points(network, crops.pixels[i], label, search, rng)
    return moved


def measured(net: Net, role: str, name: str) -> dict[str, NDArray[np.float64]]:
    """Return logits and features of changed crops, from the store if there.

    Returns:
        ``logit``, ``variation`` (crop,), ``entropies`` (crop, 2) and ``plain``: the entropy on
        one scale of 256 levels up to the typical peak.
    """
    path = net.path(f"{role}-{net.fold}-{name}.json")
    if not path.exists():
        network = fitted(net)
        pixels = changed(net, role)[name]()
        maps = trace.response(network, network.network.get_submodule(LAYER), pixels)
        first = role == "validation" and name == "clean"
        peak = (
            trace.typical_peak(maps)
            if first
            else float(measured(net, "validation", "clean")["peak"])
        )
        write_json(path, {
            "peak": peak,
            "logit": attacks.outputs(network, pixels).tolist(),
            "variation": trace.total_variation(pixels).tolist(),
            "entropies": trace.entropies(maps, peak).tolist(),
            "plain": trace.mean_local_entropy(trace.levels(maps, peak)).tolist(),
        })  # fmt: skip
        print(f"  {net.recipe} net {net.fold} {role} {name}", file=sys.stderr, flush=True)
    return {key: np.array(value) for key, value in read_json(path).items()}
