"""The recorder: its numbers by hand, its warnings on planted faults, none on healthy runs."""

import math
import sys
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


def test_one_long_wait_in_a_window_is_not_slow_data():
    for waits, expected in ((1, []), (5, ["slow data"])):
        monitor = TrainingMonitor(lambda row: None)
        for step in range(80):
            data = 2.0 if step % 20 < waits else 0.0
            monitor.check({"step": step, "data_seconds": data, "compute_seconds": 0.01})
        assert [w["warning"] for w in monitor.warnings] == expected


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


def test_a_name_that_is_taken_later_is_refused_when_its_row_is_written():
    net = nn.Linear(2, 1)
    recorder = Recorder(net, torch.optim.SGD(net.parameters(), lr=0.1), lambda row: None)
    for step in range(3):
        recorder.start(step)
        net(torch.ones(8, 2)).sum().backward()
        recorder.before_update()
        recorder.finish({"lr" if step == 2 else "loss": torch.tensor(1.0)})
    with pytest.raises(UserError, match="taken"):
        recorder.flush()


def test_a_step_that_is_not_sampled_calls_no_other_function_of_the_recorder():
    net = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    recorder = Recorder(net, optimizer, lambda row: None, budget=0.0)
    called: list = []

    def count(frame, event, argument):
        if event == "call" and "lineside" in frame.f_code.co_filename:
            called.append(frame.f_code.co_name)

    for step in range(40):  # samples are 0, 10 and 20
        loss = net(torch.ones(8, 2)).sum() if step == 39 else None
        sys.setprofile(count if step == 39 else None)
        recorder.start(step)
        recorder.loaded()
        loss = net(torch.ones(8, 2)).sum() if loss is None else loss
        recorder.before_update()
        recorder.finish({"loss": loss})
    sys.setprofile(None)
    assert called == ["start", "loaded", "before_update", "finish"]


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


def steps_by_hand(recorder, network, optimizers, steps, turn, x):
    """Train with `turn(step)`, the names of the optimisers that update in a step."""
    for step in range(steps):
        recorder.start(step)
        recorder.loaded()
        loss = sum(network[name](x).square().mean() for name in network)
        loss.backward()
        for name in turn(step):
            recorder.before_update(name)
            optimizers[name].step()
            optimizers[name].zero_grad()
        recorder.finish({"loss": loss})


def test_every_network_is_sampled_when_they_take_turns():
    torch.manual_seed(0)
    pair = nn.ModuleDict({n: mlp(nn.ReLU, 2) for n in ("actor", "critic")})
    optimizers = {n: torch.optim.SGD(net.parameters(), lr=1e-3) for n, net in pair.items()}
    rows: list = []
    recorder = Recorder(pair, optimizers, rows.append)
    # The critic on even steps; the actor on every fourth, never on a step that begins a sample.
    turns = {0: ["critic"], 1: ["actor"], 2: ["critic"], 3: []}
    steps_by_hand(recorder, pair, optimizers, 40, lambda s: turns[s % 4], torch.randn(16, 16))
    updates = [(row["step"], name) for row in rows for name in row.get("optimizers", {})]
    assert updates[:4] == [(0, "critic"), (1, "actor"), (10, "critic"), (13, "actor")]
    assert all("lr" not in row for row in rows if row["step"] % 4 in (0, 2, 3))
    assert "gradient_norm" not in rows[0] and "gradient_norm" in rows[1]  # of the first optimiser


def test_networks_that_are_called_in_turn_are_all_observed():
    pair = nn.ModuleDict(
        {"even": mlp(nn.ReLU, 1), "odd": mlp(nn.ReLU, 1), "never": mlp(nn.ReLU, 1)}
    )
    optimizer = torch.optim.SGD(pair.parameters(), lr=1e-3)
    rows: list = []
    recorder = Recorder(pair, optimizer, rows.append)
    for step in range(250):
        recorder.start(step)
        recorder.loaded()
        loss = pair["odd" if step % 2 else "even"](torch.ones(8, 16)).sum()
        loss.backward()
        recorder.before_update()
        recorder.finish({"loss": loss})
        assert not any(module._forward_hooks for module in pair.modules())
    seen = {name.split(".")[0] for row in rows for name in row.get("layers", {})}
    assert seen == {"even", "odd"}
    assert {"even.0", "even.1", "even.2"} == set(rows[0]["layers"])
    assert {"odd.0", "odd.1", "odd.2"} == set(rows[1]["layers"])


