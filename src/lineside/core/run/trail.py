r"""A trail: JSON lines of which each holds the hash of the one before, so that edits are seen.

A line is ``{..., "row": n, "chain": h}`` with its number n and h(n) = SHA-256(h(n-1) \n line), the
line without its hash. h(0) is the hash of the lines that were there before the chain began, of
nothing in a new file. With a key (see `seal`) it is an HMAC and named ``hmac``: then nobody without
the key can recompute the chain.

A chain does not tell that its end is missing. Its head, the number and hash of the last row, is
kept elsewhere and written after the rows: a process that is killed in between leaves rows that the
head does not know yet, and for which the chain alone vouches.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lineside.core.errors import UserError
from lineside.core.run.files import disk_errors, finite, parse_json
from lineside.core.run.seal import digest_of, key, read_sealed, write_sealed

LINE = re.compile(rb'(\{.*"row": (\d{1,15})), "(chain|hmac)": "([0-9a-f]{64})"\}')
OWN = ("row", "chain", "hmac")
"""What a trail adds to a row."""
NAMED_FAULTS = 3
"""Faults that an error names; of the others it gives the number."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """Number and hash of the last row; lines from before the chain count as rows."""

    rows: int
    last: str


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What the check of a trail found.

    Attributes:
        head: Of the rows that are there.
        before: Number of lines without a hash before the chain begins.
        faults: What was changed, one sentence each; empty if the trail is whole.
    """

    head: Head
    before: int
    faults: Sequence[str]


