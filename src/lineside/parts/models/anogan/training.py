"""The two trainings of f-AnoGAN (Schlegl et al. 2019), each a step function of the core's loop.

1. Generator against critic: Wasserstein GAN with gradient penalty (Gulrajani et al. 2017,
   algorithm 1). A step is `critic_steps` updates of the critic and one of the generator.
2. The encoder, while both are frozen (section 2.2 of Schlegl et al.): it learns the code whose
   generated patch is nearest to a given one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lineside.core.contract import Estimate
from lineside.core.errors import UserError
from lineside.core.run.files import finite
from lineside.core.training.loop import Hooks, Trained, Training, train
from lineside.core.training.step_function import Batch, Losses, Update, supervised_step
from lineside.core.training.warnings import Log
from lineside.parts.models.anogan.networks import Critic, Encoder, Generator

PUBLISHED_PATCHES = 7_000_000
"""Patches shown to the critic: 7 passes over about one million."""
PUBLISHED_ENCODER_PATCHES = 3_200_000
"""50,000 updates of the encoder with 64 patches each."""
ENOUGH = 0.5
"""Below this share of the published schedule the method is called under-trained."""
NORM_RANGE = (0.5, 2.0)
LEAST_SPREAD = 0.25
SETTLED = 0.25
WINDOW_STEPS = 50
WARM_UP_STEPS = 100


class GanMonitor:
    """Warnings of a training of generator against critic; each is logged once.

    * *gradient penalty*: the critic's gradient norm, which the penalty draws to 1, averages
      outside 0.5 to 2 over two windows of 50 generator updates in a row.
    * *mode collapse*: generated patches vary less than a quarter as much as real ones, likewise.
    * *not converged*: at the end the critic's estimate of the distance between real and generated
      patches still moves by more than a quarter between the last two fifths.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self.warnings: list[dict[str, Any]] = []
        self.norms: list[float] = []
        self.spreads: list[float] = []
        self.windows = {"gradient penalty": 0, "mode collapse": 0}  # in a row
        self.distances: list[float] = []

    def check(self, row: Mapping[str, Any]) -> None:
        """Check one generator update.

        Args:
            row: Has ``critic_gradient_norm``, the mean norm between real and generated patches;
                ``spread``, that of generated patches over that of real ones, see `spread_of`; and
                ``distance``, the critic's mean score of real patches minus that of generated ones.
        """
        self.distances.append(row["distance"])
        self.norms.append(row["critic_gradient_norm"])
        self.spreads.append(row["spread"])
        if len(self.norms) < WINDOW_STEPS:
            return
        norm, spread = float(np.mean(self.norms)), float(np.mean(self.spreads))
        self.norms, self.spreads = [], []
        step = row["step"]
        if step < WARM_UP_STEPS:
            return
        if self._twice("gradient penalty", not NORM_RANGE[0] <= norm <= NORM_RANGE[1]):
            text = (
                f"The gradient penalty has no effect: the critic's gradient norm averages "
                f"{norm:.2f} where it should be about 1, so its scores no longer measure a "
                "distance. Lower the learning rate or raise the penalty's weight."
            )
            self._warn(step, "gradient penalty", norm, text)
        if self._twice("mode collapse", spread < LEAST_SPREAD):
            text = (
                f"The generator has collapsed: its patches vary {spread:.0%} as much as real ones, "
                "so most good patches cannot be reconstructed. Train the critic longer or start "
                "with another seed."
            )
            self._warn(step, "mode collapse", spread, text)

    def close(self, step: int) -> None:
        """Check the end of the training."""
        if len(self.distances) < 4 * WINDOW_STEPS:
            return
        tail = np.array(self.distances)[-2 * (len(self.distances) // 5) :]
        before, last = (float(half.mean()) for half in np.array_split(tail, 2))
        change = abs(last - before) / max(abs(last), 1e-12)
        if change > SETTLED:
            text = (
                f"The critic has not converged: the distance it measures between real and "
                f"generated patches still changed by {change:.0%} towards the end. Train for more "
                "steps."
            )
            self._warn(step, "not converged", change, text)

    def state(self) -> dict[str, Any]:
        """Return the plain values that a resumed run needs."""
        return {name: value for name, value in vars(self).items() if name != "_log"}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        vars(self).update(copy.deepcopy(dict(state)))

    def _twice(self, kind: str, exceeded: bool) -> bool:
        self.windows[kind] = self.windows[kind] + 1 if exceeded else 0
        return self.windows[kind] >= 2

    def _warn(self, step: int, kind: str, value: float, text: str) -> None:
        if any(row["warning"] == kind for row in self.warnings):
            return
        row = {"step": step, "warning": kind, "layer": "", "value": finite(value), "text": text}
        self.warnings.append(row)
        self._log(row)


def under_trained(gan_patches: int, encoder_patches: int) -> str:
    """Return a sentence if training was far below the published schedule, else nothing.

    Args:
        gan_patches: Patches shown to the critic: updates times critic steps times batch.
        encoder_patches: Patches shown to the encoder.
    """
    shares = (gan_patches / PUBLISHED_PATCHES, encoder_patches / PUBLISHED_ENCODER_PATCHES)
    if min(shares) >= ENOUGH:
        return ""
    return (
        f"f-AnoGAN is under-trained here: its critic saw {gan_patches:,} patches, "
        f"{shares[0]:.1%} of the published schedule, and its encoder {encoder_patches:,}, "
        f"{shares[1]:.1%}. Its number says little about the method at full length."
    )


def against_chance(name: str, auroc: Estimate) -> str:
    """Return a sentence if an AUROC is worse than chance or cannot be told from it, else nothing.

    The sign is never turned round afterwards: that would be a choice made on test labels.
    """
    if auroc.low is None or auroc.high is None:
        return ""
    if auroc.high < 0.5:
        return (
            f"{name} is worse than chance on these data: AUROC {auroc.value:.3f} "
            f"[{auroc.low:.3f}, {auroc.high:.3f}]; good pictures score higher than faulty ones."
        )
    if auroc.low <= 0.5:
        return (
            f"{name} cannot be told from chance on these data: AUROC {auroc.value:.3f} "
            f"[{auroc.low:.3f}, {auroc.high:.3f}]."
        )
    return ""


CHECKPOINT_EVERY = 50


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
