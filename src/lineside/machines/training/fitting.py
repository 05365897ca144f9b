"""Fitting one method to every machine; `fit_machine` has the steps from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Method, Refusal, Split
from lineside.core.errors import UserError
from lineside.core.parallel import map_items
from lineside.core.run.folder import Run, rng_of
from lineside.machines.alarms.logic import Rules
from lineside.machines.config import Config
from lineside.machines.data import load_measurements, read_sidecar
from lineside.machines.data.dataset import by_machine
from lineside.machines.data.items import Snapshot
from lineside.machines.data.measurement import Measurement
from lineside.machines.explain.learned_features import TrainingOnlooker
from lineside.machines.explain.learned_figures import show_learned
from lineside.machines.methods import DETECTORS, Columns, channel_columns, choose_columns
from lineside.machines.model import MachinesModel
from lineside.machines.models.detector import Log, Rows, no_log
from lineside.machines.models.machine import FALLBACK, Branch, Machine
from lineside.machines.models.presets import preset
from lineside.machines.models.reconstruction import Fitting
from lineside.machines.monitoring.operating_states import (
    OperatingModel,
    fit_operating_model,
    unitless_columns,
)
from lineside.machines.monitoring.sensors import drop_dead_channels, most_common_fault, sensors_ok
from lineside.machines.signals.bearings import Bearing, bearing_from_geometry
from lineside.machines.signals.engine import Engine
from lineside.machines.signals.layout import Layout, make_layout
from lineside.machines.signals.quality import Norms, learn_norms
from lineside.machines.training.baseline import LearningEntry, drift, drift_limit, run_in_length

LAYOUT_SNAPSHOTS = 60
"""Snapshots, spread over the training time, from which the band of the envelope is chosen."""
GAP = 5.0
"""A pause longer than this multiple of the median interval is a restart."""
FEWEST = 20
MOST_RUN_IN = 0.4
"""Largest share of the snapshots to fit that may be left out as a run-in."""
WARM_UP = 3
"""Snapshots after a restart that are neither learned nor judged."""


def methods(config: Config) -> Sequence[Method]:
    """Return the methods of a configuration in its order."""
    return [
        Method(
            name=name, kind=DETECTORS[name].kind, help=DETECTORS[name].help, fit=partial(_fit, name)
        )
        for name in config.methods
    ]


def _fit(name: str, split: Split, config: Config, run: Run) -> MachinesModel:
    """Fit every machine; the recorder's rows of a machine carry its name as phase.

    Raises:
        UserError: if a machine cannot be learned.
    """
    snapshots = by_machine(split.train)
    if not snapshots:
        raise UserError(
            "there is no snapshot to learn from", "run `lineside machines audit DATA` for the cause"
        )
    held_out = by_machine(split.calibration)
    histories = [(machine, own, held_out.get(machine, ())) for machine, own in snapshots.items()]
    on_workers = run.executor is not None and run.executor.client is not None
    options = preset(config.preset).get(name, {})
    fit = partial(_fit_history, name, options, run.seed, None if on_workers else run)
    fitted, onlookers = {}, []
    for result in map_items(fit, histories, run.executor, name_of=itemgetter(0)):
        run.check_stop()
        if isinstance(result, Refusal):
            raise UserError(result.message, result.hint)
        machine, rows, onlooker = result
        fitted[machine.name] = machine
        onlookers.append(onlooker)
        for row in rows:
            run.log(row)
    if DETECTORS[name].kind == "deep":
        show_learned(run, name, onlookers)
    return MachinesModel(method=name, machines=fitted)


def _fit_history(
    name: str,
    options: Mapping[str, Any],
    seed: int,
    run: Run | None,
    history: tuple[str, Sequence[Snapshot], Sequence[Snapshot]],
) -> tuple[Machine, list[dict[str, Any]], TrainingOnlooker]:
    """Return a fitted machine, the recorder's rows that are still to be logged, what was seen.

    Args:
        name: The method.
        options: Constants of its preset.
        seed: Of the run: the random stream is the same in this process and on a worker.
        run: Logs rows at once and may stop the fit; None on a worker.
        history: Name of the machine, snapshots to fit, held-out snapshots.
    """
    machine, training, held_out = history
    rows: list[dict[str, Any]] = []
    log = run.log if run else rows.append
    onlooker = TrainingOnlooker()
    fitted = fit_machine(
        training, name, rng=rng_of(seed, f"{name} {machine}"),
        log=lambda row: log({"method": name, "phase": machine, **row}),
        stop=run.stopping if run else lambda: False, options=options, held_out=held_out,
        onlooker=onlooker,
    )  # fmt: skip
    return fitted, rows, onlooker


def fit_machine(
    snapshots: Sequence[Snapshot],
    method: str,
    *,
    rng: np.random.Generator,
    log: Log = no_log,
    stop: Callable[[], bool] = lambda: False,
    options: Mapping[str, Any] | None = None,
    held_out: Sequence[Snapshot] = (),
    onlooker: TrainingOnlooker | None = None,
) -> Machine:
    """Fit one machine to healthy snapshots in order of time.

    Left out are a run-in at the beginning that levels off and the warm-up after a restart. Drift
    that remains is stored in the learning record, see `LearningEntry.needs_consent`.

    Args:
        snapshots: Healthy; unreadable ones, sensor faults and standstill are left out.
        method: Name of the detector.
        rng: Random stream.
        log: Receives the recorder's rows.
        stop: Ends a training resumably when it returns True.
        options: Constants of the detector that replace its defaults.
        held_out: Later ones for calibration; run-in and drift are measured over both.
        onlooker: Looks at the training of a network, for the report.

    Raises:
        UserError: too few healthy snapshots, or none of the features that the method needs.
    """
    options = options or {}
    measurements, dead = drop_dead_channels(_load(snapshots))
    log({"event": "left out", "dead channels": dead})
    norms = learn_norms(measurements)
    valid = _with_valid_sensors(measurements, norms)
    layout = make_layout(_sample_evenly(valid), bearing=read_bearing(snapshots[0]))
    engine = Engine(layout)
    features = engine.features_of(valid)  # (snapshot, feature)
    operating_model, running = fit_operating_model(valid, features, layout.names)
    gap = GAP * float(np.median(np.diff([m.time for m in measurements])))
    used = np.flatnonzero(running & _is_warm(valid, gap))
    measurements, features = [valid[i] for i in used], features[used]
    rows = _compensate(operating_model, measurements, features)
    columns = _columns(rows, layout, method, options.get("features"))
    held = load_measurements(held_out)[0]
    held_rows, held_times = compensated_rows(held, engine, norms, operating_model)
    times = [m.time for m in measurements] + held_times
    entry = _learning_entry(np.vstack([rows, held_rows]), times, len(features), layout)
    log({"event": "learned", **asdict(entry)})
    rows = rows[entry.run_in :]
    machine = Machine(
        name=snapshots[0].machine, layout=layout, norms=norms, operating_model=operating_model,
        main=_fit_main(rows, columns, layout, method, options, rng, log, stop, onlooker),
        fallback=_fit_fallback(rows, layout, operating_model, log),
        rules=Rules(danger=20.0, growth=3.0),  # far above the limit, or three times as loud
        reference=features[entry.run_in :].astype(np.float32),
        reference_times=tuple(m.time for m in measurements[entry.run_in :]),
        gap_seconds=gap, warm_up=WARM_UP, learning_record=(entry,),
    )  # fmt: skip
    if onlooker is not None:
        onlooker.finish(machine, rows, held_rows, times[entry.run_in :], [*measurements, *held])
    return machine


def _compensate(model: OperatingModel, measurements: Sequence[Measurement], features: Rows) -> Rows:
    """Return features without the effect of speed and load, shape (snapshot, feature)."""
    return np.stack([model.compensate(m, r) for m, r in zip(measurements, features, strict=True)])


def _load(snapshots: Sequence[Snapshot]) -> list[Measurement]:
    measurements, refused = load_measurements(snapshots)
    if len(measurements) < FEWEST:
        why = f"; {refused[0].message}" if refused else ""
        raise UserError(
            f"{snapshots[0].machine} has {len(measurements)} readable snapshots to learn "
            f"from{why}", f"at least {FEWEST} are needed",
        )  # fmt: skip
    return measurements


def _with_valid_sensors(measurements: Sequence[Measurement], norms: Norms) -> list[Measurement]:
    valid = [m for m in measurements if sensors_ok(m, norms)]
    if len(valid) < FEWEST:
        raise UserError(
            f"the sensors of {measurements[0].machine} are faulty in "
            f"{len(measurements) - len(valid)} of {len(measurements)} snapshots to learn from: "
            f"{most_common_fault(measurements, norms)}",
            "repair the sensors, or learn from a later time",
        )
    return valid


def _sample_evenly(measurements: Sequence[Measurement]) -> list[Measurement]:
    count = min(LAYOUT_SNAPSHOTS, len(measurements))
    indices = np.linspace(0, len(measurements) - 1, count).round().astype(int)
    return [measurements[i] for i in indices]


def _is_warm(measurements: Sequence[Measurement], gap: float) -> NDArray[np.bool_]:
    """Which snapshots are past the warm-up after a restart; all of them if too few would remain."""
    steps = np.diff([m.time for m in measurements])
    warm = np.ones(len(measurements), dtype=bool)
    for restart in np.flatnonzero(steps > gap) + 1:
        warm[restart : restart + WARM_UP] = False
    return warm if warm.sum() >= 2 * FEWEST else np.ones_like(warm)


def compensated_rows(
    measurements: Sequence[Measurement], engine: Engine, norms: Norms, model: OperatingModel
) -> tuple[Rows, list[float]]:
    """Return features and times of the valid snapshots at trained operating conditions.

    Returns:
        Features without the effect of speed and load, shape (snapshot, feature), and seconds.
    """
    names = engine.layout.names
    rows, times = [], []
    for measurement in measurements:
        if not sensors_ok(measurement, norms):
            continue
        row = engine.features(measurement)
        if model.state_of(measurement, row, names) == "learned":
            rows.append(model.compensate(measurement, row))
            times.append(measurement.time)
    return np.array(rows, dtype=np.float32).reshape(-1, len(names)), times


def _learning_entry(
    rows: Rows, times: Sequence[float], fitted: int, layout: Layout
) -> LearningEntry:
    """Measure run-in and drift of a training.

    The compact features are used for every method, so that all methods learn the same snapshots.

    Args:
        rows: Fitted, then held-out rows in order of time, shape (snapshot, feature).
        times: Their times.
        fitted: Number of rows that are fitted.
        layout: Names of the features.
    """
    compact = choose_columns("compact", layout.names)
    columns = [c for c in compact if np.isfinite(rows[:fitted, c]).all()]
    if not columns:
        return LearningEntry(first=times[0], last=times[-1], rows=fitted, started=times[0])
    finite = rows[np.isfinite(rows[:, columns]).all(axis=1)].astype(np.float64)
    levels = [i for i, name in enumerate(layout.names) if name.endswith(".rms")]
    most = min(int(MOST_RUN_IN * fitted), fitted - FEWEST)
    run_in = run_in_length(finite[:, columns], finite[:, levels], most)
    drifts = np.abs(drift(finite[run_in:][:, columns]))
    worst = int(drifts.argmax())
    return LearningEntry(
        first=times[run_in],
        last=times[-1],
        rows=fitted - run_in,
        run_in=run_in,
        drift=float(drifts[worst]),
        drift_feature=layout.names[columns[worst]],
        drift_limit=drift_limit(len(finite) - run_in),
        started=times[0],
    )


def read_bearing(snapshot: Snapshot) -> Bearing | None:
    """Return the bearing described in ``machine.json``, None without one.

    Raises:
        UserError: if its geometry is incomplete or impossible.
    """
    facts: dict[str, Any] = dict(read_sidecar(snapshot.path.parent).bearing)
    if not facts:
        return None
    if "outer_race" in facts:
        return Bearing(**facts)
    try:
        return bearing_from_geometry(
            balls=int(facts["balls"]),
            ball_mm=facts["ball_mm"],
            pitch_mm=facts["pitch_mm"],
            contact_degrees=facts.get("contact_degrees", 0.0),
        )
    except KeyError as error:
        raise UserError(
            f"the bearing of {snapshot.machine} is described without {error}",
            "give balls, ball_mm, pitch_mm and, if it is not 0, contact_degrees",
        ) from error


def _columns(rows: Rows, layout: Layout, method: str, requested: Columns | None) -> list[int]:
    """Columns of the features of a method (or of its preset) that are finite in every row."""
    columns = choose_columns(requested or DETECTORS[method].columns, layout.names)
    if not columns or (requested and not layout.groups):
        raise UserError(
            f"{method} needs waveforms, but there are only slow values", "leave this method out"
        )
    finite = [c for c in columns if np.isfinite(rows[:, c]).all()]
    if not finite:
        raise UserError(
            f"every feature of {method} is missing in some snapshot",
            "run `lineside machines audit DATA` for the cause",
        )
    return finite


def _fit_main(
    rows: Rows,
    columns: Sequence[int],
    layout: Layout,
    method: str,
    options: Mapping[str, Any],
    rng: np.random.Generator,
    log: Log,
    stop: Callable[[], bool],
    onlooker: TrainingOnlooker | None,
) -> Branch:
    """Fit the detector of a method, shape of rows (snapshot, feature)."""
    spec = DETECTORS[method]
    settings = dict(options)
    settings.pop("features", None)
    if spec.kind == "deep":
        settings["fitting"] = replace(settings.get("fitting", Fitting()), stop=stop)
        if onlooker is not None:
            settings["fitting"] = replace(settings["fitting"], watch=onlooker.watch)
    if method == "trend":
        settings.setdefault("both_ways", not layout.groups)  # slow values may also fall
    if spec.columns == "mel":
        settings["columns"] = channel_columns(columns, layout.names)
    inputs = np.ascontiguousarray(rows[:, list(columns)])
    detector = spec.fit(inputs, rng=rng, log=log, **settings)
    return Branch(method=method, detector=detector, columns=tuple(columns))


def _fit_fallback(
    rows: Rows, layout: Layout, operating_model: OperatingModel, log: Log
) -> Branch | None:
    """Fit the branch for other speeds and loads; None if neither speed nor load is known."""
    columns = sorted([*unitless_columns(layout.names), *operating_model.amplitude_columns])
    columns = [c for c in columns if np.isfinite(rows[:, c]).all()]
    if not columns or (
        operating_model.speed_range_hz is None and operating_model.load_range is None
    ):
        return None
    inputs = np.ascontiguousarray(rows[:, columns])
    detector = DETECTORS[FALLBACK].fit(inputs, log=log)
    return Branch(method=FALLBACK, detector=detector, columns=tuple(columns))
