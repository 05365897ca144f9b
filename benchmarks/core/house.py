"""The state of the house: import circles among the files of a package, and code lines of src.

Run: ``python -m benchmarks.core --only house``. `tests/test_house.py` uses the same functions.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Collection, Iterator
from pathlib import Path

from benchmarks.results import Say, plain

SOURCE = Path(__file__).resolve().parents[2] / "src"
PACKAGES = ("core", "parts", "machines")
LINES_BEFORE = 27_600
"""Code lines of two applications before the packages were divided into rooms."""
LAZY = "# lazy:"
"""Marks an import inside a function that may close a circle, with its reason."""
_LAYOUT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENCODING, tokenize.ENDMARKER,
}  # fmt: skip


def house(say: Say) -> None:
    """Import circles among files of one package, and code lines of src now and before."""
    circles = [circle for package in PACKAGES for circle in import_circles(package)]
    count = sum(code_lines(path) for path in SOURCE.rglob("*.py"))
    counted = "a count"
    say("import_circles", plain(len(circles), "count", 1, "lower", counted))
    say("src_code_lines", plain(count, "count", 1, "lower", counted))
    say("src_code_lines_before", plain(LINES_BEFORE, "count", 1, "lower", counted))


def import_circles(package: str, source: Path = SOURCE) -> list[list[str]]:
    """Return the strongly connected sets of two and more modules of ``lineside.PACKAGE``.

    Imports inside functions count: a late import that closes a circle is still a circle, unless a
    comment ``# lazy: REASON`` on its line excuses it. Imports under ``if TYPE_CHECKING:`` do not
    count, nor does the ``__init__`` of a package that Python runs on the way to a module of it.
    """
    files = {_module(path, source): path for path in (source / "lineside" / package).rglob("*.py")}
    graph = {name: imports(path, files.keys()) - {name} for name, path in files.items()}
    return _connected(graph)


def code_lines(path: Path) -> int:
    """Return the number of lines that are neither blank nor comment nor docstring.

    A string that stands alone, also below a constant, is a docstring.
    """
    text = path.read_text(encoding="utf-8")
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def _module(path: Path, source: Path) -> str:
    return ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path, modules: Collection[str]) -> set[str]:
    """Return the modules among `modules` that a file imports."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    names: set[str] = set()
    for node in _executed(ast.parse(text)):
        if any(LAZY in line for line in lines[node.lineno - 1 : node.end_lineno]):
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import name`: the module of that name, or else the package itself
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if full in modules else node.module)
    return {name for name in names if name in modules}


def _executed(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield all import statements but those for typing only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        else:
            yield from _executed(child)


def _connected(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return strongly connected components of two and more nodes (Tarjan 1972), sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                components.append(sorted(component))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return sorted(components)
