"""Console output of a watch: one line per event, nothing while no state changes."""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from lineside.core.errors import printable
from lineside.core.run.files import finite
from lineside.machines.store.ingest_result import IngestResult

MAX_REMEMBERED = 10_000
"""Messages that were printed once and are not repeated; beyond it the oldest are forgotten."""

Print = Callable[[str], None]


def print_result(line: str) -> None:
    """Print a result at once: whoever reads a pipe sees it now."""
    print(printable(line), flush=True)


def print_note(line: str) -> None:
    """Print a line that is no result."""
    print(printable(line), file=sys.stderr, flush=True)


@dataclass(kw_only=True)
class ConsoleReporter:
    """Prints what is new.

    Attributes:
        print_result: Prints a result.
        note: Prints everything else.
        as_json: Results as one JSON object per line.
        everything: Print every snapshot.
        findings: Results that a person should look at.
        refused: Snapshots that were refused, or of an unknown machine.
    """

    print_result: Print = print_result
    note: Print = print_note
    as_json: bool = False
    everything: bool = False
    findings: int = 0
    refused: int = 0
    _printed: OrderedDict[Hashable, None] = field(default_factory=OrderedDict)

    def report(self, result: IngestResult) -> None:
        """Print what became of a snapshot, if it is news."""
        self.findings += result.finding
        self.refused += result.status in ("refused", "unknown_machine")
        if self._is_news(result) or self.everything:
            if self.as_json:
                self.print_result(json.dumps(finite(result.as_json())))
            else:
                hint = f" - {result.hint}" if result.hint else ""
                self.print_result(result.as_line() + hint)

    def note_once(self, topic: str, text: str) -> None:
        """Note a condition when it begins; an empty text ends it."""
        key = ("condition", topic)
        if not text:
            self._printed.pop(key, None)
        elif self._is_first(key):
            self.note(text)

    def _is_news(self, result: IngestResult) -> bool:
        """Return whether something happened; a wrong clock is reported once per machine."""
        machine = result.machine
        if result.status == "judged":
            for problem in ("out_of_order", "in_future"):  # its clock is right again
                self._printed.pop((problem, machine), None)
            return bool(result.events or (result.verdict and result.verdict.events))
        if result.in_future:
            return self._is_first(("in_future", machine))
        if result.status in ("out_of_order", "unknown_machine"):
            return self._is_first((result.status, machine))
        # Bad input, or another snapshot of a time that is stored; a plain duplicate is no news.
        return bool(result.message) and self._is_first((result.source, machine, result.message))

    def _is_first(self, key: Hashable) -> bool:
        """Return whether this was not printed yet."""
        if key in self._printed:
            self._printed.move_to_end(key)
            return False
        self._printed[key] = None
        if len(self._printed) > MAX_REMEMBERED:
            self._printed.popitem(last=False)
        return True
