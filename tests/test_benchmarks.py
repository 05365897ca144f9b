"""Benchmarks: stored results belong to the code that made them; nothing unsaved is published."""

import subprocess

import pytest
from benchmarks import checkpoints, results
from benchmarks.checkpoints import code_hash

from lineside.core.contract import Estimate


@pytest.fixture
def checkout(tmp_path):
    """A package, and a benchmark that imports one of its two files through another benchmark."""
    files = {
        "src/lineside/__init__.py": "",
        "src/lineside/used.py": '"""Old."""\nLIMIT = 1  # why\n',
        "src/lineside/other.py": "LIMIT = 1\n",
        "benchmarks/__init__.py": "",
        "benchmarks/speed.py": "from benchmarks.sizes import LIMIT\n",
        "benchmarks/sizes.py": "def f():\n    from lineside.used import LIMIT\n    return LIMIT\n",
        "examples/plane.py": "BINS = 30\n",
        "constraints.txt": "torch==2.13.0\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def ran(checkout):
    """Return the benchmark, and a file that it runs without importing it."""
    return [checkout / "benchmarks" / "speed.py", checkout / "examples" / "plane.py"]


@pytest.mark.parametrize(
    ("file", "text", "changes"),
    [
        ("src/lineside/used.py", '"""New."""\n\nLIMIT = (1)\n', False),
        ("src/lineside/other.py", "LIMIT = 2\n", False),
        ("src/lineside/used.py", '"""Old."""\nLIMIT = 2\n', True),
        ("benchmarks/sizes.py", "LIMIT = 1\n", True),
        ("examples/plane.py", "BINS = 20\n", True),
        ("constraints.txt", "torch==2.14.0\n", True),
    ],
)
def test_results_are_kept_by_the_code_that_they_depend_on(checkout, file, text, changes):
    before = code_hash(ran(checkout), checkout)
    checkpoints._modules.cache_clear()
    checkpoints._code.cache_clear()
    (checkout / file).write_text(text)
    assert (code_hash(ran(checkout), checkout) != before) == changes


def test_numbers_of_uncommitted_code_are_printed_only(checkout, monkeypatch, capsys):
    run = ["git", "-C", str(checkout), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*run, "init", "-q"], check=True)
    subprocess.run([*run, "add", "."], check=True)
    subprocess.run([*run, "commit", "-qm", "all"], check=True)
    assert len(results.commit(checkout)) >= 7
    (checkout / "src" / "lineside" / "README.md").write_text("tables of the numbers")
    assert results.commit(checkout)
    (checkout / "benchmarks" / "new.py").write_text("")
    assert results.commit(checkout) == ""
    monkeypatch.setattr(results, "commit", lambda: "")
    monkeypatch.setattr(results, "publish", lambda *a, **k: pytest.fail("published"))
    results.sayer("core", "speed", (0,))("ratio", Estimate(value=2.0, unit="ratio", n=1))
    out, err = capsys.readouterr()
    assert out.startswith("ratio") and err.startswith("not published: ")
