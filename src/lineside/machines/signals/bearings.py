"""Rolling bearings: how often a defect of each part is hit per turn of the shaft."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lineside.core.errors import UserError

OUTER, INNER, BALL, CAGE = "outer race", "inner race", "ball", "cage"
FAULTS = (OUTER, INNER, BALL, CAGE)
SHORT = {OUTER: "BPFO", INNER: "BPFI", BALL: "BSF", CAGE: "FTF"}


@dataclass(frozen=True, kw_only=True)
class Bearing:
    """Fault frequencies of a bearing whose outer ring stands still, in orders of the shaft.

    Attributes:
        outer_race: Balls that pass a point of the outer race per turn (BPFO).
        inner_race: Balls that pass a point of the inner race per turn (BPFI).
        ball: Turns of a ball about itself per turn (BSF); a defect hits a race twice as often.
        cage: Turns of the cage per turn (FTF).
        name: For people.
    """

    outer_race: float
    inner_race: float
    ball: float
    cage: float
    name: str = ""

    def __post_init__(self) -> None:
        """Refuse orders that no bearing has."""
        given = (self.outer_race, self.inner_race, self.ball, self.cage)
        if not all(np.isfinite(order) and order > 0 for order in given):
            raise UserError(f"fault orders must be positive, got {given}", "check the geometry")
        if not (self.cage < 0.5 <= 1.0 < self.outer_race < self.inner_race):
            raise UserError(
                f"no bearing with a fixed outer ring has the orders cage {self.cage:g}, outer race "
                f"{self.outer_race:g}, inner race {self.inner_race:g}",
                "expected cage < 0.5 and 1 < outer race < inner race, in turns of the shaft",
            )

    @property
    def orders(self) -> dict[str, float]:
        """Order of each fault by its name."""
        return {
            OUTER: self.outer_race, INNER: self.inner_race, BALL: self.ball, CAGE: self.cage
        }  # fmt: skip


def bearing_from_geometry(
    *, balls: int, ball_mm: float, pitch_mm: float, contact_degrees: float = 0.0, name: str = ""
) -> Bearing:
    """Return the fault orders of a bearing from its geometry.

    Args:
        balls: Rolling elements in one row.
        ball_mm: Their diameter; any unit will do if `pitch_mm` has the same.
        pitch_mm: Diameter of the circle through their centres.
        contact_degrees: Contact angle.
        name: For people.

    Raises:
        UserError: if there is no such bearing.

    References:
        Randall and Antoni: "Rolling element bearing diagnostics - a tutorial", Mechanical Systems
        and Signal Processing 25, 2011, equations 1 to 4.
    """
    if balls < 3 or not 0 < ball_mm < pitch_mm or not 0 <= contact_degrees < 90:
        raise UserError(
            f"no bearing has {balls} balls of {ball_mm:g} on a circle of {pitch_mm:g} at "
            f"{contact_degrees:g} degrees",
            "expected three balls or more, smaller than the pitch diameter, below 90 degrees",
        )
    if balls * ball_mm > np.pi * pitch_mm:
        raise UserError(
            f"{balls} balls of {ball_mm:g} do not fit on a circle of diameter {pitch_mm:g}",
            "is the ball's diameter perhaps given in another unit?",
        )
    ratio = ball_mm / pitch_mm * float(np.cos(np.radians(contact_degrees)))
    return Bearing(
        outer_race=balls / 2 * (1 - ratio),
        inner_race=balls / 2 * (1 + ratio),
        ball=pitch_mm / (2 * ball_mm) * (1 - ratio**2),
        cage=(1 - ratio) / 2,
        name=name,
    )
