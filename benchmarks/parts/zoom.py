"""Does the zoom find the defects, and which map points at them? Magnetic tiles with masks.

Per fold: a patch CNN and the default detector, both fitted on the same parts (at most
`GOOD_PICTURES` good pictures), judge the faulty pictures of other parts. The background is the
95 % quantile of the patch CNN's scores, or of the detector's map peaks, of good held-out pictures;
none of those is counted.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.checkpoints import checkpoint_folder
from benchmarks.parts import tiles as tile
from benchmarks.results import Say, plain
from lineside.core.contract import Estimate, Metric, Outcome
from lineside.core.run.files import write_json
from lineside.core.run.folder import rng_of
from lineside.core.statistics.estimates import estimate
from lineside.parts.explain.zoom import (
    BEAM,
    Evidence,
    Window,
    ZoomPath,
    centre_on_response,
    evidence_of_map,
    evidence_of_tiles,
    window_response,
    zoom,
)
from lineside.parts.methods import METHODS
from lineside.parts.metrics import to_pixels
from lineside.parts.models.crops import Corner, convert_channels, pad, tile_batches, tile_corners
from lineside.parts.models.detector import Detector, Image, Mask, TrainingImage
from lineside.parts.models.patch_cnn.patch_cnn import PatchCNN, fit_patch_cnn

STORE = checkpoint_folder("core/zoom", __file__)
FOLDS, STEPS, GOOD_PICTURES = 2, 300, 250
CROP_PX = 64
TOLERANCE_PX = 2
"""Masks are grown by it: what lies nearer than twice this is one defect, and pointing is to it."""
MEDIAN_PX, SMOOTH_PX = 15, 2.0
"""Of the classical map: local median's window, spread of the Gaussian after it."""
QUARTER = 0.25
Row = dict[str, Any]


def zoom_results(say: Say, *, folds: int = FOLDS, steps: int = STEPS) -> None:
    """Recall of the final windows against the tiling, evaluations saved, pointing by kind."""
    rows = [row for fold in range(folds) for row in _rows(fold, steps)]
    parts = len({row["part"] for row in rows})
    for name in rows[0]["windows"]:
        say(f"{name}_recall", _rate(rows, name, "defects"))
        windows = float(np.mean([row["windows"][name] for row in rows]))
        say(f"{name}_windows", plain(windows, "windows per picture", parts, "lower"))
    reason = "every tile is scored once, then pooled: nothing is saved by construction"
    say("zoom_evaluations_saved", plain(0.0, "fraction", len(rows), reason=reason))
    say("zoom_lazy_evaluations_saved", _rate(rows, "saved", "tiles"))
    for method in rows[0]["pointing"]:
        say(f"pointing_{method}", _rate(rows, method))
        for kind in tile.KINDS:
            chosen = [row for row in rows if row["kind"] == kind]
            if chosen:
                say(f"pointing_{method}_{kind}", _rate(chosen, method))


def zoom_quick(say: Say) -> None:
    """A rehearsal: one fold, few steps."""
    zoom_results(say, folds=1, steps=30)


def _rate(rows: Sequence[Row], name: str, per: str = "") -> Estimate:
    """Share over all pictures, or over all that is counted in them; resampled by part."""

    def share(outcomes: Sequence[Outcome]) -> float:
        return sum(o.value["hits"] for o in outcomes) / max(sum(o.value["of"] for o in outcomes), 1)

    outcomes = [
        Outcome(
            item=row["id"], groups=(row["part"],), unit=row["part"],
            value={
                "hits": float(row[per][name] if per else row["pointing"][name]),
                "of": float(row[per]["all"] if per else 1),
            },
        )
        for row in rows
    ]  # fmt: skip
    metric = Metric(name=name, unit="fraction", better="higher", of=share)
    return estimate(outcomes, metric, np.random.default_rng(0))


def _rows(fold: int, steps: int) -> list[Row]:
    """The rows of a fold's faulty pictures with a mask, of both models."""
    pieces = [_piece(name, fold, steps) for name in ("cnn", "detector")]
    return [_joined(own, other) for own, other in zip(*pieces, strict=True)]


def _joined(own: Row, other: Row) -> Row:
    """One row: named numbers of both."""
    return {
        key: {**value, **other.get(key, {})} if isinstance(value, dict) else value
        for key, value in own.items()
    }


def _piece(name: str, fold: int, steps: int) -> list[Row]:
    """What one model gives on a fold, computed or as stored."""
    path = STORE / f"{name}-{fold}-{steps}.json"
    if path.exists():
        stored: list[Row] = json.loads(path.read_text(encoding="utf-8"))
        return stored
    train_index, test_index = tile.folds(0)[fold]
    train = _fewer_good([tile.examples()[i] for i in train_index], fold)
    test = [tile.examples()[i] for i in test_index]
    if steps < STEPS:
        train, test = train[::4], test[::4]
    good = [example.image() for example in test if not example.faulty]
    faulty = [e for e in test if e.faulty and e.mask() is not None]
    rows = _cnn_rows if name == "cnn" else _detector_rows
    found = rows(train, good, faulty, fold, steps)
    write_json(path, found)
    print(f"  zoom fold {fold}: {name} done", file=sys.stderr, flush=True)
    return found


