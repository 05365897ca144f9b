"""The patch CNN: VGG19 on fixed-size, unscaled crops, applied to the whole image in tiles.

Stadelmann et al. 2018 (Deep Learning in the Wild, section on industrial quality control): crops
around each defect at native resolution, many more good crops, a class-weighted binary cross-entropy
and a network from scratch of a fraction of VGG19's width. Tiles overlap by half a crop:

    score = mean of the 2 highest tile logits - slope * log(number of tiles)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lineside.core.explain.attribution import grad_cam, guided_backprop, upsample
from lineside.core.run.codec import built_by
from lineside.core.training.loop import Hooks, Progress
from lineside.parts.models.crops import (
    Corner,
    convert_channels,
    pad,
    tile_batches,
    tile_corners,
    tile_map,
)
from lineside.parts.models.detector import Image, Prediction, TrainingImage, good_of
from lineside.parts.models.patch_cnn import vgg as networks
from lineside.parts.models.patch_cnn.training import (
    CropData,
    CropTraining,
    crop_data,
    crop_logits,
    train_on_crops,
)

Width = Literal["full", "half", "quarter", "eighth"]

_TILES = 32
_SLOPE_IMAGES = 120
_SLOPE_TILES = 6_000


@dataclass(frozen=True, kw_only=True)
class PatchCNN:
    """A fitted patch network.

    Attributes:
        network: Gives defect logits (crop,) of standardised crops; in evaluation mode.
        architecture: Which network it is.
        crop_px: Side of the crops it was trained on.
        channels: 1 grey or 3 RGB.
        mean: Subtracted from the pixels (values 0..1).
        spread: The pixels are divided by it.
        top_tiles: The score is the mean logit of this many strongest tiles.
        tile_slope: Growth of the score of good images per e-fold of tiles, which is subtracted:
            larger images have larger maxima.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> images = [TrainingImage.from_array(rng.random((64, 48, 1), np.float32)) for _ in "1234"]
        >>> spot = TrainingImage.from_array(np.zeros((64, 48, 1), np.float32), "spot")
        >>> detector = fit_patch_cnn([*images, spot], [], rng=rng, crop_px=32, steps=2)
        >>> detector.predict(spot.image()).map.shape
        (8, 6)
    """

    architecture: str
    crop_px: int
    channels: int
    mean: float
    spread: float
    top_tiles: int = 2
    tile_slope: float = 0.0
    network: nn.Module = field(
        metadata=built_by(lambda cnn: build_network(cnn.architecture, cnn.channels))
    )

    def predict(self, image: Image) -> Prediction:
        """Score tiles at half a crop's stride, at native resolution.

        The map holds, per cell of a quarter crop, the mean logit of the tiles over it, with the
        same correction for the size of the image as the score.
        """
        _, corners, logits = self._tiles(image)
        strongest = np.sort(logits)[::-1][: self.top_tiles]
        size = self.tile_slope * math.log(len(corners))
        return Prediction(
            score=float(strongest.mean()) - size,
            map=tile_map(logits, corners, image.shape[:2], self.crop_px) - np.float32(size),
            contributions={"strongest tile": float(strongest[0]), "size": -size},
            tile_logits=logits,
        )

    def strongest_tile(self, image: Image) -> Corner:
        """Return top and left of the tile with the highest logit (negative: mirrored border)."""
        _, corners, logits = self._tiles(image)
        return corners[int(logits.argmax())]

    def standardise(self, pixels: NDArray[np.float32]) -> Tensor:
        """Return the network's input for crops (crop, channel, height, width), values 0..1."""
        x = torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32))
        x = (x - self.mean) / self.spread
        return x.contiguous(memory_format=torch.channels_last)

    def logits(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logit of each crop (crop, channel, height, width), values 0..1."""
        return crop_logits(self.network, pixels, self.standardise)

    def _tiles(self, image: Image) -> tuple[Image, list[Corner], NDArray[np.float32]]:
        """Return the padded image, the tiles' corners in pixels of the image, and their logits."""
        whole, (above, before) = pad(convert_channels(image, self.channels), self.crop_px)
        corners = tile_corners(whole.shape, self.crop_px)
        batches = tile_batches(whole, corners, self.crop_px, _TILES)
        logits = np.concatenate([self.logits(tiles) for tiles in batches])
        return whole, [(top - above, left - before) for top, left in corners], logits


def fit_patch_cnn(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    *,
    rng: np.random.Generator,
    log: Callable[[dict[str, Any]], None] = lambda row: None,
    width: Width = "eighth",
    crop_px: int = 64,
    steps: int = 600,
    size_corrected: bool = True,
    checkpoint: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Progress], None] = lambda progress: None,
    snapshots: Path | None = None,
    fitted: Callable[[PatchCNN, CropData], None] = lambda cnn, data: None,
    **options: Any,
) -> PatchCNN:
    """Train a VGG19 from scratch on defect-centred and good crops.

    Args:
        train: Good and defective images; masks are used where they exist.
        validation: Other parts, for the validation curve; may be empty.
        rng: Random stream.
        log: Receives the recorder's rows.
        width: Share of VGG19's width; an eighth suffices on few data.
        crop_px: Side of the unscaled crops, 32 or more.
        steps: Updates.
        size_corrected: Subtract the growth of scores with the size of the image.
        checkpoint: Folder for exact resuming, or None.
        stop: Ends the training resumably when it answers True.
        progress: Called after every update.
        snapshots: Folder for the weights at steps of the training, or None.
        fitted: Called with the fitted network and its crops, to draw what it learned.
        options: Further fields of `training.CropTraining`: ``good_per_defect`` ...

    Raises:
        UserError: no good or no defective training image.
        Stopped: `stop` answered True; the checkpoint has been written.
    """
    settings = CropTraining(steps=steps, **options)
    crops_rng, weights_rng, batches_rng = rng.spawn(3)
    data = crop_data(train, validation, crop_px=crop_px, settings=settings, rng=crops_rng)
    detector = PatchCNN(
        network=build_network(f"vgg19_{width}", data.channels),
        architecture=f"vgg19_{width}",
        crop_px=crop_px,
        channels=data.channels,
        mean=data.mean,
        spread=data.spread,
    )
    networks.initialise(detector.network, int(weights_rng.integers(2**31)))
    hooks = Hooks(log=log, progress=progress, stop=stop, checkpoint=checkpoint, snapshots=snapshots)
    train_on_crops(detector.network, data, detector.standardise, settings, batches_rng, hooks)
    fitted(detector, data)
    return with_tile_slope(detector, validation or train) if size_corrected else detector


