"""EfficientNet-Lite0 as a patch network, from ImageNet weights or from random ones.

It answers one question beside the VGG from scratch: does pretraining help on crops of parts, or
does it overfit? (Tan and Le 2019 for the network; Stadelmann et al. 2018 for the question.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from torch import Tensor, nn

from lineside.core.training.loop import Hooks, Progress
from lineside.parts.models.backbone import weight_file
from lineside.parts.models.detector import TrainingImage
from lineside.parts.models.patch_cnn.patch_cnn import channels_last
from lineside.parts.models.patch_cnn.training import (
    CropTraining,
    crop_data,
    crop_logits,
    train_on_crops,
)
from lineside.parts.models.patch_cnn.vgg import initialise

# The Lite family's input: (pixel - 127) / 128 for pixels of 0..255.
_MEAN, _STD = 127.0 / 255.0, 128.0 / 255.0


class LiteLogit(nn.Module):
    """EfficientNet-Lite0 with one logit; takes (batch, 3, height, width).

    Args:
        dropout: Rate before the last layer; stochastic depth is off.
    """

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.backbone = EfficientNet.from_name(
            "efficientnet-lite0", num_classes=1, dropout_rate=dropout, drop_connect_rate=0.0
        )
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                # The published 0.01 is for long runs: after a few hundred updates the running
                # statistics would be stale, and evaluation at chance level.
                module.momentum = 0.1

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (batch,)."""
        logits: Tensor = self.backbone(images)
        return logits.squeeze(1)


@dataclass(frozen=True, kw_only=True)
class LiteCrops:
    """A fitted network on crops of three channels."""

    network: nn.Module
    crop_px: int
    channels: int = 3

    def standardise(self, pixels: NDArray[np.float32]) -> Tensor:
        """Return the network's input for crops (crop, 3, height, width), values 0..1."""
        x = (torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32)) - _MEAN) / _STD
        return x.contiguous(memory_format=torch.channels_last)

    def logits(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logit of each crop (crop, 3, height, width), values 0..1."""
        return crop_logits(self.network, pixels, self.standardise)


def fit_lite_crops(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    *,
    pretrained: bool,
    rng: np.random.Generator,
    log: Callable[[dict[str, Any]], None] = lambda row: None,
    crop_px: int = 64,
    learning_rate: float = 1e-3,
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
    **options: Any,
) -> LiteCrops:
    """Train all of EfficientNet-Lite0 on crops.

    Args:
        train: Good and defective images.
        validation: Other parts, for the validation curve; may be empty.
        pretrained: Start from ImageNet weights (they are in a Python package), or from random.
        rng: Random stream.
        log: Receives the recorder's rows.
        crop_px: Side of the unscaled crops.
        learning_rate: Peak of the one-cycle schedule.
        checkpoint: Folder for exact resuming, or None.
        progress: Called after every update.
        options: Further fields of `CropTraining`.

    Raises:
        UserError: no good or no defective training image, or the weights are not installed.
    """
    settings = CropTraining(learning_rate=learning_rate, **options)
    crops_rng, weights_rng, batches_rng = rng.spawn(3)
    data = crop_data(
        train, validation, crop_px=crop_px, settings=settings, rng=crops_rng, channels=3
    )
    with torch.random.fork_rng(devices=[]):
        network = channels_last(LiteLogit())
    fitted = LiteCrops(network=network, crop_px=crop_px)
    initialise(network, int(weights_rng.integers(2**31)))
    if pretrained:
        _load_imagenet(network)
    hooks = Hooks(log=log, progress=progress, checkpoint=checkpoint)
    train_on_crops(network, data, fitted.standardise, settings, batches_rng, hooks)
    return fitted


def _load_imagenet(network: nn.Module) -> None:
    """Load the ImageNet weights but for the last layer, which has another number of classes."""
    state = torch.load(weight_file(), map_location="cpu", weights_only=True)
    weights = {f"backbone.{k}": v for k, v in state.items() if not k.startswith("_fc.")}
    network.load_state_dict({**network.state_dict(), **weights})
