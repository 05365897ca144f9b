"""Which waveforms are kept, and for how long."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from lineside.core.errors import UserError

HOUR_US = 3_600_000_000


@dataclass(frozen=True, kw_only=True)
class Ring:
    """How long waveforms stay; features, scores and events stay for good.

    Ages are counted back from the newest snapshot of the machine, or from now if that is earlier:
    a sensor whose clock jumps ahead must not make everything old.

    Attributes:
        days: Everything this young is kept.
        thin_hours: Of what is older, one snapshot in so many hours is kept...
        around_hours: ...and everything within so many hours of an alert or a danger.
        max_gb: The oldest go when all files together are larger, those around alarms last.
        off: Keep no waveforms at all.
    """

    days: float = 14.0
    thin_hours: float = 24.0
    around_hours: float = 12.0
    max_gb: float = 20.0
    off: bool = False

    def __post_init__(self) -> None:
        if self.days < 0 or self.thin_hours <= 0 or self.around_hours < 0 or self.max_gb <= 0:
            raise UserError(
                "days to keep (and hours around alarms) are not negative, gigabytes above 0",
                "e.g. --keep-days 14 --max-gb 20",
            )

    def oldest_full_us(self, newest_us: int) -> int:
        """Return the time from which on everything is kept."""
        return newest_us - round(self.days * 24 * HOUR_US)

    def is_near(self, time_us: int, alarms_us: Sequence[int]) -> bool:
        """Return whether a snapshot lies within `around_hours` of an alarm; alarms are sorted."""
        reach = round(self.around_hours * HOUR_US)
        place = bisect_left(alarms_us, time_us - reach)
        return place < len(alarms_us) and alarms_us[place] <= time_us + reach

    def stay(self, times_us: Sequence[int], newest_us: int, alarms_us: Sequence[int]) -> set[int]:
        """Return the times that stay, of all those of one machine, sorted."""
        young, width = self.oldest_full_us(newest_us), round(self.thin_hours * HOUR_US)
        staying, filled = set(), set()
        for time_us in times_us:
            box = time_us // width
            if time_us >= young or box not in filled or self.is_near(time_us, alarms_us):
                staying.add(time_us)
                filled.add(box)
        return staying
