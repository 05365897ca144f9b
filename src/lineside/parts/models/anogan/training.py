"""The two trainings of f-AnoGAN (Schlegl et al. 2019), each a step function of the core's loop.

1. Generator against critic: Wasserstein GAN with gradient penalty (Gulrajani et al. 2017,
   algorithm 1). A step is `critic_steps` updates of the critic and one of the generator.
2. The encoder, while both are frozen (section 2.2 of Schlegl et al.): it learns the code whose
   generated patch is nearest to a given one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lineside.core.errors import UserError
from lineside.core.training.loop import Hooks, Trained, Training, train
from lineside.core.training.step_function import Batch, Losses, Update, supervised_step
from lineside.parts.models.anogan.networks import Critic, Encoder, Generator
from lineside.parts.models.anogan.warnings import GanMonitor

CHECKPOINT_EVERY = 50
USUAL_LOSS = 100.0
"""Of the critic, generously: ten times this is a divergence. Its first loss is near zero."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Constants of both trainings, as published but for batch, steps and the encoder's rate.

    Attributes:
        steps: Updates of the generator (published: about 20,000).
        encoder_steps: Updates of the encoder (published: 50,000).
        batch: Patches per update (64 in the paper).
        critic_steps: Updates of the critic before each one of the generator.
        penalty_weight: Of the gradient penalty (lambda).
        learning_rate: Of Adam, with betas 0.0 and 0.9.
        encoder_learning_rate: Of RMSProp. Published: 5e-5 over 50,000 updates; a preset of a few
            thousand updates learns more with ten times as much.
        feature_weight: Of the critic's features in the encoder's loss and in the anomaly score
            (kappa).
    """

    steps: int = 600
    encoder_steps: int = 2000
    batch: int = 32
    critic_steps: int = 5
    penalty_weight: float = 10.0
    learning_rate: float = 1e-4
    encoder_learning_rate: float = 5e-4
    feature_weight: float = 1.0

    def __post_init__(self) -> None:
        if min(self.steps, self.encoder_steps, self.batch, self.critic_steps) < 1:
            raise UserError("f-AnoGAN needs at least one step of everything", "raise the steps")


def train_gan(
    generator: Generator,
    critic: Critic,
    patches: Tensor,
    schedule: Schedule,
    rng: np.random.Generator,
    hooks: Hooks,
    most_seconds: float,
) -> Trained:
    """Train generator and critic in place until all steps are done or the time is up.

    Args:
        generator: Makes patches of codes.
        critic: Scores patches.
        patches: Good patches, shape (patch, 1, side, side), values -1..1.
        schedule: Constants.
        rng: Random stream of batches, codes and penalties.
        hooks: Log, progress, stop and checkpoint.
        most_seconds: Time limit over all resumes.

    Raises:
        Stopped: asked to stop; the checkpoint has been written.
    """
    adam: dict[str, Any] = {"lr": schedule.learning_rate, "betas": (0.0, 0.9)}
    training = Training(
        network=nn.ModuleDict({"generator": generator, "critic": critic}),
        optimizers={
            "generator": torch.optim.Adam(generator.parameters(), **adam),
            "critic": torch.optim.Adam(critic.parameters(), **adam),
        },
        step=wgan_step(generator, critic, patches, schedule),
        steps=schedule.steps,
        rng=rng,
        seed=0,  # nothing draws from torch's stream
        monitors=(GanMonitor,),
        usual_loss=USUAL_LOSS,
        most_seconds=most_seconds,
        checkpoint_every=CHECKPOINT_EVERY,
        settings={
            "batch": schedule.batch, "critic_steps": schedule.critic_steps,
            "penalty_weight": schedule.penalty_weight, "patches": len(patches),
        },
    )  # fmt: skip
    return train(training, hooks)


def wgan_step(
    generator: Generator, critic: Critic, patches: Tensor, schedule: Schedule
) -> Callable[[Update], Losses]:
    """Return the step function of WGAN-GP; the loss that is watched is the critic's."""

    def draw_real(rng: np.random.Generator) -> Batch:
        return tuple(_rows(patches, schedule.batch, rng) for _ in range(schedule.critic_steps))

    def draw_codes(rng: np.random.Generator) -> Tensor:
        return _float32(rng.standard_normal((schedule.batch, generator.latent)))

    def draw_codes_and_shares(rng: np.random.Generator) -> Batch:
        return draw_codes(rng), _float32(rng.random((schedule.batch, 1, 1, 1)))

    def step(update: Update) -> Losses:
        for real in update.draw(draw_real):
            codes, share = update.draw(draw_codes_and_shares)
            with torch.no_grad():
                generated = generator(codes)
            # Minimise -(E critic(real) - E critic(generated)) + lambda E (|gradient| - 1)^2.
            norms = gradient_norms(critic, real, generated, share)
            penalty = schedule.penalty_weight * (norms - 1.0).square().mean()
            scores = critic(torch.cat([real, generated]))  # (2 batch,): real ones first
            distance = scores[: len(real)].mean() - scores[len(real) :].mean()
            critic_loss = penalty - distance
            update.descend(critic_loss, "critic")
        critic.requires_grad_(False)
        (codes,) = update.draw(lambda rng: (draw_codes(rng),))
        generator_loss = -critic(generator(codes)).mean()
        update.descend(generator_loss, "generator")
        critic.requires_grad_(True)
        return {
            "loss": critic_loss, "generator_loss": generator_loss,
            "critic_gradient_norm": norms.mean(), "distance": distance,
            "spread": spread_of(generated) / spread_of(real),
        }  # fmt: skip

    return step


