"""The rules of the house: who imports whom, without circles; what stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.core import house

SOURCE = Path(__file__).resolve().parent.parent / "src" / "lineside"
FILES = sorted(SOURCE.rglob("*.py"))
APPLICATIONS = ("parts", "scores", "faces", "machines", "speakers", "games")
LONGEST_FUNCTION = 60


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def floor(path: Path) -> str:
    parts = path.relative_to(SOURCE).parts
    return parts[0] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_floors_import_only_what_lies_below(path):
    for name in imported(path):
        pieces = name.split(".")
        if pieces[0] != "lineside" or len(pieces) < 2:
            continue
        if floor(path) == "core":
            assert pieces[1] not in (*APPLICATIONS, "studio", "cli"), f"core imports {name}"
        if floor(path) in APPLICATIONS:
            assert pieces[1] not in (*(set(APPLICATIONS) - {floor(path)}), "studio", "cli"), name


@pytest.mark.parametrize(
    "library", ["accelerate", "dask", "distributed", "onnxruntime", "sqlalchemy"]
)
def test_each_engine_has_one_door(library):
    doors = {
        "accelerate": {"loop.py"},
        "onnxruntime": {"onnx_backbone.py"},
        "sqlalchemy": {"database.py", "tables.py"},
    }
    rooms = {"sqlalchemy": {"store", "gallery"}}
    allowed = doors.get(library, {"parallel.py"})
    for path in FILES:
        if any(name.split(".")[0] == library for name in imported(path)):
            room = floor(path) in APPLICATIONS and path.parent.name in rooms.get(library, set())
            assert room or path.name in allowed, f"{path} imports {library}"


@pytest.mark.parametrize("package", house.PACKAGES)
def test_no_import_circles(package):
    """Among the files of a package, imports inside functions included, those for typing not."""
    assert house.import_circles(package) == []


def test_import_circles_are_found(tmp_path):
    folder = tmp_path / "lineside" / "core"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "a.py").write_text("from lineside.core import b\n")
    (folder / "b.py").write_text("def f():\n    from lineside.core.c import g\n")
    (folder / "c.py").write_text("import lineside.core.a\n")
    (folder / "d.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from lineside.core import e\n"
    )
    (folder / "e.py").write_text("from lineside.core import d\nimport lineside.core.a\n")
    circle = ["lineside.core.a", "lineside.core.b", "lineside.core.c"]
    assert house.import_circles("core", tmp_path) == [circle]
    (folder / "b.py").write_text("def f():\n    from lineside.core.c import g  # lazy: heavy\n")
    assert house.import_circles("core", tmp_path) == []


def test_code_lines_by_hand(tmp_path):
    path = tmp_path / "sample.py"
    path.write_text(
        '"""Doc.\n\nMore.\n"""\n\n# comment\nA = 1  # kept\n"""About A."""\n\n'
        'def f(\n    x,\n):\n    """Doc."""\n    return """two\nlines"""\n'
    )
    assert house.code_lines(path) == 6


def test_functions_stay_short():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno
                assert length <= LONGEST_FUNCTION, f"{path}:{node.lineno} {node.name}: {length}"


def test_names_say_something():
    for path in FILES:
        assert path.stem not in ("utils", "helpers", "common", "misc"), path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                assert not node.name.startswith("Base"), f"{path}: {node.name}"
                assert not node.name.endswith("Manager"), f"{path}: {node.name}"


def test_nothing_is_pickled():
    for path in FILES:
        assert not {"pickle", "joblib", "dill"} & imported(path), path


@pytest.mark.parametrize(
    "modules", ["lineside", "lineside.parts", "lineside.cli", "lineside.parts.commands"]
)
def test_what_must_stay_light_loads_nothing_heavy(modules):
    code = (
        f"import sys, {modules}; heavy = {{'torch', 'scipy', 'sklearn', 'matplotlib', 'numpy'}};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_no_file_is_named_like_a_function_of_its_package():
    """Importing such a file would put the module in the place of the function."""
    for package in SOURCE.rglob("__init__.py"):
        tree = ast.parse(package.read_text())
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert not functions & {path.stem for path in package.parent.iterdir()}, package
