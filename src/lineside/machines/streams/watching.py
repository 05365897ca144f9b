"""``lineside machines watch``: take snapshots from all sources, judge and store each once.

Only a snapshot's own time judges it; intervals here are of the monotonic clock. What a source hands
in is acknowledged after the commit, so that a watch that is killed anywhere has either stored a
snapshot or will be given it again, and the store knows those that it has. What grows with time
lies in the store; in memory are the sessions of the machines, a short queue, and the names of the
files that lie in the watched folders now.
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
from lineside.machines.streams.desk import STATUSES, Desk, NotTakenError
from lineside.machines.streams.folder import FolderSource
from lineside.machines.streams.mqtt import MqttSource, parse_broker
from lineside.machines.streams.telling import Teller
from lineside.machines.streams.upkeep import Upkeep

if TYPE_CHECKING:
    from lineside.machines.model import MachinesModel
    from lineside.machines.store import Store

INTERRUPTED, FINDING, BAD_INPUT = 130, 1, 2
STATUS_SECONDS = 60.0
QUIET_SECONDS = 3.0
"""A broker that sends nothing for so long has sent what it had."""
GIVE_UP_SECONDS = 15.0
"""With `once`, a file that keeps changing or a broker that is away is waited for so long.

Time in which files are read and judged does not count: a backlog is no reason to give up.
"""
ONCE_PATIENCE_SECONDS = 2.0
"""With `once`, a file that cannot be read is refused after so long."""
STORE_PAUSE_SECONDS = 5.0
"""Between two tries while the store does not answer."""
WORK_SHARE = 0.1
"""Looking through folders where nothing is new takes at most this share of the time."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to watch.

    Attributes:
        once: Take what is there, then end.
        interval_seconds: Pause between two looks into a folder.
        patience_seconds: See `FolderSource`.
        ahead_seconds: See `Desk`.
        keep_waveforms: Store samples, not only what was computed from them.
        client_id: See `MqttSource`.
    """

    once: bool = False
    interval_seconds: float = 1.0
    patience_seconds: float = 10.0
    ahead_seconds: float = 3600.0
    keep_waveforms: bool = True
    client_id: str = ""

    def __post_init__(self) -> None:
        if min(self.interval_seconds, self.patience_seconds, self.ahead_seconds) <= 0:
            raise UserError("interval, patience and ahead are above 0", "see --help")


@dataclass(kw_only=True)
class Ending:
    """Asks a watch to end; from a signal or from another thread."""

    asked: threading.Event = field(default_factory=threading.Event)
    code: int = 0

    def ask(self, code: int = 0) -> None:
        """End with this exit code."""
        self.code = code
        self.asked.set()


def watch(
    folders: Sequence[Path],
    model: MachinesModel,
    store: Store,
    *,
    mqtt: str = "",
    http: str = "",
    options: Options | None = None,
    teller: Teller | None = None,
    ending: Ending | None = None,
    ready: Callable[[Watching], None] = lambda watching: None,
) -> int:
    """Watch until told to end (a signal, or `ending`), and return the exit code.

    Args:
        folders: Each as for training: one folder per machine.
        model: Judges.
        store: Keeps.
        mqtt: ``mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC``, empty for none.
        http: ``[HOST:]PORT``, empty for none.
        options: How.
        teller: Prints.
        ending: Ends it from elsewhere.
        ready: Is called when all sources have started.

    Returns:
        130 after SIGINT, otherwise 0; with `once` 2 if something was refused, 1 for a finding.

    Raises:
        UserError: nothing to watch, a missing package, an address that cannot be used.
    """
    options, teller, ending = options or Options(), teller or Teller(), ending or Ending()
    _check(folders, mqtt, http, options)
    journal = store.journal(model, keep_waveforms=options.keep_waveforms)
    desk = Desk(journal=journal, tell=teller.tell, ahead_seconds=options.ahead_seconds)
    watching = Watching(desk=desk, teller=teller, options=options, ending=ending, store=store)
    watching.add_folders(folders)
    with ExitStack() as stack:
        stack.enter_context(_signals(ending))
        if http:
            watching.start_http(http, stack)
        if mqtt:
            watching.start_mqtt(mqtt, stack)
        if not options.once:
            waveforms = options.keep_waveforms
            upkeep = Upkeep(store=store, waveforms=waveforms, note=teller.note)
            upkeep.start()
            stack.callback(upkeep.stop)
        try:
            ready(watching)
            watching.run()
        finally:
            desk.close()  # before the sources stop, since they wait for it
    if options.once and options.keep_waveforms:
        store.tidy()
    if options.once and not ending.asked.is_set():
        return BAD_INPUT if teller.refused else FINDING if teller.findings else 0
    return ending.code


def _check(folders: Sequence[Path], mqtt: str, http: str, options: Options) -> None:
    if not folders and not mqtt and not http:
        raise UserError("there is nothing to watch", "give a folder, --mqtt or --http")
    if options.once and http:
        raise UserError("--http waits for senders", "leave out --once, or --http")
    for folder in folders:
        if not folder.exists():
            raise UserError(f"{folder} does not exist", "check the path of the data")


@dataclass(kw_only=True)
class Watching:
    """The loop of one watch; its thread judges.

    Attributes:
        desk: Takes snapshots.
        teller: Prints.
        options: How.
        ending: Says when to end.
        store: Keeps.
        folders: What is looked at.
        http: The server, if any.
        mqtt: The subscriber, if any.
    """

    desk: Desk
    teller: Teller
    options: Options
    ending: Ending
    store: Store
    folders: list[FolderSource] = field(default_factory=list)
    http: Any = None
    mqtt: MqttSource | None = None
    _looked_seconds: float = 0.0

    def add_folders(self, folders: Sequence[Path]) -> None:
        """Look into these."""
        once, patience = self.options.once, self.options.patience_seconds
        patience = min(patience, ONCE_PATIENCE_SECONDS) if once else patience
        self.folders += [
            FolderSource(data=data, desk=self.desk, live=not once, patience_seconds=patience)
            for data in folders
        ]

    def start_http(self, address: str, stack: ExitStack) -> None:
        """Start the server.

        Raises:
            UserError: a missing package, or an address that cannot be used.
        """
        from lineside.machines.store.queries import fleet
        from lineside.machines.streams.http import HttpSource

        host, port = parse_address(address)
        self.http = HttpSource(
            desk=self.desk, fleet=lambda: fleet(self.store), host=host, port=port
        )
        self.http.start()
        stack.callback(self.http.stop)
        self.teller.note(f"listening on http://{host}:{self.http.port}/snapshots")

    def start_mqtt(self, address: str, stack: ExitStack) -> None:
        """Start the subscriber.

        Raises:
            UserError: a missing package, or no such address.
        """
        self.mqtt = MqttSource(
            broker=parse_broker(address), desk=self.desk, client_id=self.options.client_id,
            place=str(self.store.engine.url), note=self.teller.note,
        )  # fmt: skip
        self.mqtt.start()
        stack.callback(self.mqtt.stop)

    def run(self) -> None:
        """Take snapshots until the end is asked for, or with `once` until there are no more.

        Raises:
            RuntimeError: if a source died of a bug.
        """
        started = told = time.monotonic()
        due = started
        while not self.ending.asked.is_set():
            now = time.monotonic()
            if self.folders and now >= due:
                due = self._look()
            served = self.desk.serve(min(0.1, max(due - now, 0.001)) if self.folders else 0.1)
            waited = now - started - self._looked_seconds
            if self.options.once and not served and self._is_done(waited):
                return
            self.teller.once("store", self.desk.trouble)
            self._check_sources()
            if now - told > STATUS_SECONDS and sys.stderr.isatty():
                told = now
                self.teller.note(self.status())

    def status(self) -> str:
        """Return one line on how things stand."""
        counts = ", ".join(f"{self.desk.counts[s]} {s}" for s in STATUSES if self.desk.counts[s])
        broker = "" if self.mqtt is None or self.mqtt.connected else "; the broker is away"
        return f"{time.strftime('%H:%M:%S')}  {counts or 'nothing yet'}{broker}"

    def _look(self) -> float:
        """Look into all folders once; return when to look again."""
        begun = time.monotonic()
        trouble = taken = False
        for place, source in enumerate(self.folders):
            try:
                for receipt in source.look():
                    taken = taken or receipt is not None
                    while self.desk.serve():  # others must not wait for a long backlog
                        pass
                    if self.ending.asked.is_set():
                        return begun
            except NotTakenError:
                trouble = True
            self.teller.once(f"folder {place}", source.trouble)
        now = time.monotonic()
        self._looked_seconds += now - begun
        pause = self.options.interval_seconds
        if self.options.once:
            return now + min(pause, 0.3)
        if trouble:
            return now + max(pause, STORE_PAUSE_SECONDS)
        if taken:
            return now + pause
        return now + max(pause, (now - begun) * (1 / WORK_SHARE - 1))

    def _is_done(self, waited_seconds: float) -> bool:
        """Return whether everything that is there was taken, or was waited for too long."""
        now = time.monotonic()
        if self.mqtt is not None and now - self.mqtt.newest < QUIET_SECONDS:
            return False
        away = self.mqtt is not None and not self.mqtt.connected
        left = sum(source.waiting for source in self.folders)
        if not away and not left:
            return True
        if waited_seconds < GIVE_UP_SECONDS:
            return False
        if away:
            self.teller.refused += 1
            self.teller.note("the broker cannot be reached")
        if left:
            self.teller.refused += 1
            self.teller.note(f"{left} files are still being written, or could not be stored")
        return True

    def _check_sources(self) -> None:
        if self.desk.broken is not None:
            raise RuntimeError("a source has failed") from self.desk.broken
        if self.http is not None and not self.http.alive:
            raise RuntimeError("the server has ended by itself")


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port of ``[HOST:]PORT``.

    Raises:
        UserError: if it is no such address.
    """
    host, _, port = address.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise UserError(f"--http is {address!r}", "it is a port, or HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


@contextmanager
def _signals(ending: Ending) -> Iterator[None]:
    """End cleanly on SIGINT and SIGTERM; a second one ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def end(number: int, frame: object) -> None:
        ending.ask(INTERRUPTED if number == signal.SIGINT else 0)
        for one, handler in before.items():
            signal.signal(one, handler)

    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
