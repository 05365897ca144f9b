"""The default method: a normal model and a head that learns from whatever defects are labelled.

One model for zero, few or many labelled defects, with masks, boxes or image labels only. The frozen
backbone processes every image once; the normal model (`normal_model`) scores its deviation from
good images, the head (`head`) scores every 8-px grid cell for the labelled kinds of defect, and
`fusion` adds them so that the head can raise a score but never lower it:

    score = z(normal model) + slope * max(0, (pooled head logit - hinge) / spread)

Constants that compare images come from inner folds by part: each member of the head, and one
normal model per fold, score parts that they were not fitted on. So does the slope: faulty parts
that both have not seen say how much the head helps (`fusion.learn_slope`).
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.core.parallel import Executor, map_items
from lineside.parts.data.items import GOOD
from lineside.parts.models.backbone import by_channel, check_weights, grid_of, weight_digest
from lineside.parts.models.detector import (
    KNOWN_TERM,
    NORMAL_TERM,
    Image,
    Log,
    Prediction,
    TrainingImage,
)
from lineside.parts.models.feature_head.cell_features import (
    cell_features,
    resample_map,
)
from lineside.parts.models.feature_head.cell_sampling import (
    FeatureSpool,
    ImageCells,
    PreparedImage,
    StoredFeatures,
    hard_cells,
    inner_folds,
    pass_backbone,
    prepare_image,
    sample_cells,
)
from lineside.parts.models.feature_head.fusion import (
    MEASURED_PARTS,
    Fusion,
    HeldOut,
    Values,
    fit_fusion,
    learn_slope,
)
from lineside.parts.models.feature_head.head import (
    FOLDS,
    WHOLE,
    CellNetwork,
    Head,
    TrainingCells,
    fit_head,
    pool_logits,
)
from lineside.parts.models.feature_head.image_features import image_features
from lineside.parts.models.feature_head.incremental import (
    ReplayBuffer,
    build_replay_buffer,
    update_detector,
)
from lineside.parts.models.feature_head.normal_model import (
    NormalModel,
    cross_fit_normal_model,
)

REFERENCE_IMAGES = 400
"""Maximum of good images that set the constants of the fusion."""
HARD_IMAGES = 150
"""Good images whose hardest cells are stored, so that an update can set the constants again."""


class FitWatch:
    """Looks at a fit for the report; it changes nothing and draws no random number."""

    def normal_model(self, scores: Tensor, maps: Tensor) -> None:
        """Look at held-out good images, in the order of the examples: (image,), (image, 32, 32)."""

    def head(self, done: int, planned: int, network: CellNetwork, cells: TrainingCells) -> None:
        """Look at the training of the head, see `head.Watch`."""

    def hard_cells(self, numbers: Sequence[int], cells: Sequence[ImageCells]) -> None:
        """Look at the cells of good images, by their number, that most look like a defect."""


@dataclass(frozen=True, kw_only=True)
class FeatureHead:
    """The fitted detector; immutable.

    Attributes:
        normal: Model of good images.
        head: Model of labelled defects, or None if none were labelled.
        fusion: How their outputs become one score.
        replay: Cells of training images, to learn from feedback without them.
        kinds: Number of training parts of each kind of defect.
        backbone: SHA-256 of the backbone's weights that it was fitted with.

    Raises:
        UserError: If the installed backbone weights are others.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> images = [TrainingImage.from_array(rng.random((64, 48, 1), np.float32)) for _ in "1234"]
        >>> spot = TrainingImage.from_array(np.zeros((64, 48, 1), np.float32), "spot")
        >>> detector = fit_detector([*images, spot], [], rng=rng, most_steps=20, least_steps=20)
        >>> detector.kinds, list(detector.predict(spot.image()).contributions)
        ({'spot': 1}, ['normal model', 'known defects'])
    """

    normal: NormalModel
    head: Head | None
    fusion: Fusion
    replay: ReplayBuffer
    kinds: Mapping[str, int]
    backbone: str

    def __post_init__(self) -> None:
        check_weights(self.backbone)

    def predict(self, image: Image) -> Prediction:
        """Score one image of any size.

        Returns:
            The score (standard deviations above good images), a map in about the same unit on
            8-px cells, and the terms ``normal model`` and ``known defects`` of the score.
        """
        image = by_channel(image)
        normal = self.normal.predict(image_features(image))
        terms = {NORMAL_TERM: normal.score}
        heat = resample_map(normal.map, *grid_of(image)).astype(np.float64)
        if self.head is not None:  # only the head needs cells
            logits = self.head.cell_logits(cell_features(image)).mean(1)
            terms[KNOWN_TERM] = float(self.fusion.score_term(np.array(pool_logits(logits))))
            heat += self.fusion.map_term(logits.double().numpy().reshape(heat.shape))
        score = sum(terms.values())
        return Prediction(score=score, map=heat.astype(np.float32), contributions=terms)

    def update(self, examples: Sequence[TrainingImage], *, rng: np.random.Generator) -> FeatureHead:
        """Return a derived detector that has learned from wrongly judged images; `incremental`."""
        return update_detector(self, examples, rng)


def fit_detector(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    *,
    rng: np.random.Generator,
    log: Log = lambda row: None,
    executor: Executor | None = None,
    watch: FitWatch = FitWatch(),  # noqa: B008 - it has no state
    **settings: Any,
) -> FeatureHead:
    """Fit on good images and on whatever defects are labelled.

    Validation images are trained on like the training ones: constants come from inner folds, so
    nothing has to be held back, and defects are scarce.

    Args:
        train, validation: Labelled images; at least two good ones.
        rng: All randomness.
        log: Receives one record per stage.
        executor: Where images pass through the backbone; in this process by default.
        watch: Looks at the fit.
        settings: Keywords of `head.train_network`.

    Raises:
        UserError: with fewer than two good images.
    """
    examples = [*train, *validation]
    goods = _two_or_more_good(examples)
    faulty = [i for i, example in enumerate(examples) if example.faulty]
    faulty_parts = {examples[i].part for i in faulty}
    measured = len(faulty_parts) >= MEASURED_PARTS
    judged_faulty = _spread(faulty, REFERENCE_IMAGES) if measured else ()
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    folds = inner_folds(examples, FOLDS, rng)
    reference = sorted(rng.permutation(goods)[:REFERENCE_IMAGES].tolist())
    with tempfile.TemporaryFile() as file:
        spool = FeatureSpool(file)
        images = _prepare(examples, folds, set(reference), spool, rng, log, executor)
        normal, normal_scores = _fit_normal_model(images, examples, goods, judged_faulty, watch)
        log({"stage": "good-only model", "images": len(goods)})
        cells = sample_cells(images, normal, spool, rng)
        head, cross_fitted = None, None
        if faulty:
            head, cross_fitted = fit_head(
                cells, whole=WHOLE, folds=FOLDS, generator=generator, hide_faulty=measured,
                watch=watch.head, log=lambda row: log({"phase": "head", **row}), **settings,
            )  # fmt: skip
            log({"stage": "head", "defective_images": len(faulty)})
        judged = [*reference, *judged_faulty]
        logits, hard = _score_reference([images[i] for i in judged], cross_fitted, normal, spool)
        watch.hard_cells(reference[: len(hard)], hard)
    fusion = Fusion()
    if head is not None:
        seen = [examples[i] for i in judged]
        fusion = _fit_fusion(seen, normal_scores[judged], logits, len(faulty_parts))
        log({"stage": "weight of the head", "slope": fusion.slope})
    return FeatureHead(
        normal=normal, head=head, fusion=fusion, kinds=parts_by_kind(examples),
        replay=build_replay_buffer(cells, hard, head, rng), backbone=weight_digest(),
    )  # fmt: skip


def _spread(numbers: Sequence[int], most: int) -> Sequence[int]:
    """Return at most so many of the numbers, evenly spread."""
    return numbers[:: max(1, -(-len(numbers) // most))]


def _two_or_more_good(examples: Sequence[TrainingImage]) -> list[int]:
    """Return the indices of the good images, at least two."""
    goods = [i for i, example in enumerate(examples) if not example.faulty]
    if len(goods) < 2:
        raise UserError(
            f"only {len(goods)} good image(s) to learn from", "give two or more good images"
        )
    return goods


def _prepare(
    examples: Sequence[TrainingImage],
    folds: Sequence[int],
    reference: set[int],
    spool: FeatureSpool,
    rng: np.random.Generator,
    log: Log,
    executor: Executor | None,
) -> list[PreparedImage]:
    """Pass all images through the backbone; keep all cells of defective and reference images.

    The backbone needs no random numbers, so workers may pass images in any order; cells are
    sampled here, image by image.
    """
    images = []
    all_passed = map_items(pass_backbone, examples, executor, name_of=attrgetter("id"))
    for number, (example, passed) in enumerate(zip(examples, all_passed, strict=True)):
        if isinstance(passed, Refusal):
            raise UserError(passed.message, passed.hint)
        keep = example.faulty or number in reference
        images.append(prepare_image(example, passed, folds[number], spool, keep, rng))
        if number % 25 == 24 or number + 1 == len(examples):
            log({"stage": "features", "done": number + 1, "of": len(examples)})
    return images


def _fit_normal_model(
    images: Sequence[PreparedImage],
    examples: Sequence[TrainingImage],
    goods: Sequence[int],
    faulty: Sequence[int],
    watch: FitWatch,
) -> tuple[NormalModel, Values]:
    """Return the model of the good images, and every image's score by models without its part."""
    good, bad = (
        (StoredFeatures([images[i] for i in chosen]), [examples[i].part for i in chosen])
        for chosen in (goods, faulty)
    )
    model, found = cross_fit_normal_model(*good, *bad, watch=watch.normal_model)
    scores = np.zeros(len(examples))
    scores[[*goods, *faulty]] = found.numpy()
    return model, scores


