"""The ingestor: all sources deliver their snapshots here, and one thread judges and writes.

A source that runs in a thread of its own (HTTP, MQTT) waits until its snapshot is committed and
acknowledges it only then; a bounded queue holds back senders that are too fast. One thread loses
no speed, since judging is limited by the processor, and it keeps the order: snapshots are judged
in the order in which they are stored.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDoneError
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from lineside.core.errors import UserError
from lineside.machines.data.measurement import Measurement
from lineside.machines.store.ingest_result import IngestResult
from lineside.machines.streams.message import decode

if TYPE_CHECKING:
    from lineside.machines.store import Journal

QUEUE_SIZE = 32
"""Snapshots in the queue at most; with the largest messages that is the memory it may take."""
QUEUE_TIMEOUT_SECONDS = 10.0
"""Timeout for a free queue slot."""
EARLIEST_CLOCK = 1_577_836_800.0
"""A clock that shows a time before 2020 was never set and cannot be used."""

T = TypeVar("T")


class NotStoredError(Exception):
    """The snapshot was not stored: the store does not answer, or the watch ends. Try again."""


class Clock:
    """The receiver's clock as far as it can be trusted: a jump back does not turn it back."""

    def __init__(self) -> None:
        self._wall, self._monotonic = time.time(), time.monotonic()

    def now(self) -> float:
        """Return seconds since 1970; infinity while the clock was never set."""
        wall, monotonic = time.time(), time.monotonic()
        expected = self._wall + monotonic - self._monotonic
        if wall > expected:
            self._wall, self._monotonic = wall, monotonic
        now = max(wall, expected)
        return now if now >= EARLIEST_CLOCK else math.inf


