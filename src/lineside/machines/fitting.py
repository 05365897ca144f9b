"""Learning one machine: what its sensors, its operation and its features are like while healthy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lineside.core.contract import Refusal, UserError
from lineside.machines.alarms import Rules
from lineside.machines.detectors.detection import Rows
from lineside.machines.detectors.reconstruction import Fitting
from lineside.machines.fitted import FREE, Branch, Machine
from lineside.machines.items import Snapshot
from lineside.machines.measurement import Measurement
from lineside.machines.operation import Operation, learn_operation, unitless
from lineside.machines.reading import load_measurement, read_sidecar
from lineside.machines.recipes import RECIPES, channel_columns, choose_columns
from lineside.machines.sensors import is_well
from lineside.machines.signals import (
    Bearing,
    Engine,
    Layout,
    bearing_of,
    learn_norms,
    make_layout,
)

LAYOUT_SNAPSHOTS = 60
"""So many snapshots, spread over the learning time, choose the envelope's band."""
GAP = 5.0
FEWEST = 20

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
) -> Machine:
    """Learn one machine from healthy snapshots in order of time.

    Args:
        snapshots: Its healthy snapshots; those that cannot be read or whose sensors are faulty
            are left out.
        method: Name of the recipe of its detector.
        rng: Random stream.
        log: Receives the recorder's rows.
        stop: Ends a training resumably when it answers True.
        options: Constants of the detector that replace those of the recipe.

    Raises:
        UserError: too few healthy snapshots, or none of the features that the method needs.
    """
    measurements, refused = load_all(snapshots)
    name = snapshots[0].machine
    if len(measurements) < FEWEST:
        why = f"; {refused[0].message}" if refused else ""
        raise UserError(
            f"{name} has {len(measurements)} readable snapshots to learn from{why}",
            f"at least {FEWEST} are needed",
        )
    norms = learn_norms(measurements)
    well = [m for m in measurements if is_well(m, norms)]
    if len(well) < FEWEST:
        raise UserError(
            f"the sensors of {name} are faulty in {len(measurements) - len(well)} of "
            f"{len(measurements)} snapshots to learn from", "mend the sensors, or start later",
        )  # fmt: skip
    spread = np.linspace(0, len(well) - 1, min(LAYOUT_SNAPSHOTS, len(well))).round().astype(int)
    layout = make_layout([well[i] for i in spread], bearing=bearing_near(snapshots[0]))
    rows = Engine(layout).features_of(well)
    operation, running = learn_operation(well, rows, layout.names)
    moving = [m for m, runs in zip(well, running, strict=True) if runs]
    own = rows[running]
    explained = np.stack([operation.residual(m, r) for m, r in zip(moving, own, strict=True)])
    times = np.array([m.time for m in measurements])
    return Machine(
        name=name,
        layout=layout,
        norms=norms,
        operation=operation,
        main=_main(explained, layout, method, options or {}, rng, log, stop),
        free=_free(own, layout, operation, log),
        rules=Rules(danger=20.0),
        reference=own.astype(np.float32),
        reference_times=tuple(m.time for m in moving),
        gap_seconds=GAP * float(np.median(np.diff(times))),
    )


def bearing_near(snapshot: Snapshot) -> Bearing | None:
    """Return the bearing that ``machine.json`` describes, None if it does not.

    Raises:
        UserError: if its geometry cannot be.
    """
    facts = dict(read_sidecar(snapshot.path.parent).bearing)
    if not facts:
        return None
    if "outer_race" in facts:
        return Bearing.from_spec(facts)
    try:
        return bearing_of(
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


def _main(
    rows: Rows,
    layout: Layout,
    method: str,
    options: Mapping[str, Any],
    rng: np.random.Generator,
    log: Log,
    stop: Callable[[], bool],
) -> Branch:
    recipe = RECIPES[method]
    columns = choose_columns(recipe.columns, layout.names)
    if not columns:
        raise UserError(
            f"{method} needs waveforms, there are only slow values", "leave this method out"
        )
    columns = [c for c in columns if np.isfinite(rows[:, c]).all()]
    settings = {**recipe.options, **options}
    if recipe.kind == "deep":
        settings.setdefault("fitting", Fitting(stop=stop))
    if recipe.columns == "mel":
        settings["columns"] = channel_columns(columns, layout.names)
    chosen = np.ascontiguousarray(rows[:, columns])
    detector = recipe.fit(method)(chosen, rng=rng, log=log, **settings)
    return Branch(method=method, detector=detector, columns=tuple(columns))


def _free(rows: Rows, layout: Layout, operation: Operation, log: Log) -> Branch | None:
    """The branch for unlearned speeds: only where a speed or load is known at all."""
    columns = [c for c in unitless(layout.names) if np.isfinite(rows[:, c]).all()]
    if not columns or (operation.speed_hz is None and operation.load is None):
        return None
    detector = RECIPES[FREE].fit(FREE)(np.ascontiguousarray(rows[:, columns]), log=log)
    return Branch(method=FREE, detector=detector, columns=tuple(columns))
