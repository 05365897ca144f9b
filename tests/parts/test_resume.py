"""`train` stopped and killed at any moment: the same command goes on and ends alike."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lineside.cli import main
from lineside.core.run.folder import Run

FLAGS = ("--methods", "gaussian", "--methods", "brightness", "--no-robustness")


@pytest.fixture(scope="module")
def data(shop, tmp_path_factory):
    return shop.data(tmp_path_factory.mktemp("resume") / "data", good=7, faulty=3)


@pytest.fixture(scope="module")
def command(data, shop):
    return ["parts", "train", str(data), *FLAGS, "--part-pattern", shop.pattern, "--out"]


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    assert main([*command, str(out)]) == 0
    return identities(out)


def identities(run):
    files = sorted(run.glob("models/*/model.json"))
    assert len(files) == 2
    return [
        (json.loads(f.read_text())["id"], json.loads(f.read_text())["calibration"]) for f in files
    ]


def state(run):
    return json.loads((run / "status.json").read_text())["state"]


class Killer:
    """Kills its process at the n-th renaming into place: just before it, or just after."""

    def __init__(self, moment, after):
        self.moment, self.after, self.calls, self.replace = moment, after, 0, os.replace

    def __call__(self, *places):
        self.calls += 1
        if self.calls == self.moment and not self.after:
            os.kill(os.getpid(), signal.SIGKILL)
        self.replace(*places)
        if self.calls == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("moment", "after"), [(1, False), (2, True), (9, False), (13, True)])
def test_killed_at_any_moment_it_ends_alike(command, whole, tmp_path, monkeypatch, moment, after):
    out = tmp_path / "run"
    child = os.fork()
    if child == 0:
        os.replace = Killer(moment, after)
        main([*command, str(out)])
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert main([*command, str(out)]) == 0
    assert identities(out) == whole
    assert not list(out.glob("**/.*.????????")), "drafts of the killed process are gone"


def interrupt(run):
    os.kill(os.getpid(), signal.SIGINT)


def stop_file(run):
    (run.folder / "stop").touch()


@pytest.mark.parametrize("ask", [interrupt, stop_file])
def test_asked_to_stop_it_ends_with_130_and_can_be_taken_up(
    command, whole, tmp_path, monkeypatch, capsys, ask
):
    out = tmp_path / "run"
    status = Run.status

    def asking(self, state, **facts):
        status(self, state, **facts)
        if facts.get("step") == "fitting brightness":
            ask(self)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "status", asking)
        assert main([*command, str(out)]) == 130
    assert state(out) == "stopped"
    assert "resumes" in capsys.readouterr().err
    assert main(["parts", "predict", "x.png", "--model", str(out)]) == 2
    assert "without a finished model" in capsys.readouterr().err
    assert main([*command, str(out)]) == 0
    assert identities(out) == whole
    assert state(out) == "finished"
    assert not (out / "stop").exists()
    capsys.readouterr()
    assert main([*command, str(out)]) == 2
    assert "finished run" in capsys.readouterr().err


def test_ctrl_c_in_a_process_of_its_own(command, tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "lineside", *command, str(out)], stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while not (out / "status.json").exists() and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "resumes" in told and "Traceback" not in told
    assert state(out) == "stopped"


def test_one_writer_and_one_job_per_run(command, data, tmp_path, capsys):
    out = tmp_path / "run"
    (tmp_path / "other").mkdir()
    held = Run.begin(out, {"application": "parts"}, 0)
    assert main([*command, str(out)]) == 2
    assert "in use by another process" in capsys.readouterr().err
    held.close("stopped")
    assert main([*command, str(out)]) == 2
    assert "another job" in capsys.readouterr().err


def test_evaluate_counts_and_judges_no_promise_that_was_not_made(trained, shop, tmp_path, capsys):
    flags = ["--model", str(trained), "--part-pattern", shop.pattern]
    fresh = shop.data(tmp_path / "fresh", good=4, faulty=2, seed=9)
    for depth, escaped in ((130, 0), (0, 2)):
        for path in fresh.glob("defect/spot/*.png"):
            shop.picture(path, depth, int(path.stem[1:3]))
        assert main(["parts", "evaluate", str(fresh), *flags]) == 0
        told = capsys.readouterr().out
        assert "No promise with a confidence was made" in told and "image_auroc" in told
        assert f"{escaped} of 2 (" in told
