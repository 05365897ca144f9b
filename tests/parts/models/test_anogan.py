"""f-AnoGAN: shapes, the gradient penalty by hand, frozen networks, resuming, guards, figures."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from lineside.core.contract import Estimate
from lineside.core.errors import UserError
from lineside.core.run.codec import decode, encode
from lineside.core.run.folder import Stopped
from lineside.parts.models.anogan import training as guards
from lineside.parts.models.anogan.anogan import AnoGAN, fit_anogan, score_patches
from lineside.parts.models.anogan.figures import sample_figures
from lineside.parts.models.anogan.networks import (
    Critic,
    Encoder,
    Generator,
    LayerNorm,
    feature_count,
    freeze,
    initialise,
)
from lineside.parts.models.anogan.training import (
    Schedule,
    encoder_loss,
    gradient_norms,
    spread_of,
)
from lineside.parts.models.detector import TrainingImage


def picture(seed, size=(104, 96), dent=False):
    noise = np.random.default_rng(seed)
    rows = np.linspace(0, 6, size[0])[:, None] + noise.uniform(0, 6)
    image = 0.5 + 0.2 * np.sin(rows) + noise.normal(0, 0.02, size)
    if dent:
        image[40:60, 40:60] -= 0.4
    return np.clip(image, 0, 1).astype(np.float32)[..., None]


def example(index, dent=False):
    mask = np.zeros((104, 96), bool)
    mask[40:60, 40:60] = True
    return TrainingImage(
        id=str(index), label="dent" if dent else "good", part=f"p{index}", digest="",
        image=lambda: picture(index, dent=dent), mask=lambda: mask if dent else None,
    )  # fmt: skip


GOOD = [example(index) for index in range(6)]
TINY = {"steps": 3, "encoder_steps": 4, "batch": 4, "width": 1, "latent": 8, "critic_steps": 2}


def fitted(**options):
    return fit_anogan(GOOD, [], rng=np.random.default_rng(0), **{**TINY, **options})


@pytest.fixture(scope="module")
def detector():
    return fitted()


def networks(width=2, latent=8, linear=False):
    made = (
        Generator(width=width, latent=latent),
        Critic(width=width),
        Encoder(width=width, latent=latent, linear=linear),
    )
    for network in made:
        initialise(network, np.random.default_rng(0))
    return made


def test_shapes_and_ranges():
    generator, critic, encoder = networks()
    patches = generator(torch.randn(3, 8))
    assert patches.shape == (3, 1, 32, 32)
    assert patches.abs().max() <= 1
    assert critic(patches).shape == (3,)
    assert critic.features(patches).shape == (3, feature_count(2))
    assert encoder(patches).abs().max() <= 1


def test_the_published_width_has_8192_features():
    assert feature_count(64) == 8192


def test_only_the_linear_encoder_leaves_the_unit_cube():
    tanh, linear = networks()[2], networks(linear=True)[2]
    linear.load_state_dict(tanh.state_dict())
    patches = 40 * torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(linear(patches).tanh(), tanh(patches))
    linear.head.weight.data *= 30
    assert linear(patches).abs().max() > 1


def test_layer_norm_equals_torch():
    maps = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    mine = LayerNorm(4)
    mine.gain.data.uniform_(0.5, 2), mine.bias.data.uniform_(-1, 1)
    theirs = nn.functional.group_norm(maps, 1, mine.gain.flatten(), mine.bias.flatten(), 1e-5)
    torch.testing.assert_close(mine(maps), theirs)


def test_gradient_norm_of_a_linear_critic_is_the_norm_of_its_weights():
    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.arange(16.0).view(1, 4, 4))

        def forward(self, patches):
            return (patches * self.weight).sum((1, 2, 3))

    critic = Linear()
    norms = gradient_norms(
        critic, torch.rand(3, 1, 4, 4), torch.rand(3, 1, 4, 4), torch.rand(3, 1, 1, 1)
    )
    by_hand = critic.weight.norm()
    torch.testing.assert_close(norms, by_hand.expand(3))
    (norms - 1).square().mean().backward()
    # d/dw (|w| - 1)^2 = 2 (|w| - 1) w / |w|
    torch.testing.assert_close(
        critic.weight.grad, (2 * (by_hand - 1) * critic.weight / by_hand).detach()
    )


def test_gradient_penalty_of_a_square_critic_depends_on_the_place_between():
    def critic(patches):
        return patches.square().sum((1, 2, 3)) / 2  # its gradient is the patch itself

    real, made = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    share = torch.tensor([0.25, 1.0]).view(2, 1, 1, 1)
    by_hand = (share * real + (1 - share) * made).flatten(1).norm(dim=1)
    torch.testing.assert_close(gradient_norms(critic, real, made, share).detach(), by_hand)


def test_the_critic_penalises_single_patches():
    """Layer norm: the gradient of one patch's score by another patch is zero."""
    critic = networks()[1].train()
    patches = torch.randn(3, 1, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(critic(patches)[0], patches)
    assert gradient[0].abs().sum() > 0
    assert gradient[1:].abs().sum() == 0


def test_frozen_networks_keep_their_weights_but_pass_gradients():
    generator, critic, encoder = networks()
    freeze(generator), freeze(critic)
    before = copy.deepcopy(generator.state_dict())
    patches = torch.rand(4, 1, 32, 32) * 2 - 1
    loss = encoder_loss(generator, critic, Schedule(steps=1, encoder_steps=1))
    loss(encoder, (patches,))["loss"].backward()
    assert all(weight.grad is not None for weight in encoder.parameters())
    assert encoder.backbone[0].weight.grad.abs().sum() > 0
    assert not any(p.requires_grad or p.grad is not None for p in generator.parameters())
    for name, value in generator.state_dict().items():  # running statistics too
        assert torch.equal(value, before[name])


def test_encoder_loss_by_hand():
    generator, critic, encoder = (freeze(network) for network in networks())
    patches = torch.rand(4, 1, 32, 32)
    again = generator(encoder(patches))
    pixels = ((patches - again) ** 2).sum() / (4 * 32 * 32)
    gap = critic.features(patches) - critic.features(again)
    features = (gap**2).sum() / (4 * feature_count(2))
    schedule = Schedule(steps=1, encoder_steps=1, feature_weight=2.0)
    losses = encoder_loss(generator, critic, schedule)(encoder, (patches,))
    torch.testing.assert_close(losses["pixels"], pixels)
    torch.testing.assert_close(losses["loss"], pixels + 2 * features)
    scores, residual = score_patches(
        SimpleNamespace(generator=generator, critic=critic, encoder=encoder),
        patches,
        feature_weight=2.0,
    )
    torch.testing.assert_close(scores.mean(), pixels + 2 * features)
    torch.testing.assert_close(residual, (patches - again)[:, 0])


def test_a_training_without_steps_is_refused():
    with pytest.raises(UserError):
        Schedule(steps=0, encoder_steps=1)


def test_a_fitted_detector_reads_and_is_rebuilt(detector):
    prediction = detector.predict(picture(9))
    assert prediction.map.shape == (round(104 / 3), round(96 / 3))
    assert np.isfinite(prediction.score) and prediction.map.min() >= 0
    again = decode(AnoGAN, *encode(detector))
    assert again.predict(picture(9)).score == prediction.score
    assert again.shortfall == detector.shortfall != ""
    small = detector.predict(picture(9)[:40, :50])  # smaller than a patch once reduced
    assert small.map.shape == (13, 17)


def test_only_good_pictures_count(detector):
    with_faulty = fit_anogan(
        [*GOOD, example(20, dent=True)], [], rng=np.random.default_rng(0), **TINY
    )  # fmt: skip
    for name, value in encode(detector)[1].items():
        assert torch.equal(value, encode(with_faulty)[1][name]), name
    with pytest.raises(UserError):
        fit_anogan([example(3, dent=True)], [], rng=np.random.default_rng(0), **TINY)


@pytest.mark.parametrize("asked_at", [2, 3, 5, 7])
def test_stopped_in_either_phase_it_ends_with_the_same_weights(detector, tmp_path, asked_at):
    calls = [0]

    def stop():
        calls[0] += 1
        return calls[0] == asked_at

    with pytest.raises(Stopped):
        # The question may be asked twice at the same place: True once, then True for good.
        fitted(checkpoint=tmp_path, stop=lambda: stop() or calls[0] > asked_at)
    resumed = fitted(checkpoint=tmp_path)
    for name, value in encode(detector)[1].items():
        assert torch.equal(value, encode(resumed)[1][name]), name
    assert resumed.scorer == detector.scorer


def test_time_is_up_but_the_encoder_is_still_trained():
    clock_rows = []
    detector = fitted(steps=100_000, encoder_steps=100_000, minutes=0.02, log=clock_rows.append)
    assert 0 < detector.steps < 100_000
    assert 0 < detector.encoder_patches < 400_000
    phases = {row.get("phase") for row in clock_rows if "loss" in row}
    assert phases == {"1 adversarial", "2 encoder"}


def test_generator_and_encoder_overfit_eight_patches():
    """The encoder finds codes whose patches are near: far nearer than the mean patch."""
    generator, critic, encoder = networks(width=2, latent=8, linear=True)
    freeze(generator), freeze(critic)
    codes = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    patches = generator(codes)
    loss = encoder_loss(generator, critic, Schedule(steps=1, encoder_steps=1, feature_weight=0.0))
    adam = torch.optim.Adam(encoder.parameters(), 1e-2)
    for _ in range(80):
        adam.zero_grad()
        found = loss(encoder, (patches,))["loss"]
        found.backward()
        adam.step()
    spread = (patches - patches.mean(0)).square().mean()
    assert found < 0.2 * spread


def watched(steps, **values):
    rows = []
    monitor = guards.GanMonitor(rows.append)
    healthy = {"critic_gradient_norm": 1.0, "spread": 0.9, "distance": 2.0}
    for step in range(steps):
        now = {k: v(step) if callable(v) else v for k, v in {**healthy, **values}.items()}
        monitor.check({"step": step, **now})
    monitor.close(steps)
    return [row["warning"] for row in rows], rows


def test_guards_are_silent_on_a_healthy_run():
    assert watched(400)[0] == []
    assert watched(400, distance=lambda step: 3 * np.exp(-step / 100) + 2)[0] == []


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ({"critic_gradient_norm": 0.1}, "gradient penalty"),
        ({"critic_gradient_norm": 9.0}, "gradient penalty"),
        ({"spread": 0.05}, "mode collapse"),
        ({"distance": lambda step: 1.01**step}, "not converged"),
    ],
)
def test_each_planted_fault_is_named_once_in_plain_words(fault, name):
    names, rows = watched(400, **fault)
    assert names == [name]
    assert set(rows[0]) == {"step", "warning", "layer", "value", "text"}
    assert rows[0]["text"].endswith(".")


