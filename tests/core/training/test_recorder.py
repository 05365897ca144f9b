"""The recorder: its numbers by hand, its warnings on planted faults, none on healthy runs."""

import math
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lineside.core.audit.label_noise import estimate_label_noise
from lineside.core.errors import UserError
from lineside.core.training.loop import Hooks, Training, train
from lineside.core.training.recorder import Recorder
from lineside.core.training.step_function import supervised_step
from lineside.core.training.update_statistics import GradientSignal
from lineside.core.training.warnings import TrainingMonitor, named_losses


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
            optimizers={"adamw": torch.optim.AdamW(net.parameters(), lr=lr)},
            step=supervised_step(draw, loss),
            steps=steps,
            rng=np.random.default_rng(seed),
            validate=validate,
            validate_every=1,
        ),
        Hooks(log=rows.append),
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
    assert [w["warning"] for w in warnings] == ["dead layer"]
    assert warnings[0]["layer"] == "2" and warnings[0]["value"] > 0.95
    assert "Layer 2 is dead" in warnings[0]["text"] and "learning rate" in warnings[0]["text"]
    assert sum("warning" in row for row in rows) == 1


def test_divergence_is_named_and_takes_precedence():
    _, _, warnings = run(lr=1000.0)
    assert [w["warning"] for w in warnings] == ["diverged"]


def test_nan_is_divergence():
    rows: list = []
    monitor = TrainingMonitor(rows.append)
    row = {"data_seconds": 0.0, "compute_seconds": 0.1}
    monitor.check({"step": 0, "loss": 0.7, **row})
    monitor.check({"step": 1, "loss": 6.9, **row})
    assert not rows
    monitor.check({"step": 2, "loss": math.nan, **row})
    monitor.check({"step": 3, "loss": math.nan, **row})
    assert len(rows) == 1 and "no longer a number" in rows[0]["text"]
    assert rows[0]["value"] is None


def test_rising_validation_loss_is_named_after_six_rises():
    rows: list = []
    monitor = TrainingMonitor(rows.append)
    for step, loss in enumerate([1.0, 0.9, 0.95, 0.9, 0.91, 0.92, 0.93, 0.94, 0.95]):
        monitor.validation(step, {"loss": loss})
    assert not rows
    monitor.validation(9, {"loss": 0.96})
    assert [row["warning"] for row in rows] == ["overfitting"]


def test_slow_data_is_named():
    _, _, warnings = run(steps=61, wait=0.02)
    assert [w["warning"] for w in warnings] == ["slow data"]


def test_validation_rows_and_resumable_monitor():
    values = iter(np.linspace(0.5, 0.9, 6))
    _, rows, _ = run(steps=6, validate=lambda: {"loss": next(values), "ap": 0.5})
    assert [r["validation_ap"] for r in rows if "validation_ap" in r] == [0.5] * 6
    monitor = TrainingMonitor(lambda row: None)
    for step, loss in enumerate(np.linspace(0.5, 0.9, 6)):
        monitor.validation(step, {"loss": loss})
    seen: list = []
    resumed = TrainingMonitor(seen.append)
    resumed.restore(monitor.state())
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


def test_layer_gradients_by_hand_and_several_heads():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    rows: list = []
    recorder = Recorder(net, torch.optim.SGD(net.parameters(), lr=0.1), rows.append)
    recorder.start(0)
    recorder.loaded()
    out = net(torch.randn(5, 3))
    heads = {"left": out[:, 0].square().mean(), "right": out[:, 1].abs().mean()}
    total = heads["left"] + heads["right"]
    total.backward()
    expected = {name: net[int(name)].weight.grad.norm().item() for name in ("0", "2")}
    recorder.before_update()
    recorder.finish({"loss": total, **heads})
    assert rows[0]["layer_gradients"] == pytest.approx(expected, rel=1e-5)
    assert named_losses(rows[0]) == pytest.approx(
        {"loss": total.item(), "left": heads["left"].item(), "right": heads["right"].item()}
    )
    recorder.validation(1, {"loss": 2.0, "left": 0.5})
    assert rows[1] == {"step": 1, "validation_loss": 2.0, "validation_left": 0.5}


