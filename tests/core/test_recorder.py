"""The recorder: its numbers by hand, its warnings on planted faults, none on healthy runs."""

import math
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lineside.core.health import Health
from lineside.core.loop import Training, train
from lineside.core.recorder import GradientSignal, Recorder


def network():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 1),
    )


def run(seed=0, steps=60, lr=0.01, wait=0.0, plant=lambda net: None, validate=None):
    torch.manual_seed(seed)
    net = network()
    plant(net)
    rows: list = []
    labels = (torch.rand(256) < 0.5).float()
    images = torch.randn(256, 1, 16, 16) + labels[:, None, None, None]

    def draw(rng):
        time.sleep(wait)
        chosen = torch.from_numpy(rng.integers(256, size=16))
        return images[chosen], labels[chosen]

    def loss(model, batch):
        return functional.binary_cross_entropy_with_logits(model(batch[0])[:, 0], batch[1])

    result = train(
        Training(
            network=net,
            optimizer=torch.optim.AdamW(net.parameters(), lr=lr),
            draw=draw,
            loss=loss,
            steps=steps,
            rng=np.random.default_rng(seed),
            validate=validate,
            validate_every=1,
        ),
        log=rows.append,
    )
    return net, rows, result.warnings


def test_numbers_by_hand():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    rows: list = []
    recorder = Recorder(net, optimizer, rows.append)
    x = torch.randn(5, 3)
    recorder.start(0)
    recorder.loaded()
    loss = net(x).square().sum()
    loss.backward()
    weight = torch.cat([p.detach().flatten() for p in net.parameters()])
    gradient = torch.cat([p.grad.flatten() for p in net.parameters()])
    out = net[1](nn.functional.linear(x, net[0].weight, net[0].bias)).detach()
    recorder.before_update()
    optimizer.step()
    recorder.finish({"loss": loss})
    row = rows[0]
    assert row["step"] == 0 and row["lr"] == 0.1
    assert row["loss"] == pytest.approx(loss.item())
    assert row["gradient_norm"] == pytest.approx(gradient.norm().item(), rel=1e-5)
    expected = (0.1 * gradient.norm() / weight.norm()).item()
    assert row["update_to_weight"] == pytest.approx(expected, rel=1e-4)
    layer = row["layers"]["1"]
    assert layer["mean"] == pytest.approx(out.mean().item(), rel=1e-5)
    assert layer["spread"] == pytest.approx(out.std(correction=0).item(), rel=1e-4)
    assert layer["zero_share"] == pytest.approx((out == 0).float().mean().item())
    assert set(row["layers"]) == {"0", "1"}
    assert row["memory_mb"] > 10


def test_every_step_is_recorded_and_every_tenth_sampled():
    net, rows, _ = run(steps=31)
    assert [row["step"] for row in rows] == list(range(31))
    assert all({"loss", "lr", "data_seconds", "compute_seconds"} <= set(row) for row in rows)
    sampled = [row["step"] for row in rows if "layers" in row]
    assert sampled[:3] == [0, 10, 20]
    assert not any(module._forward_hooks for module in net.modules())


def test_hooks_hang_on_sampled_steps_only():
    net = network()
    recorder = Recorder(net, torch.optim.SGD(net.parameters(), lr=0.1), lambda row: None)
    hooked = []
    for step in range(12):
        recorder.start(step)
        hooked.append(any(module._forward_hooks for module in net.modules()))
        recorder.loaded()
        loss = net(torch.ones(2, 1, 8, 8)).sum()
        loss.backward()
        recorder.before_update()
        recorder.finish({"loss": loss})
    assert [step for step, hook in enumerate(hooked) if hook] == [0, 10]


def test_budget_stretches_the_interval():
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    wide = Recorder(net, optimizer, lambda row: None, budget=0.0)
    for step in range(200):
        wide.start(step)
        wide.loaded()
        loss = net(torch.ones(2, 1, 8, 8)).sum()
        loss.backward()
        wide.before_update()
        wide.finish({"loss": loss})
    assert wide.interval_steps >= 80
    assert 0 < wide.overhead < 1


