"""The run folder: config, status, lock, stop, resume and named random streams.

A run is a plain folder that can be copied. One process writes to it at a time; a process that
is killed leaves a folder that the same command takes up again.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import signal
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any

import numpy as np

from lineside.core.contract import UserError
from lineside.core.files import disk_errors, finite, read_json, write_json

HEARTBEAT_SECONDS = 2.0


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
    """

    def __init__(self, folder: Path, seed: int, lock: IO[str], resumed: bool) -> None:
        self.folder = folder
        self.seed = seed
        self.resumed = resumed
        self._lock = lock
        self._stop = False
        self._beat = 0.0
        self._state: dict[str, Any] = {}

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
        if folder.exists() and not described.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty and is not a run", "choose another --out")
        with disk_errors(folder):
            created = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            lock = _lock(folder)
        resumed = described.exists()
        try:
            if resumed:
                _check_same_job(folder, job)
            else:
                write_json(folder / "environment.json", environment())
                write_json(described, job)
        except UserError:
            lock.close()
            if created and not resumed:
                _remove_empty(folder)
            raise
        run = cls(folder, seed, lock, resumed)
        run.status("running", step="started")
        return run

    def rng(self, name: str) -> np.random.Generator:
        """Return this run's random stream of a name."""
        return rng_of(self.seed, name)

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
        path = self.folder / "metrics.jsonl"
        return read_rows(path) if path.exists() else []

    def request_stop(self) -> None:
        """Ask the run to stop at the next place where it can be taken up again."""
        self._stop = True

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
        (self.folder / "stop").unlink(missing_ok=True)
        self.status(state, **facts)
        self._lock.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file, leaving out lines that a kill cut short."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


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


def _remove_empty(folder: Path) -> None:
    for name in (".lock", "environment.json", "config.json", "status.json"):
        (folder / name).unlink(missing_ok=True)
    folder.rmdir()
