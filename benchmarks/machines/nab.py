"""Slow values through the product's path: two temperature series of NAB (Lavin and Ahmad 2015).

The labels are criticised (Wu and Keogh 2020: late, generous, and leaving out what looks alike), the
windows are wide, and two series prove nothing. So: no score, no point adjustment. A window counts
as hit only if an alarm episode *begins* inside it; what begins elsewhere is false.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.checkpoints import checkpoint_folder
from benchmarks.machines.histories import DATA, SEEDS, Floats, watch
from benchmarks.results import Say, plain
from lineside.core.contract import Better, Estimate, Refusal
from lineside.core.errors import UserError
from lineside.core.run.files import write_json
from lineside.core.run.folder import rng_of
from lineside.machines.alarms.logic import Rules
from lineside.machines.config import Config
from lineside.machines.data import find_snapshots
from lineside.machines.data.items import Snapshot
from lineside.machines.data.sidecar import seconds_of
from lineside.machines.data.tables import read_table
from lineside.machines.methods import DETECTORS
from lineside.machines.model import MachinesModel
from lineside.machines.outcomes import calibrate, outcomes
from lineside.machines.training.fitting import fit_machine

STORE = checkpoint_folder("machines/nab", __file__)

SERIES = ("machine_temperature", "ambient_temperature")
METHODS = ("pca", "trend", "mahalanobis", "knn", "lstm_ae")
LEARN_SECONDS = 7 * 86400.0
"""Before the first label of either series; NAB's own 15 % would hold the first fault of one."""
MONTH_SECONDS = 365.25 * 86400 / 12
DRAWS = 2000


@dataclass(frozen=True, kw_only=True)
class Series:
    """One series.

    Attributes:
        path: Its table.
        times: Seconds, shape (row,).
        values: Shape (row,).
        windows: First and last second of each labelled window, shape (window, 2).
    """

    path: Path
    times: Floats
    values: Floats
    windows: Floats

    @property
    def learned(self) -> int:
        """How many rows are learned from."""
        return int((self.times < self.times[0] + LEARN_SECONDS).sum())


@cache
def series(name: str) -> Series:
    """Return a series.

    Raises:
        UserError: the data are absent.
    """
    file = f"{name}_system_failure.csv"
    path = DATA / "nab" / file
    if not path.exists():
        raise UserError(f"{path} is absent", "this benchmark needs the NAB series")
    table = read_table(path)
    labels = json.loads((path.parent / "combined_windows.json").read_text(encoding="utf-8"))
    windows = [[seconds_of(end, str(path)) for end in w] for w in labels[f"realKnownCause/{file}"]]
    order = np.argsort(table.times, kind="stable")
    return Series(
        path=path, times=table.times[order], values=table.values[order, 0],
        windows=np.array(windows),
    )  # fmt: skip


def alarm_times(name: str, method: str, seed: int) -> Floats:
    """Return when alarm episodes begin, through learning, calibration and a session; kept."""
    kept = STORE / "nab" / f"{name}-{method}-{seed}.json"
    if not kept.exists():
        with tempfile.TemporaryDirectory(prefix="nab-") as folder:
            (Path(folder) / f"{name}.csv").symlink_to(series(name).path)
            found = find_snapshots(Path(folder))
            items = [s for s in found if not isinstance(s, Refusal)]
            write_json(kept, _begun(items, series(name).learned, method, seed))
    return np.array(json.loads(kept.read_text(encoding="utf-8")), dtype=np.float64)


def _begun(items: Sequence[Snapshot], learned: int, method: str, seed: int) -> list[float]:
    fitted = round(learned * 2 / 3)
    machine = fit_machine(
        items[:fitted], method, rng=rng_of(seed, "nab"), log=lambda row: None,
        stop=lambda: False, held_out=items[fitted:learned],
    )  # fmt: skip
    raw = MachinesModel(method=method, machines={machine.name: machine})
    model = calibrate(raw, list(outcomes(raw, items[fitted:learned])), Config())
    return [
        verdict.time
        for verdict in model.predict(items[learned:])
        if not isinstance(verdict, Refusal)
        and any(
            event.kind in ("alert", "danger") and event.evidence.get("first")
            for event in verdict.events
        )
    ]


