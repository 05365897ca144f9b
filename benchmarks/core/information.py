"""The information plane of the 12-10-7-5-4-3-2 net: what depends on the estimator, what does not.

Numbers go to ``docs/results/core.json``. The trainings are those of
``examples/information_plane.py``; each is kept.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from types import ModuleType

import numpy as np
import torch

from benchmarks.checkpoints import checkpoint_folder
from benchmarks.results import ROOT, Say
from lineside.core.contract import Better, Estimate
from lineside.core.run.files import write_json

SEEDS = tuple(range(5))
EPOCHS = 600
STORE = checkpoint_folder("core/information", __file__, "examples/information_plane.py")
NETS = {"tanh": "tanh", "relu": "ReLU"}
ESTIMATORS = ("fixed", "quantile")


def information_plane(say: Say, epochs: int = EPOCHS, seeds: Sequence[int] = SEEDS) -> None:
    """Changes of I(X;T) by estimator, and by how much the estimators differ in I(T;Y).

    Neither direction of a change of I(X;T) is better.
    """
    example = _example()
    apart: list[float] = []
    for short, kind in NETS.items():
        rows = [piece(example, kind, seed, epochs) for seed in seeds]
        layer, start = example.WATCHED[kind]
        where = f"I(X;T) of {layer} from about epoch {start} to {epochs}, N = 4096"
        for place, name in enumerate(ESTIMATORS):
            values = [row["changes"][place] for row in rows]
            say(f"information_ixt_change_{short}_{name}", _over(values, where, "higher"))
        accuracies = [row["accuracy"][0] for row in rows]
        say(
            f"information_accuracy_{short}", _over(accuracies, "all patterns", "higher", "fraction")
        )
        apart += [row["label_difference"][0] for row in rows]
    where = f"I(T;Y) after {epochs} epochs, fixed against quantile bins, mean over layers"
    say("information_ity_difference", _over(apart, where, "lower"))


def piece(example: ModuleType, kind: str, seed: int, epochs: int) -> dict[str, list[float]]:
    """Return the numbers of one training, from the store if they lie there."""
    path = STORE / f"{kind}-{epochs}-{seed}.json"
    if path.exists():
        found: dict[str, list[float]] = json.loads(path.read_text(encoding="utf-8"))
        return found
    torch.set_num_threads(1)
    run = example.trained(kind, seed, epochs)
    row = {
        "changes": example.changes(kind, run.plane).tolist(),
        "label_difference": [example.label_difference(run.plane)],
        "accuracy": [run.accuracy],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, row)
    return row


def _over(values: Sequence[float], what: str, better: Better, unit: str = "bit") -> Estimate:
    return Estimate(
        value=float(np.mean(values)),
        low=min(values),
        high=max(values),
        unit=unit,
        n=len(values),
        method=f"{what}; mean and range over {len(values)} trainings",
        better=better,
    )


def _example() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "information_plane_example", ROOT / "examples" / "information_plane.py"
    )
    if spec is None or spec.loader is None:
        raise ImportError("examples/information_plane.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
