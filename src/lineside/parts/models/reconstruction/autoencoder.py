"""A convolutional autoencoder of good patches: what does not pass the bottleneck is unusual.

The rival of f-AnoGAN on the same patches, without any adversary: three strided convolutions down
to a short code, three steps of nearest upsampling and convolution back, trained on the squared
error. The score of a patch is its mean squared residual.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
from lineside.parts.models.reconstruction.reconstruction import (
    Frame,
    Patches,
    fit_frame,
    good_patches,
)


class ConvAutoencoder(nn.Module):
    """Squeezes patches (batch, 1, side, side) through a code and makes them again.

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
        self.widen = nn.Linear(latent, flat)
        self.decoder = nn.Sequential(*up, last)

    def forward(self, patches: Tensor) -> Tensor:
        """Return the reconstruction, of the shape of the patches."""
        maps = self.widen(self.encoder(patches)).view(-1, *self._maps)
        again: Tensor = self.decoder(maps)
        return again


@dataclass(frozen=True, kw_only=True)
class Autoencoder:
    """A fitted detector.

    Attributes:
        network: In evaluation mode.
        width: Of the first convolution.
        latent: Length of the code.
        frame: How pictures are cut and scored.
    """

    network: ConvAutoencoder = field(
        metadata=built_by(lambda own: _network(own.frame.patches.patch_px, own.width, own.latent))
    )
    width: int
    latent: int
    frame: Frame

    def predict(self, image: Image) -> Prediction:
        """Score one picture in robust deviations; the map is the pixel residual."""
        return self.frame.predict(image, self.judge)

    def judge(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean squared residual (patch,) and residual (patch, side, side)."""
        return judge_patches(self.network, patches)

    def reconstruct(self, patches: Tensor) -> Tensor:
        """Return the patches made again."""
        with torch.inference_mode():
            again: Tensor = self.network(patches)
        return again


def judge_patches(network: nn.Module, patches: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean squared residual and residual of patches under any reconstruction."""
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
    patch_px: int = 32,
    reduce: int = 3,
    top_tiles: int = 8,
) -> Autoencoder:
    """Train an autoencoder on patches of the good pictures.

    Args:
        train: Examples; only the good ones are used.
        validation: Other parts; good ones are watched and set the scale, if there are 20.
        rng: Random stream.
        log, progress: Receive the recorder's rows and how far the training is.
        stop: Ends the training resumably when it answers True.
        checkpoint: Folder for exact resuming, or None.
        steps: Updates (Adam, one-cycle schedule).
        batch: Patches per update.
        learning_rate: Peak of the schedule.
        width: Feature maps of the first convolution.
        latent: Length of the code.
        patch_px, reduce, top_tiles: See `reconstruction.Patches`.

    Raises:
        UserError: no good picture.
        Stopped: `stop` answered True; the checkpoint has been written.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> images = [TrainingImage.from_array(rng.random((96, 96, 1), np.float32)) for _ in "1234"]
        >>> detector = fit_autoencoder(images, [], rng=rng, steps=5, width=4, latent=8)
        >>> detector.predict(images[0].image()).map.shape
        (32, 32)
    """
    pool_rng, weights_rng, batches_rng, scale_rng = rng.spawn(4)
    patches = Patches(patch_px=patch_px, reduce=reduce, top_tiles=top_tiles)
    pool = good_patches(train, patches, pool_rng)
    network = _network(patch_px, width, latent, int(weights_rng.integers(2**31)))
    adam = torch.optim.Adam(network.parameters(), lr=learning_rate)
    cycle = torch.optim.lr_scheduler.OneCycleLR(adam, learning_rate, total_steps=steps + 1)

    def draw(batches: np.random.Generator) -> Batch:
        return (pool[torch.from_numpy(batches.integers(len(pool), size=batch))],)

    def loss(model: nn.Module, drawn: Batch) -> Tensor:
        return (model(drawn[0]) - drawn[0]).square().mean()

    training = Training(
        network=network, optimizers={"adam": adam}, schedulers=(cycle,),
        step=supervised_step(draw, loss), steps=steps, rng=batches_rng,
        validate=_validation(network, validation, patches, pool_rng),
    )  # fmt: skip
    train_network(training, Hooks(log=log, progress=progress, stop=stop, checkpoint=checkpoint))
    frame = fit_frame(
        train, validation, patches, lambda tiles: judge_patches(network, tiles), scale_rng
    )
    return Autoencoder(network=network, width=width, latent=latent, frame=frame)


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


def _down(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )


def _up(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Upsample(scale_factor=2),
        nn.Conv2d(before, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )
