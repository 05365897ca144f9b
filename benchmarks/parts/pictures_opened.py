"""How often a training with two light methods opens each picture, hashing included."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.results import ROOT, Say, plain


def pictures_opened(say: Say) -> None:
    """Train `gaussian` and `brightness` on the demo set in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "LINESIDE_CACHE": str(Path(folder, "cache"))}
        found = subprocess.run(
            [sys.executable, "-m", "benchmarks.parts.pictures_opened", folder],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
    opens, pictures = map(int, found.stdout.split()[-2:])
    reason = "every open of a picture file, counted by an audit hook of the interpreter"
    value = plain(opens / pictures, "opens per picture", pictures, "lower", reason)
    say("pictures_opened_per_picture", value)


def count(folder: Path) -> tuple[int, int]:
    """Return the opens of picture files during a training, and the number of pictures."""
    from lineside.core.run.progress import Progress
    from lineside.core.workflow import train
    from lineside.parts.application import APPLICATION
    from lineside.parts.config import Config
    from lineside.parts.simulation import demo

    data = demo(folder / "data", 0)
    opened: Counter[str] = Counter()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and str(arguments[0]).startswith(str(data)):
            opened[str(arguments[0])] += 1

    sys.addaudithook(hook)
    config = Config(methods=("gaussian", "brightness"))
    study = train(APPLICATION, data, folder / "run", config, Progress(quiet=True))
    pictures = {str(item.path) for _, item in study.split.rows()}
    return sum(opened[path] for path in pictures), len(pictures)


if __name__ == "__main__":
    print(*count(Path(sys.argv[1])))
