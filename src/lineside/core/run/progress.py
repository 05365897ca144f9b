"""Progress of long work: a bar with ETA on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from lineside.core.errors import printable

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
            print(printable(text), file=sys.stderr, flush=True)

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
        if self.terminal and total:
            yield from _with_bar(items, title, total)
            return
        start = last = time.monotonic()
        for done, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            if now - last >= LINE_EVERY_SECONDS:
                last = now
                left = (now - start) / done * (total - done)
                self.say(f"{title}: {done}/{total}, {left:.0f} s left")


def _with_bar(items: Iterable[T], title: str, total: int) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        yield from bar.track(items, total=total, description=title)