class Trail:
    """A trail that rows are appended to, by one process at a time.

    Args:
        path: The JSON lines.
        head: Of the rows that are there, from `check`.
        head_path: Where the head is kept; None if the caller keeps it.
    """

    def __init__(self, path: Path, head: Head, head_path: Path | None = None) -> None:
        self.path, self.head, self._head_path = path, head, head_path
        self._key = key()

    def append(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Write rows at once and return them as they were written, with number and hash.

        They survive a power cut where the head is kept in a file of its own.
        """
        number, link, name = (
            self.head.rows,
            self.head.last,
            "chain" if self._key is None else "hmac",
        )
        lines, written = [], []
        for row in rows:
            number += 1
            plain = {k: v for k, v in finite(row).items() if k not in OWN} | {"row": number}
            text = json.dumps(plain)
            link = _link(link, text.encode(), self._key)
            lines.append(f'{text[:-1]}, "{name}": "{link}"}}\n')
            written.append({**plain, name: link})
        with disk_errors(self.path), self.path.open("a", encoding="utf-8") as stream:
            stream.write("".join(lines))
            if self._head_path is not None:
                stream.flush()
                os.fsync(stream.fileno())
        self.head = Head(rows=number, last=link)
        self.save_head()
        return written

    def save_head(self) -> None:
        """Write the head to its file, if it has one."""
        if self._head_path is not None:
            write_sealed(self._head_path, asdict(self.head))


def open_trail(path: Path) -> tuple[Trail, int]:
    """Open a trail whose head lies beside it, and return how many lines come before its chain.

    Raises:
        UserError: if it was altered; it stays as it is.
    """
    repair_lines(path)
    found = check_trail(path)
    if found.faults:
        raise UserError(
            f"{path} was altered: {listed(found.faults)}",
            "keep it as evidence and begin another one",
        )
    trail = Trail(path, found.head, head_path_of(path))
    trail.save_head()
    return trail, found.before


def check_trail(path: Path) -> Checked:
    """Check a trail against the head that lies beside it.

    Raises:
        UserError: if it cannot be read, or is signed and no key is given, or the other way round.
    """
    head_path, fault = head_path_of(path), ""
    known = None
    if head_path.exists():
        try:
            known = head_from(read_sealed(head_path, "its end cannot be checked"))
        except UserError as error:
            fault = str(error)
    found = check(path, known)
    if not head_path.exists() and found.head.rows > found.before:
        fault = f"{head_path} is missing: rows that were cut off at the end would not be noticed"
    return Checked(
        head=found.head, before=found.before, faults=[*found.faults, *([fault] if fault else [])]
    )


def head_path_of(path: Path) -> Path:
    """Return where the head of a trail lies that keeps it in a file."""
    return path.with_name(f"{path.name}.head")


def head_from(value: Mapping[str, Any]) -> Head | None:
    """Return a head that was stored as JSON, None if it is none."""
    rows, last = value.get("rows"), value.get("last")
    return Head(rows=rows, last=last) if isinstance(rows, int) and isinstance(last, str) else None


def check(path: Path, known: Head | None) -> Checked:
    """Follow the chain of a trail from its first line to its last.

    Args:
        path: The trail; it may not exist yet.
        known: The head that was kept elsewhere, if there is one.

    Raises:
        UserError: if it cannot be read, or is signed and no key is given, or the other way round.
    """
    secret, faults = key(), []
    number, last, before, begun = 0, digest_of(b"", secret), 0, False
    old = hashlib.sha256()
    for place, line in enumerate(_lines(path), start=1):
        found = LINE.fullmatch(line.removesuffix(b"\n"))
        if found is None and not begun:
            old.update(line)
            number, before, last = place, place, digest_of(old.hexdigest().encode(), secret)
            continue
        if found is None:
            if line.endswith(b"\n"):  # else a process was killed while it wrote the line
                faults.append(f"line {place} has no hash, it was changed or inserted")
            continue
        _check_name(path, found[3], secret)
        begun, row, link = True, int(found[2]), found[4].decode()
        if row <= number:
            faults.append(f"line {place} is out of place, it was written as row {row}")
            continue
        if row > number + 1:
            faults.append(f"{_span(number + 1, row - 1)} missing before line {place}")
        elif link != _link(last, found[1] + b"}", secret):
            or_before = " or a line before it" if row == before + 1 and before else ""
            faults.append(f"line {place}{or_before} was changed")
        number, last = row, link
        if known is not None and row == known.rows and link != known.last:
            faults.append(f"line {place} is not the row that was written, its hash was recomputed")
    if secret is not None and before:
        faults.append(f"{_span(1, before)} not signed with the key")
    if known is not None and not begun and known != Head(rows=number, last=last):
        faults.append(f"the lines are not those of before, of which there were {known.rows}")
    elif known is not None and known.rows > number:
        faults.append(f"{_span(number + 1, known.rows)} missing at the end")
    return Checked(head=Head(rows=number, last=last), before=before, faults=faults)


def listed(faults: Sequence[str]) -> str:
    """Return faults in one line."""
    more = len(faults) - NAMED_FAULTS
    return "; ".join(faults[:NAMED_FAULTS]) + (f"; and {more} more" if more > 0 else "")


def _link(last: str, text: bytes, secret: bytes | None) -> str:
    return digest_of(last.encode() + b"\n" + text, secret)


def _check_name(path: Path, name: bytes, secret: bytes | None) -> None:
    if name == b"hmac" and secret is None:
        raise UserError(f"{path} is signed with a key", "give it with --key FILE")
    if name == b"chain" and secret is not None:
        raise UserError(f"{path} is not signed", "leave out --key, or begin another one with it")


def _span(first: int, last: int) -> str:
    return f"row {first} is" if first == last else f"rows {first} to {last} are"


def _lines(path: Path) -> Iterator[bytes]:
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is not a file", "remove it")
        if path.exists():
            with path.open("rb") as stream:
                yield from stream
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", "check it") from error


def iter_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSON-lines file one by one, leaving out what is not a JSON object."""
    for line in _lines(path):
        try:
            row = parse_json(line.decode("utf-8", errors="replace"))
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def repair_lines(path: Path) -> None:
    """Make a JSON-lines file end with a whole line, so that the next one can be appended.

    A line that lacks only its line break is kept; one that was cut short is removed.
    """
    if not path.is_file() or not path.stat().st_size:
        return
    with path.open("rb+") as stream:
        with mmap.mmap(stream.fileno(), 0) as content:  # reads from the end on, however long it is
            # The break that ends the file belongs to the last line.
            start = content.rfind(b"\n", 0, len(content) - 1) + 1
            tail = content[start:]
        if tail.endswith(b"\n"):
            return
        try:
            parse_json(tail)
        except ValueError:
            stream.truncate(start)
        else:
            stream.seek(0, os.SEEK_END)
            stream.write(b"\n")
        stream.flush()
        os.fsync(stream.fileno())
