"""Finished items of a long run, one JSON line each, so that a killed run repeats none of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lineside.core.run.files import canonical, disk_errors
from lineside.core.run.seal import digest_of, key
from lineside.core.run.trail import iter_rows, repair_lines


@dataclass(frozen=True, kw_only=True)
class Journal:
    """JSON-lines file of finished items. Refused items are not kept: they are tried again.

    Each line holds its own hash: an item whose line was changed or cut is done again.

    Attributes:
        path: The file; it is created, or continued.
        content_hash: Hash of all that the result of an item depends on, computed by the worker; an
            item is repeated if it changed.
        encode: Turns a result into plain JSON values.
        decode: The inverse of `encode`.
    """

    path: Path
    content_hash: Callable[[Any], str]
    encode: Callable[[Any], Any] = lambda result: result
    decode: Callable[[Any], Any] = lambda value: value

    def known(self) -> dict[str, tuple[str, Any]]:
        """Return (content hash, encoded result) by item name; altered lines are told and left."""
        found, altered = {}, 0
        for row in iter_rows(self.path):
            if row.get("seal") == _seal(row):
                found[row["item"]] = (row["sha256"], row["result"])
            else:
                altered += 1
        if altered:
            what = f"{altered} lines are not as this version wrote them, their items are done again"
            print(f"{self.path}: {what}", file=sys.stderr)
        return found

    @contextmanager
    def opened(self) -> Iterator[Callable[[str, str, Any], None]]:
        """Open the file for more rows; give a function that writes (name, hash, result)."""
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            repair_lines(self.path)
            stream = self.path.open("a", encoding="utf-8", buffering=1)

        def keep(name: str, sha256: str, result: Any) -> None:
            row = {"item": name, "sha256": sha256, "result": self.encode(result)}
            with disk_errors(self.path):
                stream.write(json.dumps({**row, "seal": _seal(row)}) + "\n")

        with stream:
            yield keep


def _seal(row: Mapping[str, Any]) -> str:
    """Return the hash of a line, an HMAC if a key is given."""
    return digest_of(canonical({k: v for k, v in row.items() if k != "seal"}), key())