def test_accumulated_gradients_and_skipped_steps():
    torch.manual_seed(0)
    net, rows = mlp(nn.ReLU, 2), []
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    recorder = Recorder(net, optimizer, rows.append)
    for step in range(24):
        recorder.start(step)
        recorder.loaded()
        if step != 10:  # a step that does nothing at all
            loss = net(torch.randn(8, 16)).square().mean()
            loss.backward()
        if step % 4 == 3:
            recorder.before_update()
            optimizer.step()
            optimizer.zero_grad()
        recorder.finish({"loss": loss} if step != 10 else {})
    recorder.flush()
    assert [row["step"] for row in rows if "layers" in row] == [0, 11, 20]
    measured = [row for row in rows if "gradient_norm" in row]
    assert [row["step"] for row in measured] == [3, 11, 23]
    assert all(row["update_to_weight"] > 0 for row in measured)
    assert "loss" not in rows[10] and recorder.warnings == []


def test_a_training_with_steps_without_loss_and_two_optimisers():
    pair = nn.ModuleDict({n: mlp(nn.Tanh, 1) for n in ("a", "b")})
    optimizers = {n: torch.optim.Adam(net.parameters(), lr=1e-3) for n, net in pair.items()}
    count, seen, progress = iter(range(40)), [], []

    def step(update):
        (x,) = update.draw(lambda rng: (torch.from_numpy(rng.normal(size=(8, 16))).float(),))
        number = next(count)
        if number % 3 == 2:  # collects only
            return {}
        name = "ab"[number % 3]
        loss = pair[name](x).square().mean()
        update.descend(loss, name)
        return {f"{name}_loss": loss}

    result = train(
        Training(
            network=pair, optimizers=optimizers, step=step, steps=40, rng=np.random.default_rng(0)
        ),
        Hooks(log=seen.append, progress=progress.append),
    )
    assert result.warnings == [] and len(progress) == 40 and math.isnan(progress[2].loss)
    assert {n for row in seen for n in row.get("optimizers", {})} == {"a", "b"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions_and_empty_batches(dtype):
    net = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16), nn.ReLU()).to(dtype)
    x = torch.ones(9, 16, dtype=dtype)
    mean = net[0](x).mean().item()
    rows, _ = by_hand(net, lambda model: model(x).sum(), 1)
    assert rows[0]["layers"]["0"]["mean"] == pytest.approx(mean, abs=1e-2)
    empty = nn.Sequential(nn.Linear(16, 4), nn.ReLU())
    assert by_hand(empty, lambda model: model(torch.zeros(0, 16)).sum(), 12)[1] == []


class Fails(nn.Module):
    def __init__(self, where):
        super().__init__()
        self.body, self.where = mlp(nn.ReLU, 2), where

    def forward(self, x):
        if self.where == "forward":
            self.body[:2](x)
            raise ValueError("in forward")
        return self.body(x)


@pytest.mark.parametrize("where", ["draw", "forward", "backward"])
def test_no_hook_is_left_after_an_exception(where):
    net = Fails(where)

    def draw(rng):
        if where == "draw":
            raise ValueError("in draw")
        return (torch.ones(8, 16),)

    def loss(model, batch):
        if where == "backward":
            return model(batch[0]).detach().sum()  # nothing to differentiate
        return model(batch[0]).sum()

    training = Training(
        network=net, optimizers={"sgd": torch.optim.SGD(net.parameters(), lr=0.1)},
        step=supervised_step(draw, loss), steps=3, rng=np.random.default_rng(0),
    )  # fmt: skip
    with pytest.raises(RuntimeError if where == "backward" else ValueError):
        train(training)
    assert not any(module._forward_hooks for module in net.modules())
    with (
        pytest.raises(ValueError, match="by hand"),
        Recorder(net, training.optimizers, lambda row: None) as recorder,
    ):
        recorder.start(0)
        assert any(module._forward_hooks for module in net.modules())
        raise ValueError("by hand")
    assert not any(module._forward_hooks for module in net.modules())


