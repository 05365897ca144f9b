"""What is set on calibration parts: thresholds, the scale of the maps, monitor references."""

from __future__ import annotations

from dataclasses import dataclass, field

from lineside.core.statistics.operating_points import OperatingPoint


@dataclass(frozen=True, kw_only=True)
class MapScale:
    """The one scale on which all anomaly maps of a model are shown.

    Attributes:
        low: Median of the maps of good calibration images: transparent.
        threshold: Contours are drawn here, where the calibration images that the threshold of the
            verdict holds back part from the others.
        high: End of the colour scale.
    """

    low: float = 0.0
    threshold: float = 1.0
    high: float = 2.0

    @property
    def span(self) -> float:
        """From `low` to `high`, never 0."""
        return max(self.high - self.low, 1e-12)


@dataclass(frozen=True, kw_only=True)
class Operating:
    """Everything set on calibration parts; a recalibration replaces it as a whole.

    Attributes:
        point: Thresholds and their guarantee.
        scale: Scale of the maps.
        good_scores: Scores of good calibration parts, the reference of the drift monitor.
        good_view_scores: Score of one image of each good calibration part, the reference where
            production names no parts.
        views_per_part: Mean number of images of a calibration part.
    """

    point: OperatingPoint
    scale: MapScale = field(default_factory=MapScale)
    good_scores: tuple[float, ...] = ()
    good_view_scores: tuple[float, ...] = ()
    views_per_part: float = 1.0
