"""Explanation of one snapshot by itself: a sentence, figures, and the facts behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lineside.core.contract import Explanation, Figure
from lineside.core.report import plots
from lineside.machines.alarms.verdict import format_time
from lineside.machines.data.measurement import Measurement
from lineside.machines.explain.evidence import (
    describe_feature,
    nearest_healthy,
    robust_scale,
    snapshot_contributions,
)
from lineside.machines.models.detector import Rows
from lineside.machines.models.machine import Machine
from lineside.machines.signals.bearings import BALL, SHORT, Bearing
from lineside.machines.signals.diagnosis import Diagnosis, diagnose
from lineside.machines.signals.engine import Engine, usable_samples
from lineside.machines.signals.orders import order_spectrum
from lineside.machines.signals.quality import SensorFault, find_sensor_faults
from lineside.machines.signals.spectra import Spectrum
from lineside.machines.signals.speed import speed_contradiction

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_ORDER, MAX_ENVELOPE_ORDER = 40.0, 20.0
"""Highest shaft orders of the figures: three harmonics of BPFI are below 20 for most bearings."""
HARMONICS = (1, 2, 3, 4, 5)


def explain_snapshot(machine: Machine, measurement: Measurement) -> Explanation:
    """Explain one snapshot by itself: features, nearest healthy snapshots, spectra, diagnosis."""
    engine = Engine(machine.layout)
    row = engine.features(measurement)
    faults = find_sensor_faults(measurement, machine.norms)
    running = machine.operating_model.state_of(measurement, row, machine.layout.names)
    shares = snapshot_contributions(machine, measurement, row, running)
    spectra = engine.spectra(measurement)
    speed_hz = measurement.speed_hz or None
    if speed_hz and speed_contradiction(measurement, speed_hz):
        speed_hz = None  # a doubtful speed is not used
    diagnosis = diagnose(list(spectra.values()), machine.layout.bearing, speed_hz)
    facts = {
        "time (UTC)": format_time(measurement.time),
        "operation": running,
        "speed": "unknown" if measurement.speed_hz is None else f"{measurement.speed_hz:.2f} Hz",
        "load": "unknown" if measurement.load is None else f"{measurement.load:g}",
        "sensors": "; ".join(fault.message for fault in faults) or "ok",
        "diagnosis": f"{diagnosis.status}: {diagnosis.reason}",
    }
    figures = [_compare_features(machine, row, shares)] if shares else []
    if spectra:
        orders = _draw_orders(machine, measurement, speed_hz) if speed_hz else None
        figures.append(orders or _draw_density(spectra))
    bearing = machine.layout.bearing
    figures += [_draw_envelope(each, bearing, speed_hz) for each in spectra.values()]
    return Explanation(
        item=measurement.item,
        text=_summarise(machine, row, shares, diagnosis, faults),
        figures=tuple(figures),
        facts=facts,
    )


def _summarise(
    machine: Machine,
    row: Rows,
    shares: Mapping[str, float],
    diagnosis: Diagnosis,
    faults: list[SensorFault],
) -> str:
    if faults:
        return f"{machine.name}: {faults[0].message}."
    if not shares:
        return f"{machine.name}: this snapshot has no usable features."
    first = next(iter(shares))
    index = machine.layout.names.index(first)
    median = float(np.median(machine.reference[:, index]))
    now, usual = (machine.layout.to_physical(first, x) for x in (float(row[index]), median))
    reason = diagnosis.reason[:1].upper() + diagnosis.reason[1:]
    return (
        f"{machine.name}: the {describe_feature(machine, first)} contributes most to the novelty, "
        f"{now:.3g} instead of {usual:.3g} usually. {reason}."
    )


def _draw_orders(machine: Machine, measurement: Measurement, speed_hz: float) -> Figure | None:
    """Return the order spectra of all channels, None if the snapshot has too few turns."""
    spectra = {}
    for group in machine.layout.groups:
        for name in group.channels:
            samples = usable_samples(measurement, name, group)
            if samples is None:
                continue
            spectrum = order_spectrum(samples, group.rate_hz, speed_hz, MAX_ORDER)
            if spectrum is not None:
                spectra[f"{name} [{group.unit}]" if group.unit else name] = spectrum
    if not spectra:
        return None

    def paint(axes: Axes) -> None:
        for i, (label, spectrum) in enumerate(spectra.items()):
            color = plots.SERIES[i % len(plots.SERIES)]
            axes.plot(spectrum.orders, spectrum.amplitude, color=color, label=label, linewidth=1.0)
        for harmonic in HARMONICS:
            axes.axvline(harmonic, color=plots.MARKER, linestyle=":", linewidth=0.8)
            axes.annotate(
                f"{harmonic}x", (harmonic, 1.0), xycoords=axes.get_xaxis_transform(), fontsize=7,
                ha="center", va="bottom",
            )  # fmt: skip
        axes.set(xlabel="shaft order [-]", ylabel="amplitude", xlim=(0, MAX_ORDER))
        axes.legend(fontsize=8, loc="upper right")

    tracked = any(spectrum.tracked for spectrum in spectra.values())
    angle = "by the phase of a shaft harmonic" if tracked else f"at {speed_hz:.2f} Hz"
    caption = (
        "Amplitude over multiples of the shaft speed, comparable between speeds: 1x is the shaft, "
        f"gear mesh is at the number of teeth. Samples at equal shaft angles, {angle}."
    )
    return plots.draw("Order spectrum", caption, paint, size_inches=(8.6, 3.0), wide=True)


def _draw_density(spectra: Mapping[str, Spectrum]) -> Figure:
    """Return the power densities of all channels, for want of a speed or of turns."""
    return plots.lines(
        "Power spectral density",
        "Power over frequency; orders need a known shaft speed and a snapshot of several turns.",
        {f"{name} [{each.unit}2/Hz]": (each.psd_hz, each.psd) for name, each in spectra.items()},
        x_label="frequency [Hz]",
        y_label="power density",
        log_y=True,
    )


def _draw_envelope(spectrum: Spectrum, bearing: Bearing | None, speed_hz: float | None) -> Figure:
    """Return the envelope spectrum of a channel, with the bearing's fault frequencies."""
    inside = spectrum.envelope_hz <= MAX_ENVELOPE_ORDER * (spectrum.speed_hz or 25.0)
    marks = {}
    if bearing is not None and speed_hz:
        for fault in bearing.orders:
            label = f"2 {SHORT[fault]}" if fault == BALL else SHORT[fault]
            marks[label] = bearing.impulses_per_turn(fault) * speed_hz

    def paint(axes: Axes) -> None:
        axes.plot(spectrum.envelope_hz[inside], spectrum.envelope[inside], color=plots.SERIES[0])
        for i, (label, hz) in enumerate(marks.items(), start=1):
            axes.axvline(
                hz,
                color=plots.SERIES[i],
                linestyle="--",
                linewidth=1.2,
                label=f"{label} {hz:.1f} Hz",
            )
        if marks:
            axes.legend(fontsize=7, loc="upper right")
        axes.set(xlabel="envelope frequency [Hz]", ylabel=f"amplitude [{spectrum.unit}]")

    low, high = spectrum.band_hz
    return plots.draw(
        f"Envelope spectrum of {spectrum.channel}",
        f"Envelope of the band from {low:.0f} to {high:.0f} Hz; a bearing fault shows as lines at "
        "its fault frequency and multiples of it.",
        paint,
    )