def test_a_loop_without_the_context_recovers_at_the_next_step():
    net = mlp(nn.ReLU, 2)
    recorder = Recorder(net, torch.optim.SGD(net.parameters(), lr=0.1), lambda row: None)
    recorder.start(0)
    with pytest.raises(RuntimeError):
        net(torch.ones(8, 3))  # a wrong shape: the call takes its hooks with it
    assert not any(module._forward_hooks for module in net.modules())
    for step in (1, 2):
        recorder.start(step)
        recorder.loaded()
        loss = net(torch.ones(8, 16)).sum()
        loss.backward()
        recorder.before_update()
        recorder.finish({"loss": loss})
        assert not any(module._forward_hooks for module in net.modules())


def test_short_steps_are_checked_all_and_written_in_part():
    net, rows = nn.Linear(2, 1), []

    def slow_disk(row):
        rows.append(row)
        if len(rows) <= 400:
            time.sleep(2e-4)

    recorder = Recorder(net, torch.optim.SGD(net.parameters(), lr=0.1), slow_disk)
    for step in range(1500):
        recorder.start(step)
        recorder.loaded()
        value = math.nan if step == 1400 else 1.0
        recorder.finish({"loss": torch.tensor(value)})
    recorder.flush()
    assert [row["step"] for row in rows[:100]] == list(range(100))
    assert len(rows) < 1000
    assert [(w["warning"], w["step"]) for w in recorder.warnings] == [("diverged", 1400)]


def test_a_layer_that_dies_late_in_a_fast_training_is_named():
    torch.manual_seed(0)
    net, count = mlp(nn.ReLU, 3), iter(range(2000))

    def loss(model, batch):
        if next(count) == 1900:
            nn.init.constant_(model[2].bias, -100.0)
        return (model(batch[0]) - 1.0).square().mean()

    def log(row):
        if row["step"] == 20:
            time.sleep(0.2)  # an expensive step

    training = Training(
        network=net, optimizers={"adam": torch.optim.Adam(net.parameters(), lr=1e-3)},
        step=supervised_step(lambda rng: (torch.randn(16, 16),), loss), steps=2000,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    warnings = train(training, Hooks(log=log)).warnings
    assert ("dead layer", "3") in {(w["warning"], w["layer"]) for w in warnings}


def faults(net, x, steps=31):
    """Kinds and layers of the warnings of a short training with small steps."""
    _, warnings = by_hand(net, lambda model: (model(x) - 1.0).square().mean(), steps, lr=1e-4)
    return [(w["warning"], w["layer"]) for w in warnings]


def test_most_units_dead():
    torch.manual_seed(0)
    x = torch.randn(64, 16)
    for share, expected in ((0.91, [("dead units", "1")]), (0.5, [])):
        net = nn.Sequential(nn.Linear(16, 100), nn.ReLU(), nn.Linear(100, 1))
        nn.init.constant_(net[0].bias[: round(100 * share)].data, -50.0)
        nn.init.constant_(net[0].bias[round(100 * share) :].data, 1.0)
        assert faults(net, x) == expected
    maps = nn.Sequential(
        nn.Conv2d(1, 20, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 1)
    )
    nn.init.constant_(maps[0].bias[:18].data, -50.0)
    nn.init.constant_(maps[0].bias[18:].data, 5.0)
    assert faults(maps, torch.randn(16, 1, 8, 8)) == [("dead units", "1")]


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Sigmoid])
def test_saturation_is_named_but_for_the_output(activation):
    torch.manual_seed(0)
    x = torch.randn(64, 16)
    net = nn.Sequential(nn.Linear(16, 32), activation(), nn.Linear(32, 1))
    assert faults(net, x) == []
    net[0].weight.data *= 300.0
    assert faults(net, x) == [("saturated layer", "1")]
    sure = nn.Sequential(nn.Linear(16, 8), activation())  # a classifier that is sure of itself
    sure[0].weight.data *= 300.0
    assert faults(sure, x) == []


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList(nn.Sequential(nn.Linear(16, 8), nn.Sigmoid()) for _ in "ab")

    def forward(self, x):
        return {name: head(x) for name, head in zip("ab", self.heads, strict=True)}


