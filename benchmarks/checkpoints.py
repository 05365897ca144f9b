"""Where benchmarks keep what they have computed: in a folder named after the code it depends on.

A stored fold, network or history is found again by the same code only. The hash covers the
benchmark's own file, every file of this project that it imports, also indirectly, and the pinned
versions of libraries. Comments, docstrings and layout do not count.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

from benchmarks.core.house import imports

ROOT = Path(__file__).resolve().parent.parent
STORE = Path.home() / "lineside-checkpoints"


def checkpoint_folder(name: str, file: str) -> Path:
    """Return ``~/lineside-checkpoints/NAME/HASH``.

    Args:
        name: What is kept there, e.g. ``"parts/tiles"``.
        file: The benchmark's ``__file__``.
    """
    return STORE / name / code_hash(Path(file))


def code_hash(file: Path, root: Path = ROOT) -> str:
    """Return 12 hexadecimal digits of the code that a file below `root` runs."""
    files = _modules(root)
    reached: set[str] = set()
    waiting = [name for name, path in files.items() if path.samefile(file)]
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        waiting += imports(files[name], files.keys())
    digest = hashlib.sha256((root / "constraints.txt").read_bytes())
    for name in sorted(reached):
        digest.update(f"{name}\n{_code(files[name])}\n".encode())
    return digest.hexdigest()[:12]


@cache
def _modules(root: Path) -> dict[str, Path]:
    """Return the files of the package and of the benchmarks by module name."""
    found = {}
    for folder in (root / "src" / "lineside", root / "benchmarks"):
        for path in folder.rglob("*.py"):
            name = ".".join(path.relative_to(folder.parent).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


@cache
def _code(path: Path) -> str:
    """Return the syntax tree of a file as text, without comments and docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):  # a string that stands alone is a docstring
            node.body = [line for line in body if not _is_text(line)] or [ast.Pass()]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
