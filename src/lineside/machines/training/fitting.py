"""Learning one machine: what its sensors, its operation and its features are like while healthy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.machines.alarms import Learned, Rules, drift_along, run_in_rows, steady_drift
from lineside.machines.data import load_measurement, read_sidecar
from lineside.machines.data.items import Snapshot
from lineside.machines.data.measurement import Measurement
from lineside.machines.methods import DETECTORS, Columns, channel_columns, choose_columns
from lineside.machines.models.detector import Rows
from lineside.machines.models.machine import FREE, Branch, Machine
from lineside.machines.models.reconstruction import Fitting
from lineside.machines.monitoring.operating_states import Operation, learn_operation, unitless
from lineside.machines.monitoring.sensors import commonest_fault, is_well, live_channels
from lineside.machines.signals import (
    Bearing,
    Engine,
    Layout,
    Norms,
    bearing_from_geometry,
    learn_norms,
    make_layout,
)

LAYOUT_SNAPSHOTS = 60
"""So many snapshots, spread over the learning time, choose the envelope's band."""
GAP = 5.0
FEWEST = 20
MOST_RUN_IN = 0.4
"""Share of the snapshots to fit that may be left out as a run-in."""
SETTLE = 3
"""Snapshots after a restart that are neither learned nor judged."""

Log = Callable[[dict[str, Any]], None]


def load_all(snapshots: Sequence[Snapshot]) -> tuple[list[Measurement], list[Refusal]]:
    """Return what can be read of snapshots, in their order, and refusals for the rest."""
    found, refused = [], []
    for snapshot in snapshots:
        try:
            found.append(load_measurement(snapshot))
        except UserError as error:
            refused.append(Refusal(item=snapshot.id, message=error.message, hint=error.hint))
    return found, refused


def learn_machine(
    snapshots: Sequence[Snapshot],
    method: str,
    *,
    rng: np.random.Generator,
    log: Log,
    stop: Callable[[], bool],
    options: Mapping[str, Any] | None = None,
    held_out: Sequence[Snapshot] = (),
) -> Machine:
    """Learn one machine from healthy snapshots in order of time.

    A run-in at the beginning that levels off is left out, and so are the snapshots right after a
    restart. A drift that remains is written into the ledger: see `Learned.needs_consent`.

    Args:
        snapshots: Its healthy snapshots; those that cannot be read, whose sensors are faulty or
            that were taken at rest are left out.
        method: Name of its detector.
        rng: Random stream.
        log: Receives the recorder's rows.
        stop: Ends a training resumably when it answers True.
        options: Constants of the detector that replace its defaults.
        held_out: The later ones that will calibrate it: nothing is fitted to them, but whether a
            run-in levels off and whether it drifts is looked for in both together.

    Raises:
        UserError: too few healthy snapshots, or none of the features that the method needs.
    """
    measurements, dead = live_channels(_readable(snapshots))
    log({"event": "left out", "dead channels": dead})
    norms = learn_norms(measurements)
    well = _healthy_sensors(measurements, norms)
    layout = make_layout(_spread_over(well), bearing=bearing_near(snapshots[0]))
    engine = Engine(layout)
    rows = engine.features_of(well)
    operation, running = learn_operation(well, rows, layout.names)
    gap = GAP * float(np.median(np.diff([m.time for m in measurements])))
    kept = np.flatnonzero(running & _settled(well, gap))
    moving, own = [well[i] for i in kept], rows[kept]
    explained = np.stack([operation.residual(m, r) for m, r in zip(moving, own, strict=True)])
    columns = _columns(explained, layout, method, (options or {}).get("features"))
    held, held_times = _held_rows(held_out, engine, norms, operation)
    times = [m.time for m in moving] + held_times
    learned = _account(np.vstack([explained, held]), times, len(own), layout)
    log({"event": "learned", **asdict(learned)})
    begun = learned.run_in
    return Machine(
        name=snapshots[0].machine,
        layout=layout,
        norms=norms,
        operation=operation,
        main=_main(explained[begun:], columns, layout, method, options or {}, rng, log, stop),
        free=_free(explained[begun:], layout, operation, log),
        rules=Rules(danger=20.0, growth=3.0),  # far from normal, or three times as loud
        reference=own[begun:].astype(np.float32),
        reference_times=tuple(m.time for m in moving[begun:]),
        gap_seconds=gap,
        warm_up=SETTLE,
        ledger=(learned,),
    )


def _readable(snapshots: Sequence[Snapshot]) -> list[Measurement]:
    measurements, refused = load_all(snapshots)
    if len(measurements) < FEWEST:
        why = f"; {refused[0].message}" if refused else ""
        raise UserError(
            f"{snapshots[0].machine} has {len(measurements)} readable snapshots to learn "
            f"from{why}", f"at least {FEWEST} are needed",
        )  # fmt: skip
    return measurements


def _healthy_sensors(measurements: Sequence[Measurement], norms: Norms) -> list[Measurement]:
    well = [m for m in measurements if is_well(m, norms)]
    if len(well) < FEWEST:
        raise UserError(
            f"the sensors of {measurements[0].machine} are faulty in "
            f"{len(measurements) - len(well)} of {len(measurements)} snapshots to learn from: "
            f"{commonest_fault(measurements, norms)}",
            "mend the sensors, or start later",
        )
    return well


