"""Where all sources hand in their snapshots: one thread alone judges and writes.

A source that runs in a thread of its own (HTTP, MQTT) waits until its snapshot is committed, so
that what it acknowledges can no longer be lost; a bounded queue holds back senders that are too
fast. Judging in one thread is no loss: it is the processor that limits it, and the order in which
snapshots were stored is then the order in which they were judged.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from lineside.core.errors import UserError
from lineside.machines.alarms.verdict import Event, Verdict
from lineside.machines.data.measurement import Measurement

if TYPE_CHECKING:
    from lineside.core.contract import Refusal

WAITING = 32
"""Snapshots in the queue at most; with the largest messages that is the memory it may take."""
PATIENCE_SECONDS = 10.0
"""A sender waits so long for a place in the queue."""
FIRST_TRUSTED = 1_577_836_800.0
"""A clock that shows a time before 2020 was never set, and says nothing."""

Status = Literal["judged", "known", "late", "refused", "never learned"]
STATUSES: tuple[Status, ...] = ("judged", "known", "late", "refused", "never learned")
T = TypeVar("T")


class NotTakenError(Exception):
    """The snapshot was not taken: the store does not answer, or the watch ends. Try again."""


class Taken(Protocol):
    """What the journal says of a snapshot that it was given."""

    @property
    def status(self) -> Any: ...
    @property
    def verdict(self) -> Verdict | None: ...
    @property
    def refusal(self) -> Refusal | None: ...
    @property
    def events(self) -> tuple[Event, ...]: ...


class Journal(Protocol):
    """What the sources need of the store."""

    def take(self, measurement: Measurement, *, source: str = "") -> Taken: ...
    def refuse(self, item: str, message: str, hint: str, *, source: str = "") -> Any: ...
    def done(self, source: str, stamp: str) -> bool: ...
    def finish(self, source: str, stamp: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What became of one snapshot or message.

    Attributes:
        status: ``judged`` now, ``known`` from before, ``late`` (stored, older than the newest of
            its machine and not judged), ``never learned`` (stored), or ``refused``.
        item: ``MACHINE@TIME``, or where the message came from.
        source: Which source handed it in.
        machine: Empty where it is not known.
        time: Of the snapshot, NaN where it is not known.
        verdict: Of a judged one.
        events: What was done to its machine just before: acknowledged, muted, model changed.
        message: Why it was not judged, one line.
        hint: What to do about it.
        ahead: Refused because its time is still to come.
    """

    status: Status
    item: str
    source: str = ""
    machine: str = ""
    time: float = math.nan
    verdict: Verdict | None = None
    events: tuple[Event, ...] = ()
    message: str = ""
    hint: str = ""
    ahead: bool = False

    @property
    def finding(self) -> bool:
        """True if a person should look."""
        return self.verdict is not None and self.verdict.finding

    def as_json(self) -> dict[str, Any]:
        """Return the plain dictionary of one JSON line, and of the answer over HTTP."""
        facts: dict[str, Any] = {"status": self.status, "item": self.item, "source": self.source}
        if self.verdict is not None:
            facts.update(self.verdict.as_json())
        if self.message:
            facts.update(error=self.message, hint=self.hint)
        if self.events:
            facts["done"] = [event.text for event in self.events]
        return facts

    def as_line(self) -> str:
        """Return one line for people."""
        if self.verdict is not None:
            told = self.verdict.as_line()
        else:
            where = "" if self.item in self.message else f"{self.item}  "
            told = f"{self.status:<13}           {where}{self.message}".rstrip()
        return "; ".join([told, *(event.text for event in self.events)])


class Clock:
    """The receiver's clock as far as it can be trusted: a jump back does not turn it back."""

    def __init__(self) -> None:
        self._wall, self._monotonic = time.time(), time.monotonic()

    def now(self) -> float:
        """Return seconds since 1970; infinity while the clock was never set."""
        wall, monotonic = time.time(), time.monotonic()
        going_on = self._wall + monotonic - self._monotonic
        if wall > going_on:
            self._wall, self._monotonic = wall, monotonic
        found = max(wall, going_on)
        return found if found >= FIRST_TRUSTED else math.inf