def test_a_loss_must_not_take_a_measure_s_name():
    net = nn.Linear(2, 1)
    recorder = Recorder(net, torch.optim.SGD(net.parameters(), lr=0.1), lambda row: None)
    recorder.start(0)
    recorder.loaded()
    with pytest.raises(UserError, match="taken"):
        recorder.finish({"lr": torch.tensor(1.0)})


def by_hand(net, loss, steps=31, lr=1e-3):
    """A plain loop without any help; returns its rows and warnings."""
    rows: list = []
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    recorder = Recorder(net, optimizer, rows.append)
    for step in range(steps):
        recorder.start(step)
        recorder.loaded()
        value = loss(net)
        optimizer.zero_grad()
        value.backward()
        recorder.before_update()
        optimizer.step()
        recorder.finish({"loss": value})
    recorder.flush()
    return rows, recorder.warnings


def mlp(activation, depth):
    torch.manual_seed(0)
    layers = [m for _ in range(depth) for m in (nn.Linear(16, 16), activation())]
    return nn.Sequential(*layers, nn.Linear(16, 1))


def squares(net):
    return (net(torch.linspace(-1, 1, 512).reshape(32, 16)) - 1.0).square().mean()


def test_vanishing_gradients_are_named():
    _, warnings = by_hand(mlp(nn.Sigmoid, 12), squares)
    assert [w["warning"] for w in warnings] == ["vanishing gradients"]
    assert warnings[0]["value"] < 1e-4 and "Gradients vanish before layer" in warnings[0]["text"]
    assert by_hand(mlp(nn.Tanh, 6), squares)[1] == by_hand(mlp(nn.ReLU, 3), squares)[1] == []


def test_vanishing_needs_two_samples_and_no_other_fault():
    rows: list = []
    row = {"loss": 1.0, "data_seconds": 0.0, "compute_seconds": 0.1}
    small = {"a": 1e-9, "b": 1e-9, "c": 1.0}
    monitor = TrainingMonitor(rows.append)
    monitor.check({"step": 0, **row, "layer_gradients": small})
    monitor.check({"step": 1, **row, "layer_gradients": {"a": 1.0, "b": 0.0, "c": 1.0}})
    monitor.check({"step": 2, **row, "layer_gradients": small})
    assert not rows
    monitor.check({"step": 3, **row, "layer_gradients": small})
    assert len(rows) == 1 and "before layer c" in rows[0]["text"]
    dead = TrainingMonitor(rows.append)
    for step in range(3):
        layers = {"relu": {"zero_share": 1.0}}
        dead.check({"step": step, **row, "layers": layers, "layer_gradients": small})
    assert [w["warning"] for w in dead.warnings] == ["dead layer"]