def _cnn_rows(
    train: Sequence[TrainingImage],
    good: Sequence[Image],
    faulty: Sequence[TrainingImage],
    fold: int,
    steps: int,
) -> list[Row]:
    cnn = fit_patch_cnn(
        train, [], rng=rng_of(0, f"zoom {fold}"), crop_px=CROP_PX, steps=steps,
        checkpoint=STORE / f"checkpoint-{fold}-{steps}",
    )  # fmt: skip
    background = float(np.quantile([cnn.predict(image).score for image in good], 0.95))
    return [_cnn_row(example, cnn, background) for example in faulty]


def _detector_rows(
    train: Sequence[TrainingImage],
    good: Sequence[Image],
    faulty: Sequence[TrainingImage],
    fold: int,
    steps: int,
) -> list[Row]:
    detector = METHODS["detector"].fit(
        train, [], rng=rng_of(0, f"zoom detector {fold}"), log=lambda row: None
    )
    background = float(np.quantile([detector.predict(image).map.max() for image in good], 0.95))
    return [_detector_row(example, detector, background) for example in faulty]


def _fewer_good(train: Sequence[TrainingImage], fold: int) -> list[TrainingImage]:
    good = [place for place, example in enumerate(train) if not example.faulty]
    chosen = rng_of(0, f"zoom good {fold}").permutation(good)[:GOOD_PICTURES]
    kept = set(chosen.tolist()) | {p for p, example in enumerate(train) if example.faulty}
    return [train[place] for place in sorted(kept)]


def _cnn_row(example: TrainingImage, cnn: PatchCNN, background: float) -> Row:
    image, mask = example.image(), example.mask()
    assert mask is not None
    on_grid = _ways(evidence_of_tiles(cnn, image, cnn.predict(image)), background)
    ways = [centre_on_response(cnn, image, way) for way in on_grid]
    tiles = _Tiles(cnn, image)
    found = {
        "zoom": [way.final for way in ways],
        "zoom_on_grid": [way.final for way in on_grid],
        "zoom_lazy": tiles.lazily(len(ways)),
        "zoom_tiling": tiles.strongest(tiles.all, len(ways)),
        "zoom_tiling_apart": tiles.strongest(tiles.all, len(ways), apart=True),
    }
    maps = {
        "tile_map": to_pixels(cnn.predict(image).map, mask.shape),
        **_responses(cnn, image, ways[0]),
        **_classical(image, ways[0].final),
    }
    saved = {"saved": len(tiles.all) - len(tiles.seen), "all": len(tiles.all)}
    return {**_measured(example, mask, found, maps), "tiles": saved}


def _detector_row(example: TrainingImage, detector: Detector, background: float) -> Row:
    image, mask = example.image(), example.mask()
    assert mask is not None
    cells = detector.predict(image).map
    ways = _ways(evidence_of_map(cells, image), background)
    maps = {
        "anomaly_map": to_pixels(cells, mask.shape),
        "detector_read_again": _read_again(detector, image, ways[0].final),
    }
    return _measured(example, mask, {"zoom_detector": [way.final for way in ways]}, maps)


def _measured(
    example: TrainingImage, mask: Mask, found: dict[str, list[Window]], maps: dict[str, Any]
) -> Row:
    """Defects that windows hit, and whether maps point at one."""
    grown = ndimage.maximum_filter(mask, size=2 * TOLERANCE_PX + 1)
    named, count = ndimage.label(grown, structure=np.ones((3, 3)))
    defects = [(named == number) & mask for number in range(1, count + 1)]
    hits = {name: sum(_hit(windows, d) for d in defects) for name, windows in found.items()}
    pointing = {name: pointing_hit(m, grown) for name, m in maps.items()}
    return {
        "id": example.id, "part": example.part, "kind": example.label,
        "defects": {**hits, "all": count},
        "windows": {name: len(windows) for name, windows in found.items()},
        "pointing": {**pointing, "chance": float(grown.mean())},
    }  # fmt: skip


def pointing_hit(strength: Any, mask: Mask) -> bool:
    """Return whether the map's maximum lies in the mask (grown by a tolerance).

    The pointing game: Zhang et al. 2018 (excitation backprop), section 5.1.
    """
    return bool(mask[np.unravel_index(int(np.argmax(strength)), mask.shape)])