@dataclass(kw_only=True)
class Desk:
    """Takes snapshots in; made by the thread that judges.

    Attributes:
        journal: Judges and stores.
        tell: Is called with every receipt, in the judging thread, after the commit.
        ahead_seconds: A live snapshot further in the future than this is refused: stored, it
            would make all those late that follow it.
        counts: Receipts by status.
        trouble: Why the store took nothing the last time, empty when it did.
        broken: A bug in the thread of a source, which ends the watch.
    """

    journal: Journal
    tell: Callable[[Receipt], None] = lambda receipt: None
    ahead_seconds: float = 3600.0
    counts: Counter[str] = field(default_factory=Counter)
    trouble: str = ""
    broken: Exception | None = None

    def __post_init__(self) -> None:
        self._clock = Clock()
        self._jobs: queue.Queue[tuple[Future[Any], Callable[[], Any]]] = queue.Queue(WAITING)
        self._closed = threading.Event()

    @property
    def stopping(self) -> bool:
        """Whether the watch ends."""
        return self._closed.is_set()

    @property
    def waiting(self) -> int:
        """How many snapshots are in the queue."""
        return self._jobs.qsize()

    def is_ahead(self, seconds: float) -> bool:
        """Return whether a time is too far in the future of the receiver's clock."""
        return seconds > self._clock.now() + self.ahead_seconds

    def take(self, measurement: Measurement, source: str, *, live: bool = False) -> Receipt:
        """Judge and store a snapshot; by the judging thread only.

        Args:
            measurement: The snapshot.
            source: Which source hands it in.
            live: It was measured just now, so that its time can be checked.

        Raises:
            NotTakenError: it was not stored; try again.
        """
        if live and self.is_ahead(measurement.time):
            return self.refuse_ahead(measurement, source)
        try:
            with self._store_errors():
                taken = self.journal.take(measurement, source=source)
        except NotTakenError:
            raise
        except Exception as error:  # one bad snapshot must not end a watch of weeks
            bug = UserError(
                f"it could not be judged: {type(error).__name__}: {error}", "report this bug"
            )
            return self.refuse(measurement.item, bug, source, measurement)
        return self._told(
            Receipt(
                status=taken.status, item=measurement.item, source=source,
                machine=measurement.machine, time=measurement.time,
                verdict=taken.verdict, events=taken.events,
                message=taken.refusal.message if taken.refusal else "",
                hint=taken.refusal.hint if taken.refusal else "",
            )
        )  # fmt: skip

    def refuse(
        self, item: str, error: UserError, source: str, measurement: Measurement | None = None
    ) -> Receipt:
        """Note what could not be read or judged; by the judging thread only.

        Raises:
            NotTakenError: it was not noted; try again.
        """
        return self._refuse(item, error, source, measurement)

    def refuse_ahead(self, measurement: Measurement, source: str) -> Receipt:
        """Note a snapshot of a time that is still to come; by the judging thread only.

        Raises:
            NotTakenError: it was not noted; try again.
        """
        error = UserError(
            "the time of the snapshot is still to come", "set the clock of the sender, or our own"
        )
        return self._refuse(measurement.item, error, source, measurement, ahead=True)

    def is_done(self, source: str, stamp: str) -> bool:
        """Return whether the store knows a file as finished; by the judging thread only.

        Raises:
            NotTakenError: the store does not answer.
        """
        with self._store_errors():
            return self.journal.done(source, stamp)

    def finish(self, source: str, stamp: str) -> None:
        """Note that a file needs no more reading; by the judging thread only.

        Raises:
            NotTakenError: the store does not answer.
        """
        with self._store_errors():
            self.journal.finish(source, stamp)

    def ask(self, work: Callable[[], T]) -> T:
        """Have work done by the judging thread, from any other thread; wait for its result.

        Raises:
            NotTakenError: it was not done; try again.
        """
        job: Future[T] = Future()
        if self.stopping:
            raise NotTakenError("the watch ends")
        try:
            self._jobs.put((job, work), timeout=PATIENCE_SECONDS)
        except queue.Full:
            raise NotTakenError("too many snapshots are waiting") from None
        while True:
            try:
                return job.result(timeout=0.2)
            except NotYet:
                if self.stopping and job.cancel():
                    raise NotTakenError("the watch ends") from None

    def serve(self, seconds: float = 0.0) -> bool:
        """Do what waits in the queue; without any, wait so long for it.

        Returns:
            Whether there was any.
        """
        try:
            job, work = self._jobs.get(timeout=seconds) if seconds else self._jobs.get_nowait()
        except queue.Empty:
            return False
        if job.set_running_or_notify_cancel():
            try:
                job.set_result(work())
            except Exception as error:
                job.set_exception(error)
            except BaseException:  # interrupted: nobody would ever answer the one who waits
                job.set_exception(NotTakenError("the watch ends"))
                raise
        return True

    def close(self) -> None:
        """Take nothing more; what is in the queue is answered as not done."""
        self._closed.set()

    def _refuse(
        self,
        item: str,
        error: UserError,
        source: str,
        measurement: Measurement | None,
        *,
        ahead: bool = False,
    ) -> Receipt:
        with self._store_errors():
            self.journal.refuse(item, error.message, error.hint, source=source)
        return self._told(
            Receipt(
                status="refused", item=item, source=source, message=error.message,
                hint=error.hint, ahead=ahead,
                machine=measurement.machine if measurement else "",
                time=measurement.time if measurement else math.nan,
            )
        )  # fmt: skip

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        """Turn what the store cannot do into a reason to try again."""
        try:
            yield
        except UserError as error:
            self.trouble = str(error)
            raise NotTakenError(self.trouble) from error
        self.trouble = ""

    def _told(self, receipt: Receipt) -> Receipt:
        self.counts[receipt.status] += 1
        self.tell(receipt)
        return receipt
