"""Folder watcher: which files are new and complete while another program writes them.

The folder is listed again and again: the events of an operating system do not come from network
drives. Nothing is moved or changed. A file is complete once it has kept its size and its time of
change from one look to the next, and done until either changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar


class Stamp(NamedTuple):
    """What tells one content of a file from the next: size, and time of change."""

    size: int
    modified_ns: int

    def __str__(self) -> str:
        return f"{self.size}-{self.modified_ns}"


def stamp_of(path: Path) -> Stamp | None:
    """Return the stamp of a file, None if it is gone."""
    try:
        state = path.stat()
    except OSError:
        return None
    return Stamp(state.st_size, state.st_mtime_ns)


@dataclass(kw_only=True)
class PendingFile:
    """A file that is not done; times are of the monotonic clock.

    Attributes:
        path: Where it lies.
        name: What the watcher calls it.
        stamp: Its stamp at the latest look.
        context: What a refusal of it depends on beside its content, see `FolderWatcher.look`.
        first: When it was first seen.
        since: When it was first seen with this stamp.
        looked: When the latest look began.
    """

    path: Path
    name: str
    stamp: Stamp
    context: str
    first: float
    since: float
    looked: float

    @property
    def complete(self) -> bool:
        """Whether it was the same at the look before."""
        return self.since < self.looked

    @property
    def unchanged_seconds(self) -> float:
        """For how long it has been the same."""
        return self.looked - self.since

    @property
    def waited_seconds(self) -> float:
        """For how long it has been seen, whether it changed or not."""
        return self.looked - self.first

    @property
    def marks(self) -> tuple[str, str]:
        """By which a file is known as done: of its content, and of its content in this context."""
        return str(self.stamp), f"{self.stamp} {self.context}"


File = TypeVar("File", bound=PendingFile)


@dataclass(kw_only=True)
class FolderWatcher(Generic[File]):
    """Remembers from look to look what is pending and what is done.

    Attributes:
        kind: `PendingFile`, or a subclass with more to remember; a changed file is a new object.
        name_of: Names a file; the name and a mark are what outlives a restart.
        pending: Files that are not done, by name.
        done: Mark of each file that is done, by name, oldest first.
        present: Names of the files of the latest look.
    """

    kind: type[File]
    name_of: Callable[[Path], str] = str
    pending: dict[str, File] = field(default_factory=dict)
    done: dict[str, str] = field(default_factory=dict)
    present: set[str] = field(default_factory=set)

    def look(self, paths: Mapping[Path, str]) -> list[File]:
        """Return the files that are not done.

        Args:
            paths: The files there are, each with its context: a file that was refused is pending
                again when that changes.
        """
        now = time.monotonic()
        pending: dict[str, File] = {}
        self.present = set()
        for path, context in paths.items():
            name, stamp = self.name_of(path), stamp_of(path)
            if stamp is None:
                continue
            self.present.add(name)
            file = self.pending.get(name)
            if file is None or file.stamp != stamp:
                file = self.kind(
                    path=path, name=name, stamp=stamp, context=context,
                    first=file.first if file else now, since=now, looked=now,
                )  # fmt: skip
            file.context, file.looked = context, now
            if self.done.get(name) not in file.marks:
                pending[name] = file
        self.pending = pending
        return list(pending.values())

    def finish(self, name: str, mark: str) -> None:
        """Note that a file is done until its mark changes."""
        self.done.pop(name, None)
        self.done[name] = mark
        self.pending.pop(name, None)

    def forget_gone(self, present: Collection[str], keep: int = 0) -> None:
        """Forget the oldest files that are done and gone, until `keep` files are left."""
        surplus = max(0, len(self.done) - keep)
        for name in [name for name in self.done if name not in present][:surplus]:
            del self.done[name]
