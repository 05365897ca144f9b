"""Which part of a bearing is worn - or why nobody should say so."""

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
"""How far the stated speed may be off; slip and speed together are held to this as well."""
TURNS = 4
"""Fewer turns of the shaft in a snapshot, or of the cage for a cage fault, resolve nothing."""
DEPTH = 0.1
"""Lines that modulate the envelope by less are too weak to be named, however sharp."""
LOWEST_ORDER = 0.3
STRONG_SIDEBAND = 0.3
"""Sidebands above this share of their carrier are a modulation."""
CARRIER_SHARE = 0.6
"""A sideband may be the strongest line if its carrier has this share of its height."""
WEAK_SIDEBAND = 0.15
"""A carrier this much higher than a line needs to be must show its sidebands."""
HALF_SHARE = 0.8
"""A line at half the frequency this high says that the frequency is a second harmonic."""
FIT_SHARE = 0.5
"""At least this share of the lines' power must be explained by the fault and the shaft."""
SIDEBANDS = 3


@dataclass(frozen=True, kw_only=True)
class MatchedLine:
    """A line of the envelope spectrum and what it is.

    Attributes:
        hz: Where it stands.
        order: In turns of the shaft.
        height: Over the background.
        meaning: ``"2 x BPFO"``, ``"BPFI - 1 x shaft"``, ``"3 x shaft"`` or ``""``.
    """

    hz: float
    order: float
    height: float
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What the envelope spectrum says about a bearing.

    Attributes:
        status: ``fault`` names one; ``no line``: nothing stands out; ``inconclusive``: something
            does, but it proves no fault; ``refused``: speed or geometry is missing or does not fit.
        fault: Name of the fault, empty unless the status is ``fault``.
        reason: One sentence.
        speed_hz: Speed that was used, None if there was none.
        scores: Mean log height of the harmonics, by fault.
        lines: The highest lines, highest first.
        explained: Share of the power of all lines that the fault and the shaft explain.
    """

    status: Status
    fault: str
    reason: str
    speed_hz: float | None = None
    scores: dict[str, float] | None = None
    lines: tuple[MatchedLine, ...] = ()
    explained: float = 0.0


def diagnose(
    spectra: Sequence[Spectrum], bearing: Bearing | None, speed_hz: float | None
) -> Diagnosis:
    """Name the worn part of a bearing, if the spectrum proves one.

    The strongest line that is no multiple of the shaft speed must be a harmonic of a fault, at
    least two harmonics of it must stand at one and the same slip (one will do if it modulates the
    envelope deeply), and its sidebands must be those
    of that fault: the shaft's for the inner race, none strong for the outer race, the cage's
    rather than the shaft's for a ball.

    Args:
        spectra: Of channels or of successive snapshots of the same length and speed; averaged.
        bearing: Orders of its faults, None if nobody knows them.
        speed_hz: Turns of the shaft per second, None if nobody knows.
    """
    if not spectra:
        return _refused("no usable channel")
    if not speed_hz:
        return _refused("the shaft speed is not known, so no line can be matched to a fault")
    if bearing is None:
        return _refused("no geometry of the bearing is given, so no line can be matched to a fault")
    heights = line_heights_of(spectra)
    closest = (bearing.inner_race - bearing.outer_race) * speed_hz
    if heights.resolution_hz > closest / 4 or heights.resolution_hz > speed_hz / TURNS:
        return _refused(
            f"the snapshot is too short: its lines are {heights.resolution_hz:.3g} Hz wide, the "
            f"shaft turns {speed_hz:.3g} times per second"
        )
    shaft_hz, doubt = refine_shaft(heights, speed_hz, SPEED_TOLERANCE)
    return _judge(heights, bearing, shaft_hz, min(SLIP + doubt, SPEED_TOLERANCE))


def _refused(reason: str) -> Diagnosis:
    return Diagnosis(status="refused", fault="", reason=reason)


def _judge(heights: LineHeights, bearing: Bearing, shaft_hz: float, slip: float) -> Diagnosis:
    families = {
        fault: fit_harmonics(
            heights, _hits_per_turn(fault, bearing) * shaft_hz, slip, shaft_hz=shaft_hz
        )
        for fault in bearing.orders
    }
    top_hz = (max(HARMONICS) + 0.2) * bearing.inner_race * shaft_hz
    found = heights.lines(LOWEST_ORDER * shaft_hz, top_hz)
    foreign = [line for line in found if not is_multiple(line[0], shaft_hz, heights.resolution_hz)]
    deepest = max((heights.depth_at(hz) for hz, _ in foreign), default=0.0)
    # Once one line is deep enough, weaker ones of the same pattern may tell what it belongs to.
    own = [line for line in foreign if heights.depth_at(line[0]) >= DEPTH / 2 <= deepest / 2]
    status, fault, reason = _verdict(heights, families, own, bearing, shaft_hz)
    named = fault or max(families, key=lambda name: families[name].score)
    lines = tuple(
        MatchedLine(
            hz=hz, order=hz / shaft_hz, height=height,
            meaning=_meaning(hz, named, families[named].hz, shaft_hz, bearing, heights),
        )
        for hz, height in found
    )  # fmt: skip
    power = sum(line.height**2 for line in lines)
    explained = sum(line.height**2 for line in lines if line.meaning) / power if power else 0.0
    if status == "fault" and explained < FIT_SHARE:
        status, fault = "refused", ""
        reason = f"only {explained:.0%} of the lines fit: the geometry or the speed is wrong"
    return Diagnosis(
        status=status, fault=fault, reason=reason, speed_hz=shaft_hz, lines=lines[:12],
        scores={name: family.score for name, family in families.items()}, explained=explained,
    )  # fmt: skip


def _verdict(
    heights: LineHeights,
    families: dict[str, HarmonicSeries],
    own: list[tuple[float, float]],
    bearing: Bearing,
    shaft_hz: float,
) -> tuple[Status, str, str]:
    """Return status, fault and reason from the lines that are no multiples of the shaft's."""
    if not own:
        return "no line", "", (
            f"no line but those of the shaft modulates the envelope by {DEPTH:.0%} or more"
        )  # fmt: skip
    cage_hz = families[CAGE].hz
    # A ball's defect passes the load zone once per turn of the cage: that line comes with it.
    reach = 0.75 * heights.resolution_hz
    others = [line for line in own if all(abs(line[0] - h * cage_hz) > reach for h in HARMONICS)]
    hz, height = others[0] if others else own[0]
    apart = {INNER: shaft_hz, BALL: bearing.cage * shaft_hz}
    fits = {
        fault: family
        for fault, family in families.items()
        if _belongs(hz, height, family, apart.get(fault), heights) and (fault != CAGE or not others)
    }
    if not fits:
        return (
            "refused", "",
            f"the strongest line, {hz:.1f} Hz or {hz / shaft_hz:.3f} x shaft, lies at no frequency "
            "of this bearing: another bearing, another speed, or no bearing fault",
        )  # fmt: skip
    fault = max(fits, key=lambda name: fits[name].score)
    family = fits[fault]
    alone = height > 1.5 * heights.threshold and heights.depth_at(hz) > 2 * DEPTH
    alone = alone and abs(hz - family.hz) <= reach
    if family.hits < 2 and not alone:
        return "inconclusive", "", f"one line near {SHORT[fault]} without harmonics proves nothing"
    objection = _objection(fault, family, heights, bearing, shaft_hz)
    if objection:
        return "inconclusive", "", objection
    return (
        "fault", fault,
        f"{fault}: {SHORT[fault]} at {family.hz:.1f} Hz ({family.hz / shaft_hz:.3f} x shaft), "
        f"{family.hits} of {len(HARMONICS)} harmonics, strongest line {height:.0f} x background",
    )  # fmt: skip