def rival_times(name: str, rival: str) -> Floats:
    """Return when a rule without a model alarms, five of six as the product.

    Args:
        name: The series.
        rival: ``level``: six MAD (scaled to sigma) off the median; ``step``: the same of changes.
    """
    own = series(name)
    values = own.values if rival == "level" else np.diff(own.values, prepend=own.values[0])
    healthy = values[: own.learned]
    centre = np.median(healthy)
    spread = 1.4826 * np.median(np.abs(healthy - centre))
    z = np.abs(values - centre) / max(float(spread), 1e-9)
    seen = watch(z[own.learned :], own.learned, own.times, Rules())
    return own.times[list(seen.starts)]


def hits(times: Floats, windows: Floats) -> tuple[int, int]:
    """Return how many windows an episode begins in, and how many episodes begin in none."""
    inside = (times[:, None] >= windows[:, 0]) & (times[:, None] <= windows[:, 1])
    return int(inside.any(axis=0).sum()), int((~inside.any(axis=1)).sum())


def by_chance(name: str, episodes: int) -> float:
    """Return how many windows as many episodes at random times would hit on average."""
    own, rng = series(name), rng_of(0, f"nab chance {name}")
    drawn = rng.uniform(own.times[own.learned], own.times[-1], size=(DRAWS, episodes))
    return float(np.mean([hits(times, own.windows)[0] for times in drawn]))


def nab(say: Say) -> None:
    """NAB temperatures through the slow path: windows hit, false episodes a month, simple rules.

    No promise: the labels are criticised and there are six windows. Learned from the first seven
    days, two thirds fitted. 18 runs, 250,000 snapshots, 5 minutes on one core; resumable.
    """
    print("windows hit by an episode that begins inside (no point adjustment) | false a month")
    months = sum(_months(name) for name in SERIES)
    windows = sum(len(series(name).windows) for name in SERIES)
    print(f"{windows} windows, {months:.1f} months outside of them; labels are criticised as wide")
    for method in METHODS:
        seeds = SEEDS if DETECTORS[method].kind == "deep" else (0,)
        runs = [[alarm_times(name, method, seed) for name in SERIES] for seed in seeds]
        _print_line(say, method, runs, months)
    for rival in ("level", "step"):
        _print_line(say, rival, [[rival_times(name, rival) for name in SERIES]], months)


def _months(name: str) -> float:
    """Months that are judged and lie outside of the windows."""
    own = series(name)
    inside = (own.windows[:, 1] - own.windows[:, 0]).sum()
    return float((own.times[-1] - own.times[own.learned] - inside) / MONTH_SECONDS)


def _print_line(say: Say, name: str, runs: Sequence[Sequence[Floats]], months: float) -> None:
    """Print one way of judging for each series, medians of its seeds; publish hits and false."""
    told = np.array(
        [[hits(t, series(one).windows) for one, t in zip(SERIES, run, strict=True)] for run in runs]
    )
    cells = []
    for place, one in enumerate(SERIES):
        hit, false = np.median(told[:, place], axis=0)
        chance = by_chance(one, int(np.median([len(run[place]) for run in runs])))
        count = len(series(one).windows)
        cells.append(f"{one}: {hit:g} of {count} (by chance {chance:.1f}), {false:g} false")
    windows = sum(len(series(one).windows) for one in SERIES)
    hit_share, rate = told.sum(axis=1)[:, 0] / windows, told.sum(axis=1)[:, 1] / months
    print(f"  {name:<12} {'; '.join(cells)}; {np.median(rate):.2f} a month")
    say(f"nab_windows_hit_{name}", _over_seeds(hit_share, "fraction", windows, "higher"))
    say(
        f"nab_false_episodes_month_{name}",
        _over_seeds(rate, "episodes per month", len(SERIES), "lower"),
    )


def _over_seeds(values: Floats, unit: str, n: int, better: Better) -> Estimate:
    if len(values) == 1:
        return plain(float(values[0]), unit, n, better)
    return Estimate(
        value=float(np.median(values)), low=float(values.min()), high=float(values.max()),
        unit=unit, n=n, better=better, method=f"median and range of {len(values)} seeds",
    )  # fmt: skip
