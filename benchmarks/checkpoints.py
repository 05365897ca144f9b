"""Where benchmarks keep what they have computed: in a folder named after the code it depends on.

A stored fold, network or history is found again by the same code only. The hash covers the
benchmark's own file, files that it runs, every file of this project that these import, also
indirectly, and the pinned versions of libraries. Comments, docstrings and layout do not count.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from benchmarks.core.house import imports

ROOT = Path(__file__).resolve().parent.parent
STORE = Path.home() / "lineside-checkpoints"


def checkpoint_folder(name: str, file: str, *runs: str) -> Path:
    """Return ``~/lineside-checkpoints/NAME/HASH``.

    Args:
        name: What is kept there, e.g. ``"parts/tiles"``.
        file: The benchmark's ``__file__``.
        runs: Files that it runs without importing them, relative to the checkout.
    """
    return STORE / name / code_hash([Path(file), *(ROOT / run for run in runs)])


def code_hash(files: Sequence[Path], root: Path = ROOT) -> str:
    """Return 12 hexadecimal digits of the code that files below `root` run."""
    modules = _modules(root)
    reached: set[Path] = set()
    waiting = [file.resolve() for file in files]
    while waiting:
        file = waiting.pop()
        if file not in reached:
            reached.add(file)
            waiting += [modules[name] for name in imports(file, modules.keys())]
    digest = hashlib.sha256((root / "constraints.txt").read_bytes())
    for file in sorted(reached):
        digest.update(f"{file.relative_to(root.resolve())}\n{_code(file)}\n".encode())
    return digest.hexdigest()[:12]


@cache
def _modules(root: Path) -> dict[str, Path]:
    """Return the files of the package and of the benchmarks by module name."""
    found = {}
    for folder in (root / "src" / "lineside", root / "benchmarks"):
        for path in folder.rglob("*.py"):
            name = ".".join(path.relative_to(folder.parent).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path.resolve()
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