def _belongs(
    hz: float, height: float, family: HarmonicSeries, apart_hz: float | None, heights: LineHeights
) -> bool:
    """Whether a line is a harmonic, or the first sideband of one that itself stands."""
    reach = 0.75 * heights.resolution_hz
    for harmonic, carrier in zip(HARMONICS, family.heights, strict=True):
        off = abs(hz - harmonic * family.hz)
        if off <= reach:
            return True
        stands = carrier > max(heights.threshold, CARRIER_SHARE * height)
        if apart_hz and stands and abs(off - apart_hz) <= reach:
            return True
    return False


def _objection(
    fault: str, family: HarmonicSeries, heights: LineHeights, bearing: Bearing, shaft_hz: float
) -> str:
    """Return why other lines speak against a fault, empty if none does."""
    carrier = max(family.heights)
    half = heights.near(family.hz / 2, 0.5 * heights.resolution_hz)
    if fault != CAGE and half > max(heights.threshold, HALF_SHARE * carrier):
        return f"lines at {SHORT[fault]} are the even harmonics of {family.hz / 2:.1f} Hz"
    shaft = sideband(heights, family.hz, shaft_hz)
    if fault == OUTER and min(shaft) > max(STRONG_SIDEBAND * carrier, heights.threshold):
        return "lines at BPFO are modulated by the shaft, which an outer race is not"
    if fault == INNER and max(shaft) < WEAK_SIDEBAND * carrier > SUPPORT:
        return "lines at BPFI lack the sidebands of the shaft that an inner race has"
    if fault == BALL:
        cage = sideband(heights, family.hz, bearing.cage * shaft_hz)
        if max(shaft) > max(*cage, heights.threshold):
            return "lines at the ball's frequency are modulated by the shaft, not by the cage"
    return ""


