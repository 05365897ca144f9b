"""Finished items of a long run, one JSON line each, so that a killed run repeats none of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lineside.core.run.files import disk_errors
from lineside.core.run.folder import iter_rows, repair_lines


@dataclass(frozen=True, kw_only=True)
class Journal:
    """JSON-lines file of finished items. Refused items are not kept: they are tried again.

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
        """Return (content hash, encoded result) by item name."""
        return {
            row["item"]: (row["sha256"], row["result"])
            for row in iter_rows(self.path)
            if row.keys() >= {"item", "sha256", "result"}
        }

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
                stream.write(json.dumps(row) + "\n")

        with stream:
            yield keep
