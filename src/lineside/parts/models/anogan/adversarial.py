"""Training generator against critic: Wasserstein GAN with gradient penalty.

Gulrajani et al. 2017, algorithm 1, with the constants of Schlegl et al. 2019. The loop is watched
by the recorder, keeps checkpoints and goes on exactly where it was stopped.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lineside.core.run.files import sha256
from lineside.core.run.folder import Stopped
from lineside.core.training.checkpoint import (
    load_checkpoint,
    optimizer_groups,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    under,
)
from lineside.core.training.loop import Progress
from lineside.core.training.recorder import Recorder
from lineside.parts.models.anogan.networks import Critic, Generator
from lineside.parts.models.anogan.schedule import SAVE_EVERY_STEPS, Clock, Schedule
from lineside.parts.models.anogan.warnings import Watch
from lineside.parts.models.patch_cnn.training import Surroundings

USUAL_LOSS = 100.0
"""Of the critic, generously: ten times this is a divergence."""


def gradient_penalty(critic: Critic, real: Tensor, made: Tensor, share: Tensor) -> Tensor:
    """Return the norms of the critic's gradient between real and generated patches.

    The penalty is the mean of (norm - 1)^2 (Gulrajani et al. 2017, eq. 3).

    Args:
        critic: Scores patches one by one.
        real: Shape (batch, 1, side, side).
        made: The same.
        share: Weight of the real patch, in 0..1, shape (batch, 1, 1, 1).

    Returns:
        Shape (batch,), differentiable by the critic's weights.
    """
    between = (share * real + (1.0 - share) * made).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norms: Tensor = gradient.flatten(1).norm(dim=1)
    return norms


def spread_of(patches: Tensor) -> Tensor:
    """Return the standard deviation over patches, averaged over pixels: variety, not contrast."""
    return patches.std(0).mean()


class Adversarial:
    """Generator and critic in training; `run` does the updates that are left.

    Args:
        generator: Trained in place.
        critic: Trained in place.
        patches: Good patches, shape (patch, 1, side, side), values -1..1.
        schedule: Constants.
        rng: Random stream of batches, codes and penalties; part of the checkpoint.
        around: What to report to, and the folder of the checkpoint.
    """

    def __init__(
        self,
        generator: Generator,
        critic: Critic,
        patches: Tensor,
        schedule: Schedule,
        rng: np.random.Generator,
        around: Surroundings,
    ) -> None:
        self.generator, self.critic = generator, critic
        self.step, self.finished = 0, False
        self._patches, self._schedule, self._rng = patches, schedule, rng
        self._around, self._folder = around, around.checkpoint
        settings: dict[str, Any] = {"lr": schedule.learning_rate, "betas": (0.0, 0.9)}
        self._generator_adam = torch.optim.Adam(generator.parameters(), **settings)
        self._critic_adam = torch.optim.Adam(critic.parameters(), **settings)
        self._both = nn.ModuleDict({"generator": generator, "critic": critic})
        self._recorder = Recorder(self._both, self._generator_adam, around.log)
        # The critic's loss has no natural size at the start, so a fixed one stands for it.
        self._recorder.health.restore({**self._recorder.health.state(), "first_loss": USUAL_LOSS})
        self.watch = Watch(around.log)
        self._load()

    def run(self, clock: Clock, seconds: float) -> int:
        """Train until all steps are done or the time is up; return the steps done.

        Raises:
            Stopped: asked to stop; the checkpoint has been written.
        """
        first, begin = self.step, time.perf_counter()
        self._both.train()
        while not self.finished and self.step < self._schedule.steps:
            if self._around.stop():
                self._save(clock)
                raise Stopped
            if clock.seconds() > seconds:
                break
            loss = self._update()
            self.step += 1
            if self.step % SAVE_EVERY_STEPS == 0:
                self._save(clock)
            spent = time.perf_counter() - begin
            left = spent / (self.step - first) * (self._schedule.steps - self.step)
            self._around.progress(
                Progress(
                    step=self.step, total=self._schedule.steps, loss=loss,
                    seconds=spent, seconds_left=min(left, max(seconds - clock.seconds(), 0.0)),
                )
            )  # fmt: skip
        if not self.finished:
            self._recorder.flush()
            self.watch.finish(self.step)
            self.finished = True
            self._save(clock)
        self._both.eval()
        return self.step

    def _update(self) -> float:
        """Do the critic's updates and one of the generator; return the critic's loss."""
        self._recorder.start(self.step)
        batches = [self._real() for _ in range(self._schedule.critic_steps)]
        self._recorder.loaded()
        for real in batches:
            critic_loss, norm, distance, made = self._update_critic(real)
        self.critic.requires_grad_(False)
        generator_loss = -self.critic(self.generator(self._codes())).mean()
        self._generator_adam.zero_grad(set_to_none=True)
        generator_loss.backward()
        self.critic.requires_grad_(True)
        self._recorder.before_update()
        self._generator_adam.step()
        spread = spread_of(made) / spread_of(real)
        # The critic's loss is the one that can diverge: the generator's has no natural zero.
        sums = {
            "loss": critic_loss, "generator_loss": generator_loss.detach(),
            "critic_gradient_norm": norm, "distance": distance, "spread": spread,
        }  # fmt: skip
        self._recorder.finish(sums)
        numbers = torch.stack([critic_loss, norm, spread, distance]).tolist()
        self.watch.step(self.step, gradient_norm=numbers[1], spread=numbers[2], distance=numbers[3])
        return float(numbers[0])

    def _update_critic(self, real: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with torch.no_grad():
            made = self.generator(self._codes())
        share = self._numbers(self._rng.random((len(real), 1, 1, 1)))
        norms = gradient_penalty(self.critic, real, made, share)
        penalty = self._schedule.penalty_weight * (norms - 1.0).square().mean()
        scores = self.critic(torch.cat([real, made]))
        distance = scores[: len(real)].mean() - scores[len(real) :].mean()
        loss = penalty - distance
        self._critic_adam.zero_grad(set_to_none=True)
        loss.backward()
        self._critic_adam.step()
        return loss.detach(), norms.detach().mean(), distance.detach(), made

    def _real(self) -> Tensor:
        chosen = self._rng.integers(len(self._patches), size=self._schedule.batch)
        return self._patches[torch.from_numpy(chosen)].to(self._device)

    def _codes(self) -> Tensor:
        shape = (self._schedule.batch, self.generator.latent)
        return self._numbers(self._rng.standard_normal(shape))

    def _numbers(self, values: Any) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self._device)

    @property
    def _device(self) -> torch.device:
        return next(self.critic.parameters()).device

    def _job(self) -> dict[str, Any]:
        shapes = {k: list(v.shape) for k, v in self._both.state_dict().items()}
        own = self._schedule
        return {
            "steps": own.steps, "batch": own.batch, "critic_steps": own.critic_steps,
            "penalty_weight": own.penalty_weight, "patches": len(self._patches),
            "networks": sha256(repr(sorted(shapes.items())).encode()),
        }  # fmt: skip

    def _save(self, clock: Clock) -> None:
        if self._folder is None:
            return
        tensors = {f"network.{k}": v for k, v in self._both.state_dict().items()}
        groups = {}
        for name, adam in self._optimisers():
            tensors.update({f"{name}.{k}": v for k, v in optimizer_tensors(adam).items()})
            groups[name] = optimizer_groups(adam)
        state = {
            "rng": self._rng.bit_generator.state, "groups": groups, "finished": self.finished,
            "recorder": self._recorder.state(), "watch": self.watch.state(),
        }  # fmt: skip
        save_checkpoint(self._folder, self.step, self._job(), tensors, state)
        clock.keep()

    def _load(self) -> None:
        found = load_checkpoint(self._folder, self._job()) if self._folder else None
        if found is None:
            return
        self.step, tensors, state = found
        self._both.load_state_dict(under(tensors, "network."))
        for name, adam in self._optimisers():
            restore_optimizer(adam, under(tensors, f"{name}."), state["groups"][name])
        self._rng.bit_generator.state = state["rng"]
        self._recorder.restore(state["recorder"], self.step)
        self.watch.restore(state["watch"])
        self.finished = state["finished"]

    def _optimisers(self) -> list[tuple[str, torch.optim.Optimizer]]:
        return [("generator_adam", self._generator_adam), ("critic_adam", self._critic_adam)]
