"""Progress of long work: a bar with ETA on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, TypeVar

T = TypeVar("T")
LINE_EVERY_SECONDS = 10.0


class Progress:
    """Where long work reports. `quiet` says nothing, for tests and for ``--json``."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.terminal = sys.stderr.isatty() and not quiet

    def say(self, text: str) -> None:
        """Print one line about the next step."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def track(self, items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
        """Yield the items while showing how many are done and how long it still takes.

        Args:
            items: Anything with a length, or any iterable with its `total`.
            title: What is being done.
            total: Number of items.
        """
        if total is None:
            assert isinstance(items, Sized)
            total = len(items)
        with self.steps(title, total) as advance:
            for done, item in enumerate(items, start=1):
                yield item
                advance(done)

    def steps(self, title: str, total: int) -> _Steps:
        """Return a context whose value is a function ``advance(done)``."""
        return _Steps(title, total, terminal=self.terminal, quiet=self.quiet)


class _Steps:
    """A bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, title: str, total: int, *, terminal: bool, quiet: bool) -> None:
        self._title, self._total = title, total
        self._terminal, self._quiet = terminal, quiet
        self._bar: Any = None

    def __enter__(self) -> Callable[[int], None]:
        self._start = self._last = time.monotonic()
        if self._terminal and self._total:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            console = Console(stderr=True)
            columns = ("{task.description}", BarColumn(), MofNCompleteColumn())
            self._bar = Bar(*columns, TimeRemainingColumn(), console=console, transient=True)
            self._task = self._bar.add_task(self._title, total=self._total)
            self._bar.start()
        return self._advance

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _advance(self, done: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done)
            return
        now = time.monotonic()
        if self._quiet or now - self._last < LINE_EVERY_SECONDS:
            return
        self._last = now
        left = (now - self._start) / max(done, 1) * (self._total - done)
        print(
            f"{self._title}: {done}/{self._total}, {left:.0f} s left", file=sys.stderr, flush=True
        )