def _score_reference(
    images: Sequence[PreparedImage],
    cross_fitted: Head | None,
    normal: NormalModel,
    spool: FeatureSpool,
) -> tuple[Values, list[ImageCells]]:
    """Return pooled logits by the member that did not see an image, and hard cells of good ones."""
    pooled: list[float] = []
    hard: list[ImageCells] = []
    members = cross_fitted.alone() if cross_fitted is not None else []
    for image in images if cross_fitted is not None else images[:HARD_IMAGES]:
        assert image.offset is not None, "reference images are kept"
        features = spool.read(image.offset)
        if cross_fitted is None:
            scores = resample_map(normal.predict(image.features).map, *image.grid).ravel()
        else:
            logits = members[image.fold].cell_logits(features)[:, 0]
            pooled.append(pool_logits(logits))
            scores = logits.numpy()
        if image.label == GOOD and len(hard) < HARD_IMAGES:
            hard.append(hard_cells(image, scores, features))
    return np.array(pooled), hard


def _fit_fusion(
    judged: Sequence[TrainingImage], normal: Values, logits: Values, defective_parts: int
) -> Fusion:
    """Return the fusion from what models that did not see their parts say of training images.

    Args:
        judged: Good images and, with enough defective parts, faulty ones.
        normal: Their scores by the normal model, shape (image,).
        logits: Their pooled logits, shape (image,).
        defective_parts: That the head was trained on.
    """
    faulty = np.array([example.faulty for example in judged])
    held_out = HeldOut(
        normal=normal,
        logits=logits,
        parts=[example.part for example in judged],
        labels=[example.label for example in judged],
        faulty=faulty,
    )
    return learn_slope(fit_fusion(logits[~faulty], defective_parts), held_out)


def parts_by_kind(examples: Sequence[TrainingImage]) -> dict[str, int]:
    """Return the number of parts of each kind of defect."""
    pairs = {(e.label, e.part) for e in examples if e.faulty}
    return dict(sorted(Counter(label for label, _ in pairs).items()))
