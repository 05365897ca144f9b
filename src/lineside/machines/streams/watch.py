"""``lineside machines watch``: ingest snapshots from all sources, judge and store each once.

Delivery is at least once and ingest is idempotent, which together is exactly once: a source
acknowledges a snapshot after its commit and never before, so that a watch that is killed anywhere
has either stored a snapshot or gets it again, and the store recognises a duplicate.

A snapshot is judged by its own time only; intervals here are of the monotonic clock. What grows
with time is in the store; in memory are the sessions of the machines, a short queue, and the names
of the files that are in the watched folders now.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lineside.core.errors import UserError
from lineside.machines.store import Journal, tidy
from lineside.machines.store.ingest_result import STATUSES
from lineside.machines.store.queries import fleet
from lineside.machines.streams.console import ConsoleReporter
from lineside.machines.streams.folder import FolderSource
from lineside.machines.streams.ingestor import Ingestor, NotStoredError
from lineside.machines.streams.maintenance import Maintenance
from lineside.machines.streams.mqtt import MqttSource, parse_broker

if TYPE_CHECKING:
    from lineside.machines.model import MachinesModel
    from lineside.machines.store import Store

INTERRUPTED, FINDING, BAD_INPUT = 130, 1, 2
STATUS_SECONDS = 60.0
QUIET_SECONDS = 3.0
"""A broker that sends nothing for this long has sent what it had."""
GIVE_UP_SECONDS = 15.0
"""With `once`, how long to wait for a file that keeps changing or a broker that is not reached.