def _ways(seen: Evidence, background: float) -> list[ZoomPath]:
    """The zoom, with the strongest place alone where none reaches the background."""
    found = zoom(seen, least_px=CROP_PX, background=background)
    return found or zoom(seen, least_px=CROP_PX, background=float(seen.values.max()), beam=1)


def _hit(windows: Sequence[Window], defect: Mask) -> bool:
    """A window holds a quarter of the defect, or is filled by it to a quarter."""
    area = int(defect.sum())
    inside = [(int(w.of(defect).sum()), math.prod(w.size)) for w in windows]
    return any(own >= QUARTER * min(area, size) for own, size in inside)


class _Tiles:
    """The native tiles of a picture at half a crop's stride, scored when they are asked for."""

    def __init__(self, cnn: PatchCNN, image: Image) -> None:
        self.cnn = cnn
        self.whole, self.shift = pad(convert_channels(image, cnn.channels), CROP_PX)
        self.all = tile_corners(self.whole.shape, CROP_PX)
        self.seen: dict[Corner, float] = {}

    def score(self, corners: Sequence[Corner]) -> None:
        """Run the network on tiles that it has not seen yet."""
        new = [corner for corner in corners if corner not in self.seen]
        for first in range(0, len(new), 32):
            chosen = new[first : first + 32]
            (pixels,) = tile_batches(self.whole, chosen, CROP_PX, 32)
            self.seen.update(zip(chosen, self.cnn.logits(pixels).tolist(), strict=True))

    def strongest(
        self, among: Sequence[Corner], count: int, *, apart: bool = False
    ) -> list[Window]:
        """The strongest tiles; `apart`: none that overlaps a stronger one by half a side."""
        known = dict(self.seen)
        self.score(among)
        chosen: list[Corner] = []
        for corner in sorted(among, key=lambda c: -self.seen[c]):
            far = all(max(abs(corner[0] - c[0]), abs(corner[1] - c[1])) >= CROP_PX for c in chosen)
            if len(chosen) < count and (far or not apart):
                chosen.append(corner)
        windows = [self._window(corner) for corner in chosen]
        self.seen = known or self.seen
        return windows

    def lazily(self, count: int) -> list[Window]:
        """Every second tile first, then the neighbours of the `BEAM` strongest of them."""
        tops, lefts = (sorted({corner[axis] for corner in self.all}) for axis in (0, 1))
        coarse = [(t, c) for t in _every_second(tops) for c in _every_second(lefts)]
        self.score(coarse)
        best = sorted(coarse, key=lambda c: -self.seen[c])[:BEAM]
        near = {
            (t, c) for top, left in best for t in _around(tops, top) for c in _around(lefts, left)
        }
        self.score(sorted(near))
        return self.strongest(sorted(self.seen), count, apart=True)

    def _window(self, corner: Corner) -> Window:
        top, left = corner[0] - self.shift[0], corner[1] - self.shift[1]
        return Window(
            left=max(left, 0), top=max(top, 0), right=left + CROP_PX, bottom=top + CROP_PX,
            score=self.seen[corner],
        )  # fmt: skip


def _every_second(values: Sequence[int]) -> list[int]:
    """Values at even places, and the last one: they still cover the picture."""
    return sorted({*values[::2], values[-1]})


def _around(values: Sequence[int], value: int) -> Sequence[int]:
    place = values.index(value)
    return values[max(place - 1, 0) : place + 2]


def _responses(cnn: PatchCNN, image: Image, way: ZoomPath) -> dict[str, NDArray[np.float64]]:
    """Of the final crop, and of the whole picture for comparison."""
    found = {}
    for window, suffix in ((way.final, ""), (way.windows[0], "_whole")):
        response = window_response(cnn, image, window)
        found[f"gradcam{suffix}"] = _placed(response.cam, image, window)
        found[f"guided_backprop{suffix}"] = _placed(np.abs(response.guided), image, window)
    return found


def _classical(image: Image, window: Window) -> dict[str, NDArray[np.float64]]:
    grey = image.mean(axis=2)
    strength = np.abs(grey - ndimage.median_filter(grey, MEDIAN_PX))
    smooth = ndimage.gaussian_filter(strength, SMOOTH_PX).astype(np.float64)
    return {
        "classical": smooth,
        "classical_in_crop": _placed(window.of(smooth), image, window),
    }


def _read_again(detector: Detector, image: Image, window: Window) -> NDArray[np.float64]:
    again = detector.predict(window.of(image)).map
    return _placed(to_pixels(again, window.size), image, window)


def _placed(values: NDArray[Any], image: Image, window: Window) -> NDArray[np.float64]:
    """A map of a window as a map of the picture: nothing is pointed at outside."""
    whole = np.full(image.shape[:2], -np.inf)
    whole[window.top : window.bottom, window.left : window.right] = values
    return whole
