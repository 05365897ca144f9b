"""The training loop: equal to a plain loop, exact after kill -9, stoppable."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lineside.core.errors import UserError
from lineside.core.run.folder import Stopped
from lineside.core.training.loop import Hooks, Training, train
from lineside.core.training.step_function import supervised_step

# The killed process runs this text too, so that both make the same training.
MAKE = """
import numpy as np, torch
from torch import nn
from torch.nn import functional
from lineside.core.training.loop import Hooks, Training, train
from lineside.core.training.step_function import supervised_step

def make(steps=12, seed=0, keep=None, validate=None, every=100):
    torch.manual_seed(5)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Dropout(0.3), nn.Linear(144, 1),
    ).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    return Training(
        network=net, optimizers={"adamw": optimizer}, step=supervised_step(draw, loss),
        steps=steps, rng=np.random.default_rng(seed), keep=keep, validate=validate,
        validate_every=4, checkpoint_every=every,
        schedulers=[torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=13)],
    )

def draw(rng):
    x = torch.from_numpy(rng.normal(size=(6, 1, 8, 8)).astype(np.float32))
    x = x.contiguous(memory_format=torch.channels_last)
    return x, (x.mean((1, 2, 3)) > 0).float()

def loss(model, batch):
    return functional.binary_cross_entropy_with_logits(model(batch[0])[:, 0], batch[1])
"""
names: dict = {}
exec(MAKE, names)
make, draw, loss = names["make"], names["draw"], names["loss"]


def same(a, b):
    return all(torch.equal(x, b[k]) for k, x in a.items())


def weights(training):
    return {k: v.clone() for k, v in training.network.state_dict().items()}


def test_equals_a_plain_loop_bit_for_bit():
    training, plain = make(), make()
    train(training)
    seed = int(plain.rng.integers(2**62))
    torch.manual_seed(seed)
    plain.network.train()
    for _ in range(plain.steps):
        batch = draw(plain.rng)
        plain.optimizers["adamw"].zero_grad()
        loss(plain.network, batch).backward()
        plain.optimizers["adamw"].step()
        plain.schedulers[0].step()
    assert same(weights(training), weights(plain))


def test_killed_run_ends_with_identical_weights(tmp_path):
    script = MAKE + (
        "import os, signal\nfrom pathlib import Path\n"
        "end = lambda p: os.kill(os.getpid(), signal.SIGKILL) if p.step == 8 else None\n"
        f"train(make(every=3), Hooks(checkpoint=Path({str(tmp_path)!r}), progress=end))\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    whole, resumed, steps = make(), make(), []
    train(whole)
    train(resumed, Hooks(checkpoint=tmp_path, progress=lambda p: steps.append(p.step)))
    assert steps[0] == 7  # the last checkpoint was after six updates
    assert same(weights(whole), weights(resumed))
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_stop_ends_resumably(tmp_path):
    answers = iter([False] * 5 + [True])
    with pytest.raises(Stopped):
        train(make(), Hooks(checkpoint=tmp_path, stop=lambda: next(answers)))
    whole, resumed, seen = make(), make(), []
    train(whole)
    train(resumed, Hooks(checkpoint=tmp_path, progress=seen.append))
    assert [p.step for p in seen] == list(range(6, 13))
    assert seen[-1].total == 12 and seen[-1].seconds_left == 0 and seen[0].seconds_left > 0
    assert same(weights(whole), weights(resumed))
    # A finished training is taken from its checkpoint without another update.
    again, seen = make(), []
    train(again, Hooks(checkpoint=tmp_path, progress=seen.append))
    assert not seen and same(weights(whole), weights(again))


def test_refuses_a_foreign_or_damaged_checkpoint(tmp_path):
    train(make(steps=2), Hooks(checkpoint=tmp_path))
    with pytest.raises(UserError, match="another training"):
        train(make(steps=3), Hooks(checkpoint=tmp_path))
    file = next(tmp_path.glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        train(make(steps=2), Hooks(checkpoint=tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"best_value": null', '"best_value": 3.0'),
        lambda text: text.replace('"step": 2,', '"step": 1,'),
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[1, 2]",
        lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "sha256"}),
    ],
)
def test_a_state_that_was_cut_or_edited_is_refused_and_says_what_to_delete(tmp_path, change):
    train(make(steps=2), Hooks(checkpoint=tmp_path))
    path = tmp_path / "state.json"
    assert change(path.read_text()) != path.read_text()
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=f"remove {tmp_path} to train from the first step again"):
        train(make(steps=2), Hooks(checkpoint=tmp_path))


def test_keeps_the_best_weights_also_across_a_resume(tmp_path):
    def measures():
        values = iter([0.4, 0.9, 0.1])
        return lambda: {"loss": 0.5, "ap": next(values)}

    at_eight: list = []
    training = make(keep="ap", validate=measures())
    result = train(
        training,
        Hooks(progress=lambda p: at_eight.append(weights(training)) if p.step == 8 else None),
    )
    assert result.step == 8
    assert [row["ap"] for row in result.history] == [0.4, 0.9, 0.1]
    assert same(at_eight[0], weights(training))
    stopping = make(keep="ap", validate=measures())
    answers = iter([False] * 9 + [True])
    with pytest.raises(Stopped):
        train(stopping, Hooks(checkpoint=tmp_path, stop=lambda: next(answers)))
    resumed = make(keep="ap", validate=lambda: {"loss": 0.5, "ap": 0.1})
    assert train(resumed, Hooks(checkpoint=tmp_path)).step == 8
    assert same(at_eight[0], weights(resumed))


def test_a_time_limit_ends_a_training_for_good(tmp_path):
    def limited(seconds):
        return dataclasses.replace(make(), most_seconds=seconds)

    seen: list = []
    ended = train(limited(0.0), Hooks(checkpoint=tmp_path, progress=seen.append))
    assert ended.step == 0 and not seen
    # Its checkpoint says so: more time is no reason to resume it.
    resumed = train(limited(60.0), Hooks(checkpoint=tmp_path, progress=seen.append))
    assert resumed.step == 0 and not seen and resumed.seconds >= ended.seconds


def test_leaves_the_global_random_state_alone():
    training = make()
    before = torch.get_rng_state()
    train(training)
    assert torch.equal(before, torch.get_rng_state())
    assert not training.network.training


def test_clips_gradients_and_records_named_losses():
    net = nn.Linear(3, 1)
    rows: list = []
    train(
        Training(
            network=net,
            optimizers={"sgd": torch.optim.SGD(net.parameters(), lr=0.0)},
            step=supervised_step(
                lambda rng: (torch.ones(4, 3),),
                lambda model, batch: {
                    "loss": 1000 * functional.mse_loss(model(batch[0]), torch.ones(4, 1)),
                    "other": torch.tensor(2.0),
                },
                clip_norm=0.5,
            ),
            steps=1,
            rng=np.random.default_rng(0),
        ),
        Hooks(log=rows.append),
    )
    assert rows[0]["other"] == 2.0
    assert rows[0]["gradient_norm"] == pytest.approx(0.5, rel=1e-4)