def guided_map(network: nn.Module, x: Tensor) -> Tensor:
    """Return guided backpropagation of crops, summed over channels, (crop, height, width)."""
    return guided_backprop(network, x).sum(1)


def cam_map(network: nn.Module, x: Tensor) -> Tensor:
    """Return Grad-CAM of crops, brought to their size, (crop, height, width)."""
    maps = grad_cam(network, network.get_submodule(networks.LAST_MAPS), x)
    return upsample(maps, x.shape[2:])


def build_network(architecture: str, channels: int) -> nn.Module:
    """Return a network with arbitrary weights, in the memory layout that is fastest on a CPU."""
    with torch.random.fork_rng(devices=[]):
        return channels_last(networks.vgg19(architecture, channels))


def channels_last(network: nn.Module) -> nn.Module:
    """Return the network with its weights in channels-last layout: 1.3 to 1.8 times as fast."""
    moved: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def with_tile_slope(detector: PatchCNN, examples: Sequence[TrainingImage]) -> PatchCNN:
    """Return the detector with `tile_slope` set from good images.

    The slope of a least-squares line through log(number of tiles) and score, over at most 120 good
    images and 6,000 tiles; unchanged if all images are of about one size.
    """
    good = good_of(examples)
    good = good[:: max(1, len(good) // _SLOPE_IMAGES)][:_SLOPE_IMAGES]
    scores, counts = [], []
    for example in good:
        image = example.image()
        shape = [max(side, detector.crop_px) for side in image.shape[:2]]
        counts.append(len(tile_corners(tuple(shape), detector.crop_px)))
        if sum(counts) > _SLOPE_TILES:
            break
        scores.append(detector.predict(image).score)
    x = np.log(counts[: len(scores)])
    if len(scores) < 8 or x.std() < 0.05:
        return detector
    slope = float(np.cov(x, scores, bias=True)[0, 1] / x.var())
    return dataclasses.replace(detector, tile_slope=max(slope, 0.0))