class Sequences(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent = nn.GRU(4, 8, 2, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        return self.head(self.recurrent(x)[0][:, -1])


def test_a_recurrent_network_in_a_plain_loop():
    torch.manual_seed(0)
    x = torch.randn(16, 10, 4)
    rows, warnings = by_hand(Sequences(), lambda net: (net(x)[:, 0] - x[:, 0, 0]).square().mean())
    assert set(rows[0]["layers"]) == set(rows[0]["layer_gradients"]) == {"recurrent", "head"}
    assert warnings == []


def test_an_adversarial_pair():
    torch.manual_seed(0)
    pair = nn.ModuleDict(
        {"generator": nn.Linear(2, 2), "critic": nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 1))}
    )
    optimizers = {n: torch.optim.Adam(net.parameters(), lr=1e-3) for n, net in pair.items()}
    rows: list = []
    recorder = Recorder(pair, optimizers, rows.append)
    for step in range(21):
        recorder.start(step)
        real, made = torch.randn(16, 2) + 2, pair["generator"](torch.randn(16, 2))
        recorder.loaded()
        optimizers["critic"].zero_grad()
        critic = pair["critic"](made.detach()).mean() - pair["critic"](real).mean()
        critic.backward()
        weights = torch.cat([p.detach().flatten() for p in pair["critic"].parameters()])
        gradients = torch.cat([p.grad.flatten() for p in pair["critic"].parameters()])
        recorder.before_update("critic")
        optimizers["critic"].step()
        changed = torch.cat([p.detach().flatten() for p in pair["critic"].parameters()])
        optimizers["generator"].zero_grad()
        generator = -pair["critic"](made).mean()
        generator.backward()
        recorder.before_update("generator")
        optimizers["generator"].step()
        recorder.finish({"critic": critic, "generator": generator})
        if step == 0:
            norm, ratio = gradients.norm().item(), ((changed - weights).norm() / weights.norm())
            by_name = rows[0]["optimizers"]
            assert set(by_name) == {"generator", "critic"}
            assert by_name["critic"]["gradient_norm"] == pytest.approx(norm, rel=1e-5)
            assert by_name["critic"]["update_to_weight"] == pytest.approx(ratio.item(), rel=1e-4)
            assert rows[0]["gradient_norm"] == by_name["generator"]["gradient_norm"]
    recorder.flush()
    assert recorder.warnings == [] and len(rows) == 21
    assert set(named_losses(rows[0])) == {"critic", "generator"}
    assert set(rows[0]["layer_gradients"]) == {"generator", "critic.0", "critic.1"}
    # A generator that learns far less than its critic is judged by itself.
    monitor = TrainingMonitor(rows.append, networks=["generator.", "critic."])
    row = {"generator": 1.0, "data_seconds": 0.0, "compute_seconds": 0.1}
    for step in range(3):
        gradients = {"generator.0": 1e-9, "generator.1": 1e-9, "critic.0": 1.0}
        monitor.check({"step": step, **row, "layer_gradients": gradients})
    assert monitor.warnings == []
    monitor.check({"step": 3, **row, "critic": math.nan})
    assert "critic is no longer a number" in monitor.warnings[0]["text"]


def crossed_labels(share):
    """Return ids, features, labels and groups of three classes, with some labels exchanged."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 100)
    features = rng.normal(size=(300, 4))
    features[:, :3] += 6 * np.eye(3)[labels]
    wrong = rng.random(300) < share
    labels = np.where(wrong, (labels + 1) % 3, labels)
    return [str(i) for i in range(300)], features, labels, [str(i // 2) for i in range(300)]


def test_labels_are_named_without_the_network():
    net = nn.Linear(2, 1)
    rows: list = []
    recorder = Recorder(net, torch.optim.SGD(net.parameters(), lr=0.1), rows.append)
    for share in (0.0, 0.03):
        noise = estimate_label_noise(*crossed_labels(share), np.random.default_rng(0))
        recorder.labels(noise)
        assert not noise.noisy
    assert rows == []
    noise = estimate_label_noise(*crossed_labels(0.25), np.random.default_rng(0))
    recorder.labels(noise)
    assert noise.share == pytest.approx(0.25, abs=0.06)
    assert [row["warning"] for row in rows] == ["label noise"]
    assert len(rows[0]["items"]) == 12 and rows[0]["items"][0] in rows[0]["text"]


def test_labels_that_nothing_explains_are_not_accused():
    ids, features, _, groups = crossed_labels(0.0)
    for seed in range(5):
        labels = np.random.default_rng(seed).integers(2, size=300)
        assert math.isnan(
            estimate_label_noise(ids, features, labels, groups, np.random.default_rng(0)).share
        )
    few = estimate_label_noise(
        ids[:20], features[:20], labels[:20], groups[:20], np.random.default_rng(0)
    )
    assert math.isnan(few.share) and not few.noisy
