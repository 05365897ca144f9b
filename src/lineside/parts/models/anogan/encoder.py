"""Training the encoder of f-AnoGAN while generator and critic are frozen.

Schlegl et al. 2019, section 2.2; it is a supervised training and runs in the core's loop.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from lineside.core.run.files import read_json
from lineside.core.run.folder import Stopped
from lineside.core.training.loop import Progress, Training, train
from lineside.parts.models.anogan.networks import Critic, Encoder, Generator
from lineside.parts.models.anogan.schedule import SAVE_EVERY_STEPS, Clock, Schedule
from lineside.parts.models.patch_cnn.training import Surroundings


def train_encoder(
    encoder: Encoder,
    generator: Generator,
    critic: Critic,
    patches: Tensor,
    schedule: Schedule,
    rng: np.random.Generator,
    around: Surroundings,
    clock: Clock,
    seconds: float,
) -> int:
    """Train the encoder in place until all steps are done or the time is up; return the steps.

    Generator and critic must be frozen (`networks.freeze`): their weights stay, their batch norm
    uses its running statistics, and gradients pass through them.

    Raises:
        Stopped: asked to stop; the checkpoint has been written.
    """
    done = [0]

    def progress(now: Progress) -> None:
        done[0] = now.step
        if now.step % SAVE_EVERY_STEPS == 0:
            clock.keep()
        around.progress(now)

    # A lower smoothing (TensorFlow's own, as published) than torch's 0.99.
    optimizer = torch.optim.RMSprop(
        encoder.parameters(), lr=schedule.encoder_learning_rate, alpha=0.9, eps=1e-10
    )
    training = Training(
        network=encoder, optimizer=optimizer, steps=schedule.encoder_steps, rng=rng,
        draw=_drawer(patches, generator, schedule), loss=_encoder_loss(generator, critic, schedule),
    )  # fmt: skip
    try:
        trained = train(
            training,
            log=around.log,
            progress=progress,
            stop=lambda: around.stop() or clock.seconds() > seconds,
            checkpoint=around.checkpoint,
        )
    except Stopped:
        if around.stop():
            raise
        encoder.eval()
        if around.checkpoint is None:
            return done[0]
        return int(read_json(around.checkpoint / "state.json")["step"])
    return trained.step


def _drawer(
    patches: Tensor, generator: Generator, schedule: Schedule
) -> Callable[[np.random.Generator], tuple[Tensor, ...]]:
    def draw(rng: np.random.Generator) -> tuple[Tensor, ...]:
        if schedule.encoder_loss == "ziz":
            codes = rng.standard_normal((schedule.batch, generator.latent), dtype=np.float32)
            return (torch.from_numpy(codes),)
        chosen = rng.integers(len(patches), size=schedule.batch)
        return (patches[torch.from_numpy(chosen)],)

    return draw


def _encoder_loss(
    generator: Generator, critic: Critic, schedule: Schedule
) -> Callable[[nn.Module, tuple[Tensor, ...]], dict[str, Tensor]]:
    """Schlegl et al. 2019, eqs. 1 (ziz), 2 (izi) and 4 (izi_f)."""

    def loss(encoder: nn.Module, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        (given,) = batch
        if schedule.encoder_loss == "ziz":
            return {"loss": (given - encoder(generator(given))).square().mean()}
        again = generator(encoder(given))
        pixels = (given - again).square().mean()
        if schedule.encoder_loss == "izi":
            return {"loss": pixels}
        features = (critic.features(given) - critic.features(again)).square().mean()
        total = pixels + schedule.feature_weight * features
        return {"loss": total, "pixels": pixels.detach(), "features": features.detach()}

    return loss
