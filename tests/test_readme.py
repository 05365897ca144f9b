"""The first Python lines of the README work as pasted."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parent.parent / "README.md"


def test_the_first_lines_of_python_work_as_pasted(trained, shop, tmp_path):
    block = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
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
