"""Convolutional autoencoder of good patches; the score of a patch is its mean squared residual.

The baseline of f-AnoGAN on the same patches, without an adversary: three strided convolutions down
to a short code, three steps of nearest upsampling and convolution up, trained on the squared error.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lineside.core.errors import UserError
from lineside.core.run.codec import built_by
from lineside.core.training.loop import Hooks, Progress, Training
from lineside.core.training.loop import train as train_network
from lineside.core.training.step_function import Batch, supervised_step
from lineside.parts.models.detector import Image, Prediction, TrainingImage
from lineside.parts.models.patch_cnn.patch_cnn import channels_last
from lineside.parts.models.reconstruction.patch_scoring import (
    ImageScorer,
    Patches,
    fit_image_scorer,
    good_patches,
)


class ConvAutoencoder(nn.Module):
    """Encodes patches (batch, 1, side, side) to a short code and decodes them.

    Args:
        patch_px: Side of a patch, a multiple of 8.
        width: Feature maps of the first convolution; doubled twice.
        latent: Length of the code.
    """

    def __init__(self, *, patch_px: int, width: int, latent: int) -> None:
        super().__init__()
        if patch_px % 8:
            raise UserError(f"patch_px is {patch_px}", "it is a multiple of 8")
        widths = (1, width, 2 * width, 4 * width)
        self._maps = (widths[3], patch_px // 8, patch_px // 8)
        flat = int(np.prod(self._maps))
        down = [_down(a, b) for a, b in itertools.pairwise(widths)]
        up = [_up(a, b) for a, b in zip(widths[:1:-1], widths[-2:0:-1], strict=True)]
        last = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(width, 1, 3, padding=1))
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(flat, latent))
        self.expand = nn.Linear(latent, flat)
        self.decoder = nn.Sequential(*up, last)

    def forward(self, patches: Tensor) -> Tensor:
        """Return the reconstruction, of the shape of the patches."""
        # (batch, 1, side, side) -> (batch, latent) -> (batch, 4 width, side / 8, side / 8)
        maps = self.expand(self.encoder(patches)).view(-1, *self._maps)
        reconstruction: Tensor = self.decoder(maps)
        return reconstruction


@dataclass(frozen=True, kw_only=True)
class Autoencoder:
    """A fitted detector.

    Attributes:
        network: In evaluation mode.
        width: Of the first convolution.
        latent: Length of the code.
        scorer: Cuts images and turns the scores of patches into a prediction.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> images = [TrainingImage.from_array(rng.random((96, 96, 1), np.float32)) for _ in "1234"]
        >>> detector = fit_autoencoder(images, [], rng=rng, steps=5, width=4, latent=8)
        >>> detector.predict(images[0].image()).map.shape
        (32, 32)
    """

    network: ConvAutoencoder = field(
        metadata=built_by(lambda own: _network(own.scorer.patches.patch_px, own.width, own.latent))
    )
    width: int
    latent: int
    scorer: ImageScorer

    def predict(self, image: Image) -> Prediction:
        """Score one image in robust deviations; the map is the pixel residual."""
        return self.scorer.predict(image, partial(score_patches, self.network))


def score_patches(network: nn.Module, patches: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean squared residual (patch,) and residual (patch, side, side) of patches."""
    residual = patches - network(patches)
    return residual.square().mean((1, 2, 3)), residual[:, 0]


def fit_autoencoder(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    *,
    rng: np.random.Generator,
    log: Callable[[dict[str, Any]], None] = lambda row: None,
    progress: Callable[[Progress], None] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
    checkpoint: Path | None = None,
    steps: int = 1000,
    batch: int = 64,
    learning_rate: float = 2e-3,
    width: int = 16,
    latent: int = 64,
) -> Autoencoder:
    """Train an autoencoder on patches of the good images.

    Args:
        train: Only the good images are used.
        validation: Other parts; good images are validated on and set the scale, if there are 20.
        rng: Random stream.
        log, progress: Receive the recorder's rows and how far the training is.
        stop: Ends the training resumably when it answers True.
        checkpoint: Folder for exact resuming, or None.
        steps: Updates (Adam, one-cycle schedule).
        batch: Patches per update.
        learning_rate: Peak of the schedule.
        width: Feature maps of the first convolution.
        latent: Length of the code.

    Raises:
        UserError: no good image.
        Stopped: `stop` answered True; the checkpoint has been written.
    """
    pool_rng, weights_rng, batches_rng, scale_rng = rng.spawn(4)
    patches = Patches()
    pool = good_patches(train, patches, pool_rng)
    network = _network(patches.patch_px, width, latent, int(weights_rng.integers(2**31)))
    adam = torch.optim.Adam(network.parameters(), lr=learning_rate)
    cycle = torch.optim.lr_scheduler.OneCycleLR(adam, learning_rate, total_steps=steps + 1)

    def draw(rng: np.random.Generator) -> Batch:
        return (pool[torch.from_numpy(rng.integers(len(pool), size=batch))],)

    def loss(model: nn.Module, drawn: Batch) -> Tensor:
        return (model(drawn[0]) - drawn[0]).square().mean()

    training = Training(
        network=network, optimizers={"adam": adam}, schedulers=(cycle,),
        step=supervised_step(draw, loss), steps=steps, rng=batches_rng,
        validate=_validation(network, validation, patches, pool_rng),
    )  # fmt: skip
    train_network(training, Hooks(log=log, progress=progress, stop=stop, checkpoint=checkpoint))
    score = partial(score_patches, network)
    scorer = fit_image_scorer(train, validation, patches, score, scale_rng)
    return Autoencoder(network=network, width=width, latent=latent, scorer=scorer)


def _network(patch_px: int, width: int, latent: int, seed: int = 0) -> ConvAutoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ConvAutoencoder(patch_px=patch_px, width=width, latent=latent)
    channels_last(network)
    return network


def _validation(
    network: nn.Module,
    examples: Sequence[TrainingImage],
    patches: Patches,
    rng: np.random.Generator,
) -> Callable[[], Mapping[str, float]] | None:
    """The mean squared residual of good patches of other parts, or None without them."""
    if all(example.faulty for example in examples):
        return None
    held_out = good_patches(examples, patches, rng, per_image=8)[:512]

    def validate() -> Mapping[str, float]:
        with torch.inference_mode():
            return {"loss": float((network(held_out) - held_out).square().mean())}

    return validate


def _down(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def _up(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Upsample(scale_factor=2),
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
