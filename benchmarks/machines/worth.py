"""Which detector, and is deep learning worth it? Both answers on histories whose truth is known.

Three simulated machines: on the pump and the gearbox a single snapshot shows the bearing fault, and
simple detectors are expected to win; on the reactor only the order of its steps goes wrong, which
no single snapshot can show, so that only a sequence model can see it. Every detector is fitted,
calibrated and tested as in a run; where a deep one is best, simple detectors are fitted on its
inputs, which separates depth from inputs.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.checkpoints import checkpoint_folder
from benchmarks.results import Say
from lineside.core.contract import Split
from lineside.core.run.files import finite, write_json
from lineside.core.run.folder import rng_of
from lineside.core.statistics.proportions import proportion
from lineside.machines.config import METHOD_NAMES, Config
from lineside.machines.data import find_snapshots
from lineside.machines.data.dataset import split as split_items
from lineside.machines.data.items import Snapshot
from lineside.machines.methods import DETECTORS
from lineside.machines.model import MachinesModel
from lineside.machines.outcomes import calibrate, outcomes
from lineside.machines.report.baselines import fit_baselines
from lineside.machines.report.method_choice import (
    DetectorRecord,
    choose_detector,
    explain_choice,
    make_record,
)
from lineside.machines.simulation.demo import FLEET, save_history
from lineside.machines.simulation.scenarios import Scenario, simulate_history
from lineside.machines.training.fitting import fit_machine

STORE = checkpoint_folder("machines/worth", __file__)
SEEDS = (0, 1, 2, 3, 4)
DEEP_SCENARIO = "reactor"
SIMPLE_SCENARIOS = ("pump", "gearbox")


@dataclass(frozen=True, kw_only=True)
class HistoryRecords:
    """Records of every detector on one history, and of simple ones with the inputs of the best
    deep one where that one is better."""

    records: tuple[DetectorRecord, ...]
    baselines: tuple[DetectorRecord, ...]


def judge_history(
    scenario: Scenario, seed: int, folder: Path, methods: Sequence[str]
) -> HistoryRecords:
    """Simulate a history, fit and test every method, and fit baselines where a deep one is best.

    Args:
        scenario: The machine.
        seed: Of the history and of the networks.
        folder: Where the history is written.
        methods: Names of detectors.
    """
    save_history(simulate_history(scenario, rng_of(seed, scenario.name)), folder / scenario.name)
    config = Config(seed=seed, methods=tuple(methods), robustness=False)
    items = [s for s in find_snapshots(folder) if isinstance(s, Snapshot)]
    split = split_items(items, config)
    models: dict[str, MachinesModel] = {}
    found = []
    for method in methods:
        start = time.perf_counter()
        model = _fitted(method, split, config)
        seconds = time.perf_counter() - start
        models[method] = model = calibrate(model, list(outcomes(model, split.calibration)), config)
        tested = list(outcomes(model, split.test))
        found.append(make_record(method, DETECTORS[method].kind, tested, seconds))
    made = choose_detector(found)
    baselines: Sequence[DetectorRecord] = ()
    if made.choice == "deep":
        baselines = fit_baselines(models[made.use.method], scenario.name, split, config)
    return HistoryRecords(
        records=tuple(sorted(found, key=lambda r: r.order)), baselines=tuple(baselines)
    )


def _fitted(method: str, split: Split, config: Config) -> MachinesModel:
    own = split.train
    machine = fit_machine(
        own, method, rng=rng_of(config.seed, f"{method} {own[0].machine}"),
        log=lambda row: None, stop=lambda: False, held_out=split.calibration,
    )  # fmt: skip
    return MachinesModel(method=method, machines={machine.name: machine})


def _history(name: str, seed: int) -> HistoryRecords:
    """One history with all methods, taken from the store if it is there."""
    path = STORE / f"{name}-{seed}.json"
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
        return HistoryRecords(
            records=tuple(_record(r) for r in known["records"]),
            baselines=tuple(_record(r) for r in known["baselines"]),
        )
    scenario = next(s for s in FLEET if s.name == name)
    with tempfile.TemporaryDirectory() as folder:
        results = judge_history(scenario, seed, Path(folder), METHOD_NAMES)
    content = {
        "records": [finite(asdict(r)) for r in results.records],
        "baselines": [finite(asdict(r)) for r in results.baselines],
    }
    write_json(path, content)
    return results


def _record(stored: dict[str, object]) -> DetectorRecord:
    values = {k: float("nan") if v is None else v for k, v in stored.items()}
    return DetectorRecord(**values)  # type: ignore[arg-type]


def print_table(name: str, histories: Sequence[HistoryRecords]) -> None:
    """Print, for every detector, false alarms, faults found and delay over the seeds."""
    print(f"{name}: false alarms in all seeds, found, delay in h (median, range; - never)")
    for kind in ("records", "baselines"):
        rows = [r for one in histories for r in getattr(one, kind)]
        for method in dict.fromkeys(r.method for r in rows):
            own = [r for r in rows if r.method == method]
            delays = np.array([r.delay_hours for r in own])
            known = delays[np.isfinite(delays)]
            when = (
                f"{np.median(known):.0f} ({known.min():.0f}-{known.max():.0f})"
                if len(known)
                else "-"
            )
            print(
                f"  {method:40} {sum(r.false for r in own):3.0f} "
                f"{sum(r.found for r in own)}/{sum(r.faults for r in own)} {when:>16} "
                f"{np.median([r.fit_seconds for r in own]):6.1f} s "
                f"{np.median([r.ms for r in own]):5.1f} ms"
            )


def worth(say: Say) -> None:
    """Both answers: a deep detector where only it finds the fault, a simple one elsewhere.

    Seeds redraw the histories and the networks. A history takes 27-35 s on one core (measured on
    one of each), so all 15 about 8 minutes. Finished histories are kept for their commit.
    ``worth_same_inputs_as_good`` is how often the winner's depth was not what counted.
    """
    right: dict[str, list[bool]] = {"deep": [], "simple": []}
    as_good = []
    for name in (DEEP_SCENARIO, *SIMPLE_SCENARIOS):
        histories = [_history(name, seed) for seed in SEEDS]
        print_table(name, histories)
        for one in histories:
            made = choose_detector(one.records, one.baselines)
            print(f"{name}: {explain_choice(one.records, one.baselines)}")
            if name == DEEP_SCENARIO:
                right["deep"].append(made.use.kind == "deep")
                as_good.append(made.choice == "inputs")
            else:
                right["simple"].append(made.use.kind != "deep")
    say("worth_verdict_deep_right", proportion(sum(right["deep"]), len(right["deep"])))
    say("worth_verdict_simple_right", proportion(sum(right["simple"]), len(right["simple"])))
    say("worth_same_inputs_as_good", proportion(sum(as_good), len(as_good), better="lower"))
