"""The recorder: what it costs, and whether it names planted faults and leaves healthy runs alone.

The rules were set on seeds 0 to 7; the faults are planted with seeds 100 to 119. Every run trains
VGG11 at quarter width on 600 crops of the magnetic tiles, drawn again with its seed, half of them
with a blowhole or a crack. Rehearse with ``python -m benchmarks.core.recording``.

One-sided label noise is judged on 600 crops with few defects, of which a part is labelled good.
What the recorder costs is measured on that network and on a small dense autoencoder, whose rows
are written to a run folder as in a real training.
"""

from __future__ import annotations

import functools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
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
from lineside.core.run.folder import Run, rng_of
from lineside.core.statistics.intervals import median_interval
from lineside.core.statistics.proportions import proportion
from lineside.core.training.loop import Hooks, Training, train
from lineside.core.training.recorder import Recorder
from lineside.core.training.step_function import supervised_step
from lineside.machines.models.networks import build_network
from lineside.machines.models.reconstruction import squared_error
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
SMALL_BLOCK_STEPS = 1000
SMALL_ROWS, SMALL_FEATURES, SMALL_BATCH = 500, 24, 20
RARE_DEFECTS = (50, 100)
LOST_SHARES = (0.2, 0.35, 0.5)
RARE_SEEDS = tuple(range(100, 120))


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
    # core has no interval for a mean of shares over runs
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


def one_sided(say: Say, seeds: tuple[int, ...] = RARE_SEEDS) -> None:
    """Label 20 to 50 % of a rare class good; count the sets that are warned of, and clean ones."""
    found = {
        share: [_rare_noise(rare, share, seed) for rare in RARE_DEFECTS for seed in seeds]
        for share in (0.0, *LOST_SHARES)
    }
    for share, sets in found.items():
        print(f"  {share:.0%} of the defects labelled good: {sum(sets)} of {len(sets)} warned of")
    planted = [warned for share in LOST_SHARES for warned in found[share]]
    say("warning_recall_onesided", proportion(sum(planted), len(planted)))
    say("warning_false_onesided", proportion(sum(found[0.0]), len(found[0.0]), better="lower"))


def _rare_noise(rare: int, share: float, seed: int) -> bool:
    _, faulty, parts, looks = crops()
    rng = np.random.default_rng(seed)
    counts = {False: 2 * EACH - rare, True: rare}
    chosen = np.concatenate(
        [rng.permutation(np.flatnonzero(faulty == side))[:n] for side, n in counts.items()]
    )
    labels = faulty[chosen].copy()
    labels[rng.permutation(np.flatnonzero(labels))[: round(share * rare)]] = False
    ids = [f"{i:04d}" for i in range(len(chosen))]
    return estimate_label_noise(
        ids, looks[chosen], labels.tolist(), parts[chosen].tolist(), np.random.default_rng(0)
    ).noisy


def recorder_cost(say: Say, blocks: int = BLOCKS, steps: int = BLOCK_STEPS) -> None:
    """CPU time of training with and without the recorder, in pairs of blocks of steps."""
    nets = [_trainee() for _ in range(2)]
    recorder = Recorder(*nets[1], lambda row: None)
    differing = _paired(say, "recorder_overhead", nets, recorder, _crop_batch, blocks, steps)
    steps_done = (blocks + 1) * steps
    say("recorder_changes_result", plain(differing, "losses", steps_done, "lower", "a count"))


def recorder_cost_small(say: Say, blocks: int = BLOCKS, steps: int = SMALL_BLOCK_STEPS) -> None:
    """The same for the dense autoencoder of `machines`; rows are written to a run folder."""
    nets = [_small_trainee() for _ in range(2)]
    rows = torch.randn(SMALL_ROWS, 1, SMALL_FEATURES, generator=torch.Generator().manual_seed(0))

    def batch(generator: torch.Generator) -> tuple[Tensor, ...]:
        return (rows[torch.randint(SMALL_ROWS, (SMALL_BATCH,), generator=generator)],)

    with tempfile.TemporaryDirectory() as folder:
        run = Run.begin(Path(folder) / "run", {"benchmark": "recorder_cost_small"}, 0)
        recorder = Recorder(*nets[1], run.log)
        name = "recorder_overhead_small"
        differing = _paired(say, name, nets, recorder, batch, blocks, steps)
    steps_done = (blocks + 1) * steps
    say("recorder_changes_small", plain(differing, "losses", steps_done, "lower", "a count"))


Trainee = tuple[nn.Module, torch.optim.Optimizer]


def _paired(
    say: Say, name: str, nets: list[Trainee], recorder: Recorder,
    batch: Callable[[torch.Generator], tuple[Tensor, ...]], blocks: int, steps: int,
) -> int:  # fmt: skip
    """Measure the recorder's share; return the number of losses that differ.

    Both networks start alike, see the same batches and take turns, so that what else the machine
    does meets both. The recorder goes on from block to block as in one long run.
    """
    torch.set_num_threads(1)
    ratios, differing = [], 0
    for block in range(-1, blocks):
        seconds, losses = [0.0, 0.0], [[], []]  # type: ignore[var-annotated]
        for side in (0, 1) if block % 2 else (1, 0):
            start = time.process_time()
            losses[side] = _block(*nets[side], block, steps, batch, recorder if side else None)
            seconds[side] = time.process_time() - start
        differing += sum(a != b for a, b in zip(*losses, strict=True))
        if block >= 0:  # the first pair warms caches up
            ratios.append(seconds[1] / seconds[0] - 1.0)
    found = median_interval(np.array(ratios))
    low, high = (None, None) if isinstance(found, str) else found
    say(
        name,
        Estimate(
            value=float(np.median(ratios)), low=low, high=high, n=len(ratios), better="lower",
            reason=found if isinstance(found, str) else "",
            method="" if isinstance(found, str)
            else "median of paired blocks, CPU time; order statistics of blocks, 95 %",
        ),
    )  # fmt: skip
    return differing


def _trainee() -> Trainee:
    network = vgg19("vgg19_quarter").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    initialise(network, 0)
    return network, torch.optim.AdamW(network.parameters(), lr=RATE)


def _small_trainee() -> Trainee:
    sizes = {"features": SMALL_FEATURES, "hidden": (64, 32, 8, 32, 64)}
    network = build_network("dense", sizes, seed=0)
    return network, torch.optim.Adam(network.parameters(), lr=RATE)


def _crop_batch(generator: torch.Generator) -> tuple[Tensor, ...]:
    x = torch.randn(BATCH, 1, CROP_PX, CROP_PX, generator=generator)
    return x, (torch.rand(BATCH, generator=generator) < 0.5).float()


def _block(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    block: int,
    steps: int,
    draw: Callable[[torch.Generator], tuple[Tensor, ...]],
    recorder: Recorder | None,
) -> list[float]:
    generator = torch.Generator().manual_seed(1000 + block)
    losses = []
    for step in range(steps):
        if recorder:
            recorder.start((block + 1) * steps + step)
        batch = draw(generator)
        if recorder:
            recorder.loaded()
        # crops and labels, or windows to reconstruct
        loss = _loss(network, batch) if len(batch) > 1 else squared_error(network, batch[0])
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
    _rehearse(recorder_cost_small, 4, 200)