def test_a_collapsed_generator_has_no_spread():
    patches = torch.rand(1, 1, 8, 8).repeat(5, 1, 1, 1)
    assert spread_of(patches) == 0
    varied = torch.stack([torch.zeros(1, 8, 8), 2 * torch.ones(1, 8, 8)])
    assert spread_of(varied).item() == pytest.approx(2**0.5)


def test_under_trained_is_said_with_numbers():
    assert "96,000" in guards.under_trained(96_000, 64_000)
    assert guards.under_trained(7_000_000, 3_200_000) == ""
    assert guards.under_trained(7_000_000, 64_000) != ""


@pytest.mark.parametrize(
    ("low", "value", "high", "words"),
    [
        (0.3, 0.4, 0.45, "worse than chance on these data"),
        (0.4, 0.5, 0.6, "cannot be told from chance"),
        (0.55, 0.6, 0.7, ""),
        (None, 0.4, None, ""),
    ],
)
def test_chance_is_said_and_the_sign_is_kept(low, value, high, words):
    sentence = guards.against_chance("f-AnoGAN", Estimate(value=value, low=low, high=high))
    assert words in sentence
    assert (sentence == "") == (words == "")
    assert words == "" or f"{value:.3f}" in sentence


def test_figures_show_good_random_and_faulty_patches(detector):
    figures = sample_figures(detector, [*GOOD, example(7, dent=True)], np.random.default_rng(0))
    assert [figure.title.split()[0] for figure in figures] == ["Good", "What", "What"]
    for figure in figures:
        assert figure.image.startswith(b"\x89PNG") and figure.caption.endswith(".")
    assert "under-trained" in figures[0].caption
    assert len(sample_figures(detector, [], np.random.default_rng(0))) == 1