def _spread_over(well: Sequence[Measurement]) -> list[Measurement]:
    places = np.linspace(0, len(well) - 1, min(LAYOUT_SNAPSHOTS, len(well))).round().astype(int)
    return [well[place] for place in places]


def _settled(measurements: Sequence[Measurement], gap: float) -> NDArray[np.bool_]:
    """Which snapshots do not follow a restart; all of them if too few would be left."""
    steps = np.diff([m.time for m in measurements])
    settled = np.ones(len(measurements), dtype=bool)
    for place in np.flatnonzero(steps > gap) + 1:
        settled[place : place + SETTLE] = False
    return settled if settled.sum() >= 2 * FEWEST else np.ones_like(settled)


def _held_rows(
    held_out: Sequence[Snapshot], engine: Engine, norms: Norms, operation: Operation
) -> tuple[Rows, list[float]]:
    """Rows and times of the held-out snapshots that run as learned."""
    names = engine.layout.names
    rows, times = [], []
    for measurement in load_all(held_out)[0]:
        if not is_well(measurement, norms):
            continue
        row = engine.features(measurement)
        if operation.running(measurement, row, names) == "learned":
            rows.append(operation.residual(measurement, row))
            times.append(measurement.time)
    return np.array(rows, dtype=np.float32).reshape(-1, len(names)), times


def _account(rows: Rows, times: Sequence[float], fitted: int, layout: Layout) -> Learned:
    """The row of the ledger: what is learned, and whether it kept still.

    The same features answer for every method, so that all of them learn the same snapshots.

    Args:
        rows: Fitted and then held-out rows in order of time, shape (snapshot, feature).
        times: Their times.
        fitted: How many are fitted.
        layout: Names the features.
    """
    compact = choose_columns("compact", layout.names)
    columns = [c for c in compact if np.isfinite(rows[:fitted, c]).all()]
    if not columns:
        return Learned(first=times[0], last=times[-1], rows=fitted, began=times[0])
    finite = np.isfinite(rows[:, columns]).all(axis=1)
    watched = rows[finite].astype(np.float64)
    levels = [place for place, name in enumerate(layout.names) if name.endswith(".rms")]
    most = min(int(MOST_RUN_IN * fitted), fitted - FEWEST)
    run_in = run_in_rows(watched[:, columns], watched[:, levels], most)
    moves = np.abs(drift_along(watched[run_in:][:, columns]))
    worst = int(moves.argmax())
    return Learned(
        first=times[run_in],
        last=times[-1],
        rows=fitted - run_in,
        run_in=run_in,
        drift=float(moves[worst]),
        drifting=layout.names[columns[worst]],
        steady=steady_drift(len(watched) - run_in),
        began=times[0],
    )


def bearing_near(snapshot: Snapshot) -> Bearing | None:
    """Return the bearing that ``machine.json`` describes, None if it does not.

    Raises:
        UserError: if its geometry cannot be.
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
            "give balls, ball_mm, pitch_mm and perhaps contact_degrees",
        ) from error


def _columns(rows: Rows, layout: Layout, method: str, wish: Columns | None) -> list[int]:
    """The features that a method or its preset looks at, as far as every row has them."""
    columns = choose_columns(wish or DETECTORS[method].columns, layout.names)
    if not columns or (wish and not layout.groups):
        raise UserError(
            f"{method} needs waveforms, there are only slow values", "leave this method out"
        )
    known = [c for c in columns if np.isfinite(rows[:, c]).all()]
    if not known:
        raise UserError(
            f"no feature of {method} is known in every snapshot", "see the audit of these data"
        )
    return known


def _main(
    rows: Rows,
    columns: Sequence[int],
    layout: Layout,
    method: str,
    options: Mapping[str, Any],
    rng: np.random.Generator,
    log: Log,
    stop: Callable[[], bool],
) -> Branch:
    spec = DETECTORS[method]
    settings = dict(options)
    settings.pop("features", None)
    if spec.kind == "deep":
        settings["fitting"] = replace(settings.get("fitting", Fitting()), stop=stop)
    if method == "trend":
        settings.setdefault("both_ways", not layout.groups)  # there are only slow values
    if spec.columns == "mel":
        settings["columns"] = channel_columns(columns, layout.names)
    chosen = np.ascontiguousarray(rows[:, list(columns)])
    detector = spec.fit(chosen, rng=rng, log=log, **settings)
    return Branch(method=method, detector=detector, columns=tuple(columns))


def _free(rows: Rows, layout: Layout, operation: Operation, log: Log) -> Branch | None:
    """The branch for unlearned speeds: only where a speed or load is known at all."""
    wanted = sorted([*unitless(layout.names), *operation.amplitudes])
    columns = [c for c in wanted if np.isfinite(rows[:, c]).all()]
    if not columns or (operation.speed_hz is None and operation.load is None):
        return None
    detector = DETECTORS[FREE].fit(np.ascontiguousarray(rows[:, columns]), log=log)
    return Branch(method=FREE, detector=detector, columns=tuple(columns))
