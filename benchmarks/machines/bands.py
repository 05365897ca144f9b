"""The study's 100 sub-bands on raw waveforms: ``--preset beyond-imagenet`` on FEMTO.

FEMTO has no onset label: exceedances in the first half of life bound the false alarms from above,
and alarms are related to the snapshot from which on the RMS stays above twice its healthy level,
which is hindsight. Both channels are fused: the detectors see the bands of both, RMS and kurtosis
are means of both.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.checkpoints import checkpoint_folder
from benchmarks.machines.grids import FEMTO_RUNS, FEMTO_SECONDS, FEMTO_START
from benchmarks.machines.histories import DATA, FITTED, HELD_OUT, Floats, watch
from benchmarks.machines.traces import (
    CLASSICAL,
    DEEP,
    PROTOCOLS,
    RULES,
    SIMPLE,
    STUDY_NAMES,
    Protocol,
    Trace,
    seeds_of,
)
from benchmarks.results import Say
from lineside.core.contract import Estimate
from lineside.core.errors import UserError
from lineside.core.run.files import write_json
from lineside.core.run.folder import rng_of
from lineside.machines.data import load_measurements
from lineside.machines.data.histories import find_snapshots
from lineside.machines.data.items import Snapshot
from lineside.machines.methods import DETECTORS, choose_columns
from lineside.machines.models.detector import Rows
from lineside.machines.models.presets import preset
from lineside.machines.monitoring.operating_states import IDLE_LEVEL
from lineside.machines.monitoring.sensors import sensors_ok
from lineside.machines.signals.engine import Engine
from lineside.machines.signals.layout import make_layout
from lineside.machines.signals.quality import learn_norms

STORE = checkpoint_folder("machines/bands", __file__)

TWICE = float(np.log(2.0))


@dataclass(frozen=True, kw_only=True)
class Life:
    """One FEMTO run.

    Attributes:
        bands: Log energies of the sub-bands of both channels, shape (snapshot, 200).
        level: Mean over the channels of log RMS, then of asinh kurtosis, shape (snapshot, 2).
        well: Snapshots that ran with well sensors, shape (snapshot,).
    """

    bands: Rows
    level: Rows
    well: NDArray[np.bool_]

    @property
    def twice(self) -> int:
        """Snapshot from which on the RMS stays above twice its healthy median."""
        above = self.level[:, 0] - np.median(self.level[:FITTED, 0]) > TWICE
        return int(np.flatnonzero(~above)[-1]) + 1


@cache
def life(run: str) -> Life:
    """Return a run's features, made by the product's own reading and engine; kept on disk.

    Raises:
        UserError: the data are absent.
    """
    path = STORE / "bands" / f"{run}.npz"
    if not path.exists():
        with tempfile.TemporaryDirectory(prefix="femto-") as folder:
            measurements, refused = load_measurements(femto_snapshots(run, Path(folder)))
        if refused:
            raise UserError(refused[0].message, refused[0].hint)
        norms = learn_norms(measurements[:HELD_OUT])
        well = [sensors_ok(m, norms) for m in measurements]
        chosen = [m for m, good in zip(measurements[:HELD_OUT], well, strict=False) if good]
        engine = Engine(make_layout(chosen[::4]))
        rows, names = engine.features_of(measurements), engine.layout.names
        levels = [
            rows[:, [i for i, name in enumerate(names) if name.endswith(f".{kind}")]].mean(axis=1)
            for kind in SIMPLE
        ]
        usual = np.median(levels[0][:FITTED])
        # Almost silent: the product takes it for a machine at rest (2_1, snapshot 12).
        runs = np.array(well) & (levels[0] - usual > np.log(IDLE_LEVEL))
        path.parent.mkdir(parents=True, exist_ok=True)
        bands = rows[:, choose_columns("bands", names)]
        np.savez(path, bands=bands, level=np.stack(levels, axis=1), well=runs)
    with np.load(path) as kept:
        return Life(bands=kept["bands"], level=kept["level"], well=kept["well"])


def femto_snapshots(run: str, parent: Path) -> list[Snapshot]:
    """Return the snapshots of a run, read through a folder as a user would make it.

    Args:
        run: Which.
        parent: An empty folder; the run's own is made in it.

    Raises:
        UserError: the data are absent.
    """
    source = DATA / "femto" / f"Bearing{run}.npz"
    if not source.exists():
        raise UserError(f"{source} is absent", "this benchmark needs the FEMTO histories")
    folder = parent / f"Bearing{run}"
    folder.mkdir()
    (folder / "history.npz").symlink_to(source)
    write_json(folder / "machine.json", {"unit": "g"})
    return [found for found in find_snapshots(folder) if isinstance(found, Snapshot)]


def trace_of(run: str, name: str, seed: int, protocol: Protocol) -> Trace:
    """Fit a detector of the study on a run, and score all snapshots; kept on disk.

    Snapshots that are not judged are taken out before, the others keep their order.
    """
    own = life(run)
    # Places move where a snapshot was taken out: 2_1 and 3_1 lack one of the fitted ones.
    fitted = int(own.well[: HELD_OUT if protocol == "in_sample" else FITTED].sum())
    last = int(own.well[:HELD_OUT].sum())
    first = 0 if protocol == "in_sample" else fitted
    path = STORE / "bands" / f"{run}-{protocol}-{name}-{seed}.json"
    if not path.exists():
        if name in SIMPLE:
            fit, options = "trend", {"relative": True}
            rows = own.level[own.well][:, [SIMPLE.index(name)]]
        else:
            fit, rows = STUDY_NAMES.get(name, name), own.bands[own.well]
            options = dict(preset("beyond-imagenet")[fit])
            options.pop("features")
        detector = DETECTORS[fit].fit(rows[:fitted], rng=rng_of(seed, "bands"), **options)
        scores = np.full(len(rows), np.nan)
        scores[detector.history :] = detector.score(rows)
        told = [None if np.isnan(s) else float(s) for s in scores]
        write_json(path, {"scores": told, "ceiling": getattr(detector, "ceiling", None)})
    kept = json.loads(path.read_text(encoding="utf-8"))
    scores = np.array([np.nan if s is None else s for s in kept["scores"]])
    return Trace(scores=scores, fitted=fitted, calibrates=(first, last), ceiling=kept["ceiling"])


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one detector does on one run.

    Attributes:
        half: Share of the first half of life after snapshot 200 above the limit.
        late: Snapshots from "RMS above twice for good" to the first alarm; negative: before.
        lead: Seconds from the first alarm to the end, 0 for none.
    """

    half: float
    late: float
    lead: float


