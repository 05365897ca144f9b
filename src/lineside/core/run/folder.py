"""The run folder: config, status, lock, stop, resume and named random streams.

A run is a plain folder that can be copied. One process writes to it at a time; a process that
is killed leaves a folder that the same command resumes.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np

from lineside.core.errors import UserError
from lineside.core.run.files import DRAFT, disk_errors, finite, read_json, write_json
from lineside.core.run.seal import write_sealed
from lineside.core.run.status import (
    FORMAT,
    LOG,
    STATUS,
    check_kinds,
    hashes_of,
    read_status,
    take_lock,
)
from lineside.core.run.trail import (
    OWN,
    Trail,
    check,
    head_from,
    iter_rows,
    listed,
    repair_lines,
)

Shared = TypeVar("Shared")

if TYPE_CHECKING:
    from lineside.core.parallel import Executor

HEARTBEAT_SECONDS = 2.0
STARTED = (".lock", "environment.json")
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
        notes: What a user must know about a folder that was taken up.
    """

    def __init__(
        self, folder: Path, seed: int, lock: IO[str], log: Trail, *, resumed: bool = False
    ) -> None:
        self.folder = folder
        self.seed = seed
        self.resumed = resumed
        self.notes: list[str] = []
        self._lock = lock
        self._log = log
        self._fit: str | None = None
        self._fit_start = 0.0
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
            lock = take_lock(folder)
        resumed = described.exists()
        try:
            before, notes = _check_resumable(folder, job) if resumed else ({}, [])
            _tidy(folder)
            log = _open_log(folder, before)
            if not resumed:
                write_json(folder / "environment.json", environment())
                write_json(described, job)
        except BaseException:
            lock.close()
            if not resumed:
                _vacate(folder, remove=created)
            raise
        run = cls(folder, seed, lock, log, resumed=resumed)
        run.notes = notes
        run._state = {"fit": before["fit"]} if "fit" in before else {}
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

    @contextmanager
    def fitting(self, method: str) -> Iterator[Callable[[], float]]:
        """Measure the fit of a method, with the time before a stop or a kill.

        Yields:
            A function that returns its seconds so far, those of `shared` not counted.
        """
        before = self._state.get("fit", {})
        spent = before["seconds"] if before.get("method") == method else 0.0
        self._fit, self._fit_start = method, time.perf_counter() - self.shared_seconds - spent
        yield self._fit_seconds
        self._fit = None  # not after an exception: the last status says how long it took so far
        self._state.pop("fit", None)

    def _fit_seconds(self) -> float:
        return time.perf_counter() - self.shared_seconds - self._fit_start

    def status(self, state: str, **facts: Any) -> None:
        """Write ``status.json``: state, pid, heartbeat and what is being done."""
        self._state = {**self._state, **facts, "state": state, "pid": os.getpid()}
        if self._fit is not None:
            self._state["fit"] = {"method": self._fit, "seconds": self._fit_seconds()}
        self._beat = time.time()
        now = {"heartbeat": self._beat, "log": asdict(self._log.head)}
        write_sealed(self.folder / STATUS, {**self._state, **now})

    def beat(self, **facts: Any) -> None:
        """Refresh the heartbeat, at most every two seconds."""
        if time.time() - self._beat > HEARTBEAT_SECONDS:
            self.status(self._state.get("state", "running"), **facts)

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one row to ``metrics.jsonl``."""
        self._log.append([row])
        self.beat()

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of ``metrics.jsonl``; a half-written last line is left out."""
        rows = iter_rows(self.folder / LOG)
        return [{key: value for key, value in row.items() if key not in OWN} for row in rows]

    def last(self, event: str, method: str) -> dict[str, Any] | None:
        """Return the latest row of an event of a method in the log."""
        rows = [r for r in self.rows() if r.get("event") == event and r.get("method") == method]
        return rows[-1] if rows else None

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
            if state == "finished":
                facts["files"] = hashes_of(self.folder)
            self.status(state, **facts)
        finally:
            self._lock.close()


