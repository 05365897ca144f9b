"""The recorder's rules where they are hard to get right: late deaths, losses of any scale, units.

* Late deaths: a hidden layer dies at a random step between 60 and 95 % of a fast training, and a
  stalled disk makes one early step expensive.
* Losses of other scale: twelve healthy trainings whose loss is negative, starts near zero, or grows
  by design, and the same with a learning rate a thousand times too high.
* Units: 91 % of a layer's units dead, a saturated layer, a constant output, and healthy networks.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.results import Say
from lineside.core.statistics.proportions import proportion
from lineside.core.training.loop import Hooks, Trained, Training, train
from lineside.core.training.step_function import Losses, Update, supervised_step

ITEMS, FEATURES, BATCH = 512, 8, 32
STEPS = 600
RATE = 1e-3
LATE_SEEDS = tuple(range(40))
LATE_STEPS = 2000
STALL_SECONDS = 0.2
SCALE_SEEDS = (0, 1, 2)
UNIT_SEEDS = tuple(range(10))
DEAD_UNITS = 0.91

Loss = Callable[[int, Tensor], Tensor]
"""Takes step and indices of items to the loss of one training."""


def dense(*sizes: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Return a fully connected network with a linear output."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1])


def regression(seed: int) -> tuple[Tensor, Tensor]:
    """Return inputs (item, feature) and targets (item,) between about -1 and 1."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ITEMS, FEATURES, generator=generator)
    w = torch.randn(FEATURES, generator=generator)
    return x, torch.tanh(x @ w / 2) + 0.05 * torch.randn(ITEMS, generator=generator)


def draw(rng: np.random.Generator) -> tuple[Tensor, ...]:
    """Draw the indices of a batch."""
    return (torch.from_numpy(rng.integers(ITEMS, size=BATCH)),)


