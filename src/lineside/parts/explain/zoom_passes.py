"""Looking again at the windows of a zoom: by the patch network, or by the detector itself."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from lineside.core import explain
from lineside.parts.explain.zoom import Evidence, Trail, Window, box_of, centred, evidence_of_map
from lineside.parts.models.crops import padded, with_channels
from lineside.parts.models.detector import Detector, Image, Prediction
from lineside.parts.models.patch_cnn.patch_cnn import PatchCNN, last_maps
from lineside.parts.models.tiles import tile_corners

LARGEST_PX = 1_000_000
"""A patch network is not run on windows of more pixels."""
SMOOTHING = 16
"""The strongest response is sought after smoothing by a crop's side over this."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a patch network says about one window at native size.

    Attributes:
        probability: Sigmoid of the logit. The network averages over a window, so that a small
            defect counts little in a large one.
        guided: Guided backpropagation, shape (height, width), signed, summed over channels.
        cam: Grad-CAM brought to the window's size, shape (height, width), not negative. Both are
            multiplied by the window's area over the trained crop's, so that they compare.
    """

    probability: float
    guided: NDArray[np.float32]
    cam: NDArray[np.float32]


def evidence_of_tiles(cnn: PatchCNN, image: Image, prediction: Prediction) -> Evidence:
    """Return the logits of a patch network's tiles, with its correction for the picture's size.

    The strongest two of the whole picture have the mean that is the score.

    Args:
        cnn: The network.
        image: The whole picture.
        prediction: Score and tile logits of the network.
    """
    assert prediction.tile_logits is not None
    logits = prediction.tile_logits.astype(np.float64)
    whole, (above, before) = padded(with_channels(image, cnn.channels), cnn.crop_px)
    corners = tile_corners(whole.shape, cnn.crop_px)
    tops, lefts = (sorted({corner[axis] for corner in corners}) for axis in (0, 1))
    size = cnn.tile_slope * math.log(len(corners))
    return Evidence(
        values=logits.reshape(len(tops), len(lefts)) - size,
        y=np.array(tops) + cnn.crop_px / 2 - above,
        x=np.array(lefts) + cnn.crop_px / 2 - before,
        shape=(image.shape[0], image.shape[1]),
    )


def centred_on_response(cnn: PatchCNN, image: Image, trail: Trail) -> Trail:
    """Return a trail whose final crop lies round the network's strongest response in it.

    The response is smoothed guided backprop; its maximum becomes the peak. The crop stays where
    it is if the network's output would be lower after the move, and keeps its tiles' score.
    """
    look = look_at(cnn, image, trail.final)
    if look is None:
        return trail
    peak = _strongest(look, trail.final, cnn.crop_px)
    shape = (image.shape[0], image.shape[1])
    left, top, right, bottom = centred(box_of(trail.final), peak, shape)
    moved = dataclasses.replace(trail.final, left=left, top=top, right=right, bottom=bottom)
    again = look_at(cnn, image, moved)
    if again is None or again.probability < look.probability:
        return dataclasses.replace(trail, peak=peak)
    peak = _strongest(again, moved, cnn.crop_px)
    return Trail(windows=(*trail.windows[:-1], moved), peak=peak)


def agreement_with_random(cnn: PatchCNN, image: Image, window: Window) -> tuple[float, float]:
    """Return rank correlations of guided backprop and Grad-CAM with those of random weights.

    Near 1: the map would look the same without any training (Adebayo et al. 2018, section 3).

    Args:
        cnn: The network.
        image: The whole picture.
        window: A final window, at most `LARGEST_PX` large.
    """
    twin = dataclasses.replace(cnn, network=explain.randomise_weights(cnn.network))
    own, other = (look_at(network, image, window) for network in (cnn, twin))
    assert own is not None and other is not None
    guided, cam = (
        explain.rank_agreement(torch.from_numpy(np.abs(a))[None], torch.from_numpy(np.abs(b))[None])
        for a, b in ((own.guided, other.guided), (own.cam, other.cam))
    )
    return guided, cam


def _strongest(look: Look, window: Window, crop_px: int) -> tuple[float, float]:
    strength = ndimage.gaussian_filter(np.abs(look.guided), crop_px / SMOOTHING)
    row, column = np.unravel_index(int(strength.argmax()), strength.shape)
    return window.left + float(column) + 0.5, window.top + float(row) + 0.5


def read_again(detector: Detector, image: Image, trail: Trail) -> Trail:
    """Return a trail with the peak of a detector's map of the final crop alone.

    On crops the default detector points more exactly than on the whole picture. The window keeps
    its score: a crop's own is on no calibrated scale.
    """
    window = trail.final
    local = evidence_of_map(detector.predict(window.of(image)).map, window.of(image))
    row, column = np.unravel_index(int(local.values.argmax()), local.values.shape)
    peak = (window.left + float(local.x[column]), window.top + float(local.y[row]))
    return dataclasses.replace(trail, peak=peak)


def look_at(cnn: PatchCNN, image: Image, window: Window) -> Look | None:
    """Run a patch network on a window at native size, with guided backprop and Grad-CAM.

    Args:
        cnn: The network.
        image: The whole picture.
        window: Where to look; mirrored outwards if it is smaller than the trained crop.

    Returns:
        None if the window has more than `LARGEST_PX` pixels.
    """
    height, width = window.size
    if height * width > LARGEST_PX:
        return None
    crop, (above, before) = padded(with_channels(window.of(image), cnn.channels), cnn.crop_px)
    x = cnn.standardise(crop.transpose(2, 0, 1)[None])
    with torch.inference_mode():
        logit = float(cnn.network(x)[0])
    layer = cnn.network.get_submodule(last_maps(cnn.architecture))
    maps = explain.grad_cam(cnn.network, layer, x)
    share = crop.shape[0] * crop.shape[1] / cnn.crop_px**2
    inside = (slice(above, above + height), slice(before, before + width))
    return Look(
        probability=1.0 / (1.0 + math.exp(-logit)) if logit > -700 else 0.0,
        guided=share * explain.guided_backprop(cnn.network, x).sum(1)[0].numpy()[inside],
        cam=share * explain.upsample(maps, x.shape[2:])[0].numpy()[inside],
    )
