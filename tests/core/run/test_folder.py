import json

import numpy as np
import pytest

from lineside.core.errors import UserError
from lineside.core.run.folder import Run, Stopped, rng_of
from lineside.core.run.trail import iter_rows, repair_lines

JOB = {"application": "toy", "config": {"seed": 1, "pair": (1, 2)}}


def test_streams_depend_on_seed_and_name_only():
    first = rng_of(3, "a").random(4)
    assert np.array_equal(first, rng_of(3, "a").random(4))
    assert not np.array_equal(first, rng_of(3, "b").random(4))
    assert not np.array_equal(first, rng_of(4, "a").random(4))


def test_an_unfinished_run_of_the_same_job_is_taken_up(tmp_path):
    run = Run.begin(tmp_path / "run", JOB, 1)
    run.log({"loss": float("nan")})
    run.close("stopped")
    again = Run.begin(tmp_path / "run", JOB, 1)
    assert again.resumed
    assert again.rows() == [{"loss": None}]
    again.close("finished")


def test_another_job_and_a_finished_run_are_refused(tmp_path):
    Run.begin(tmp_path / "run", JOB, 1).close("stopped")
    with pytest.raises(UserError, match="config differ"):
        Run.begin(tmp_path / "run", {**JOB, "config": {"seed": 2}}, 2)
    Run.begin(tmp_path / "run", JOB, 1).close("finished")
    with pytest.raises(UserError, match="finished run"):
        Run.begin(tmp_path / "run", JOB, 1)


def test_one_writer_at_a_time(tmp_path):
    run = Run.begin(tmp_path / "run", JOB, 1)
    with pytest.raises(UserError, match="in use"):
        Run.begin(tmp_path / "run", JOB, 1)
    run.close("stopped")


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        Run.begin(tmp_path, JOB, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_stop_file_stops_and_is_removed(tmp_path):
    run = Run.begin(tmp_path / "run", JOB, 1)
    run.check_stop()
    (run.folder / "stop").touch()
    with pytest.raises(Stopped):
        run.check_stop()
    run.close("stopped")
    assert not (run.folder / "stop").exists()
    assert json.loads((run.folder / "status.json").read_text())["state"] == "stopped"


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    assert list(iter_rows(path)) == [{"step": 1}]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ""),
        ('{"a": 1}\n', '{"a": 1}\n'),
        ('{"a": 1}\n{"b', '{"a": 1}\n'),
        ('{"a": 1}\n{"b": 2}', '{"a": 1}\n{"b": 2}\n'),
        ('{"b', ""),
        (
            '{"a": "' + 70_000 * "x" + '"}\n{"b": "' + 140_000 * "y",
            '{"a": "' + 70_000 * "x" + '"}\n',
        ),
    ],
)
def test_a_log_is_repaired_so_that_the_next_line_is_whole(tmp_path, text, kept):
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    repair_lines(path)
    assert path.read_text() == kept
    repair_lines(tmp_path / "none.jsonl")
    assert not (tmp_path / "none.jsonl").exists()


def test_a_run_killed_before_its_job_was_written_is_begun_anew(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (".lock", "environment.json", ".config.json.abcdefgh.lineside"):
        (folder / name).touch()
    run = Run.begin(folder, JOB, 1)
    assert not run.resumed
    run.close("stopped")
    assert not (folder / ".config.json.abcdefgh.lineside").exists()


def test_the_lock_is_given_back_even_if_the_last_status_cannot_be_written(tmp_path, monkeypatch):
    run = Run.begin(tmp_path / "run", JOB, 1)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "status", lambda *args, **facts: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run.close("failed")
    Run.begin(tmp_path / "run", JOB, 1).close("stopped")
