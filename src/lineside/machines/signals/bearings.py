"""Fault frequencies of rolling bearings in orders of the shaft: BPFO, BPFI, BSF, FTF.

With n balls of diameter d on the pitch diameter D at the contact angle a, q = d / D cos(a):

    BPFO = n / 2 (1 - q)    BPFI = n / 2 (1 + q)    BSF = D / (2 d) (1 - q^2)    FTF = (1 - q) / 2

(Randall and Antoni, "Rolling element bearing diagnostics - a tutorial", Mechanical Systems and
Signal Processing 25, 2011, equations 1 to 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lineside.core.errors import UserError

OUTER, INNER, BALL, CAGE = "outer race", "inner race", "ball", "cage"
FAULTS = (OUTER, INNER, BALL, CAGE)
SHORT = {OUTER: "BPFO", INNER: "BPFI", BALL: "BSF", CAGE: "FTF"}


@dataclass(frozen=True, kw_only=True)
class Bearing:
    """Fault frequencies of a bearing with a fixed outer ring, in orders of the shaft.

    Attributes:
        outer_race: Ball pass frequency of the outer race (BPFO).
        inner_race: Ball pass frequency of the inner race (BPFI).
        ball: Ball spin frequency (BSF); a defect hits a race twice per spin.
        cage: Fundamental train frequency (FTF), turns of the cage.
        name: Label.
    """

    outer_race: float
    inner_race: float
    ball: float
    cage: float
    name: str = ""

    def __post_init__(self) -> None:
        """Refuse impossible orders."""
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

    def impulses_per_turn(self, fault: str) -> float:
        """Return the order of the impulses of a fault: a ball defect hits both races."""
        return 2 * self.ball if fault == BALL else self.orders[fault]


def bearing_from_geometry(
    *, balls: int, ball_mm: float, pitch_mm: float, contact_degrees: float = 0.0, name: str = ""
) -> Bearing:
    """Return the fault orders of a bearing from its geometry.

    Args:
        balls: Rolling elements in one row.
        ball_mm: Their diameter, in any unit that `pitch_mm` has too.
        pitch_mm: Pitch diameter, of the circle through their centres.
        contact_degrees: Contact angle.
        name: Label.

    Raises:
        UserError: if the geometry is impossible.
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