Time in which files are read and judged does not count: a backlog is no reason to give up.
"""
ONCE_PATIENCE_SECONDS = 2.0
"""With `once`, a file that cannot be read is refused after this long."""
STORE_PAUSE_SECONDS = 5.0
"""Between two attempts while the store does not answer."""
SCAN_SHARE = 0.1
"""Scanning folders in which nothing is new takes at most this share of the time."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to watch.

    Attributes:
        once: Ingest what is there, then end.
        interval_seconds: Pause between two scans of a folder.
        patience_seconds: See `FolderSource`.
        max_future_seconds: See `Ingestor`.
        keep_waveforms: Store samples, not only what was computed from them.
        client_id: See `MqttSource`.
    """

    once: bool = False
    interval_seconds: float = 1.0
    patience_seconds: float = 10.0
    max_future_seconds: float = 3600.0
    keep_waveforms: bool = True
    client_id: str = ""

    def __post_init__(self) -> None:
        if min(self.interval_seconds, self.patience_seconds, self.max_future_seconds) <= 0:
            raise UserError("interval, patience and time ahead must be above 0", "see --help")


@dataclass(kw_only=True)
class StopRequest:
    """Asks a watch to end; from a signal or from another thread."""

    event: threading.Event = field(default_factory=threading.Event)
    code: int = 0

    def stop(self, code: int = 0) -> None:
        """End with this exit code."""
        self.code = code
        self.event.set()


def watch(
    folders: Sequence[Path],
    model: MachinesModel,
    store: Store,
    *,
    mqtt: str = "",
    http: str = "",
    options: Options | None = None,
    console: ConsoleReporter | None = None,
    stop_request: StopRequest | None = None,
    on_ready: Callable[[WatchLoop], None] = lambda loop: None,
) -> int:
    """Watch until told to end (a signal, or `stop_request`), and return the exit code.

    Args:
        folders: Each as for training: one folder per machine.
        model: Judges.
        store: Keeps.
        mqtt: ``mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC``, empty for none.
        http: ``[HOST:]PORT``, empty for none.
        options: How.
        console: Prints.
        stop_request: Ends it from elsewhere.
        on_ready: Is called when all sources have started.

    Returns:
        130 after SIGINT, otherwise 0; with `once` 2 if something was refused, 1 for a finding.

    Raises:
        UserError: nothing to watch, a missing package, an address that cannot be used.
    """
    options, console = options or Options(), console or ConsoleReporter()
    stop_request = stop_request or StopRequest()
    _check(folders, mqtt, http, options)
    journal = Journal(store, model, keep_waveforms=options.keep_waveforms)
    ingestor = Ingestor(
        journal=journal, report=console.report, max_future_seconds=options.max_future_seconds
    )
    loop = WatchLoop(
        ingestor=ingestor, console=console, options=options, stop_request=stop_request, store=store
    )
    loop.add_folders(folders)
    with ExitStack() as stack:
        stack.enter_context(_stop_on_signals(stop_request))
        if http:
            loop.start_http(http, stack)
        if mqtt:
            loop.start_mqtt(mqtt, stack)
        if not options.once:
            loop.start_maintenance(stack)
        try:
            on_ready(loop)
            loop.run()
        finally:
            ingestor.close()  # before the sources are stopped: their threads wait for it
    if options.once and options.keep_waveforms:
        tidy(store)
    if options.once and not stop_request.event.is_set():
        return BAD_INPUT if console.refused else FINDING if console.findings else 0
    return stop_request.code


def _check(folders: Sequence[Path], mqtt: str, http: str, options: Options) -> None:
    if not folders and not mqtt and not http:
        raise UserError("there is nothing to watch", "give a folder, --mqtt or --http")
    if options.once and http:
        raise UserError("--http waits for senders", "leave out --once, or --http")
    for folder in folders:
        if not folder.exists():
            raise UserError(f"{folder} does not exist", "check the path of the data")


@dataclass(kw_only=True)
class WatchLoop:
    """The loop of one watch; its thread judges.

    Attributes:
        ingestor: Ingests snapshots.
        console: Prints.
        options: How.
        stop_request: Says when to end.
        store: Keeps.
        folders: The watched folders.
        http: The server, if any.
        mqtt: The subscriber, if any.
    """

    ingestor: Ingestor
    console: ConsoleReporter
    options: Options
    stop_request: StopRequest
    store: Store
    folders: list[FolderSource] = field(default_factory=list)
    http: Any = None
    mqtt: MqttSource | None = None
    _scan_seconds: float = 0.0

    def add_folders(self, folders: Sequence[Path]) -> None:
        """Watch these."""
        once, patience = self.options.once, self.options.patience_seconds
        patience = min(patience, ONCE_PATIENCE_SECONDS) if once else patience
        self.folders += [
            FolderSource(
                data=data, ingestor=self.ingestor, live=not once, patience_seconds=patience
            )
            for data in folders
        ]

    def start_http(self, address: str, stack: ExitStack) -> None:
        """Start the server.

        Raises:
            UserError: a missing package, or an address that cannot be used.
        """
        from lineside.machines.streams.http import HttpSource

        host, port = parse_address(address)
        self.http = HttpSource(
            ingestor=self.ingestor, fleet=lambda: fleet(self.store), host=host, port=port
        )
        self.http.start()
        stack.callback(self.http.stop)
        self.console.note(f"listening on http://{host}:{self.http.port}/snapshots")

    def start_mqtt(self, address: str, stack: ExitStack) -> None:
        """Start the subscriber.

        Raises:
            UserError: a missing package, or no such address.
        """
        self.mqtt = MqttSource(
            broker=parse_broker(address), ingestor=self.ingestor,
            client_id=self.options.client_id, store_address=str(self.store.engine.url),
            note=self.console.note,
        )  # fmt: skip
        self.mqtt.start()
        stack.callback(self.mqtt.stop)

    def start_maintenance(self, stack: ExitStack) -> None:
        """Start the thread that maintains the store."""
        maintenance = Maintenance(
            store=self.store, waveforms=self.options.keep_waveforms, note=self.console.note
        )
        maintenance.start()
        stack.callback(maintenance.stop)

    def run(self) -> None:
        """Ingest until the end is asked for, or with `once` until there are no more snapshots.

        Raises:
            RuntimeError: if a source died of a bug.
        """
        started = last_status = time.monotonic()
        scan_due = started
        while not self.stop_request.event.is_set():
            now = time.monotonic()
            if self.folders and now >= scan_due:
                scan_due = self._scan_folders()
            pause = min(0.1, max(scan_due - now, 0.001)) if self.folders else 0.1
            busy = self.ingestor.run_next(pause)
            waited = now - started - self._scan_seconds
            if self.options.once and not busy and self._is_done(waited):
                return
            self.console.note_once("store", self.ingestor.store_error)
            self._check_sources()
            if now - last_status > STATUS_SECONDS and sys.stderr.isatty():
                last_status = now
                self.console.note(self.status())

    def status(self) -> str:
        """Return one line of counts."""
        counts = self.ingestor.counts
        line = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
        broker = "" if self.mqtt is None or self.mqtt.connected else "; the broker is disconnected"
        return f"{time.strftime('%H:%M:%S')}  {line or 'nothing yet'}{broker}"

    def _scan_folders(self) -> float:
        """Scan all folders once; return when to scan again."""
        started = time.monotonic()
        failed = busy = False
        for number, source in enumerate(self.folders):
            try:
                for result in source.scan():
                    busy = busy or result is not None
                    while self.ingestor.run_next():  # others must not wait for a long backlog
                        pass
                    if self.stop_request.event.is_set():
                        return started
            except NotStoredError:
                failed = True
            self.console.note_once(f"folder {number}", source.problem)
        now = time.monotonic()
        self._scan_seconds += now - started
        pause = self.options.interval_seconds
        if self.options.once:
            return now + min(pause, 0.3)
        if failed:
            return now + max(pause, STORE_PAUSE_SECONDS)
        if busy:
            return now + pause
        return now + max(pause, (now - started) * (1 / SCAN_SHARE - 1))

    def _is_done(self, waited_seconds: float) -> bool:
        """Return whether everything that is there was ingested, or was waited for too long."""
        now = time.monotonic()
        if self.mqtt is not None and now - self.mqtt.last_message < QUIET_SECONDS:
            return False
        broker_away = self.mqtt is not None and not self.mqtt.connected
        pending = sum(source.pending for source in self.folders)
        if not broker_away and not pending:
            return True
        if waited_seconds < GIVE_UP_SECONDS:
            return False
        if broker_away:
            self.console.refused += 1
            self.console.note("the broker cannot be reached")
        if pending:
            self.console.refused += 1
            self.console.note(f"{pending} files are still being written, or could not be stored")
        return True

    def _check_sources(self) -> None:
        if self.ingestor.failure is not None:
            raise RuntimeError("a source has failed") from self.ingestor.failure
        if self.http is not None and not self.http.alive:
            raise RuntimeError("the server has ended by itself")


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port of ``[HOST:]PORT``.

    Raises:
        UserError: if it is no such address.
    """
    host, _, port = address.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise UserError(f"--http is {address!r}", "give a port, or HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


@contextmanager
def _stop_on_signals(stop_request: StopRequest) -> Iterator[None]:
    """End cleanly on SIGINT and SIGTERM; a second one ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def stop(number: int, frame: object) -> None:
        stop_request.stop(INTERRUPTED if number == signal.SIGINT else 0)
        restore()

    for number in handlers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()
