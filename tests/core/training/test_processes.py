"""Training on two processes gives the loss curve of one; process 0 alone writes."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from lineside.core.errors import UserError
from lineside.core.training.loop import Hooks, train
from lineside.core.training.step_function import shard_rows

# Both sides run this text: batches of 5 rows, which do not divide evenly by two processes, batch
# norm, and double precision, in which a wrong gradient cannot hide behind rounding.
TRAINING = """
import json, sys
from pathlib import Path
import numpy as np, torch
from torch import nn
from lineside.core.run.folder import Stopped
from lineside.core.training.loop import Hooks, Processes, Training, train
from lineside.core.training.step_function import supervised_step

def make():
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(16, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1),
    ).double()
    adamw = torch.optim.AdamW(net.parameters(), lr=0.02)

    def draw(rng):
        x = torch.from_numpy(rng.normal(size=(5, 1, 4, 4)))
        return x, x.square().mean((1, 2, 3))[:, None]

    def loss(model, batch):
        error = model(batch[0]) - batch[1]
        return {"loss": error.square().mean(), "absolute": error.abs().mean()}

    return Training(
        network=net, optimizers={"adamw": adamw}, step=supervised_step(draw, loss, clip_norm=5.0),
        steps=24, rng=np.random.default_rng(0), checkpoint_every=10, keep="gain",
        validate=lambda: {"gain": 1.0}, validate_every=8,
        schedulers=[torch.optim.lr_scheduler.StepLR(adamw, 8, 0.5)],
    )
"""
RUN = """
folder, process = Path(sys.argv[1]), Processes().index
rows, steps, asked = [], [], iter([False] * 13 + [True])
whole = make()
trained = train(whole, Hooks(log=rows.append, checkpoint=folder / f"whole-{process}"))
try:
    train(make(), Hooks(checkpoint=folder / "stopped", stop=lambda: next(asked)))
    raise SystemExit("was not stopped")
except Stopped:
    pass
resumed = make()
train(resumed, Hooks(checkpoint=folder / "stopped", progress=lambda p: steps.append(p.step)))
(folder / f"{process}.json").write_text(json.dumps({
    "losses": [[row["loss"], row["absolute"]] for row in rows if "loss" in row],
    "weights": [w.flatten().tolist() for w in whole.network.state_dict().values()],
    "resumed": [w.flatten().tolist() for w in resumed.network.state_dict().values()],
    "step": trained.step, "steps": steps,
}))
"""


def run_on_two_processes(script, folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
        "--master-addr", "127.0.0.1", "--master-port", str(port), str(script), str(folder),
    ]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_two_processes_reproduce_the_loss_curve_of_one(tmp_path):
    script = tmp_path / "training.py"
    script.write_text(TRAINING + RUN)
    run_on_two_processes(script, tmp_path)
    names: dict = {}
    exec(TRAINING, names)
    rows: list = []
    one = names["make"]()
    trained = train(one, Hooks(log=rows.append))
    losses = [[row["loss"], row["absolute"]] for row in rows if "loss" in row]
    weights = [w.flatten().tolist() for w in one.network.state_dict().values()]
    first, second = (json.loads((tmp_path / f"{i}.json").read_text()) for i in range(2))
    np.testing.assert_allclose(first["losses"], losses, rtol=1e-6)
    for mine, theirs in zip(first["weights"], weights, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-7, atol=1e-10)
    assert first["step"] == second["step"] == trained.step == 24
    # Process 0 alone logs and writes; both end with the same weights, and so does a resumed run.
    assert second["losses"] == [] and second["steps"] == []
    assert (tmp_path / "whole-0").exists() and not (tmp_path / "whole-1").exists()
    assert first["steps"] == list(range(14, 25))
    assert first["weights"] == second["weights"] == first["resumed"] == second["resumed"]


def test_shares_of_a_batch_weigh_as_many_rows_as_they_have():
    batch = (torch.arange(5.0), torch.arange(10.0).reshape(5, 2))
    shares = [shard_rows(batch, process, 3) for process in range(3)]
    assert sorted(torch.cat([rows[0] for rows, _ in shares]).tolist()) == [0, 1, 2, 3, 4]
    assert all(torch.equal(rows[1][:, 0], 2 * rows[0]) for rows, _ in shares)
    means = [weight * float(rows[0].mean()) for rows, weight in shares]
    assert np.mean(means) == pytest.approx(2.0)
    with pytest.raises(UserError, match="a batch of 5 is for 6 processes"):
        shard_rows(batch, 0, 6)
