"""The fitted model of `scores`: a detector, and from which confidence on each class is believed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lineside.core.contract import Explanation, Refusal
from lineside.core.errors import UserError
from lineside.core.run import codec
from lineside.scores.data.dataset import PageItem
from lineside.scores.data.normalise import NormalisedPage, normalise
from lineside.scores.data.page_files import read_grey
from lineside.scores.methods import KINDS, Detector, detector_class
from lineside.scores.models.watershed.decoding import Detections
from lineside.scores.models.watershed.targets import CLASSES, scale_of

SMALL_INTERLINE_PX = 8.0
MUCH_SKEW_DEGREES = 3.0
UNCALIBRATED = 0.3
"""Confidence from which a symbol is believed before thresholds are set."""


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """From which confidence on a symbol of a class is believed.

    Attributes:
        by_class: Of classes with enough symbols to choose it.
        other: Of the other classes, chosen on all of them together.
        max_miss: The share of symbols that it may miss.
        missed: The share that it missed of the pages that it was chosen on, by class.
    """

    by_class: Mapping[str, float]
    other: float
    max_miss: float
    missed: Mapping[str, float]

    def of(self, name: str) -> float:
        """Return the threshold of a class."""
        return self.by_class.get(name, self.other)


@dataclass(frozen=True, kw_only=True)
class FoundSymbol:
    """A symbol on a page.

    Attributes:
        name: Its class.
        box: Left, top, right, bottom in pixels of the page as it was given.
        confidence: Between 0 and 1.
    """

    name: str
    box: tuple[float, float, float, float]
    confidence: float


@dataclass(frozen=True, kw_only=True)
class PageResult:
    """What is on a page.

    Attributes:
        item: Its name.
        symbols: Those that are believed, from top to bottom.
        interline_px: Staff space of the page.
        skew_degrees: By how much its staves fall to the right.
        advice: What to do about the picture before its symbols are trusted.
        model: Id of the model.
    """

    item: str
    symbols: tuple[FoundSymbol, ...]
    interline_px: float
    skew_degrees: float
    advice: tuple[str, ...]
    model: str

    @property
    def finding(self) -> bool:
        """True if the picture should be taken again."""
        return bool(self.advice)

    def as_json(self) -> dict[str, Any]:
        """Return the plain dictionary of one JSON line."""
        plain = dataclasses.asdict(self)
        plain["symbols"] = [dict(symbol, box=list(symbol["box"])) for symbol in plain["symbols"]]
        return plain | {"advice": list(self.advice)}

    def as_line(self) -> str:
        """Return the line of the table."""
        counts = Counter(symbol.name for symbol in self.symbols)
        heads = sum(number for name, number in counts.items() if name.startswith("notehead"))
        note = f"  ({'; '.join(self.advice)})" if self.advice else ""
        return f"{len(self.symbols):7d} {heads:9d} {self.interline_px:11.1f}  {self.item}{note}"


@dataclass(frozen=True, kw_only=True)
class ReadPage:
    """A page, what was found on it at working scale, and where that lies on the page."""

    page: NormalisedPage
    found: Detections
    boxes: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ScoresModel:
    """A detector as core sees it; immutable.

    Attributes:
        method: Name of the method that fitted it.
        detector: Finds symbols.
        thresholds: Set by calibration.
        identity: Id, the hash of its content.
    """

    method: str
    detector: Detector = field(metadata=codec.chosen_by(lambda own: detector_class(own.method)))
    thresholds: Thresholds | None = field(default=None, metadata=codec.TRANSIENT)
    identity: str = field(default="", metadata=codec.TRANSIENT)

    def predict(self, items: Sequence[Any]) -> list[Any]:
        """Return one result or refusal per page, in order."""
        return [self._result(item) for item in items]

    def read(self, item: PageItem) -> ReadPage:
        """Return everything that was found on a page, whatever its confidence.

        Raises:
            UserError: if it cannot be read, or has no staff lines.
        """
        page = normalise(read_grey(item.source), self.detector.interline_px)
        found = self.detector.detect(page.grey)
        half = found.sizes / (2 * scale_of(page.transform))
        centres = page.back(found.centres)
        return ReadPage(
            page=page, found=found, boxes=np.concatenate([centres - half, centres + half], axis=1)
        )

    def believed(self, found: Detections) -> NDArray[np.bool_]:
        """Say which detections are above the thresholds of their classes."""
        limits = [self.thresholds.of(name) if self.thresholds else UNCALIBRATED for name in CLASSES]
        believed: NDArray[np.bool_] = found.confidences >= np.array(limits)[found.classes]
        return believed

    def explain(self, item: Any) -> Explanation:
        """Explain what was found on a page in pictures."""
        from lineside.scores.explain.overlays import explain_page

        return explain_page(self, item)

    def spec(self) -> dict[str, Any]:
        """Return everything but tensors and calibration, as plain JSON values."""
        return codec.encode(self)[0]

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays."""
        return codec.encode(self)[1]

    def calibration_block(self) -> dict[str, Any]:
        """Return the thresholds as plain JSON values."""
        return codec.encode(self.thresholds)[0] if self.thresholds else {}

    def with_calibration(self, block: Mapping[str, Any], identity: str = "") -> ScoresModel:
        """Return this model with stored thresholds and its id."""
        thresholds = codec.decode(Thresholds, block, {}) if block else None
        return dataclasses.replace(self, thresholds=thresholds, identity=identity or self.identity)

    def _result(self, item: PageItem) -> PageResult | Refusal:
        try:
            read = self.read(item)
        except UserError as error:
            return Refusal(item=item.id, message=error.message, hint=error.hint)
        chosen = np.flatnonzero(self.believed(read.found))
        chosen = chosen[np.lexsort((read.boxes[chosen, 0], read.boxes[chosen, 1]))]
        symbols = tuple(
            FoundSymbol(
                name=CLASSES[read.found.classes[i]],
                box=tuple(np.round(read.boxes[i], 1).tolist()),
                confidence=round(float(read.found.confidences[i]), 4),
            )
            for i in chosen
        )
        return PageResult(
            item=item.id, symbols=symbols, interline_px=round(read.page.interline_px, 2),
            skew_degrees=round(read.page.skew_degrees, 2), advice=advice(read.page),
            model=self.identity,
        )  # fmt: skip


def advice(page: NormalisedPage) -> tuple[str, ...]:
    """Say what is wrong with a picture, and what to do about it."""
    found = []
    if page.interline_px < SMALL_INTERLINE_PX:
        found.append(f"staff space {page.interline_px:.1f} px: scan at a higher resolution")
    if abs(page.skew_degrees) > MUCH_SKEW_DEGREES:
        found.append(f"turned by {page.skew_degrees:.1f} degrees: lay it straight")
    return tuple(found)


def load(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ScoresModel:
    """Rebuild a model from its spec and tensors; see `lineside.core.run.model_store`."""
    if spec.get("method") not in KINDS:
        raise UserError(f"this model is of an unknown method {spec.get('method')!r}", "train again")
    return codec.decode(ScoresModel, spec, tensors)


def probe(model: ScoresModel) -> None:
    """Look at noise, as a page is looked at: it raises where the parts of a model do not fit."""
    noise = np.random.default_rng(0).integers(0, 256, (70, 90)).astype(np.uint8)
    model.believed(model.detector.detect(noise))
