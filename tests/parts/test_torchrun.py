"""``torchrun -m lineside parts train``: process 0 owns the run, the other joins its training."""

import os
import socket
import subprocess
import sys

import pytest

from lineside.core.run.files import read_json
from lineside.core.run.folder import Run
from lineside.core.run.trail import iter_rows
from lineside.core.workflow import read
from lineside.parts.application import APPLICATION
from lineside.parts.config import Config
from lineside.parts.simulation.dataset import demo

FLAGS = ("--methods", "patch_cnn", "--cnn-steps", "3", "--crop-px", "32", "--no-robustness")


def test_two_processes_train_the_patch_cnn_in_one_run(tmp_path):
    data = demo(tmp_path / "data", 0, good_parts=12, faulty_parts=9, exposures=1, size_px=96)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
        "--master-addr", "127.0.0.1", "--master-port", str(port), "-m", "lineside", "parts",
        "train", str(data), "--out", str(tmp_path / "run"), *FLAGS, "--no-insight",
    ]  # fmt: skip
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report  ") == 1, "process 0 alone speaks"
    assert read_json(tmp_path / "run" / "status.json")["state"] == "finished"
    assert (tmp_path / "run" / "report.html").exists()
    losses = [row["loss"] for row in iter_rows(tmp_path / "run" / "metrics.jsonl") if "loss" in row]

    config = Config(methods=("patch_cnn",), cnn_steps=3, crop_px=32, insight=False)
    items, _ = read(APPLICATION, data, config)
    alone = Run.begin(tmp_path / "alone", {}, config.seed)
    APPLICATION.methods(config)[0].fit(APPLICATION.split(items, config), config, alone)
    expected = [row["loss"] for row in alone.rows() if "loss" in row]
    alone.close("finished")
    # Later steps amplify the rounding of sums; tests/core/training compares in double precision.
    assert losses[:2] == pytest.approx(expected[:2], rel=1e-3) and len(losses) == 3
