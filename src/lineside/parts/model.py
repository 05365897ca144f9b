"""The fitted model of `parts`: a detector with its operating point, references and health limits.

It is immutable. ``predict`` decides by part: images whose names share a part (``part_pattern``)
are views of one piece, and all views get the verdict of their part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from lineside.core.contract import Explanation, Refusal
from lineside.core.errors import UserError
from lineside.core.run import codec
from lineside.core.run.model_store import identity_of
from lineside.core.statistics.operating_points import Decision
from lineside.parts.calibration import MapScale, Operating
from lineside.parts.data.frames import digest_of, image_of, item_of
from lineside.parts.data.ignored import IgnoredRegion
from lineside.parts.data.images import ignored_by
from lineside.parts.data.items import PartImage
from lineside.parts.data.sources import check_pattern
from lineside.parts.explain.exemplars import Library, build_library
from lineside.parts.explain.findings import Finding, findings
from lineside.parts.methods import METHODS
from lineside.parts.models.detector import Detector, Image, Prediction, TrainingImage
from lineside.parts.monitoring.image_quality import HealthReference, fit_health

if TYPE_CHECKING:
    from lineside.parts.config import Config
    from lineside.parts.explain.zoom import ZoomPath

HEALTH_IMAGES = 200
FEWEST_HEALTHY = 5
PROBE_PX = 256
"""Longest side of the noise that a model is tried on."""


@dataclass(frozen=True, kw_only=True)
class References:
    """Patches to compare with, and limits of image quality.

    Attributes:
        library: Known good and bad patches.
        health: Limits of image quality; None if the good images are too few.
    """

    library: Library
    health: HealthReference | None


def fit_references(train: Sequence[TrainingImage], rng: np.random.Generator) -> References:
    """Choose the patches, and learn the limits of image quality from up to 200 good images."""
    good = [example for example in train if not example.faulty]
    some = sorted(rng.choice(len(good), min(len(good), HEALTH_IMAGES), replace=False))
    return References(
        library=build_library(train, rng),
        health=fit_health(good[i].image() for i in some) if len(some) >= FEWEST_HEALTHY else None,
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What prediction needs to know of the config it was trained with."""

    view_rule: str = "any"
    part_pattern: str = ""
    px_per_mm: float = 0.0

    @classmethod
    def of(cls, config: Config) -> Settings:
        """Take the settings from a config."""
        return cls(
            view_rule=config.view_rule, part_pattern=config.part_pattern, px_per_mm=config.px_per_mm
        )


@dataclass(frozen=True, kw_only=True)
class PartResult:
    """What the model says about one image and the part that it shows.

    Attributes:
        item: Path or id of the image.
        part: The part it is a view of.
        verdict: ``accept``, ``review`` (a person looks) or ``reject``; the part's.
        score: Evidence for a defect in this image, no unit, higher is more faulty.
        part_score: The part's score: highest view (rule any) or lowest view (rule every).
        threshold: From this part score on a part is not accepted.
        findings: Regions of this image above the map threshold, largest evidence first.
        health: What is unusual about the picture itself (blur, brightness, pose).
        certificate: The guarantee behind the threshold, or why it is suspended.
        model: Id of the model.
        sha256: Hash of the image file, or of the values of a frame.
        zoom_paths: Paths to its strongest places, strongest first; None unless it was zoomed.
    """

    item: str
    part: str
    verdict: Decision
    score: float
    part_score: float
    threshold: float
    findings: tuple[Finding, ...]
    health: tuple[str, ...]
    certificate: str
    model: str
    sha256: str
    zoom_paths: tuple[ZoomPath, ...] | None = None

    @property
    def finding(self) -> bool:
        """True unless the part is accepted."""
        return self.verdict != "accept"

    def as_json(self) -> dict[str, Any]:
        """Return the plain dictionary of one JSON line."""
        plain = dataclasses.asdict(self)
        last = {"findings": list(plain.pop("findings"))}
        del plain["zoom_paths"]
        if self.zoom_paths is not None:
            last["zoom"] = [path.as_json() for path in self.zoom_paths]
        return {**plain, **last}

    def as_line(self) -> str:
        """Return the line of the table."""
        spots = f"{len(self.findings)} finding{'s' if len(self.findings) != 1 else ''}"
        note = f"  ({'; '.join(self.health)})" if self.health else ""
        return (
            f"{self.verdict:<7} {self.part_score:8.3f} {self.threshold:8.3f}  "
            f"{self.item}  part {self.part}, {spots}{note}"
        )


