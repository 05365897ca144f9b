"""EfficientNet-Lite0 as a patch network, from ImageNet weights or from random ones.

It answers one question beside the VGG from scratch: does pretraining help on crops of parts, or
does it overfit? (Tan and Le 2019 for the network; Stadelmann et al. 2018 for the question.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from lineside.core.training.loop import Hooks, Progress
from lineside.parts.models.backbone import weight_file
from lineside.parts.models.detector import TrainingImage
from lineside.parts.models.patch_cnn import vgg as networks
from lineside.parts.models.patch_cnn.patch_cnn import PatchCNN, build_network, with_tile_slope
from lineside.parts.models.patch_cnn.training import CropTraining, crop_data, train_on_crops

# The Lite family's input: (pixel - 127) / 128 for pixels of 0..255.
_MEAN, _SPREAD = 127.0 / 255.0, 128.0 / 255.0


class LiteLogit(nn.Module):
    """EfficientNet-Lite0 with one logit; takes (batch, 3, height, width).

    Args:
        dropout: Rate before the last layer; stochastic depth is off.
    """

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.trunk = EfficientNet.from_name(
            "efficientnet-lite0", num_classes=1, dropout_rate=dropout, drop_connect_rate=0.0
        )
        for module in self.trunk.modules():
            if isinstance(module, nn.BatchNorm2d):
                # The published 0.01 is for long runs: after a few hundred updates the running
                # statistics would be stale, and evaluation at chance level.
                module.momentum = 0.1

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (batch,)."""
        logits: Tensor = self.trunk(images)
        return logits.squeeze(1)


def fit_lite_patches(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    *,
    pretrained: bool,
    rng: np.random.Generator,
    log: Callable[[dict[str, Any]], None] = lambda row: None,
    crop_px: int = 64,
    steps: int = 600,
    good_per_defect: int = 3,
    learning_rate: float = 1e-3,
    size_corrected: bool = True,
    checkpoint: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Progress], None] = lambda progress: None,
    **options: Any,
) -> PatchCNN:
    """Train all of EfficientNet-Lite0 on crops; further arguments as in `fit_patch_cnn`.

    Args:
        train: Good and defective examples.
        validation: Other parts, watched while training; may be empty.
        pretrained: Start from ImageNet weights (they are in a Python package), or from random.
        rng: Random stream.
        log: Receives the recorder's rows.
        crop_px: Side of the unscaled crops.
        steps: Updates.
        good_per_defect: Good crops for each defect crop in a batch.
        learning_rate: Peak of the one-cycle schedule.
        size_corrected: Take off the growth of scores with the size of the picture.
        checkpoint: Folder for exact resuming, or None.
        stop: Ends the training resumably when it answers True.
        progress: Called after every update.
        options: Further fields of `training.CropTraining`.

    Raises:
        UserError: no good or no defective training image, or the weights are not installed.
    """
    settings = CropTraining(
        steps=steps, good_per_defect=good_per_defect, learning_rate=learning_rate, **options
    )
    crops_rng, weights_rng, batches_rng = rng.spawn(3)
    data = crop_data(
        train, validation, crop_px=crop_px, settings=settings, rng=crops_rng, channels=3
    )
    detector = PatchCNN(
        network=build_network("lite0", 3),
        architecture="lite0",
        crop_px=crop_px,
        channels=3,
        mean=_MEAN,
        spread=_SPREAD,
    )
    networks.initialise(detector.network, int(weights_rng.integers(2**31)))
    if pretrained:
        _load_trunk(detector.network)
    hooks = Hooks(log=log, progress=progress, stop=stop, checkpoint=checkpoint)
    train_on_crops(detector.network, data, detector.standardise, settings, batches_rng, hooks)
    return with_tile_slope(detector, validation or train) if size_corrected else detector


def _load_trunk(network: nn.Module) -> None:
    """Load the ImageNet weights but for the last layer, which has another number of classes."""
    state = torch.load(weight_file(), map_location="cpu", weights_only=True)
    kept = {f"trunk.{k}": v for k, v in state.items() if not k.startswith("_fc.")}
    network.load_state_dict({**network.state_dict(), **kept})
