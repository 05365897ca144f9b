"""Maintenance of the store that no snapshot should wait for, in a thread of its own.

Waveforms are moved into their segments, and SQLite's write-ahead log into its file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lineside.core.database import checkpoint
from lineside.core.errors import UserError
from lineside.machines.store.retention import tidy

if TYPE_CHECKING:
    from lineside.machines.store import Store

FIRST_TIDY_SECONDS, TIDY_SECONDS = 60.0, 600.0
CHECKPOINT_SECONDS = 1.0


@dataclass(kw_only=True)
class Maintenance:
    """Checkpoints the log every second and tidies the waveforms every ten minutes.

    Attributes:
        store: Which.
        waveforms: Whether there are any to tidy.
        note: Is called with what goes wrong, when that changes; in another thread.
    """

    store: Store
    waveforms: bool
    note: Callable[[str], None]

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="maintenance", daemon=True)

    def start(self) -> None:
        """Start the thread; it tidies for the first time after a minute."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after what is under way; what is not finished is resumed at the next start."""
        self._stop.set()
        self._thread.join(30.0)

    def _run(self) -> None:
        due, last_problem = time.monotonic() + FIRST_TIDY_SECONDS, ""
        while not self._stop.wait(CHECKPOINT_SECONDS):
            problem = ""
            try:
                checkpoint(self.store.engine)
                if time.monotonic() < due or not self.waveforms:
                    continue
                tidy(self.store)
            except UserError as error:
                problem = str(error)
            except Exception as error:  # waveforms stay in the database; judging goes on
                problem = f"waveforms cannot be moved: {type(error).__name__}: {error}"
            if problem and problem != last_problem:
                self.note(problem)
            due, last_problem = time.monotonic() + TIDY_SECONDS, problem
