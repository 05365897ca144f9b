"""f-AnoGAN as a detector: what the generator cannot make again is not a good part.

Schlegl et al. 2019: trained on good patches only; the score of a patch x is its squared error
against G(E(x)) in pixels, plus the same in the critic's features (eq. 5). Published: patches of
64 px, width 64, hours on a GPU. The defaults here are a preset for a CPU, 32 px and width 8, far
below the published schedule; see `guards.under_trained`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lineside.core.training.checkpoint import under
from lineside.core.training.loop import Progress
from lineside.parts.models.anogan.adversarial import Adversarial
from lineside.parts.models.anogan.encoder import train_encoder
from lineside.parts.models.anogan.networks import Critic, Encoder, Generator, freeze, initialise
from lineside.parts.models.anogan.schedule import Clock, Schedule
from lineside.parts.models.anogan.warnings import under_trained
from lineside.parts.models.detector import Image, Prediction, TrainingImage
from lineside.parts.models.patch_cnn.patch_cnn import channels_last
from lineside.parts.models.patch_cnn.training import Surroundings
from lineside.parts.models.reconstruction.reconstruction import (
    Frame,
    Patches,
    fit_frame,
    good_patches,
)


@dataclass(frozen=True, kw_only=True)
class AnoGAN:
    """A fitted f-AnoGAN; all networks are frozen and in evaluation mode.

    Attributes:
        generator: Makes patches of codes.
        critic: Its trunk gives the features of the score.
        encoder: Looks up the code of a patch.
        width: Base width of the networks.
        feature_weight: Of the features' error in the score (kappa).
        frame: How pictures are cut and scored.
        steps: Updates of the generator that were done.
        gan_patches: Patches that the critic saw.
        encoder_patches: Patches that the encoder saw.
    """

    generator: Generator
    critic: Critic
    encoder: Encoder
    width: int
    feature_weight: float
    frame: Frame
    steps: int
    gan_patches: int
    encoder_patches: int

    @property
    def shortfall(self) -> str:
        """A sentence if training was far below the published schedule, else empty."""
        return under_trained(self.gan_patches, self.encoder_patches)

    def predict(self, image: Image) -> Prediction:
        """Score one picture in robust deviations; the map is the pixel residual."""
        return self.frame.predict(image, self.judge)

    def judge(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return score A(x), shape (patch,), and x - G(E(x)), shape (patch, side, side)."""
        return judge_patches(
            self.generator, self.critic, self.encoder, patches, self.feature_weight
        )

    def reconstruct(self, patches: Tensor) -> Tensor:
        """Return G(E(x)), shape (patch, 1, side, side)."""
        with torch.inference_mode():
            again: Tensor = self.generator(self.encoder(patches))
        return again

    def sample(self, count: int, rng: np.random.Generator) -> Tensor:
        """Return G(z) of random codes, shape (count, 1, side, side)."""
        codes = rng.standard_normal((count, self.generator.latent), dtype=np.float32)
        with torch.inference_mode():
            made: Tensor = self.generator(torch.from_numpy(codes))
        return made

    def spec(self) -> dict[str, Any]:
        """Return everything but the weights."""
        numbers = ("width", "feature_weight", "steps", "gan_patches", "encoder_patches")
        return {
            **{name: getattr(self, name) for name in numbers},
            "latent": self.generator.latent,
            "linear": self.encoder.linear,
            "frame": self.frame.spec(),
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights and running statistics of all three networks."""
        return {
            f"{name}.{key}": value.detach().contiguous()
            for name in ("generator", "critic", "encoder")
            for key, value in getattr(self, name).state_dict().items()
        }


def judge_patches(
    generator: nn.Module, critic: Critic, encoder: nn.Module, patches: Tensor, feature_weight: float
) -> tuple[Tensor, Tensor]:
    """Return score A(x) and residual x - G(E(x)) of patches (Schlegl et al. 2019, eq. 5)."""
    again = generator(encoder(patches))
    residual = patches - again
    features = (critic.features(patches) - critic.features(again)).square().mean(1)
    scores = residual.square().mean((1, 2, 3)) + feature_weight * features
    return scores, residual[:, 0]


def fit_anogan(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    *,
    rng: np.random.Generator,
    log: Callable[[dict[str, Any]], None] = lambda row: None,
    progress: Callable[[Progress], None] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
    checkpoint: Path | None = None,
    minutes: float = 18.0,
    width: int = 8,
    patch_px: int = 32,
    reduce: int = 3,
    top_tiles: int = 8,
    latent: int = 128,
    linear: bool = False,
    **options: Any,
) -> AnoGAN:
    """Train f-AnoGAN on patches of the good pictures; same seed, same result.

    Args:
        train: Examples; only the good ones are used.
        validation: Other parts; the good ones set the scale of the score, if there are 20.
        rng: Random stream.
        log: Receives the recorder's rows and the guards' warnings.
        progress: Called after every update.
        stop: Ends the training resumably when it answers True.
        checkpoint: Folder for exact resuming, in either phase, or None.
        minutes: Longest time, of which the first phase may take half; if it is up before all
            steps are done, the result depends on the machine.
        width: Base width (published: 64).
        patch_px: 64 as published, or 32.
        reduce: The picture's sides are divided by this first.
        top_tiles: The score of a picture looks at its worst tiles.
        latent: Length of a code.
        linear: Leave out the encoder's tanh.
        options: Fields of `schedule.Schedule`: ``steps``, ``encoder_steps``, ``encoder_loss`` ...

    Raises:
        UserError: no good picture, or a setting that does not exist.
        Stopped: `stop` answered True; the checkpoint has been written.
    """
    around = Surroundings(log=log, progress=progress, stop=stop, checkpoint=checkpoint)
    patches = Patches(patch_px=patch_px, reduce=reduce, top_tiles=top_tiles)
    networks = _networks(patch_px, width, latent, linear)
    schedule = Schedule(**options)
    pool_rng, weights_rng, gan_rng, encoder_rng, scale_rng = rng.spawn(5)
    for network in networks:
        initialise(network, weights_rng)
    pool, clock = good_patches(train, patches, pool_rng), Clock(checkpoint)
    seen = _train(networks, pool, schedule, (gan_rng, encoder_rng), around, clock, minutes)
    detector = _assembled(networks, schedule, seen, train, validation, patches, scale_rng)
    _say_end(detector, seen, clock, log)
    return detector


def _train(
    networks: tuple[Generator, Critic, Encoder],
    pool: Tensor,
    schedule: Schedule,
    rngs: tuple[np.random.Generator, np.random.Generator],
    around: Surroundings,
    clock: Clock,
    minutes: float,
) -> tuple[int, int]:
    """Do both trainings, freeze all networks and return the updates of both."""
    generator, critic, encoder = networks
    for network in networks:
        network.to(_device())
    first = _phase(around, "1 adversarial", "adversarial")
    adversarial = Adversarial(generator, critic, pool, schedule, rngs[0], first)
    done = adversarial.run(clock, 30.0 * minutes)
    freeze(generator)
    freeze(critic)
    second = _phase(around, "2 encoder", f"encoder-{_kind(encoder, schedule)}")
    encoded = train_encoder(
        encoder, generator, critic, pool, schedule, rngs[1], second, clock, 60.0 * minutes
    )
    clock.keep()
    for network in networks:
        freeze(network.to("cpu"))
    return done, encoded


def _assembled(
    networks: tuple[Generator, Critic, Encoder],
    schedule: Schedule,
    seen: tuple[int, int],
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    patches: Patches,
    rng: np.random.Generator,
) -> AnoGAN:
    generator, critic, encoder = networks
    weight = schedule.feature_weight

    def judge(tiles: Tensor) -> tuple[Tensor, Tensor]:
        return judge_patches(generator, critic, encoder, tiles, weight)

    return AnoGAN(
        generator=generator, critic=critic, encoder=encoder, width=generator.width,
        feature_weight=weight, frame=fit_frame(train, validation, patches, judge, rng),
        steps=seen[0], gan_patches=seen[0] * schedule.critic_steps * schedule.batch,
        encoder_patches=seen[1] * schedule.batch,
    )  # fmt: skip


def load_anogan(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> AnoGAN:
    """Rebuild a fitted f-AnoGAN from `AnoGAN.spec` and `AnoGAN.tensors`."""
    frame = Frame.of(spec["frame"])
    networks = _networks(frame.patches.patch_px, spec["width"], spec["latent"], spec["linear"])
    for name, network in zip(("generator", "critic", "encoder"), networks, strict=True):
        network.load_state_dict(under(tensors, f"{name}."))
        freeze(network)
    generator, critic, encoder = networks
    numbers = ("width", "feature_weight", "steps", "gan_patches", "encoder_patches")
    return AnoGAN(
        generator=generator, critic=critic, encoder=encoder, frame=frame,
        **{name: spec[name] for name in numbers},
    )  # fmt: skip


def _networks(
    patch_px: int, width: int, latent: int, linear: bool
) -> tuple[Generator, Critic, Encoder]:
    with torch.random.fork_rng(devices=[]):
        generator = Generator(patch_px=patch_px, width=width, latent=latent)
        critic = Critic(patch_px=patch_px, width=width)
        encoder = Encoder(patch_px=patch_px, width=width, latent=latent, linear=linear)
    for network in (generator, critic, encoder):
        channels_last(network)
    return generator, critic, encoder


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _kind(encoder: Encoder, schedule: Schedule) -> str:
    """Encoders of different kinds may share the checkpoint of one adversarial training."""
    return f"{schedule.encoder_loss}-{'linear' if encoder.linear else 'tanh'}"


def _phase(around: Surroundings, name: str, folder: str) -> Surroundings:
    """Surroundings of one of the two trainings: rows of its own, a checkpoint of its own."""
    return dataclasses.replace(
        around,
        log=lambda row: around.log({"phase": name, **row}),
        checkpoint=around.checkpoint / folder if around.checkpoint else None,
    )


def _say_end(
    detector: AnoGAN, seen: tuple[int, int], clock: Clock, log: Callable[[dict[str, Any]], None]
) -> None:
    """Log a warning if training was far too short, and the time it took over all resumes."""
    if detector.shortfall:
        log({
            "step": seen[1], "phase": "2 encoder", "warning": "under-trained", "layer": "",
            "value": detector.steps, "text": detector.shortfall,
        })  # fmt: skip
    log({
        "event": "fitted", "seconds": clock.seconds(), "cpu_seconds": clock.cpu_seconds(),
        "updates": f"{seen[0]} and {seen[1]}",
    })  # fmt: skip
