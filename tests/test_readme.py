"""The Python lines of the README work as pasted; its first screen says what lineside is."""

import os
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_lines_of_python_work_as_pasted(trained, shop, tmp_path):
    block = re.search(r"```python\n(.*?)```", README, re.S)
    if block is None:
        pytest.skip("the README shows no Python")
    code = block.group(1)
    os.symlink(trained, tmp_path / "run")
    files = re.findall(r"[\"']([^\"']+\.(?:png|jpg))[\"']", code)
    for number, name in enumerate(files):
        shop.picture(tmp_path / name, 130.0 * (number == 0), number)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(files) > 0
    assert "reject" in lines[0]


@pytest.mark.adversary("n")
def test_the_lines_for_pictures_in_memory_work_as_pasted(trained, shop, tmp_path):
    code = re.findall(r"```python\n(.*?)```", README, re.S)[2]
    os.symlink(trained, tmp_path / "run")
    for number, name in enumerate(("a.png", "b.png")):
        shop.picture(tmp_path / name, 130.0 * (number == 0), number)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    frame, pillow, file, explained = done.stdout.splitlines()
    assert frame.startswith("frame 0 reject") and explained.startswith("frame 0: reject")
    assert pillow.split()[-1] == file.split()[-1]


def test_a_measurement_in_memory_is_what_the_readme_says():
    from lineside.machines.data.measurement import Channel, Measurement
    from lineside.machines.model import MachinesModel

    line = re.search(r"push\((Measurement\(.*?\)\}\))", README, re.S)[1]
    names = {"Measurement": Measurement, "Channel": Channel, "seconds": 0.0, "array": [0.0]}
    assert eval(line, names).channels["x"].rate_hz == 12800.0
    assert callable(MachinesModel.session)


def test_lines_for_machines_use_what_results_have():
    from lineside.core.predictor import Predictor
    from lineside.machines.alarms.verdict import Verdict

    code = re.findall(r"```python\n(.*?)```", README, re.S)[1]
    names = re.findall(r"result\.(\w+)", code)
    assert {"machine", "state"} <= set(names) <= {field.name for field in fields(Verdict)}
    assert all(hasattr(Predictor, name) for name in re.findall(r"predictor\.(\w+)\(", code))


def test_the_first_screen_has_a_picture_and_the_two_commands():
    lines = README.splitlines()
    pictures = [i for i, line in enumerate(lines) if line.startswith("![")]
    assert pictures and pictures[0] < 20
    assert any(line.startswith("make demo") for line in lines[:45])
    for image in re.findall(r"!\[.+?\]\((.+?)\)", README):
        assert (ROOT / image).is_file()


def test_every_extra_is_named():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra in set(extras["optional-dependencies"]) - {"dev"}:
        assert f"`[{extra}]`" in README, extra
