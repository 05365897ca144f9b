"""f-AnoGAN as a detector: the score of a patch is how badly the generator reconstructs it.

Schlegl et al. 2019: trained on good patches only; the score of a patch x is its squared error
against G(E(x)) in pixels, plus the same in the critic's features (eq. 5). Published: patches of
64 px, width 64, hours on a GPU. The defaults here are a preset for a CPU, 32 px and width 8, far
below the published schedule; see `training.under_trained`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lineside.core.run.codec import built_by
from lineside.core.training.loop import Hooks, Progress, Trained
from lineside.parts.models.anogan.networks import Networks, freeze, initialise, make_networks
from lineside.parts.models.anogan.training import Schedule, train_encoder, train_gan, under_trained
from lineside.parts.models.detector import Image, Prediction, TrainingImage
from lineside.parts.models.reconstruction.patch_scoring import (
    ImageScorer,
    Patches,
    fit_image_scorer,
    good_patches,
)


@dataclass(frozen=True, kw_only=True)
class AnoGAN:
    """A fitted f-AnoGAN.

    Attributes:
        networks: Generator G, critic and encoder E, frozen and in evaluation mode.
        width: Base width of the networks.
        latent: Length of a code.
        linear: Whether the encoder's tanh is left out.
        feature_weight: Of the features' error in the score (kappa).
        scorer: Cuts images and turns the scores of patches into a prediction.
        steps: Updates of the generator that were done.
        gan_patches: Patches that the critic saw.
        encoder_patches: Patches that the encoder saw.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> images = [TrainingImage.from_array(rng.random((96, 96, 1), np.float32)) for _ in "1234"]
        >>> few = {"steps": 2, "encoder_steps": 2, "batch": 4}
        >>> detector = fit_anogan(images, [], rng=rng, width=4, latent=8, **few)
        >>> detector.predict(images[0].image()).map.shape
        (32, 32)
    """

    networks: Networks = field(
        metadata=built_by(
            lambda own: freeze(make_networks(own.width, own.latent, linear=own.linear))
        )
    )
    width: int
    latent: int
    linear: bool
    feature_weight: float
    scorer: ImageScorer
    steps: int
    gan_patches: int
    encoder_patches: int

    @property
    def shortfall(self) -> str:
        """A sentence if training was far below the published schedule, else empty."""
        return under_trained(self.gan_patches, self.encoder_patches)

    def predict(self, image: Image) -> Prediction:
        """Score one image in robust deviations; the map is the pixel residual."""
        score = partial(score_patches, self.networks, feature_weight=self.feature_weight)
        return self.scorer.predict(image, score)

    def reconstruct(self, patches: Tensor) -> Tensor:
        """Return G(E(x)), shape (patch, 1, side, side)."""
        with torch.inference_mode():
            reconstruction: Tensor = self.networks.generator(self.networks.encoder(patches))
        return reconstruction

    def sample(self, count: int, rng: np.random.Generator) -> Tensor:
        """Return G(z) of random codes, shape (count, 1, side, side)."""
        codes = rng.standard_normal((count, self.latent), dtype=np.float32)
        with torch.inference_mode():
            generated: Tensor = self.networks.generator(torch.from_numpy(codes))
        return generated


def score_patches(
    networks: Networks, patches: Tensor, *, feature_weight: float
) -> tuple[Tensor, Tensor]:
    """Return score A(x) and residual x - G(E(x)) of patches (Schlegl et al. 2019, eq. 5).

    Args:
        networks: Frozen.
        patches: Shape (patch, 1, side, side), values -1..1.
        feature_weight: Of the error in the critic's features (kappa).

    Returns:
        Shapes (patch,) and (patch, side, side).
    """
    critic = networks.critic
    reconstruction = networks.generator(networks.encoder(patches))
    residual = patches - reconstruction
    features = (critic.features(patches) - critic.features(reconstruction)).square().mean(1)
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
    latent: int = 128,
    linear: bool = False,
    **options: Any,
) -> AnoGAN:
    """Train f-AnoGAN on patches of the good images; same seed, same result.

    Args:
        train: Only the good images are used.
        validation: Other parts; good images set the scale of the score, if there are 20.
        rng: Random stream.
        log: Receives the recorder's rows and all warnings.
        progress: Called after every update.
        stop: Ends the training resumably when it answers True.
        checkpoint: Folder for exact resuming, in either phase, or None.
        minutes: Longest time, of which the first phase may take half; if it is up before all
            steps are done, the result depends on the machine.
        width: Base width (published: 64).
        latent: Length of a code.
        linear: Leave out the encoder's tanh.
        options: Fields of `training.Schedule`: ``steps``, ``encoder_steps`` ...

    Raises:
        UserError: no good image, or a setting that does not exist.
        Stopped: `stop` answered True; the checkpoint has been written.
    """
    hooks = Hooks(log=log, progress=progress, stop=stop, checkpoint=checkpoint)
    patches = Patches()
    networks = make_networks(width, latent, linear=linear)
    schedule = Schedule(**options)
    pool_rng, weights_rng, gan_rng, encoder_rng, scale_rng = rng.spawn(5)
    for network in networks.children():
        initialise(network, weights_rng)
    pool = good_patches(train, patches, pool_rng)
    gan, encoder = _train(networks, pool, schedule, (gan_rng, encoder_rng), hooks, 60 * minutes)
    score = partial(score_patches, networks, feature_weight=schedule.feature_weight)
    detector = AnoGAN(
        networks=networks, width=width, latent=latent, linear=linear,
        feature_weight=schedule.feature_weight,
        scorer=fit_image_scorer(train, validation, patches, score, scale_rng), steps=gan.step,
        gan_patches=gan.step * schedule.critic_steps * schedule.batch,
        encoder_patches=encoder.step * schedule.batch,
    )  # fmt: skip
    _log_end(detector, gan, encoder, log)
    return detector


def _train(
    networks: Networks,
    pool: Tensor,
    schedule: Schedule,
    rngs: tuple[np.random.Generator, np.random.Generator],
    hooks: Hooks,
    seconds: float,
) -> tuple[Trained, Trained]:
    """Do both trainings, the first in at most half of the time, and freeze all networks."""
    generator, critic, encoder = networks.generator, networks.critic, networks.encoder
    networks.to("cuda" if torch.cuda.is_available() else "cpu")
    first = _phase(hooks, "1 adversarial", "adversarial")
    gan = train_gan(generator, critic, pool, schedule, rngs[0], first, seconds / 2)
    freeze(generator)
    freeze(critic)
    # Encoders of both kinds may share the checkpoint of one adversarial training.
    kind = "linear" if encoder.linear else "tanh"
    second = _phase(hooks, "2 encoder", f"encoder-izi_f-{kind}")
    trained = train_encoder(
        encoder, generator, critic, pool, schedule, rngs[1], second, seconds - gan.seconds
    )
    freeze(networks.to("cpu"))
    return gan, trained


def _phase(hooks: Hooks, name: str, folder: str) -> Hooks:
    """Hooks of one of the two trainings: rows of its own, a checkpoint of its own."""
    return dataclasses.replace(
        hooks,
        log=lambda row: hooks.log({"phase": name, **row}),
        checkpoint=hooks.checkpoint / folder if hooks.checkpoint else None,
    )


def _log_end(
    detector: AnoGAN, gan: Trained, encoder: Trained, log: Callable[[dict[str, Any]], None]
) -> None:
    """Log a warning if training was far too short, and the time it took over all resumes."""
    if detector.shortfall:
        log({
            "step": encoder.step, "phase": "2 encoder", "warning": "under-trained", "layer": "",
            "value": detector.steps, "text": detector.shortfall,
        })  # fmt: skip
    log({
        "event": "fitted", "seconds": gan.seconds + encoder.seconds,
        "cpu_seconds": gan.cpu_seconds + encoder.cpu_seconds,
        "updates": f"{gan.step} and {encoder.step}",
    })  # fmt: skip