def _compare_features(machine: Machine, row: Rows, shares: Mapping[str, float]) -> Figure:
    """Return the top features beside those of the nearest healthy snapshots."""
    nearest = machine.reference[nearest_healthy(machine, row)]
    columns = [machine.layout.names.index(name) for name in shares]
    centre, spread = robust_scale(machine.reference[:, columns])
    series = {
        "this snapshot": (row[columns] - centre) / spread,
        "nearest healthy snapshots": (nearest[:, columns].mean(axis=0) - centre) / spread,
    }
    labels = [describe_feature(machine, name) for name in shares]

    def paint(axes: Axes) -> None:
        y = np.arange(len(labels), dtype=float)
        for i, (name, values) in enumerate(series.items()):
            axes.barh(y + 0.4 * i, values, 0.38, color=plots.SERIES[i], label=name)
        axes.set_yticks((y + 0.2).tolist(), labels, fontsize=8)
        axes.invert_yaxis()
        axes.set(xlabel="distance from the healthy median [robust standard deviations]")
        axes.grid(axis="y", alpha=0)
        axes.legend(fontsize=8)

    return plots.draw(
        "Top features",
        "Features that contribute most to the novelty of this snapshot, largest share first, "
        "compared with its nearest healthy snapshots.",
        paint,
        size_inches=(8.6, 0.9 + 0.36 * len(labels)),
        wide=True,
    )