def gradient_norms(critic: Critic, real: Tensor, generated: Tensor, share: Tensor) -> Tensor:
    """Return the norms of the critic's gradient between real and generated patches.

    The penalty is the mean of (norm - 1)^2 (Gulrajani et al. 2017, eq. 3).

    Args:
        critic: Scores patches one by one.
        real: Shape (batch, 1, side, side).
        generated: The same.
        share: Weight of the real patch, in 0..1, shape (batch, 1, 1, 1).

    Returns:
        Shape (batch,), differentiable by the critic's weights.
    """
    between = (share * real + (1.0 - share) * generated).requires_grad_(True)
    # The sum over patches has the gradients of single patches: the critic has no batch norm.
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norms: Tensor = gradient.flatten(1).norm(dim=1)  # (batch, 1, side, side) -> (batch,)
    return norms


def spread_of(patches: Tensor) -> Tensor:
    """Return the standard deviation over patches, averaged over pixels: variety, not contrast."""
    return patches.std(0).mean()


def train_encoder(
    encoder: Encoder,
    generator: Generator,
    critic: Critic,
    patches: Tensor,
    schedule: Schedule,
    rng: np.random.Generator,
    hooks: Hooks,
    most_seconds: float,
) -> Trained:
    """Train the encoder in place until all steps are done or the time is up; see `train_gan`.

    Generator and critic must be frozen (`networks.freeze`): their weights stay, their batch norm
    uses its running statistics, and gradients pass through them.
    """

    def draw(rng: np.random.Generator) -> Batch:
        return (_rows(patches, schedule.batch, rng),)

    # A lower smoothing (TensorFlow's own, as published) than torch's 0.99.
    rmsprop = torch.optim.RMSprop(
        encoder.parameters(), lr=schedule.encoder_learning_rate, alpha=0.9, eps=1e-10
    )
    training = Training(
        network=encoder,
        optimizers={"rmsprop": rmsprop},
        step=supervised_step(draw, encoder_loss(generator, critic, schedule)),
        steps=schedule.encoder_steps,
        rng=rng,
        most_seconds=most_seconds,
    )
    return train(training, hooks)


def encoder_loss(
    generator: Generator, critic: Critic, schedule: Schedule
) -> Callable[[nn.Module, Batch], dict[str, Tensor]]:
    """Return the loss izi_f in pixels and in the critic's features (Schlegl et al. 2019, eq. 4)."""

    def loss(encoder: nn.Module, batch: Batch) -> dict[str, Tensor]:
        (given,) = batch
        reconstruction = generator(encoder(given))
        pixels = (given - reconstruction).square().mean()
        features = (critic.features(given) - critic.features(reconstruction)).square().mean()
        total = pixels + schedule.feature_weight * features
        return {"loss": total, "pixels": pixels.detach(), "features": features.detach()}

    return loss


def _rows(patches: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    return patches[torch.from_numpy(rng.integers(len(patches), size=count))]


def _float32(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
