"""Bearing diagnosis from the envelope spectrum: the faulty part, or why none can be named.

The fault frequencies (BPFO, BPFI, 2 BSF, FTF) are fitted as harmonic series within the slip
tolerance; the strongest line that is no shaft harmonic decides, and the sidebands must be those of
the fault: the shaft's for BPFI, the cage's for BSF, none strong for BPFO (Randall and Antoni 2011,
section 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lineside.machines.signals.bearings import BALL, CAGE, INNER, OUTER, SHORT, Bearing
from lineside.machines.signals.harmonics import (
    HARMONICS,
    SUPPORT,
    HarmonicSeries,
    LineHeights,
    fit_harmonics,
    line_heights_of,
    refine_shaft,
)
from lineside.machines.signals.spectra import Spectrum

Status = Literal["fault", "no line", "inconclusive", "refused"]
SLIP = 0.01
"""Rolling elements slip 1 to 2 % (Randall and Antoni 2011, section 2)."""
SPEED_TOLERANCE = 0.02
"""Largest relative error of the stated speed; also of slip and speed together."""
MIN_TURNS = 4
"""Shaft turns that a snapshot needs, for its resolution."""
DEPTH = 0.1
"""Smallest depth of modulation of a line that is diagnosed."""
LOWEST_ORDER = 0.3
STRONG_SIDEBAND = 0.3
"""Height of a sideband over its carrier from which on it is a modulation."""
CARRIER_SHARE = 0.6
"""A sideband may be the strongest line if its carrier has at least this share of its height."""
WEAK_SIDEBAND = 0.15
"""A BPFI carrier needs sidebands of this share, where such sidebands would be visible."""
HALF_SHARE = 0.8
"""A line of this share at half the frequency makes the frequency a second harmonic."""
FIT_SHARE = 0.5
"""Smallest share of the lines' power that the fault and the shaft must explain."""
SIDEBANDS = 3


