"""The run folder: config, status, lock, stop, resume and named random streams.

A run is a plain folder that can be copied. One process writes to it at a time; a process that
is killed leaves a folder that the same command resumes.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import platform
import shutil
import signal
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np

from lineside.core.errors import UserError
from lineside.core.run.files import disk_errors, finite, read_json, write_json

Shared = TypeVar("Shared")

if TYPE_CHECKING:
    from lineside.core.parallel import Executor

HEARTBEAT_SECONDS = 2.0
OWN = (".lock", "environment.json")
"""What lies in a folder whose run was killed before its job was written."""


class Stopped(Exception):  # noqa: N818 - an event, not an error
    """The run was asked to stop and has kept what it needs to go on."""


def rng_of(seed: int, name: str) -> np.random.Generator:
    """Return the random stream of a name, so that adding one stream never shifts another."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


class Run:
    """One run folder, held by one process.

    Use `Run.begin` to create or take up a folder; leave it with `finish` or `close`.

    Attributes:
        folder: Where everything of this run lies.
        seed: The seed that every random stream is made of.
        resumed: True if the folder already held an unfinished run of the same job.
        executor: Where methods may fit; None is in this process.
        shared_seconds: Time that `shared` took so far; it is not part of any method's fit time.
    """

    def __init__(self, folder: Path, seed: int, lock: IO[str], resumed: bool) -> None:
        self.folder = folder
        self.seed = seed
        self.resumed = resumed
        self._lock = lock
        self._stop = False
        self._beat = 0.0
        self._state: dict[str, Any] = {}
        self._shared: dict[str, Any] = {}
        self.shared_seconds = 0.0
        self.executor: Executor | None = None

    @classmethod
    def begin(cls, folder: Path, job: Mapping[str, Any], seed: int) -> Run:
        """Create the folder, or take up an unfinished run of exactly the same job.

        Args:
            folder: The run folder; it may not exist yet.
            job: What defines the result (application, config, data fingerprint), plain JSON.
            seed: Seed of all random streams.

        Raises:
            UserError: if the folder is in use, holds something else, or is finished.
        """
        job = finite(dict(job))
        described = folder / "config.json"
        if folder.exists() and not described.exists() and not _vacant(folder):
            raise UserError(f"{folder} is not empty and is not a run", "choose another --out")
        with disk_errors(folder):
            created = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            lock = _lock(folder)
        resumed = described.exists()
        try:
            if resumed:
                _check_same_job(folder, job)
            _tidy(folder)
            if not resumed:
                write_json(folder / "environment.json", environment())
                write_json(described, job)
        except BaseException:
            lock.close()
            if not resumed:
                _vacate(folder, remove=created)
            raise
        run = cls(folder, seed, lock, resumed)
        run.status("running", step="started")
        return run

    def rng(self, name: str) -> np.random.Generator:
        """Return this run's random stream of a name."""
        return rng_of(self.seed, name)

    def shared(self, name: str, make: Callable[[], Shared]) -> Shared:
        """Return what the methods of a run have in common, made at the first call.

        Args:
            name: The same for all methods.
            make: Makes it; its time goes to `shared_seconds`.
        """
        if name not in self._shared:
            start = time.perf_counter()
            self._shared[name] = make()
            self.shared_seconds += time.perf_counter() - start
        shared: Shared = self._shared[name]
        return shared

    def status(self, state: str, **facts: Any) -> None:
        """Write ``status.json``: state, pid, heartbeat and what is being done."""
        self._state = {**self._state, **facts, "state": state, "pid": os.getpid()}
        self._beat = time.time()
        write_json(self.folder / "status.json", {**self._state, "heartbeat": self._beat})

    def beat(self, **facts: Any) -> None:
        """Refresh the heartbeat, at most every two seconds."""
        if time.time() - self._beat > HEARTBEAT_SECONDS:
            self.status(self._state.get("state", "running"), **facts)

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one row to ``metrics.jsonl``."""
        path = self.folder / "metrics.jsonl"
        with disk_errors(path), path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(finite(dict(row))) + "\n")
        self.beat()

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of ``metrics.jsonl``; a half-written last line is left out."""
        return list(iter_rows(self.folder / "metrics.jsonl"))

    def stopping(self) -> bool:
        """Return True if Ctrl-C was pressed or a file ``stop`` lies in the folder."""
        return self._stop or (self.folder / "stop").exists()

    def check_stop(self) -> None:
        """Raise `Stopped` if the run was asked to stop."""
        if self.stopping():
            raise Stopped

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let the first Ctrl-C ask for a stop and the second one end at once."""

        def ask(number: int, frame: FrameType | None) -> None:
            if self._stop:
                raise KeyboardInterrupt
            self._stop = True

        try:
            before = signal.signal(signal.SIGINT, ask)
        except ValueError:  # not in the main thread: only the file `stop` works
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def close(self, state: str, **facts: Any) -> None:
        """Write the last status and give the lock back."""
        try:
            (self.folder / "stop").unlink(missing_ok=True)
            self.status(state, **facts)
        finally:
            self._lock.close()


def iter_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSON-lines file one by one, leaving out what is not a JSON object."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row


def environment() -> dict[str, Any]:
    """Return what the result may depend on: versions, machine, threads."""
    from importlib.metadata import version

    names = ("lineside", "torch", "numpy", "scipy", "scikit-learn", "pillow")
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in names},
    }


def _lock(folder: Path) -> IO[str]:
    """Take the folder's lock; the kernel gives it back when the process ends, however it ends."""
    handle = (folder / ".lock").open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise UserError(
            f"{folder} is in use by another process", "wait for it, or choose another --out"
        ) from error
    return handle


