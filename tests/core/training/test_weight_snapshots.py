"""Weights at log-spaced steps: which steps, what is kept, and that a resumed fit keeps the same."""

import numpy as np
import pytest
import torch
from torch import nn

from lineside.core.contract import Figure
from lineside.core.errors import UserError
from lineside.core.report.figures import load_figures, save_figures
from lineside.core.training.loop import Hooks, Training, train
from lineside.core.training.step_function import supervised_step
from lineside.core.training.weight_snapshots import (
    MAX_SNAPSHOTS,
    WeightSnapshots,
    load_snapshots,
    log_spaced,
)


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))


def training(net, steps=20):
    return Training(
        network=net,
        optimizers={"sgd": torch.optim.SGD(net.parameters(), lr=0.1)},
        step=supervised_step(
            lambda rng: (torch.from_numpy(rng.normal(size=(8, 3)).astype(np.float32)),),
            lambda model, batch: (model(batch[0]) - batch[0].sum(1, keepdim=True)).square().mean(),
        ),
        steps=steps,
        rng=np.random.default_rng(0),
    )


def test_steps_are_spread_and_hold_both_ends():
    assert log_spaced(100, 5) == [0, 1, 5, 22, 100]
    assert log_spaced(3, 25) == [0, 1, 2, 3]
    assert log_spaced(1000, 2) == [0, 1000]
    assert len(log_spaced(8000, MAX_SNAPSHOTS)) <= MAX_SNAPSHOTS


def test_a_training_keeps_its_first_and_last_weights(tmp_path):
    net = network()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    train(training(net), Hooks(snapshots=tmp_path / "s"))
    kept = list(load_snapshots(tmp_path / "s"))
    assert [step for step, _ in kept] == log_spaced(20, MAX_SNAPSHOTS)
    for (_, weights), true in ((kept[0], before), (kept[-1], net.state_dict())):
        for name, value in true.items():
            assert torch.allclose(weights[name], value, atol=2e-3)
            assert weights[name].dtype == value.dtype
    copy = network()
    copy.load_state_dict(kept[-1][1])


def test_keeping_does_not_change_the_result(tmp_path):
    one, two = network(), network()
    train(training(one), Hooks(snapshots=tmp_path / "s"))
    train(training(two))
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_large_network_gets_fewer_steps(tmp_path, monkeypatch):
    net = network()
    size = 4 * (4 + 4 + 4 + 4 + 4 + 1) + 8 + 2 * (12 + 4)
    monkeypatch.setattr("lineside.core.training.weight_snapshots.MAX_BYTES", 3 * size)
    kept = WeightSnapshots(tmp_path, net, 1000)
    for step in range(1001):
        kept.save(step, net)
    assert [step for step, _ in load_snapshots(tmp_path)] == [0, 1, 1000]


def test_figures_come_back_as_they_were(tmp_path):
    figure = Figure(title="a", image=b"\x00\xff", mime="image/png", caption="b", wide=True)
    assert load_figures(tmp_path, "m") == []
    save_figures(tmp_path, "m", [figure, figure])
    assert load_figures(tmp_path, "m") == [figure, figure]


def test_weights_that_were_altered_are_not_drawn(tmp_path):
    train(training(network()), Hooks(snapshots=tmp_path / "s"))
    path = sorted((tmp_path / "s").iterdir())[3]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="was altered - remove it"):
        list(load_snapshots(tmp_path / "s"))
    path.unlink()
    assert len(list(load_snapshots(tmp_path / "s"))) > 3