@dataclass(frozen=True, kw_only=True)
class MatchedLine:
    """A line of the envelope spectrum and its interpretation.

    Attributes:
        hz: Its frequency.
        order: Multiple of the shaft speed.
        height: Over the background.
        meaning: ``"2 x BPFO"``, ``"BPFI - 1 x shaft"``, ``"3 x shaft"`` or ``""``.
    """

    hz: float
    order: float
    height: float
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Result of `diagnose`.

    Attributes:
        status: ``fault``: one is named; ``no line``: nothing stands out; ``inconclusive``: lines
            stand out but prove no fault; ``refused``: speed or geometry is missing or does not fit.
        fault: Name of the fault, empty unless the status is ``fault``.
        reason: One sentence.
        speed_hz: Refined shaft speed, None if unknown.
        lines: The highest lines, highest first.
        explained: Share of the power of all lines that the fault and the shaft explain.
    """

    status: Status
    fault: str
    reason: str
    speed_hz: float | None = None
    lines: tuple[MatchedLine, ...] = ()
    explained: float = 0.0


def diagnose(
    spectra: Sequence[Spectrum], bearing: Bearing | None, speed_hz: float | None
) -> Diagnosis:
    """Return the faulty part of a bearing, if the spectrum proves one.

    The strongest line that is no shaft harmonic must be a harmonic of a fault, at least two
    harmonics of it must stand out at the same slip (one is enough if it modulates the envelope
    deeply), and its sidebands must be those of that fault.

    Args:
        spectra: Of channels or of successive snapshots of the same length and speed; averaged.
        bearing: Its fault orders, None if unknown.
        speed_hz: Shaft speed, turns per second, None if unknown.
    """
    if not spectra:
        return _refused("no usable channel")
    if not speed_hz:
        return _refused("the shaft speed is unknown, so no line can be matched to a fault")
    if bearing is None:
        return _refused("no geometry of the bearing is given, so no line can be matched to a fault")
    heights = line_heights_of(spectra)
    closest = (bearing.inner_race - bearing.outer_race) * speed_hz
    if heights.resolution_hz > closest / 4 or heights.resolution_hz > speed_hz / MIN_TURNS:
        return _refused(
            f"the snapshot is too short: its resolution is {heights.resolution_hz:.3g} Hz at a "
            f"shaft speed of {speed_hz:.3g} Hz"
        )
    shaft_hz, uncertainty = refine_shaft(heights, speed_hz, SPEED_TOLERANCE)
    return _diagnose_lines(heights, bearing, shaft_hz, min(SLIP + uncertainty, SPEED_TOLERANCE))


def _refused(reason: str) -> Diagnosis:
    return Diagnosis(status="refused", fault="", reason=reason)


def _diagnose_lines(
    heights: LineHeights, bearing: Bearing, shaft_hz: float, slip: float
) -> Diagnosis:
    series = {
        fault: fit_harmonics(
            heights, bearing.impulses_per_turn(fault) * shaft_hz, slip, shaft_hz=shaft_hz
        )
        for fault in bearing.orders
    }
    top_hz = (max(HARMONICS) + 0.2) * bearing.inner_race * shaft_hz
    peaks = heights.lines(LOWEST_ORDER * shaft_hz, top_hz)
    non_shaft = [
        line for line in peaks if not is_multiple(line[0], shaft_hz, heights.resolution_hz)
    ]
    deepest = max((heights.depth_at(hz) for hz, _ in non_shaft), default=0.0)
    # Once one line is deep enough, weaker ones of the same pattern help to identify it.
    candidates = [
        line for line in non_shaft if heights.depth_at(line[0]) >= DEPTH / 2 <= deepest / 2
    ]
    status, fault, reason = _choose_fault(heights, series, candidates, bearing, shaft_hz)
    named = fault or max(series, key=lambda name: series[name].score)
    lines = tuple(
        MatchedLine(
            hz=hz, order=hz / shaft_hz, height=height,
            meaning=_interpret(hz, named, series[named].hz, shaft_hz, bearing, heights),
        )
        for hz, height in peaks
    )  # fmt: skip
    power = sum(line.height**2 for line in lines)
    explained = sum(line.height**2 for line in lines if line.meaning) / power if power else 0.0
    if status == "fault" and explained < FIT_SHARE:
        status, fault = "refused", ""
        reason = f"only {explained:.0%} of the lines fit: the geometry or the speed is wrong"
    return Diagnosis(
        status=status, fault=fault, reason=reason, speed_hz=shaft_hz, lines=lines[:12],
        explained=explained,
    )  # fmt: skip


def _choose_fault(
    heights: LineHeights,
    series: dict[str, HarmonicSeries],
    candidates: list[tuple[float, float]],
    bearing: Bearing,
    shaft_hz: float,
) -> tuple[Status, str, str]:
    """Return status, fault and reason from the (hz, height) of lines beside the shaft harmonics."""
    if not candidates:
        return "no line", "", (
            f"no line except shaft harmonics has a modulation depth of {DEPTH:.0%} or more"
        )  # fmt: skip
    cage_hz = series[CAGE].hz
    # A ball defect passes the load zone once per turn of the cage, so FTF lines accompany it.
    reach = 0.75 * heights.resolution_hz
    others = [
        line for line in candidates if all(abs(line[0] - h * cage_hz) > reach for h in HARMONICS)
    ]
    hz, height = others[0] if others else candidates[0]
    spacing = {INNER: shaft_hz, BALL: bearing.cage * shaft_hz}
    fits = {
        fault: one
        for fault, one in series.items()
        if _belongs(hz, height, one, spacing.get(fault), heights) and (fault != CAGE or not others)
    }
    if not fits:
        return (
            "refused", "",
            f"the strongest line, {hz:.1f} Hz ({hz / shaft_hz:.3f} x shaft), is at no fault "
            "frequency of this bearing: another bearing, another speed, or no bearing fault",
        )  # fmt: skip
    fault = max(fits, key=lambda name: fits[name].score)
    best = fits[fault]
    alone = height > 1.5 * heights.threshold and heights.depth_at(hz) > 2 * DEPTH
    alone = alone and abs(hz - best.hz) <= reach
    if best.hits < 2 and not alone:
        return "inconclusive", "", f"one line near {SHORT[fault]} without harmonics proves nothing"
    objection = _find_objection(fault, best, heights, bearing, shaft_hz)
    if objection:
        return "inconclusive", "", objection
    return (
        "fault", fault,
        f"{fault}: {SHORT[fault]} at {best.hz:.1f} Hz ({best.hz / shaft_hz:.3f} x shaft), "
        f"{best.hits} of {len(HARMONICS)} harmonics, strongest line {height:.0f} x background",
    )  # fmt: skip


def _belongs(
    hz: float, height: float, series: HarmonicSeries, spacing_hz: float | None, heights: LineHeights
) -> bool:
    """Return whether a line is a harmonic, or the first sideband of a harmonic that is a line."""
    reach = 0.75 * heights.resolution_hz
    for harmonic, carrier in zip(HARMONICS, series.heights, strict=True):
        off = abs(hz - harmonic * series.hz)
        if off <= reach:
            return True
        is_line = carrier > max(heights.threshold, CARRIER_SHARE * height)
        if spacing_hz and is_line and abs(off - spacing_hz) <= reach:
            return True
    return False


def _find_objection(
    fault: str, series: HarmonicSeries, heights: LineHeights, bearing: Bearing, shaft_hz: float
) -> str:
    """Return why other lines contradict a fault, empty if none does."""
    carrier = max(series.heights)
    half = heights.near(series.hz / 2, 0.5 * heights.resolution_hz)
    if fault != CAGE and half > max(heights.threshold, HALF_SHARE * carrier):
        return f"lines at {SHORT[fault]} are the even harmonics of {series.hz / 2:.1f} Hz"
    shaft = sideband_heights(heights, series.hz, shaft_hz)
    if fault == OUTER and min(shaft) > max(STRONG_SIDEBAND * carrier, heights.threshold):
        return "lines at BPFO have shaft sidebands, which an outer race fault has not"
    if fault == INNER and max(shaft) < WEAK_SIDEBAND * carrier > SUPPORT:
        return "lines at BPFI lack the shaft sidebands of an inner race fault"
    if fault == BALL:
        cage = sideband_heights(heights, series.hz, bearing.cage * shaft_hz)
        if max(shaft) > max(*cage, heights.threshold):
            return "lines at 2 x BSF have shaft sidebands, not those of the cage"
    return ""


def sideband_heights(
    heights: LineHeights, carrier_hz: float, spacing_hz: float
) -> tuple[float, float]:
    """Return the largest lower and upper sideband of the first two harmonics of a carrier."""
    reach = 0.5 * heights.resolution_hz
    low = [heights.near(h * carrier_hz - spacing_hz, reach) for h in (1, 2)]
    high = [heights.near(h * carrier_hz + spacing_hz, reach) for h in (1, 2)]
    return max(low), max(high)


def is_multiple(hz: float, shaft_hz: float, resolution_hz: float) -> bool:
    """Return whether a line is a shaft harmonic."""
    return abs(hz - shaft_hz * round(hz / shaft_hz)) <= 0.75 * resolution_hz


def _interpret(
    hz: float, fault: str, fault_hz: float, shaft_hz: float, bearing: Bearing, heights: LineHeights
) -> str:
    """Return which harmonic or sideband a line is, empty if none."""
    reach = 0.75 * heights.resolution_hz
    short = f"2 x {SHORT[BALL]}" if fault == BALL else SHORT[fault]
    spacing, of = (bearing.cage * shaft_hz, "cage") if fault == BALL else (shaft_hz, "shaft")
    for harmonic in HARMONICS:
        if abs(hz - harmonic * fault_hz) <= reach:
            return short if harmonic == 1 else f"{harmonic} x {short}"
    if is_multiple(hz, shaft_hz, heights.resolution_hz):
        return f"{round(hz / shaft_hz)} x shaft"
    for harmonic in HARMONICS if fault == BALL else ():
        if abs(hz - harmonic * spacing) <= reach:
            return f"{harmonic} x cage"
    for harmonic in HARMONICS if fault != CAGE else ():
        sideband = round((hz - harmonic * fault_hz) / spacing)
        off = abs(hz - harmonic * fault_hz - sideband * spacing)
        if 1 <= abs(sideband) <= SIDEBANDS and off <= reach:
            sign = "+" if sideband > 0 else "-"
            return f"{harmonic} x {short} {sign} {abs(sideband)} x {of}"
    return ""