def test_no_output_of_several_heads_is_called_saturated():
    torch.manual_seed(0)
    net, x = TwoHeads(), torch.randn(64, 16)
    for head in net.heads:
        head[0].weight.data *= 300.0
    _, warnings = by_hand(net, lambda model: sum(y.mean() for y in model(x).values()), lr=1e-6)
    assert warnings == []


def test_constant_output_is_named():
    torch.manual_seed(0)
    x = torch.randn(64, 16)
    net = mlp(nn.ReLU, 2)
    assert faults(net, x) == []
    net[-1].weight.requires_grad_(False).zero_()
    assert faults(net, x) == [("constant output", "")]


def monitor_of(losses, updates):
    """Check losses with sampled sizes of updates; return the kinds of warning."""
    monitor = TrainingMonitor(lambda row: None)
    for step, loss in enumerate(losses):
        row = {"step": step, "loss": loss, "data_seconds": 0.0, "compute_seconds": 0.1}
        monitor.check(row | ({"update_to_weight": updates[step]} if step in updates else {}))
    return [w["warning"] for w in monitor.warnings]


def test_a_loss_of_any_sign_and_scale_may_grow_but_not_run_away():
    calm, wild = {0: 1e-3, 10: 2e-3, 20: 1e-2}, {0: 1e-3, 10: 3.0}
    healthy = [
        [1e-9 * (1 + step**2) for step in range(60)],  # starts near zero
        [-0.1 - step for step in range(60)],  # negative, and falls
        [-1.0, -3.0, 25.0, -4.0] * 10,  # a Gaussian likelihood too sure of itself
        [0.01] * 30 + [500.0] * 30,  # a stage that is switched on
    ]
    for losses in healthy:
        assert monitor_of(losses, calm) == []
    assert monitor_of([-3.0 - step for step in range(60)], wild) == []
    for start in (0.7, -3.0, 1e-6, 1e6):
        losses = [start] * 11 + [start + 1000 * abs(start)] * 20
        assert monitor_of(losses, wild) == ["diverged"]
    assert monitor_of([-1.0, math.nan], {}) == monitor_of([-1.0, -math.inf], {}) == ["diverged"]


def test_a_monitor_of_the_last_version_is_restored():
    old = {"warnings": [], "usual_loss": 1.0, "diverged": False, "dead": ["2"], "vanished": [],
           "validation_loss": 0.5, "rises": 3}  # fmt: skip
    monitor = TrainingMonitor(lambda row: None)
    monitor.restore(old)
    assert monitor.state()["rises"] == 3


def one_sided(share, distance=6.0, seed=0):
    """Ids, features, labels and groups of 60 rare and 440 other items; some rare ones are lost."""
    rng = np.random.default_rng(seed)
    rare = np.arange(500) >= 440
    features = rng.normal(size=(500, 5))
    features[:, 0] += distance * rare
    labels = np.where(rare, "scratch", "good")
    labels[rng.permutation(np.flatnonzero(rare))[: round(60 * share)]] = "good"
    return [str(i) for i in range(500)], features, labels, [str(i // 2) for i in range(500)]


def test_rare_labels_that_were_lost_to_the_other_class_are_warned_of():
    for seed in range(3):
        clean = estimate_label_noise(*one_sided(0.0, seed=seed), np.random.default_rng(0))
        assert not clean.noisy and clean.rare == ""
        # classes that overlap: others look alike without being wrong
        for distance in (1.0, 2.0):
            overlap = one_sided(0.0, distance=distance, seed=seed)
            assert not estimate_label_noise(*overlap, np.random.default_rng(0)).rare_items
    for share in (0.2, 0.5):
        noise = estimate_label_noise(*one_sided(share), np.random.default_rng(0))
        assert noise.noisy and noise.rare == "scratch"
        assert noise.rare_share == pytest.approx(share, abs=0.12)
        assert all(int(item) >= 440 for item in noise.rare_items)
    rows: list = []
    net = nn.Linear(2, 1)
    Recorder(net, torch.optim.SGD(net.parameters(), lr=0.1), rows.append).labels(noise)
    assert [row["warning"] for row in rows] == ["label noise"]
    assert "rare class scratch" in rows[0]["text"] and rows[0]["items"][0] in rows[0]["text"]
