"""One snapshot explained by itself: a sentence, pictures, and the facts behind them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from lineside.core.contract import Explanation, Figure
from lineside.core.report import plots
from lineside.machines.alarms.verdict import date
from lineside.machines.data.measurement import Measurement
from lineside.machines.explain.evidence import (
    closest,
    contributions,
    describe_feature,
    diagnosis_of,
)
from lineside.machines.models.detector import Rows
from lineside.machines.models.machine import Machine
from lineside.machines.signals import Diagnosis, Engine, SensorFault, find_sensor_faults


def explain_snapshot(machine: Machine, measurement: Measurement) -> Explanation:
    """Explain one snapshot by itself: features, closest healthy snapshots, diagnosis."""
    engine = Engine(machine.layout)
    row = engine.features(measurement)
    faults = find_sensor_faults(measurement, machine.norms)
    running = machine.operation.running(measurement, row, machine.layout.names)
    shares = contributions(machine, measurement, row, running)
    told = diagnosis_of(machine, measurement, engine)
    facts = {
        "time (UTC)": date(measurement.time),
        "operation": running,
        "speed": "unknown" if measurement.speed_hz is None else f"{measurement.speed_hz:.2f} Hz",
        "load": "unknown" if measurement.load is None else f"{measurement.load:g}",
        "sensors": "; ".join(f.message for f in faults) or "well",
        "diagnosis": f"{told.status}: {told.reason}",
    }
    return Explanation(
        item=measurement.item,
        text=_sentence(machine, row, shares, told, faults),
        figures=tuple(_figures(machine, measurement, row, shares, engine)),
        facts=facts,
    )


def _sentence(
    machine: Machine,
    row: Rows,
    shares: Mapping[str, float],
    told: Diagnosis,
    faults: list[SensorFault],
) -> str:
    if faults:
        return f"{machine.name}: {faults[0].message}."
    if not shares:
        return f"{machine.name}: this snapshot has no usable features."
    first = next(iter(shares))
    place = machine.layout.index(first)
    usual = float(np.median(machine.reference[:, place]))
    now, then = (machine.layout.to_physical(first, value) for value in (float(row[place]), usual))
    reason = told.reason[:1].upper() + told.reason[1:]
    found = f" Diagnosis: {told.fault}." if told.status == "fault" else f" {reason}."
    return (
        f"{machine.name}: the {describe_feature(machine, first)} speaks loudest, {now:.3g} against "
        f"{then:.3g} usually.{found}"
    )


def _figures(
    machine: Machine,
    measurement: Measurement,
    row: Rows,
    shares: Mapping[str, float],
    engine: Engine,
) -> list[Figure]:
    figures = [_against_healthy(machine, row, shares)] if shares else []
    for name, spectrum in engine.spectra(measurement).items():
        shown = spectrum.envelope_hz <= 40 * (measurement.speed_hz or 25.0)
        figures.append(
            plots.lines(
                f"Envelope spectrum of {name}",
                f"Lines of the envelope between {spectrum.band_hz[0]:.0f} and "
                f"{spectrum.band_hz[1]:.0f} Hz; a bearing fault stands at its order and multiples.",
                {name: (spectrum.envelope_hz[shown], spectrum.envelope[shown])},
                x_label="frequency of the envelope [Hz]",
                y_label=f"amplitude [{spectrum.unit}]",
            )
        )
    return figures


def _against_healthy(machine: Machine, row: Rows, shares: Mapping[str, float]) -> Figure:
    """The loudest features of a snapshot beside its closest healthy ones."""
    near = machine.reference[closest(machine, row)]
    everything = machine.reference
    places = [machine.layout.index(name) for name in shares]
    centre = np.median(everything[:, places], axis=0)
    spread = np.maximum(1.4826 * np.median(np.abs(everything[:, places] - centre), axis=0), 1e-6)
    series = {
        "this snapshot": (row[places] - centre) / spread,
        "closest healthy ones": (near[:, places].mean(axis=0) - centre) / spread,
    }
    names = [describe_feature(machine, name) for name in shares]

    def paint(axes: Axes) -> None:
        at = np.arange(len(names), dtype=float)
        for place, (name, values) in enumerate(series.items()):
            axes.barh(at + 0.4 * place, values, 0.38, color=plots.SERIES[place], label=name)
        axes.set_yticks((at + 0.2).tolist(), names, fontsize=8)
        axes.invert_yaxis()
        axes.set(xlabel="distance from the healthy median [robust spreads]")
        axes.grid(axis="y", alpha=0)
        axes.legend(fontsize=8)

    return plots.draw(
        "Loudest features",
        "What speaks loudest for this snapshot, most important first, beside its closest healthy "
        "ones.",
        paint,
        size_inches=(8.6, 0.9 + 0.36 * len(names)),
        wide=True,
    )
