"""Time and memory of the default method, each in a process of its own, on self-made images."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.results import ROOT, Say, plain

IMAGES = 300
LONG_SHAPES = ((4096, 256), (2048, 2048))


def help_seconds(say: Say) -> None:
    """Wall time of ``lineside --help``: median of seven starts."""
    times = []
    for _ in range(7):
        start = time.perf_counter()
        subprocess.run(
            [Path(sys.executable).parent / "lineside", "--help"], capture_output=True, check=True
        )
        times.append(time.perf_counter() - start)
    say("help_seconds", plain(float(np.median(times)), "s", len(times), "lower", "median of 7"))


def fit_and_predict(say: Say) -> None:
    """Fit on 300 images of 256 px, predict fresh ones, then very large ones; peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"LINESIDE_CACHE": folder, "PATH": "/usr/bin:/bin", "HOME": folder}
        run = subprocess.run(
            [sys.executable, "-m", "benchmarks.parts.resources", folder],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
    found = json.loads(run.stdout.splitlines()[-1])
    reason = "one process, cold feature cache"
    say("fit_seconds_300", plain(found["fit_seconds"], "s", IMAGES, "lower", reason))
    say("predict_ms_p50", plain(found["p50"], "ms", found["count"], "lower", reason))
    say("predict_ms_p95", plain(found["p95"], "ms", found["count"], "lower", reason))
    say(
        "peak_rss_mb", plain(found["peak_rss_mb"], "MB", 1, "lower", reason + "; 4096x256 included")
    )


def learned_share(say: Say) -> None:
    """Time of looking at a fit and drawing what was learned, as a share of the fit."""
    from benchmarks.learned import looking_and_fit
    from lineside.core.contract import Split
    from lineside.parts.application import APPLICATION
    from lineside.parts.config import Config
    from lineside.parts.data.dataset import read
    from lineside.parts.simulation import demo

    config = Config(methods=("detector",))
    with tempfile.TemporaryDirectory() as folder:
        items = read(demo(Path(folder) / "data", 0, good_parts=80, faulty_parts=50), config)
        split = Split(train=tuple(items[:IMAGES]), calibration=(), test=())
        looking, fit = looking_and_fit(APPLICATION, split, config)["detector"]
    reason = f"{looking:.1f} s beside a fit of {fit:.1f} s on labelled pictures"
    say("learned_share", plain(looking / fit, "ratio", IMAGES, "lower", reason))


def measure(folder: Path) -> dict[str, float]:
    """Fit and predict in this process and return times and peak memory."""
    import resource

    from PIL import Image

    from lineside.parts.config import Config
    from lineside.parts.data.dataset import read
    from lineside.parts.data.images import training_image
    from lineside.parts.data.sources import unlabelled
    from lineside.parts.methods import METHODS
    from lineside.parts.model import Settings, fit_references, make_model
    from lineside.parts.outcomes import calibrate, outcomes
    from lineside.parts.simulation import demo

    config = Config()
    items = read(demo(folder / "data", 0, good_parts=80, faulty_parts=50), config)
    train = [training_image(item) for item in items[:IMAGES]]
    fresh = items[IMAGES:]
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    detector = METHODS["detector"].fit(train, [], rng=rng, log=lambda row: None)
    fit_seconds = time.perf_counter() - start
    model = make_model("detector", detector, Settings.of(config), fit_references(train, rng))
    model = calibrate(model, list(outcomes(model, fresh)), config)
    times = []
    for item in fresh:
        start = time.perf_counter()
        model.predict([item])
        times.append(1000 * (time.perf_counter() - start))
    for rows, columns in LONG_SHAPES:
        path = folder / f"long{rows}.png"
        noise = np.random.default_rng(0).integers(80, 120, (rows, columns), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        model.predict([unlabelled(path, "")])
    return {
        "fit_seconds": fit_seconds,
        "p50": float(np.percentile(times, 50)),
        "p95": float(np.percentile(times, 95)),
        "count": len(times),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
