"""Damaged files of a run: one line, or the same result. A part of ``benchmarks.core.damage``."""

import dataclasses

import pytest
from benchmarks.core.damage import (
    DAMAGES,
    Answer,
    damage_file,
    fault_of,
    judge,
    machines_scenes,
    parts_scenes,
    preload,
)

WHOLE = Answer(codes=[0], output=[[{"verdict": "accept"}]], errors=[["reading"]], result=1)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, ""),
        ({"codes": [2], "output": [[]], "errors": [["error: x is damaged"]]}, ""),
        ({"codes": [2], "output": [[]], "errors": [["error: a", "error: b"]]}, "traceback"),
        ({"codes": [2], "output": [[]], "errors": [[]]}, "traceback"),
        ({"codes": [3], "errors": [["error: a bug in lineside"]]}, "traceback"),
        ({"codes": [-14]}, "traceback"),
        ({"codes": [1]}, "silent"),
        ({"output": [[{"verdict": "reject"}]]}, "silent"),
        ({"result": 2}, "silent"),
    ],
)
def test_what_counts_as_a_fault(changes, fault):
    assert fault_of(WHOLE, dataclasses.replace(WHOLE, **changes)) == fault


def test_what_a_missing_file_changes_must_be_said():
    other = dataclasses.replace(WHOLE, output=[[]])
    assert fault_of(WHOLE, other, "trail") == "silent"
    said = dataclasses.replace(other, errors=[["a new store: trail"]])
    assert fault_of(WHOLE, said, "trail") == "" and fault_of(WHOLE, said) == "silent"
    assert fault_of(WHOLE, dataclasses.replace(said, result=2), "trail") == "silent"


@pytest.mark.parametrize("kind", DAMAGES)
def test_each_damage_changes_a_file(tmp_path, kind):
    path = tmp_path / "f.json"
    path.write_text('{"a": 1}\n{"b": 2}\n')
    before = path.read_bytes()
    damage_file(path, kind)
    assert not path.is_file() or path.read_bytes() != before


def test_damaged_runs_give_one_line_or_the_same_result(tmp_path):
    preload()
    finished, stopped = parts_scenes(tmp_path / "parts", deep=False)
    predict = dataclasses.replace(finished, commands=finished.commands[:1])
    tracebacks, silent, count = judge([predict, stopped], DAMAGES, 17)
    assert (tracebacks, silent) == (0, 0)
    assert count >= 15


def test_damaged_models_of_machines_are_evaluated_as_before_or_refused(tmp_path):
    preload()
    finished, _ = machines_scenes(tmp_path / "machines")
    (evaluate,) = [command for command in finished.commands if command[1] == "evaluate"]
    files = [file for file in finished.files if file != "machines.db"]
    scene = dataclasses.replace(finished, commands=[evaluate], files=files)
    tracebacks, silent, count = judge([scene], DAMAGES, 11)
    assert (tracebacks, silent) == (0, 0)
    assert count >= 10