def follow(
    network: nn.Module, loss: Loss, seed: int, *, rate: float = RATE, steps: int = STEPS,
    log: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Trained:  # fmt: skip
    """Train with Adam and return what the recorder said."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    count = iter(range(steps))

    def step(update: Update) -> Losses:
        (index,) = update.draw(draw)
        value = loss(next(count), index)
        update.descend(value)
        return {"loss": value}

    training = Training(
        network=network, optimizers={"adam": torch.optim.Adam(weights, lr=rate)}, step=step,
        steps=steps, rng=np.random.default_rng(seed), seed=seed,
    )  # fmt: skip
    return train(training, Hooks(log=log))


def kinds(trained: Trained) -> set[str]:
    """Return the kinds of warning of a training."""
    return {warning["warning"] for warning in trained.warnings}


# ---- late deaths


def late_deaths(say: Say, seeds: tuple[int, ...] = LATE_SEEDS, steps: int = LATE_STEPS) -> None:
    """Kill a hidden layer late in a fast training; count the trainings that name it."""
    found = [_dies_late(seed, steps) for seed in seeds]
    say("warning_recall_late", proportion(sum(found), len(found)))


def _dies_late(seed: int, steps: int) -> bool:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = dense(FEATURES, 32, 32, 32, 1)
    x, y = regression(seed)
    at, layer = int(rng.uniform(0.6, 0.95) * steps), int(rng.choice([0, 2, 4]))

    def loss(step: int, index: Tensor) -> Tensor:
        if step == at:
            with torch.no_grad():
                network[layer].bias.fill_(-100.0)  # type: ignore[operator, union-attr]
        return (network(x[index])[:, 0] - y[index]).square().mean()

    def log(row: dict[str, Any]) -> None:
        if row["step"] == 20:
            time.sleep(STALL_SECONDS)

    trained = follow(network, loss, seed, steps=steps, log=log)
    named = {w["layer"] for w in trained.warnings if w["warning"] == "dead layer"}
    return str(layer + 1) in named  # the ReLU after it


# ---- losses of other scale


def nll(seed: int) -> tuple[nn.Module, Loss]:
    """Negative log-likelihood of a Gaussian with learned variance: falls far below zero."""
    x, _ = regression(seed)
    y, network = 0.1 * torch.sin(2 * x[:, 0]), dense(FEATURES, 64, 64, 2)

    def loss(step: int, index: Tensor) -> Tensor:
        mean, log_variance = network(x[index]).unbind(1)
        log_variance = log_variance.clamp(-12, 6)
        square = (y[index] - mean).square()
        return 0.5 * (log_variance + square * torch.exp(-log_variance)).mean()

    return network, loss


def annealed(seed: int) -> tuple[nn.Module, Loss]:
    """Variational autoencoder whose divergence term is warmed up from 0."""
    x, _ = regression(seed)
    encoder, decoder = dense(FEATURES, 32, 8), dense(4, 32, FEATURES)

    def loss(step: int, index: Tensor) -> Tensor:
        mean, log_variance = encoder(x[index]).chunk(2, dim=1)
        log_variance = log_variance.clamp(-10, 10)
        code = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        error = (decoder(code) - x[index]).square().mean()
        return 0.05 * error + 2 * min(1.0, step / 400) * divergence

    return nn.ModuleList([encoder, decoder]), loss


def staged(seed: int) -> tuple[nn.Module, Loss]:
    """A second task, ten thousand times as heavy, is switched on half way."""
    x, y = regression(seed)
    network = dense(FEATURES, 64, 2)

    def loss(step: int, index: Tensor) -> Tensor:
        first, second = network(x[index]).unbind(1)
        late = (second - x[index, 0] - 2).square().mean() if step > STEPS / 2 else 0.0
        return 0.01 * (first - y[index]).square().mean() + 100 * late

    return network, loss


def q_learning(seed: int) -> tuple[nn.Module, Loss]:
    """Temporal differences with rare rewards: near zero until values spread backwards."""
    state, reward = torch.randn(ITEMS, FEATURES), 10.0 * (torch.rand(ITEMS) < 0.02)
    action, after = torch.randint(4, (ITEMS,)), torch.randint(ITEMS, (ITEMS,))
    network = dense(FEATURES, 64, 4)
    for weight in network[-1].parameters():
        nn.init.zeros_(weight)
    target = copy.deepcopy(network).requires_grad_(False)

    def loss(step: int, index: Tensor) -> Tensor:
        if step % 25 == 0:
            target.load_state_dict(network.state_dict())
        value = reward[index] + 0.99 * target(state[after[index]]).amax(1)
        chosen = network(state[index]).gather(1, action[index, None])[:, 0]
        return (chosen - value).square().mean()

    return nn.ModuleList([network, target]), loss


def scaled(factor: float, seed: int) -> tuple[nn.Module, Loss]:
    """A squared error in other units."""
    x, y = regression(seed)
    network = dense(FEATURES, 64, 1)
    return (
        network,
        lambda step, index: factor * (network(x[index])[:, 0] - y[index]).square().mean(),
    )


def policy_gradient(seed: int) -> tuple[nn.Module, Loss]:
    """Reinforce with normalised advantages: about zero, of either sign."""
    state, best = torch.randn(ITEMS, FEATURES), torch.randint(4, (ITEMS,))
    network = dense(FEATURES, 64, 4)

    def loss(step: int, index: Tensor) -> Tensor:
        log_policy = functional.log_softmax(network(state[index]), dim=1)
        action = torch.multinomial(log_policy.exp().detach(), 1)
        reward = (action[:, 0] == best[index]).float()
        advantage = (reward - reward.mean()) / (reward.std() + 1e-6)
        return -(advantage * log_policy.gather(1, action)[:, 0]).mean()

    return network, loss


def critic(seed: int) -> tuple[nn.Module, Loss]:
    """A Wasserstein critic with gradient penalty: near zero at first, then far below."""
    x, _ = regression(seed)
    network = dense(FEATURES, 64, 1)

    def loss(step: int, index: Tensor) -> Tensor:
        real = x[index] + 3
        made = torch.randn_like(real) * (0.2 + min(step / 300, 1.0))
        share = torch.rand(len(real), 1)
        between = (share * real + (1 - share) * made).requires_grad_(True)
        (gradient,) = torch.autograd.grad(network(between).sum(), between, create_graph=True)
        penalty = (gradient.norm(dim=1) - 1).square().mean()
        return network(made).mean() - network(real).mean() + 10 * min(step / 50, 1.0) * penalty

    return network, loss


def similarity(seed: int) -> tuple[nn.Module, Loss]:
    """Negative cosine similarity: from about 0 to -1."""
    x, _ = regression(seed)
    network, mixing = dense(FEATURES, 64, 16), torch.randn(FEATURES, 16)

    def loss(step: int, index: Tensor) -> Tensor:
        return -functional.cosine_similarity(network(x[index]), x[index] @ mixing, dim=1).mean()

    return network, loss


def growing(seed: int) -> tuple[nn.Module, Loss]:
    """Targets that grow while it learns, from an output of zero: returns of a better policy."""
    x, y = regression(seed)
    network = dense(FEATURES, 64, 1)
    for weight in network[-1].parameters():
        nn.init.zeros_(weight)
    return (
        network,
        lambda step, index: (network(x[index])[:, 0] - y[index] * step / 20).square().mean(),
    )


def fine_tuned(seed: int) -> tuple[nn.Module, Loss]:
    """A network that is right from the start, until the data change."""
    x, y = regression(seed)
    network = dense(FEATURES, 64, 1)
    with torch.no_grad():
        right = network(x)[:, 0].clone()

    def loss(step: int, index: Tensor) -> Tensor:
        shift = 0.5 * y[index] if step > 100 else 0.0
        return (network(x[index])[:, 0] - right[index] - shift).square().mean()

    return network, loss


def linear(seed: int) -> tuple[nn.Module, Loss]:
    """A linear model that starts at zero and whose targets are faded in."""
    x, _ = regression(seed)
    network = nn.Linear(FEATURES, 1)
    for weight in network.parameters():
        nn.init.zeros_(weight)

    def loss(step: int, index: Tensor) -> Tensor:
        target = (5 * x[index, 0] + 3) * min(1.0, step / 100)
        return (network(x[index])[:, 0] - target).square().mean()

    return network, loss


SCALES: dict[str, Callable[[int], tuple[nn.Module, Loss]]] = {
    "nll": nll, "annealed": annealed, "staged": staged, "q": q_learning,
    "tiny": partial(scaled, 1e-8), "large": partial(scaled, 1e8), "policy": policy_gradient,
    "critic": critic, "similarity": similarity, "growing": growing, "fine_tuned": fine_tuned,
    "linear": linear,
}  # fmt: skip
BOUNDED = ("similarity", "policy", "tiny")
"""Trainings that no learning rate drives away: a bounded loss, gradients below Adam's epsilon."""
ASTRAY = {"diverged", "dead layer"}
"""What is said of a training with too large steps: it runs away, or it kills its layers at once."""


def other_scales(say: Say, seeds: tuple[int, ...] = SCALE_SEEDS) -> None:
    """Count healthy trainings that are called diverged, and astray ones that are named."""
    false, hits, astray = 0, 0, 0
    for name, make in SCALES.items():
        for seed in seeds:
            for rate in (RATE, 10 * RATE):
                false += "diverged" in _of_scale(name, make, seed, rate)
            if name not in BOUNDED:
                hits += bool(ASTRAY & _of_scale(name, make, seed, 1000 * RATE))
                astray += 1
    runs = 2 * len(SCALES) * len(seeds)
    say("warning_false_scale", proportion(false, runs, better="lower"))
    say("warning_recall_scale", proportion(hits, astray))


def _of_scale(
    name: str, make: Callable[[int], tuple[nn.Module, Loss]], seed: int, rate: float
) -> set[str]:
    torch.manual_seed(seed)
    network, loss = make(seed)
    found = kinds(follow(network, loss, seed, rate=rate))
    print(f"  {name} {seed} {rate:g}: {sorted(found)}")
    return found


# ---- units


def _dead_units(network: nn.Sequential, rng: np.random.Generator) -> str:
    layer = int(rng.choice([0, 2]))
    with torch.no_grad():
        bias = network[layer].bias
        dead = rng.permutation(len(bias))[: round(DEAD_UNITS * len(bias))]
        bias[torch.from_numpy(dead)] = -100.0
    return str(layer + 1)


def _saturated(network: nn.Sequential, rng: np.random.Generator) -> str:
    layer = int(rng.choice([0, 2]))
    with torch.no_grad():
        network[layer].weight.mul_(100.0)
        network[layer].bias.mul_(100.0)
    return str(layer + 1)


def _constant(network: nn.Sequential, rng: np.random.Generator) -> str:
    for weight in network.parameters():
        weight.requires_grad_(False)
    with torch.no_grad():
        network[-1].weight.zero_()
    network[-1].bias.requires_grad_(True)
    return ""


PLANTED: dict[str, tuple[set[str], type[nn.Module], Callable[..., str]]] = {
    "dead_units": ({"dead units", "dead layer"}, nn.ReLU, _dead_units),
    "saturated_tanh": ({"saturated layer"}, nn.Tanh, _saturated),
    "saturated_sigmoid": ({"saturated layer"}, nn.Sigmoid, _saturated),
    "constant": ({"constant output"}, nn.ReLU, _constant),
}
"""Its warnings, activation, and the function that plants the fault and returns the layer."""


def units(say: Say, seeds: tuple[int, ...] = UNIT_SEEDS) -> None:
    """Plant faults in units; count those that are named with their layer, and false alarms."""
    found = [_units_run(*PLANTED[kind], seed) for kind in PLANTED for seed in seeds]
    say("warning_recall_units", proportion(sum(found), len(found)))
    activations = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.ELU)
    healthy = [kinds(_fit(_classifier(a, seed), seed, rate))
               for a in activations for rate in (RATE, 10 * RATE) for seed in seeds]  # fmt: skip
    print("  healthy:", sorted(set().union(*healthy)))
    false = sum(bool(run) for run in healthy)
    say("warning_false_units", proportion(false, len(healthy), better="lower"))


def _classifier(activation: type[nn.Module], seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return dense(FEATURES, 64, 64, 1, activation=activation)


def _units_run(
    names: set[str], activation: type[nn.Module], plant: Callable[..., str], seed: int
) -> bool:
    network = _classifier(activation, seed)
    layer = plant(network, np.random.default_rng(seed))
    trained = _fit(network, seed, RATE)
    return any(w["warning"] in names and w["layer"] == layer for w in trained.warnings)


def _fit(network: nn.Module, seed: int, rate: float) -> Trained:
    x, y = regression(seed)

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        label = (y[batch[0]] > 0).float()
        return functional.binary_cross_entropy_with_logits(model(x[batch[0]])[:, 0], label)

    weights = [weight for weight in network.parameters() if weight.requires_grad]
    training = Training(
        network=network, optimizers={"adam": torch.optim.Adam(weights, lr=rate)},
        step=supervised_step(draw, loss), steps=STEPS, rng=np.random.default_rng(seed), seed=seed,
    )  # fmt: skip
    return train(training)