def test_gradient_signal():
    generator = torch.Generator().manual_seed(0)

    def ratio(signal, spread):
        seen = GradientSignal()
        for _ in range(60):
            noise = torch.randn(4000, generator=generator) * spread
            seen.add([torch.full((4000,), signal) + noise])
        return seen.ratio()

    assert ratio(1.0, 0.0) > 100
    assert ratio(0.0, 1.0) < 0.15
    # |mean| / |spread| = 0.5 * sqrt(n) / (1 * sqrt(n))
    assert ratio(0.5, 1.0) == pytest.approx(0.5, rel=0.1)
    assert GradientSignal().ratio() is None


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_healthy_runs_have_no_warning(seed):
    _, rows, warnings = run(seed)
    assert warnings == []
    assert not any("warning" in row for row in rows)


def test_dead_layer_is_named():
    def kill(net):
        nn.init.constant_(net[1].bias, -50.0)

    _, rows, warnings = run(plant=kill)
    assert [w["warning"] for w in warnings] == ["dead"]
    assert warnings[0]["layer"] == "2" and warnings[0]["value"] > 0.95
    assert "Layer 2 is dead" in warnings[0]["text"] and "learning rate" in warnings[0]["text"]
    assert sum("warning" in row for row in rows) == 1


def test_divergence_is_named_and_takes_precedence():
    _, _, warnings = run(lr=1000.0)
    assert [w["warning"] for w in warnings] == ["diverged"]


def test_nan_is_divergence():
    rows: list = []
    health = Health(rows.append)
    row = {"data_seconds": 0.0, "compute_seconds": 0.1}
    health.step({"step": 0, "loss": 0.7, **row})
    health.step({"step": 1, "loss": 6.9, **row})
    assert not rows
    health.step({"step": 2, "loss": math.nan, **row})
    health.step({"step": 3, "loss": math.nan, **row})
    assert len(rows) == 1 and "no longer a number" in rows[0]["text"]
    assert rows[0]["value"] is None


def test_rising_validation_loss_is_named_after_six_rises():
    rows: list = []
    health = Health(rows.append)
    for step, loss in enumerate([1.0, 0.9, 0.95, 0.9, 0.91, 0.92, 0.93, 0.94, 0.95]):
        health.validation(step, {"loss": loss})
    assert not rows
    health.validation(9, {"loss": 0.96})
    assert [row["warning"] for row in rows] == ["overfitting"]


def test_slow_data_is_named():
    _, _, warnings = run(steps=61, wait=0.02)
    assert [w["warning"] for w in warnings] == ["slow data"]


def test_validation_rows_and_resumable_health():
    values = iter(np.linspace(0.5, 0.9, 6))
    _, rows, _ = run(steps=6, validate=lambda: {"loss": next(values), "ap": 0.5})
    assert [r["validation_ap"] for r in rows if "validation_ap" in r] == [0.5] * 6
    health = Health(lambda row: None)
    for step, loss in enumerate(np.linspace(0.5, 0.9, 6)):
        health.validation(step, {"loss": loss})
    seen: list = []
    resumed = Health(seen.append)
    resumed.restore(health.state())
    resumed.validation(6, {"loss": 1.0})
    assert [row["warning"] for row in seen] == ["overfitting"]


def test_consumes_no_random_numbers():
    net = network()
    recorder = Recorder(net, torch.optim.SGD(net.parameters(), lr=0.1), lambda row: None)
    state = torch.get_rng_state()
    recorder.start(0)
    recorder.loaded()
    loss = net(torch.ones(2, 1, 8, 8)).sum()
    loss.backward()
    recorder.before_update()
    recorder.finish({"loss": loss})
    recorder.validation(1, {"loss": 1.0})
    assert torch.equal(state, torch.get_rng_state())