def environment() -> dict[str, Any]:
    """Return what the result may depend on: versions, machine, threads."""
    from importlib.metadata import version

    names = ("lineside", "torch", "numpy", "scipy", "scikit-learn", "pillow")
    return {
        "format": FORMAT,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in names},
    }


def _check_resumable(folder: Path, job: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the last status of an unfinished run of the same job, and notes on its folder.

    Raises:
        UserError: if it is finished, of another job or other versions, or damaged.
    """
    check_kinds(folder)
    known = read_json(folder / "config.json")
    if not isinstance(known, dict):
        raise UserError(f"{folder}/config.json is damaged", "choose another --out")
    status, notes = {}, []
    try:
        status = read_status(folder)
    except UserError as error:  # nothing that a result depends on is lost
        notes = [f"{error.message}; it is written again"]
    if status.get("state") == "finished":
        raise UserError(f"{folder} holds a finished run", "choose another --out for a new one")
    differing = sorted(
        key for key in {*known, *job} if known.get(key) != json.loads(json.dumps(job.get(key)))
    )
    if differing:
        raise UserError(
            f"{folder} holds an unfinished run of another job ({', '.join(differing)} differ)",
            "repeat the first command to resume it, or choose another --out",
        )
    _check_versions(folder)
    return status, notes


def _check_versions(folder: Path) -> None:
    """Refuse to mix results of other versions with those of today's."""
    hint = "resume it with those, or remove it to start over with today's"
    before, now = read_json(folder / "environment.json"), environment()
    known = before.get("versions") if isinstance(before, dict) else None
    if not isinstance(known, dict):
        raise UserError(
            f"{folder}/environment.json is damaged: with which versions the run was begun is lost",
            "remove the run to start over",
        )
    differing = [
        f"{name} {known.get(name, 'not there')}, now {version}"
        for name, version in now["versions"].items()
        if known.get(name) != version
    ]
    if before.get("format") != FORMAT:
        differing.append(f"run folder of format {before.get('format', 1)}, now {FORMAT}")
    if differing:
        raise UserError(f"{folder} was begun with other versions: {'; '.join(differing)}", hint)


def _open_log(folder: Path, status: Mapping[str, Any]) -> Trail:
    """Open the log of a run for more rows.

    Raises:
        UserError: if it was altered.
    """
    path = folder / LOG
    head = status.get("log")
    known = head_from(head) if isinstance(head, dict) and path.exists() else None
    found = check(path, known)
    faults = [*found.faults, *(["it has lines without a hash"] if found.before else [])]
    if faults:
        raise UserError(
            f"{path} was altered: {listed(faults)}", "remove it to fit the methods again"
        )
    return Trail(path, found.head)


def _vacant(folder: Path) -> bool:
    """Return True if nothing but what a run killed at its very start leaves lies in a folder."""
    if not folder.is_dir():
        return False
    # a draft, a file that was never renamed into place, is called .NAME.xxxxxxxx.lineside
    drafts = tuple(f".{name}." for name in (*STARTED, "config.json"))
    return all(
        p.name in STARTED or (p.name.startswith(drafts) and p.name.endswith(DRAFT))
        for p in folder.iterdir()
    )


def _tidy(folder: Path) -> None:
    """Remove drafts of a killed process, and a line of the log that it left half-written."""
    for draft in list(folder.rglob(f".*.????????{DRAFT}")):
        if draft.is_dir():
            shutil.rmtree(draft)
        else:
            draft.unlink(missing_ok=True)
    repair_lines(folder / LOG)


def _vacate(folder: Path, *, remove: bool) -> None:
    """Take back what was written before the job was; nothing else lies there."""
    for name in (*STARTED, "config.json", STATUS):
        (folder / name).unlink(missing_ok=True)
    if remove:
        folder.rmdir()