def sideband(heights: LineHeights, carrier_hz: float, apart_hz: float) -> tuple[float, float]:
    """Return the heights below and above the first two harmonics of a carrier, mean over both."""
    reach = 0.5 * heights.resolution_hz
    low = [heights.near(h * carrier_hz - apart_hz, reach) for h in (1, 2)]
    high = [heights.near(h * carrier_hz + apart_hz, reach) for h in (1, 2)]
    return max(low), max(high)


def is_multiple(hz: float, shaft_hz: float, resolution_hz: float) -> bool:
    """Whether a line is the shaft's or a harmonic of it."""
    return abs(hz - shaft_hz * round(hz / shaft_hz)) <= 0.75 * resolution_hz


def _hits_per_turn(fault: str, bearing: Bearing) -> float:
    """Order of the impulses: a defect of a ball hits both races."""
    return 2 * bearing.ball if fault == BALL else bearing.orders[fault]


def _meaning(
    hz: float, fault: str, fault_hz: float, shaft_hz: float, bearing: Bearing, heights: LineHeights
) -> str:
    reach = 0.75 * heights.resolution_hz
    short = f"2 x {SHORT[BALL]}" if fault == BALL else SHORT[fault]
    apart, of = (bearing.cage * shaft_hz, "cage") if fault == BALL else (shaft_hz, "shaft")
    for harmonic in HARMONICS:
        if abs(hz - harmonic * fault_hz) <= reach:
            return short if harmonic == 1 else f"{harmonic} x {short}"
    if is_multiple(hz, shaft_hz, heights.resolution_hz):
        return f"{round(hz / shaft_hz)} x shaft"
    for harmonic in HARMONICS if fault == BALL else ():
        if abs(hz - harmonic * apart) <= reach:
            return f"{harmonic} x cage"
    for harmonic in HARMONICS if fault != CAGE else ():
        beside = round((hz - harmonic * fault_hz) / apart)
        off = abs(hz - harmonic * fault_hz - beside * apart)
        if 1 <= abs(beside) <= SIDEBANDS and off <= reach:
            sign = "+" if beside > 0 else "-"
            return f"{harmonic} x {short} {sign} {abs(beside)} x {of}"
    return ""