def found_by(run: str, name: str, seed: int, protocol: Protocol) -> Found:
    """Judge a run: z > 6, five of six."""
    own = life(run)
    z = np.full(len(own.well), np.nan)
    z[own.well] = trace_of(run, name, seed, protocol).z(ranked=True)
    half = z[FEMTO_START : max(FEMTO_START + 1, len(z) // 2)]
    first = watch(z[FEMTO_START:], FEMTO_START, FEMTO_SECONDS * np.arange(len(z)), RULES).first
    return Found(
        half=float(np.nanmean(half > RULES.limit)),
        late=first - own.twice,
        lead=0.0 if np.isnan(first) else (len(z) - 1 - first) * FEMTO_SECONDS,
    )


def bands(say: Say) -> None:
    """100 sub-bands of raw FEMTO waveforms with the study's preset: exceedances, first alarms.

    160 fits of small networks, 3 minutes on one idle core; resumable. No promise: RMS stands
    beside, and `femto` shows what works on these runs. Run 2_2 rises in mid-life for every
    detector alike.
    """
    for run in FEMTO_RUNS:
        own = life(run)
        print(
            f"{run}: {len(own.well)} snapshots, {int((~own.well).sum())} not judged, RMS above "
            f"twice for good from {own.twice}"
        )
    for protocol in PROTOCOLS:
        print(f"{protocol}: share of the first half with z > 6 / first alarm less 'RMS > 2x'")
        print(f"  {'detector':<14}" + "".join(f"{run:>20}" for run in FEMTO_RUNS) + "    mean half")
        halves = {name: _print_line(name, protocol) for name in (*SIMPLE, *CLASSICAL, *DEEP)}
        for group, names in (("rms", ("rms",)), ("classical", CLASSICAL), ("deep", DEEP)):
            mean = np.mean([halves[name] for name in names], axis=0)
            say(
                f"femto_bands_first_half_{group}_{protocol}",
                Estimate(
                    value=float(mean.mean()), low=float(mean.min()), high=float(mean.max()),
                    n=len(FEMTO_RUNS), better="lower",
                    method=f"mean and range of four runs, {len(names)} detectors",
                ),
            )  # fmt: skip


def _print_line(name: str, protocol: Protocol) -> Floats:
    """Print one detector, and return its first-half shares, medians of the seeds."""
    halves, cells = [], []
    for run in FEMTO_RUNS:
        told = [found_by(run, name, seed, protocol) for seed in seeds_of(name)]
        halves.append(float(np.median([t.half for t in told])))
        cells.append(f"{halves[-1]:.2f} / {_late(told)}")
    print(f"  {name:<14}" + "".join(f"{cell:>20}" for cell in cells) + f"{np.mean(halves):>13.2f}")
    return np.array(halves)


def _late(told: Sequence[Found]) -> str:
    """First alarm relative to the RMS, median of the seeds that gave one, and how many did not."""
    late = np.array([t.late for t in told])
    none = int(np.isnan(late).sum())
    if none == len(late):
        return "none"
    return f"{np.nanmedian(late):+.0f}" + (f" ({none} none)" if none else "")