def _check_same_job(folder: Path, job: Mapping[str, Any]) -> None:
    known = read_json(folder / "config.json")
    status = folder / "status.json"
    if status.exists() and read_json(status).get("state") == "finished":
        raise UserError(f"{folder} holds a finished run", "choose another --out for a new one")
    differing = sorted(
        key for key in {*known, *job} if known.get(key) != json.loads(json.dumps(job.get(key)))
    )
    if differing:
        raise UserError(
            f"{folder} holds an unfinished run of another job ({', '.join(differing)} differ)",
            "repeat the first command to resume it, or choose another --out",
        )


def _vacant(folder: Path) -> bool:
    """Return True if nothing but what a run killed at its very start leaves lies in a folder."""
    if not folder.is_dir():
        return False
    # a draft, a file that was never renamed into place, is called .NAME.xxxxxxxx
    drafts = tuple(f".{name}." for name in (*OWN, "config.json"))
    return all(p.name in OWN or p.name.startswith(drafts) for p in folder.iterdir())


def _tidy(folder: Path) -> None:
    """Remove drafts of a killed process, and a line of the log that it left half-written."""
    for draft in list(folder.rglob(".*.????????")):
        if draft.is_dir():
            shutil.rmtree(draft)
        else:
            draft.unlink(missing_ok=True)
    repair_lines(folder / "metrics.jsonl")


def repair_lines(path: Path) -> None:
    """Make a JSON-lines file end with a whole line, so that the next one can be appended.

    A line that lacks only its line break is kept; one that was cut short is removed.
    """
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("rb+") as stream:
        with mmap.mmap(stream.fileno(), 0) as content:  # reads from the end on, however long it is
            # The break that ends the file belongs to the last line.
            start = content.rfind(b"\n", 0, len(content) - 1) + 1
            tail = content[start:]
        if tail.endswith(b"\n"):
            return
        try:
            json.loads(tail)
        except ValueError:
            stream.truncate(start)
        else:
            stream.seek(0, os.SEEK_END)
            stream.write(b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def _vacate(folder: Path, *, remove: bool) -> None:
    """Take back what was written before the job was; nothing else lies there."""
    for name in (*OWN, "config.json", "status.json"):
        (folder / name).unlink(missing_ok=True)
    if remove:
        folder.rmdir()
