"""Time and memory of the default method, each in a process of its own, on self-made images."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import ROOT, Say, plain
from lineside.core.parallel import ONE_THREAD

if TYPE_CHECKING:
    from lineside.parts.models.detector import TrainingImage

IMAGES = 300
MANY_IMAGES, FAULTY_SHARE = 3000, 0.1
LONG_SHAPES = ((4096, 256), (2048, 2048))
REASON = "one process, one thread, cold feature cache"


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
    found = _alone("some")
    say("fit_seconds_300", plain(found["fit_seconds"], "s", IMAGES, "lower", REASON))
    say("predict_ms_p50", plain(found["p50"], "ms", found["count"], "lower", REASON))
    say("predict_ms_p95", plain(found["p95"], "ms", found["count"], "lower", REASON))
    reason = f"{REASON}; 4096x256 px, median of 5"
    say("predict_long_seconds", plain(found["long_seconds"], "s", 5, "lower", reason))
    reason = f"{REASON}; 4096x256 included"
    say("peak_rss_mb", plain(found["peak_rss_mb"], "MB", 1, "lower", reason))


def fit_many_images(say: Say) -> None:
    """Peak memory of a fit on 3,000 images of 256 px, a tenth of them with a labelled defect."""
    found = _alone("many")
    say("fit_rss_mb_3000", plain(found["peak_rss_mb"], "MB", MANY_IMAGES, "lower", REASON))
    say("fit_seconds_3000", plain(found["fit_seconds"], "s", MANY_IMAGES, "lower", REASON))


def _alone(what: str) -> dict[str, float]:
    """Measure in a process of its own, with one thread."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "LINESIDE_CACHE": folder,
            "PATH": "/usr/bin:/bin",
            "HOME": folder,
            **ONE_THREAD,
        }
        run = subprocess.run(
            [sys.executable, "-m", "benchmarks.parts.resources", what, folder],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
    found: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return found


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
    long_seconds = []
    for rows, columns in LONG_SHAPES:
        path = folder / f"long{rows}.png"
        noise = np.random.default_rng(0).integers(80, 120, (rows, columns), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        for _ in range(5 if (rows, columns) == LONG_SHAPES[0] else 1):
            start = time.perf_counter()
            model.predict([unlabelled(path, "")])
            long_seconds.append(time.perf_counter() - start)
    return {
        "fit_seconds": fit_seconds,
        "p50": float(np.percentile(times, 50)),
        "p95": float(np.percentile(times, 95)),
        "count": len(times),
        "long_seconds": float(np.median(long_seconds[:5])),
        "peak_rss_mb": _peak_rss_mb(),
    }


def measure_many(folder: Path) -> dict[str, float]:
    """Fit on many images, drawn when they are asked for, and return time and peak memory."""
    from lineside.parts.methods import METHODS

    faulty = round(FAULTY_SHARE * MANY_IMAGES)
    train = [_drawn(number, number < faulty) for number in range(MANY_IMAGES)]
    start = time.perf_counter()
    METHODS["detector"].fit(train, [], rng=np.random.default_rng(0), log=lambda row: None)
    return {"fit_seconds": time.perf_counter() - start, "peak_rss_mb": _peak_rss_mb()}


def _drawn(number: int, faulty: bool) -> TrainingImage:
    """Return an image of grey noise, with a dark spot if it is faulty."""
    from lineside.parts.models.detector import TrainingImage

    def image() -> NDArray[np.float32]:
        pixels = np.random.default_rng(number).normal(0.5, 0.05, (256, 256, 1))
        pixels[mask()] -= 0.2
        return pixels.clip(0, 1).astype(np.float32)

    def mask() -> NDArray[np.bool_]:
        spot = np.zeros((256, 256), bool)
        if faulty:
            row, column = np.random.default_rng(number).integers(20, 220, 2)
            spot[row : row + 12, column : column + 12] = True
        return spot

    label = "spot" if faulty else "good"
    return TrainingImage(
        id=str(number), label=label, part=str(number), digest="", image=image, mask=mask
    )


def _peak_rss_mb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    measures = {"some": measure, "many": measure_many}
    print(json.dumps(measures[sys.argv[1]](Path(sys.argv[2]))))