@dataclass(frozen=True, kw_only=True)
class ImagePrediction:
    """One image after one decoding and one inference pass; its part is decided later.

    Attributes:
        item: Path or id of the image.
        part: The part it is a view of.
        image: The decoded pixels; None unless something is drawn from them.
        prediction: Score and map of the detector.
        findings: Regions above the map threshold.
        health: What is unusual about the picture itself.
        sha256: Hash of the image file.
    """

    item: str
    part: str
    image: Image | None
    prediction: Prediction
    findings: tuple[Finding, ...]
    health: tuple[str, ...]
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PartsModel:
    """A detector ready for use.

    Attributes:
        method: Name of the method that made the detector.
        detector: Scores images.
        settings: How views combine, how parts are named, scale in mm.
        library: Known good and bad patches.
        health: Limits of picture quality, from good training images; None if they were too few.
        ignored: What no picture is judged by; None if everything counts.
        operating: Thresholds from calibration parts, or None before calibration.
        identity: Hash of spec and tensors.
    """

    method: str
    detector: Detector = field(
        metadata=codec.chosen_by(lambda own: METHODS[own.method].detector_class())
    )
    settings: Settings
    library: Library
    health: HealthReference | None
    ignored: IgnoredRegion | None = None
    operating: Operating | None = field(default=None, metadata=codec.TRANSIENT)
    identity: str = field(default="", metadata=codec.TRANSIENT)

    @property
    def threshold(self) -> float:
        """The part score from which on a part is not accepted."""
        return self._operating().point.threshold

    @property
    def suspended(self) -> str:
        """Why the certificate does not hold, or an empty string."""
        return self.operating.point.suspended if self.operating else "not calibrated"

    @property
    def certificate(self) -> str:
        """The guarantee behind the threshold in plain words, or why it is suspended."""
        if self.suspended:
            return f"suspended: {self.suspended}"
        return self._operating().point.message

    @property
    def scale(self) -> MapScale:
        """The scale of all anomaly maps."""
        return self.operating.scale if self.operating else MapScale()

    def predict_image(self, image: Image) -> Prediction:
        """Return score and map of one image, shape (height, width, 1 or 3), values 0..1."""
        return self._judge(self.visible(image))

    def visible(self, image: Image) -> Image:
        """Return an image without what the model ignores.

        Raises:
            UserError: if it has another shape than the ignored region.
        """
        return self.ignored.neutralise(image) if self.ignored else image

    def _judge(self, image: Image) -> Prediction:
        prediction = self.detector.predict(image)
        if self.ignored is None:
            return prediction
        quiet = self.ignored.suppress(prediction.map, (image.shape[0], image.shape[1]))
        return dataclasses.replace(prediction, map=quiet)

    def find_regions(self, image: Image, prediction: Prediction) -> list[Finding]:
        """Return the regions of an image above the map threshold, strongest first."""
        px_per_mm = self.settings.px_per_mm or None
        found = findings(prediction.map, image, self.scale.threshold, px_per_mm)
        if self.ignored is None:
            return found
        ignored = self.ignored.at((image.shape[0], image.shape[1]))
        return [f for f in found if not ignored[round(f.centroid[1]), round(f.centroid[0])]]

    def decide(self, scores: Sequence[float], *, usual: bool = True) -> tuple[float, Decision]:
        """Return part score and verdict for the scores of a part's views.

        Args:
            scores: One per view.
            usual: False if a picture is unlike those that the model was calibrated on (blurred,
                dark, out of place): such a part is not accepted unseen, a person looks.
        """
        joined = np.max if self.settings.view_rule == "any" else np.min
        score = float(joined(scores))  # NaN if one is: then a person looks
        verdict = self._operating().point.decide(score)
        return score, "review" if verdict == "accept" and not usual else verdict

    def predict(self, items: Sequence[Any]) -> list[PartResult | Refusal]:
        """Judge images; views of one part share its verdict.

        Args:
            items: Images as items, paths, arrays or Pillow pictures, in any mixture; see `frames`.

        Returns:
            One `PartResult` or `Refusal` per item, in order; a bad file never stops the rest.

        Raises:
            UserError: if the model was never calibrated.
        """
        images = (item_of(v, i, self.settings.part_pattern) for i, v in enumerate(items))
        return self.decide_parts([self.predict_view(item) for item in images])

    def predict_view(
        self, item: PartImage, *, keep_image: bool = False
    ) -> ImagePrediction | Refusal:
        """Decode and judge one image, without the other views of its part.

        Args:
            item: The image.
            keep_image: Keep the pixels for an overlay or a zoom.
        """
        try:
            image = self.visible(image_of(item))
            prediction = self._judge(image)
            return ImagePrediction(
                item=item.id,
                part=item.part,
                image=image if keep_image else None,
                prediction=prediction,
                findings=tuple(self.find_regions(image, prediction)),
                health=self.health.check(image) if self.health else (),
                sha256=digest_of(item),
            )
        except UserError as error:
            return Refusal(item=item.id, message=error.message, hint=error.hint)

    def decide_parts(
        self, images: Sequence[ImagePrediction | Refusal]
    ) -> list[PartResult | Refusal]:
        """Return a result per image, in order; views of one part share its verdict."""
        parts: dict[str, list[ImagePrediction]] = {}
        for image in images:
            if isinstance(image, ImagePrediction):
                parts.setdefault(image.part, []).append(image)
        verdicts = {
            part: self.decide(
                [view.prediction.score for view in views],
                usual=not any(view.health for view in views),
            )
            for part, views in parts.items()
        }
        return [
            self._result(image, *verdicts[image.part])
            if isinstance(image, ImagePrediction)
            else image
            for image in images
        ]

    def explain(self, item: Any) -> Explanation:
        """Say in a sentence and pictures what the model saw in one image.

        Args:
            item: An item, a path, an array or a Pillow picture.

        Raises:
            UserError: if it cannot be read.
        """
        from lineside.parts.explain.explanation import explain

        return explain(self, item_of(item, 0, self.settings.part_pattern))

    def spec(self) -> dict[str, Any]:
        """Return everything but tensors and the operating point, as plain JSON values."""
        spec = codec.encode(self)[0]
        if self.ignored is None:  # ids of models without a region are what they were
            del spec["ignored"]
        return spec

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays of detector, library and image-quality reference."""
        return codec.encode(self)[1]

    def calibration_block(self) -> dict[str, Any]:
        """Return the operating point as plain JSON values; empty before calibration."""
        return codec.encode(self.operating)[0] if self.operating else {}

    def with_calibration(self, block: Mapping[str, Any], identity: str = "") -> PartsModel:
        """Return this model with a stored operating point."""
        operating = codec.decode(Operating, block, {}) if block else None
        return dataclasses.replace(self, operating=operating, identity=identity or self.identity)

    def config_for(self, config: Config) -> Config:
        """Return a config with the model's own view rule and, where none is given, pattern.

        Raises:
            UserError: if the config ignores another region than the model.
        """
        if config.ignore:
            given, own = ignored_by(config), self.ignored
            if own is None or given is None or given.digest != own.digest:
                raise UserError(
                    f"{config.ignore} is not what this model ignores", "leave --ignore out"
                )
        pattern = config.part_pattern or self.settings.part_pattern
        rule: Any = self.settings.view_rule
        return dataclasses.replace(config, part_pattern=pattern, view_rule=rule, ignore="")

    def with_pattern(self, pattern: str) -> PartsModel:
        """Return this model with another way to find the part in a file name; "" keeps its own.

        Raises:
            UserError: if the pattern is no regular expression, or has no group.
        """
        if not pattern:
            return self
        check_pattern(pattern)
        settings = dataclasses.replace(self.settings, part_pattern=pattern)
        return dataclasses.replace(self, settings=settings)

    def suspend(self, reason: str) -> PartsModel:
        """Return this model with its certificate suspended."""
        operating = self._operating()
        operating = dataclasses.replace(operating, point=operating.point.suspend(reason))
        return dataclasses.replace(self, operating=operating)

    def _operating(self) -> Operating:
        if self.operating is None:
            raise UserError("this model has no operating point", "calibrate it first")
        return self.operating

    def _result(self, view: ImagePrediction, part_score: float, verdict: Decision) -> PartResult:
        return PartResult(
            item=view.item,
            part=view.part,
            verdict=verdict,
            score=view.prediction.score,
            part_score=part_score,
            threshold=self.threshold,
            findings=view.findings,
            health=view.health,
            certificate=self.certificate,
            model=self.identity,
            sha256=view.sha256,
        )


def make_model(
    method: str,
    detector: Detector,
    settings: Settings,
    references: References,
    ignored: IgnoredRegion | None = None,
) -> PartsModel:
    """Put a fitted detector together with the references of its run."""
    model = PartsModel(
        method=method,
        detector=as_stored(detector),
        settings=settings,
        library=references.library,
        health=references.health,
        ignored=ignored,
    )
    return dataclasses.replace(model, identity=identity_of("parts", model))


def as_stored(detector: Detector) -> Detector:
    """Return a detector as it is after storing, so that a loaded model gives the same scores.

    A file keeps arrays row by row; the order in memory changes the last digit of a matrix product.
    """
    spec, tensors = codec.encode(detector)
    return codec.decode(type(detector), spec, {k: v.clone() for k, v in tensors.items()})


def load(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> PartsModel:
    """Rebuild a model from its spec and tensors; see `lineside.core.run.model_store`."""
    return codec.decode(PartsModel, spec, tensors)


def probe(model: PartsModel) -> None:
    """Judge noise, as a picture is judged: it raises where the parts of a model do not fit."""
    height, width = model.ignored.mask.shape if model.ignored else (64, 48)
    scale = min(1.0, PROBE_PX / max(height, width, 1))  # an ignored region keeps its shape
    shape = (round(height * scale), round(width * scale), 1)
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    prediction = model.predict_image(image)
    model.find_regions(image, prediction)
    if model.health:
        model.health.check(image)
    if model.operating:
        model.decide([prediction.score])


def notes(model: PartsModel, results: Sequence[Any]) -> list[str]:
    """Return what a user must know beside the verdicts: a suspended or inapplicable guarantee."""
    found = []
    if model.suspended:
        found.append(f"the certificate is suspended: {model.suspended}")
    parts = [result.part for result in results if not isinstance(result, Refusal)]
    guaranteed_views = model.operating.views_per_part if model.operating else 1.0
    if parts and guaranteed_views > 1.5 and len(set(parts)) == len(parts):
        found.append(
            f"every picture counts as a part of its own, but the guarantee is for parts of "
            f"{guaranteed_views:.1f} views; give --part-pattern or a CSV with the column part"
        )
    return found
