"""What a watch says: a line when something happened, not when all is as it was."""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from lineside.core.run.files import finite
from lineside.machines.streams.desk import Receipt

REMEMBERED = 10_000
"""Things that were told once and are not told again; beyond it the oldest are forgotten."""

Say = Callable[[str], None]


def say_on_stdout(line: str) -> None:
    """Print a line at once, whoever reads."""
    print(line, flush=True)


def say_on_stderr(line: str) -> None:
    """Print a line that is no result."""
    print(line, file=sys.stderr, flush=True)


@dataclass(kw_only=True)
class Teller:
    """Prints what is new.

    Attributes:
        say: Prints a result.
        note: Prints what else there is to know.
        as_json: Results as one JSON object per line.
        everything: Tell every snapshot.
    """

    say: Say = say_on_stdout
    note: Say = say_on_stderr
    as_json: bool = False
    everything: bool = False
    findings: int = 0
    refused: int = 0
    _told: OrderedDict[Hashable, None] = field(default_factory=OrderedDict)

    def tell(self, receipt: Receipt) -> None:
        """Say what became of a snapshot, if it is worth a line."""
        self.findings += receipt.finding
        self.refused += receipt.status in ("refused", "never learned")
        if self._is_news(receipt) or self.everything:
            if self.as_json:
                self.say(json.dumps(finite(receipt.as_json())))
            else:
                hint = f" - {receipt.hint}" if receipt.hint else ""
                self.say(receipt.as_line() + hint)

    def once(self, kind: str, text: str) -> None:
        """Note a state of things when it begins; an empty text ends it."""
        key = ("state", kind)
        if not text:
            self._told.pop(key, None)
        elif self._first(key):
            self.note(text)

    def _is_news(self, receipt: Receipt) -> bool:
        """Return whether something happened; a clock that is wrong is told once a machine."""
        machine = receipt.machine
        if receipt.status == "judged":
            for kind in ("late", "ahead"):  # its clock is right again: tell the next time
                self._told.pop((kind, machine), None)
            return bool(receipt.events or (receipt.verdict and receipt.verdict.events))
        if receipt.status == "late" or receipt.ahead:
            return self._first(("ahead" if receipt.ahead else "late", machine))
        if receipt.status == "never learned":
            return self._first(("never learned", machine))
        # Bad input, or another snapshot of a time that is taken.
        return bool(receipt.message) and self._first((receipt.source, machine, receipt.message))

    def _first(self, key: Hashable) -> bool:
        """Return whether this was not told yet."""
        if key in self._told:
            self._told.move_to_end(key)
            return False
        self._told[key] = None
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        return True
