"""One split of a data set by part, all methods: used for the demo set and for solar cells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.checkpoints import checkpoint_folder
from benchmarks.parts import tiles as tile
from benchmarks.results import Say, plain
from lineside.core.contract import Estimate, Metric, Outcome
from lineside.core.run.files import finite, write_json
from lineside.core.run.folder import rng_of
from lineside.core.statistics.estimates import estimate
from lineside.core.training.recorder import peak_memory_mb
from lineside.parts.config import METHOD_NAMES, Config
from lineside.parts.data.grouping import split
from lineside.parts.data.images import training_image
from lineside.parts.data.items import PartImage
from lineside.parts.methods import METHODS
from lineside.parts.metrics import METRICS

STORE = checkpoint_folder("parts/sets", __file__)
SHORT = {
    "image_auroc": "auroc",
    "image_average_precision": "ap",
    "image_false_rejects_at_95_recall": "frr_at_recall95",
    "image_false_rejects_at_100_recall": "frr_at_recall100",
}


def outcomes_of(data: str, method: str, seed: int) -> dict[str, object]:
    """Fit a method on the train and calibration parts of a split and read its test parts.

    It runs in a process of its own without a feature cache, so that time and memory are its own.

    Returns:
        ``outcomes``, ``fit_seconds``, ``read_ms``, ``peak_rss_mb``; from the store if there.
    """
    path = STORE / data / f"{method}-{seed}.json"
    if not path.exists():
        run = [sys.executable, "-m", "benchmarks.parts.sets", data, method, str(seed)]
        environment = {**os.environ, "LINESIDE_CACHE": "off"}
        made = subprocess.run(run, check=True, env=environment, stdout=subprocess.PIPE, text=True)
        write_json(path, json.loads(made.stdout.splitlines()[-1]))
        print(f"  {data} {method} split {seed}", file=sys.stderr, flush=True)
    stored: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return stored


def _compute(items: Sequence[PartImage], method: str, seed: int) -> dict[str, object]:
    parted = split(items, Config(seed=seed))
    train = [training_image(item) for item in (*parted.train, *parted.calibration)]
    validation = [training_image(item) for item in parted.validation]
    start = time.perf_counter()
    fit = METHODS[method].fit
    detector = fit(train, validation, rng=rng_of(seed, method), log=lambda row: None)
    fit_seconds = time.perf_counter() - start
    outcomes, milliseconds, maps, masks = [], [], [], []
    for item in parted.test:
        example = training_image(item)
        image = example.image()
        start = time.perf_counter()
        prediction = detector.predict(image)
        milliseconds.append(1000 * (time.perf_counter() - start))
        mask = example.mask() if item.faulty else np.zeros(image.shape[:2], bool)
        if mask is not None:
            maps.append(prediction.map)
            masks.append(mask)
        outcomes.append([item.id, item.groups[0], item.label, prediction.score, float(item.faulty)])
    known = len(masks) == len(outcomes)
    overlap = tile.aupro(maps, masks) if known else None
    return {
        "outcomes": outcomes, "fit_seconds": fit_seconds, "read_ms": milliseconds,
        "aupro30": overlap, "peak_rss_mb": peak_memory_mb(),
    }  # fmt: skip


def publish_all(say: Say, data: str) -> dict[str, Estimate]:
    """Publish every method's numbers, each a mean over the seeds; return AUROC by method."""
    found = {}
    for method in METHOD_NAMES:
        runs = [outcomes_of(data, method, seed) for seed in tile.SEEDS]
        for metric in METRICS:
            if metric.name in SHORT:
                value = _mean(runs, metric)
                say(f"{data}_{method}_{SHORT[metric.name]}", value)
                if SHORT[metric.name] == "auroc":
                    found[method] = value
        overlaps = [run["aupro30"] for run in runs if run["aupro30"] is not None]
        if overlaps:
            mean = float(np.mean(overlaps))  # type: ignore[arg-type]
            say(f"{data}_{method}_aupro30", plain(mean, "fraction", len(overlaps)))
        seconds = float(np.median([run["fit_seconds"] for run in runs]))  # type: ignore[misc]
        say(f"{data}_{method}_fit_seconds", plain(seconds, "s", len(runs), "lower"))
        peaks = [run["peak_rss_mb"] for run in runs if run.get("peak_rss_mb")]
        if peaks:
            peak = float(np.max(peaks))  # type: ignore[arg-type]
            say(f"{data}_{method}_peak_rss_mb", plain(peak, "MB", len(peaks), "lower"))
        times = np.concatenate([run["read_ms"] for run in runs])  # type: ignore[misc]
        for share in (50, 95):
            value = plain(float(np.percentile(times, share)), "ms", len(times), "lower")
            say(f"{data}_{method}_read_ms_p{share}", value)
    return found


def _mean(runs: Sequence[dict[str, object]], metric: Metric) -> Estimate:
    """Return the mean over seeds; its ends are the means of the seeds' ends.

    Each seed tests other parts, which overlap: the mean is at least as sure as one of them.
    """
    each = [
        estimate(
            [
                Outcome(
                    item=i, groups=(g,), unit=g, slices={"kind": k}, value={"score": s, "label": y}
                )
                for i, g, k, s, y in run["outcomes"]  # type: ignore[attr-defined]
            ],
            metric,
            np.random.default_rng(seed),
        )
        for seed, run in enumerate(runs)
    ]
    ends = [[e.low, e.high] for e in each if e.low is not None and e.high is not None]
    extreme = "at_100" in metric.name  # the lowest faulty image decides
    low, high = np.mean(ends, axis=0).tolist() if ends and not extreme else (None, None)
    return Estimate(
        value=float(np.mean([e.value for e in each])), low=low, high=high, n=each[0].n,
        better=metric.better, positives=each[0].positives,
        method=f"mean over {len(each)} splits and of their ends; {each[0].method}",
        reason="an extreme value" if extreme else "" if ends else each[0].reason,
    )  # fmt: skip


def demo_items() -> Sequence[PartImage]:
    """Return the self-made catheters of seed 0, made once."""
    from lineside.parts.data.dataset import read
    from lineside.parts.simulation import demo

    folder = STORE / "demo-data"
    return read(folder if folder.exists() else demo(folder, 0), Config())


def demo_set(say: Say) -> None:
    """The self-made catheters, every method, three splits."""
    publish_all(say, "demo")


def solar_items() -> Sequence[PartImage]:
    """Return 600 photographs of solar cells with sure labels."""
    from benchmarks.parts.elpv import subset, write_table
    from lineside.parts.data.dataset import read

    return read(write_table(STORE / "elpv-data", subset(600, seed=0)), Config())


def solar_cells(say: Say) -> None:
    """Photographs of solar cells (600 of them, sure labels), every method, three splits."""
    found = publish_all(say, "elpv")
    say("elpv_auroc", found["detector"])
    rivals = ("texture", "gaussian", "pca", "golden_template", "brightness")
    best = max(rivals, key=lambda name: found[name].value)
    say("elpv_classical_auroc", found[best])


ITEMS = {"demo": demo_items, "elpv": solar_items}

if __name__ == "__main__":
    print(json.dumps(finite(_compute(ITEMS[sys.argv[1]](), sys.argv[2], int(sys.argv[3])))))
