"""How many of the inputs that once broke a training, a prediction or a report get the right answer.

Each row is one or more tests marked ``@pytest.mark.adversary("a")``; it is right if all of them
pass, so that what is published is what the tests check.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from benchmarks.results import ROOT, Say, plain

ROWS = "abcdefghiklmnopq"


class _Rows:
    """A pytest plugin that remembers the outcomes of the marked tests by row."""

    def __init__(self) -> None:
        self.passed: dict[str, list[bool]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.get_closest_marker("adversary")]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.when == "call" or not report.passed:  # a skipped test shows nothing
            row = next(item.iter_markers("adversary")).args[0]
            self.passed.setdefault(row, []).append(report.passed)
        return report


def adversary(say: Say) -> None:
    """Run the marked tests and count the rows of which all pass."""
    rows = _Rows()
    pytest.main([str(ROOT / "tests"), "-q", "-p", "no:cacheprovider"], plugins=[rows])
    right = [row for row in ROWS if row in rows.passed and all(rows.passed[row])]
    missing = [row for row in ROWS if row not in right]
    say("adversary_cases_right", plain(len(right), "rows", len(ROWS), reason="each row is tests"))
    print(f"not right: {' '.join(missing) or 'none'}")
