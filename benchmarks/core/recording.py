"""The recorder: what it costs, and whether it names planted faults and leaves healthy runs alone.

The rules were set on seeds 0 to 7; the faults are planted with seeds 100 to 119. Every run trains
VGG11 at quarter width on 600 crops of the magnetic tiles, drawn again with its seed, half of them
with a blowhole or a crack. Rehearse with ``python -m benchmarks.core.recording``.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.checkpoints import checkpoint_folder
from benchmarks.core.attacked import SmallVGG
from benchmarks.parts import tiles as tile
from benchmarks.results import Say, plain
from lineside.core.audit.label_noise import estimate_label_noise
from lineside.core.contract import Estimate
from lineside.core.run.files import read_json, write_json
from lineside.core.run.folder import rng_of
from lineside.core.statistics.proportions import proportion
from lineside.core.training.loop import Hooks, Training, train
from lineside.core.training.recorder import Recorder
from lineside.core.training.step_function import supervised_step
from lineside.parts.models.crops import crop_pool
from lineside.parts.models.patch_cnn.training import describe_crop
from lineside.parts.models.patch_cnn.vgg import initialise, vgg19

STORE = checkpoint_folder("core/recording", __file__)
KINDS = ("good", "blowhole", "crack")
FAULTS = ("healthy", "dead", "diverged", "labels")
WARNINGS = {"dead": "dead layer", "diverged": "diverged", "labels": "label noise"}
"""What the recorder calls each fault."""
SEEDS = tuple(range(100, 120))
CROP_PX = 64
EACH = 300
STEPS = 60
BATCH = 32
RATE = 1e-3
FLIPPED = 0.2
NAMED = 50
DEAD_BETA = -20.0
BLOCKS = 16
BLOCK_STEPS = 20


@functools.cache
def crops() -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.str_], NDArray[Any]]:
    """Return pixels (crop, 1, height, width), whether a defect shows, parts and descriptions."""
    pixels, faulty, parts = [], [], []
    for example in tile.examples():
        if example.label not in KINDS:
            continue
        count = 6 if example.faulty else 2
        rng = rng_of(0, f"recording {example.id}")
        pool = crop_pool([example], crop_px=CROP_PX, rng=rng, crops_per_image=count, channels=1)
        own = np.concatenate(pool.defect) if example.faulty else pool.good
        pixels.append(pool.pixels[own].astype(np.float32))
        faulty += [example.faulty] * len(own)
        parts += [example.part] * len(own)
    stack = np.concatenate(pixels)
    looks = np.stack([describe_crop(crop[0]) for crop in stack])
    return stack, np.array(faulty), np.array(parts), looks


def run_of(fault: str, seed: int, steps: int = STEPS) -> dict[str, Any]:
    """Train with a planted fault; return the warnings and how many flipped labels were named."""
    path = STORE / f"{fault}-{seed}-{steps}.json"
    if not path.exists():
        write_json(path, _run(fault, seed, steps))
        print(f"  {fault} {seed}", file=sys.stderr, flush=True)
    stored: dict[str, Any] = read_json(path)
    return stored


def _run(fault: str, seed: int, steps: int) -> dict[str, Any]:
    pixels, faulty, parts, looks = crops()
    rng = np.random.default_rng(seed)
    sides = [rng.permutation(np.flatnonzero(faulty == side))[:EACH] for side in (False, True)]
    chosen = np.concatenate(sides)
    flipped = np.zeros(len(chosen), dtype=bool)
    if fault == "labels":
        flipped[rng.permutation(len(chosen))[: round(FLIPPED * len(chosen))]] = True
    labels = faulty[chosen] ^ flipped
    network = _network(fault, seed)
    rate = RATE * (1000 if fault == "diverged" else 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
    rows: list[dict[str, Any]] = []
    ids = [f"{i:04d}" for i in range(len(chosen))]
    noise = estimate_label_noise(
        ids, looks[chosen], labels.tolist(), parts[chosen].tolist(), np.random.default_rng(0)
    )
    Recorder(network, optimizer, rows.append).labels(noise)
    x, y = (
        torch.from_numpy(_standardised(pixels[chosen])),
        torch.from_numpy(labels.astype(np.float32)),
    )

    def draw(rng: np.random.Generator) -> tuple[Tensor, ...]:
        index = torch.from_numpy(rng.integers(len(y), size=BATCH))
        return x[index], y[index]

    training = Training(
        network=network, optimizers={"adamw": optimizer}, step=supervised_step(draw, _loss),
        steps=steps, rng=rng,
    )  # fmt: skip
    trained = train(training, Hooks(log=rows.append))
    named = [flipped[int(name)] for name in noise.ranked[:NAMED]]
    return {
        "warnings": sorted({row["warning"] for row in rows if "warning" in row}),
        "training_warnings": trained.warnings,
        "share": noise.share,
        "named_flipped": int(np.sum(named)),
    }


def _standardised(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    return (pixels - pixels.mean()) / pixels.std()


def _network(fault: str, seed: int) -> nn.Module:
    network = SmallVGG()
    initialise(network, seed)
    if fault == "dead":
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        nn.init.constant_(norms[seed % len(norms)].bias, DEAD_BETA)
    return network


def _loss(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    return functional.binary_cross_entropy_with_logits(network(batch[0]), batch[1])


def planted_faults(say: Say, seeds: tuple[int, ...] = SEEDS, steps: int = STEPS) -> None:
    """Dead ReLUs, a learning rate a thousand times too high, flipped labels, and healthy runs."""
    found = {fault: [run_of(fault, seed, steps) for seed in seeds] for fault in FAULTS}
    for fault, warning in WARNINGS.items():
        hits = sum(warning in run["warnings"] for run in found[fault])
        say(f"warning_recall_{fault}", proportion(hits, len(seeds)))
    false = sum(bool(run["warnings"]) for run in found["healthy"])
    say("warning_false_rate", proportion(false, len(seeds), better="lower"))
    accused = sum(
        "label noise" in run["warnings"] for f in ("dead", "diverged") for run in found[f]
    )
    say("warning_labels_without_cause", plain(accused, "runs", 2 * len(seeds), "lower", "a count"))
    shares = np.array([run["named_flipped"] / NAMED for run in found["labels"]])
    draws = np.random.default_rng(0).choice(shares, (2000, len(shares))).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5]).tolist()
    say(
        "label_precision_at_50",
        Estimate(
            value=float(shares.mean()), low=low, high=high, n=len(shares), better="higher",
            method="mean over runs; bootstrap over runs, 95 %",
        ),
    )  # fmt: skip
    for fault in FAULTS:
        counts: dict[str, int] = {}
        for run in found[fault]:
            for name in run["warnings"] or ["none"]:
                counts[name] = counts.get(name, 0) + 1
        span = [run["share"] for run in found[fault]]
        print(f"  {fault}: {counts}; contradicted share {min(span):.3f} to {max(span):.3f}")


def recorder_cost(say: Say, blocks: int = BLOCKS, steps: int = BLOCK_STEPS) -> None:
    """CPU time of training with and without the recorder, in pairs of blocks of steps.

    Both networks start alike, see the same batches and take turns, so that what else the machine
    does meets both. The recorder goes on from block to block as in one long run.
    """
    torch.set_num_threads(1)
    nets = [_trainee() for _ in range(2)]
    recorder = Recorder(*nets[1], lambda row: None)
    ratios, differing = [], 0
    for block in range(-1, blocks):
        seconds, losses = [0.0, 0.0], [[], []]  # type: ignore[var-annotated]
        for side in (0, 1) if block % 2 else (1, 0):
            start = time.process_time()
            losses[side] = _block(*nets[side], block, steps, recorder if side else None)
            seconds[side] = time.process_time() - start
        differing += sum(a != b for a, b in zip(*losses, strict=True))
        if block >= 0:  # the first pair warms caches up
            ratios.append(seconds[1] / seconds[0] - 1.0)
    draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5]).tolist()
    say(
        "recorder_overhead",
        Estimate(
            value=float(np.median(ratios)), low=low, high=high, n=len(ratios), better="lower",
            method="median of paired blocks, CPU time; bootstrap over blocks, 95 %",
        ),
    )  # fmt: skip
    steps_done = (blocks + 1) * steps
    say("recorder_changes_result", plain(differing, "losses", steps_done, "lower", "a count"))


def _trainee() -> tuple[nn.Module, torch.optim.Optimizer]:
    network = vgg19("vgg19_quarter").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    initialise(network, 0)
    return network, torch.optim.AdamW(network.parameters(), lr=RATE)


def _block(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    block: int,
    steps: int,
    recorder: Recorder | None,
) -> list[float]:
    generator = torch.Generator().manual_seed(1000 + block)
    losses = []
    for step in range(steps):
        if recorder:
            recorder.start((block + 1) * steps + step)
        x = torch.randn(BATCH, 1, CROP_PX, CROP_PX, generator=generator)
        y = (torch.rand(BATCH, generator=generator) < 0.5).float()
        if recorder:
            recorder.loaded()
        loss = _loss(network, (x, y))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if recorder:
            recorder.before_update()
        optimizer.step()
        if recorder:
            recorder.finish({"loss": loss})
        losses.append(float(loss.detach()))
    return losses


def _rehearse(rehearsal: Callable[..., None], *arguments: Any) -> None:
    rehearsal(lambda name, value: print(name, value.value, value.low, value.high), *arguments)


if __name__ == "__main__":
    torch.set_num_threads(1)
    _rehearse(planted_faults, (0, 1), 30)
    _rehearse(recorder_cost, 4, 10)