@dataclass(kw_only=True)
class Ingestor:
    """Ingests snapshots; created by the thread that judges.

    `ingest`, `refuse` and the other methods that write are for this thread. Other threads hand
    such a call to `run_on_writer`, and the judging thread runs it in `run_next`.

    Attributes:
        journal: Judges and writes.
        report: Is called with every result, in the judging thread, after the commit.
        max_future_seconds: A live snapshot further in the future than this is refused: stored, it
            would make all those out of order that follow it.
        counts: Results by status.
        store_error: Why the store wrote nothing the last time, empty when it did.
        failure: A bug in the thread of a source, which ends the watch.
    """

    journal: Journal
    report: Callable[[IngestResult], None] = lambda result: None
    max_future_seconds: float = 3600.0
    counts: Counter[str] = field(default_factory=Counter)
    store_error: str = ""
    failure: Exception | None = None

    def __post_init__(self) -> None:
        self._clock = Clock()
        self._jobs: queue.Queue[tuple[Future[Any], Callable[[], Any]]] = queue.Queue(QUEUE_SIZE)
        self._closed = threading.Event()

    @property
    def stopping(self) -> bool:
        """Whether the watch ends."""
        return self._closed.is_set()

    @property
    def waiting(self) -> int:
        """How many snapshots are in the queue."""
        return self._jobs.qsize()

    def is_in_future(self, seconds: float) -> bool:
        """Return whether a time is too far in the future of the receiver's clock."""
        return seconds > self._clock.now() + self.max_future_seconds

    def ingest(self, measurement: Measurement, source: str, *, live: bool = False) -> IngestResult:
        """Judge a snapshot and store it; by the judging thread only.

        The result is returned after the commit: whoever has it may acknowledge the snapshot.

        Args:
            measurement: The snapshot.
            source: Which source delivers it.
            live: It was measured just now, so that its time can be checked.

        Raises:
            NotStoredError: it was not stored; try again.
        """
        if live and self.is_in_future(measurement.time):
            return self.refuse_future(measurement, source)
        try:
            with self._store_errors():
                result = self.journal.ingest(measurement, source=source)
        except NotStoredError:
            raise
        except Exception as error:  # one bad snapshot must not end a watch of weeks
            bug = UserError(
                f"it could not be judged: {type(error).__name__}: {error}", "report this bug"
            )
            return self.refuse(measurement.item, bug, source, measurement)
        return self._count(result)

    def refuse(
        self,
        item: str,
        error: UserError,
        source: str,
        measurement: Measurement | None = None,
        *,
        in_future: bool = False,
    ) -> IngestResult:
        """Write down what could not be read or judged; by the judging thread only.

        Raises:
            NotStoredError: it was not written; try again.
        """
        with self._store_errors():
            self.journal.refuse(item, error.message, error.hint, source=source)
        return self._count(
            IngestResult(
                status="refused", item=item, source=source, message=error.message,
                hint=error.hint, in_future=in_future,
                machine=measurement.machine if measurement else "",
                time=measurement.time if measurement else math.nan,
            )
        )  # fmt: skip

    def refuse_future(self, measurement: Measurement, source: str) -> IngestResult:
        """Refuse a snapshot whose time is in the future; by the judging thread only.

        Raises:
            NotStoredError: it was not written; try again.
        """
        error = UserError(
            "the time of the snapshot is in the future",
            "set the clock of the sender, or of this computer",
        )
        return self.refuse(measurement.item, error, source, measurement, in_future=True)

    def is_finished(self, source: str, stamp: str) -> bool:
        """Return whether the store knows a file as finished; by the judging thread only.

        Raises:
            NotStoredError: the store does not answer.
        """
        with self._store_errors():
            return self.journal.is_finished(source, stamp)

    def finish(self, source: str, stamp: str) -> None:
        """Note that a file needs no more reading; by the judging thread only.

        Raises:
            NotStoredError: the store does not answer.
        """
        with self._store_errors():
            self.journal.finish(source, stamp)

    def run_on_writer(self, work: Callable[[], T]) -> T:
        """Have work done by the judging thread, from any other thread; wait for its result.

        Raises:
            NotStoredError: it was not done; try again.
        """
        job: Future[T] = Future()
        if self.stopping:
            raise NotStoredError("the watch ends")
        try:
            self._jobs.put((job, work), timeout=QUEUE_TIMEOUT_SECONDS)
        except queue.Full:
            raise NotStoredError("too many snapshots are waiting") from None
        while True:
            try:
                return job.result(timeout=0.2)
            except NotDoneError:
                # A job that has begun cannot be cancelled: its result is waited for, since it may
                # be committed.
                if self.stopping and job.cancel():
                    raise NotStoredError("the watch ends") from None

    def ingest_message(self, body: bytes, source: str, sender: str) -> IngestResult:
        """Ingest a message in the judging thread, from any other thread; wait for the result.

        Raises:
            NotStoredError: it was not stored; try again.
        """
        try:
            measurement = decode(body)
        except UserError as error:
            return self.run_on_writer(partial(self.refuse, sender, error, source))
        return self.run_on_writer(partial(self.ingest, measurement, source, live=True))

    def run_next(self, timeout_seconds: float = 0.0) -> bool:
        """Run the next job of the queue; wait at most this long for one.

        Returns:
            Whether there was one.
        """
        try:
            if timeout_seconds:
                job, work = self._jobs.get(timeout=timeout_seconds)
            else:
                job, work = self._jobs.get_nowait()
        except queue.Empty:
            return False
        if job.set_running_or_notify_cancel():
            try:
                job.set_result(work())
            except Exception as error:
                job.set_exception(error)
            except BaseException:  # interrupted: the thread that waits must be answered
                job.set_exception(NotStoredError("the watch ends"))
                raise
        return True

    def close(self) -> None:
        """Accept nothing more; what is in the queue is answered as not stored."""
        self._closed.set()

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        """Turn what the store cannot do into a reason to try again."""
        try:
            yield
        except UserError as error:
            self.store_error = str(error)
            raise NotStoredError(self.store_error) from error
        self.store_error = ""

    def _count(self, result: IngestResult) -> IngestResult:
        self.counts[result.status] += 1
        self.report(result)
        return result
