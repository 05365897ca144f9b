"""A run folder over its life: killed, of other versions, edited, and what a user keeps in it."""

import json
import os
import signal

import pytest

from lineside.core.errors import UserError
from lineside.core.run.files import write_json
from lineside.core.run.folder import Run, Stopped, environment
from lineside.core.run.status import choose_model, is_held, read_status, run_file

JOB = {"application": "toy", "config": {"seed": 1}}


def change(path, **entries):
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def killed(work):
    child = os.fork()
    if child == 0:
        work()
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_killed_run_is_stopped_and_a_held_one_is_running(tmp_path):
    folder = tmp_path / "run"
    killed(lambda: Run.begin(folder, JOB, 1))
    assert json.loads((folder / "status.json").read_text())["state"] == "running"
    assert read_status(folder)["state"] == "stopped"
    assert json.loads((folder / "status.json").read_text())["state"] == "stopped"
    run = Run.begin(folder, JOB, 1)
    assert is_held(folder) and read_status(folder)["state"] == "running"
    run.close("stopped")
    assert not is_held(folder)


def test_files_of_a_user_are_left_alone(tmp_path):
    folder = tmp_path / "run"
    Run.begin(folder, JOB, 1).close("stopped")
    mine = (folder / ".notes.personal", folder / "models" / ".keep.original")
    for path in mine:
        path.mkdir(parents=True)
        (path / "text").write_text("mine")
    (folder / ".config.json.12345678.lineside").write_text("half")
    Run.begin(folder, JOB, 1).close("stopped")
    assert all((path / "text").read_text() == "mine" for path in mine)
    assert not (folder / ".config.json.12345678.lineside").exists()


def test_a_run_of_other_versions_is_not_resumed(tmp_path):
    folder = tmp_path / "run"
    Run.begin(folder, JOB, 1).close("stopped")
    now = environment()["versions"]
    change(folder / "environment.json", versions={**now, "torch": "2.6.0"})
    with pytest.raises(UserError, match=r"other versions: torch 2\.6\.0, now 2[^;]* - resume"):
        Run.begin(folder, JOB, 1)
    (folder / "environment.json").write_text("[]")
    with pytest.raises(UserError, match=r"is damaged.*remove the run"):
        Run.begin(folder, JOB, 1)
    write_json(folder / "environment.json", {"versions": now})
    with pytest.raises(UserError, match="run folder of format 1, now 2"):
        Run.begin(folder, JOB, 1)


def test_a_finished_run_knows_its_files_and_its_model(tmp_path):
    folder = tmp_path / "run"
    run = Run.begin(folder, JOB, 1)
    (folder / "split.csv").write_text("item\n")
    run.close("finished", model="good")
    assert run_file(folder, "split.csv") == folder / "split.csv"
    choose_model(folder, "better")
    assert read_status(folder)["model"] == "better"
    (folder / "split.csv").write_text("item\nx\n")
    with pytest.raises(UserError, match=r"split\.csv was altered since its run was finished"):
        run_file(folder, "split.csv")
    (folder / "split.csv").unlink()
    with pytest.raises(UserError, match=r"split\.csv is missing"):
        run_file(folder, "split.csv")
    change(folder / "status.json", model="worse")
    with pytest.raises(UserError, match="was altered"):
        read_status(folder)


def test_a_status_without_a_seal_is_of_an_old_run_only(tmp_path):
    folder = tmp_path / "run"
    Run.begin(folder, JOB, 1).close("finished", model="good")
    write_json(folder / "status.json", {"state": "finished", "model": "worse"})
    with pytest.raises(UserError, match="was altered"):
        read_status(folder)
    write_json(folder / "environment.json", {"versions": {}})
    assert read_status(folder)["model"] == "worse"


@pytest.mark.parametrize("name", ["status.json", "metrics.jsonl", "split.csv", ".lock", "stop"])
def test_a_folder_in_the_place_of_a_file_is_one_line(tmp_path, name):
    folder = tmp_path / "run"
    Run.begin(folder, JOB, 1).close("stopped")
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    with pytest.raises(UserError, match=f"{name} is not a file"):
        Run.begin(folder, JOB, 1)


@pytest.mark.parametrize("content", ["", "[1]", '{"state": "finished"}', "{"])
def test_a_damaged_status_is_told_and_written_anew(tmp_path, content):
    folder = tmp_path / "run"
    run = Run.begin(folder, JOB, 1)
    run.log({"event": "fitted"})
    run.close("stopped")
    (folder / "status.json").write_text(content)
    run = Run.begin(folder, JOB, 1)
    assert len(run.notes) == 1 and "status.json" in run.notes[0]
    assert run.rows() == [{"event": "fitted"}]
    run.close("stopped")
    assert read_status(folder)["state"] == "stopped"


def test_an_edited_log_is_refused_and_says_what_to_do(tmp_path):
    folder = tmp_path / "run"
    run = Run.begin(folder, JOB, 1)
    for loss in (0.5, 0.4, 0.3):
        run.log({"loss": loss})
    run.close("stopped")
    whole = (folder / "metrics.jsonl").read_text()
    for text, words in (
        (whole.replace("0.4", "0.1"), "line 2 was changed"),
        (whole[: whole.index("\n") + 1], "rows 2 to 3 are missing at the end"),
    ):
        (folder / "metrics.jsonl").write_text(text)
        with pytest.raises(UserError, match=f"{words}.*remove it to fit"):
            Run.begin(folder, JOB, 1)
    (folder / "metrics.jsonl").unlink()
    Run.begin(folder, JOB, 1).close("stopped")


def test_the_time_of_a_fit_counts_what_came_before_a_kill_and_a_stop(tmp_path, monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("lineside.core.run.folder.time.perf_counter", lambda: float(next(clock)))
    folder = tmp_path / "run"

    stopped = Run.begin(folder, JOB, 1)
    with pytest.raises(Stopped), stopped.fitting("a"):
        raise Stopped
    stopped.close("stopped")
    assert read_status(folder)["fit"] == {"method": "a", "seconds": 10.0}
    killed(lambda: _fit_and_die(folder))
    assert read_status(folder)["fit"]["seconds"] == 20.0
    run = Run.begin(folder, JOB, 1)
    with run.fitting("a") as seconds:
        assert seconds() == 30.0
    with run.fitting("b") as seconds:
        assert seconds() == 10.0
    run.close("finished")
    assert "fit" not in read_status(folder)


def _fit_and_die(folder):
    run = Run.begin(folder, JOB, 1)
    with run.fitting("a"):
        run._beat = 0.0  # the last beat is long ago
        run.log({"step": 1})
        os.kill(os.getpid(), signal.SIGKILL)
