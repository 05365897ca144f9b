"""Work on the store that no snapshot should wait for, in a thread of its own.

Waveforms move into their segments, and SQLite's log into its file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lineside.core.database import checkpoint
from lineside.core.errors import UserError

if TYPE_CHECKING:
    from lineside.machines.store import Store

FIRST_SECONDS, EVERY_SECONDS = 60.0, 600.0
CHECKPOINT_SECONDS = 1.0


@dataclass(kw_only=True)
class Upkeep:
    """Tidies a store every ten minutes, and its log every second.

    Attributes:
        store: Which.
        waveforms: Whether there are any to tidy.
        note: Is told what goes wrong, when that changes; called in another thread.
    """

    store: Store
    waveforms: bool
    note: Callable[[str], None]

    def __post_init__(self) -> None:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        """Begin; the first time comes after a minute."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is under way is finished, or taken up at the next start."""
        self._end.set()
        self._thread.join(30.0)

    def _run(self) -> None:
        due, said = time.monotonic() + FIRST_SECONDS, ""
        while not self._end.wait(CHECKPOINT_SECONDS):
            told = ""
            try:
                checkpoint(self.store.engine)
                if time.monotonic() < due or not self.waveforms:
                    continue
                self.store.tidy()
            except UserError as error:
                told = str(error)
            except Exception as error:  # waveforms wait in the store; judging goes on
                told = f"waveforms cannot be moved: {type(error).__name__}: {error}"
            if told and told != said:
                self.note(told)
            due, said = time.monotonic() + EVERY_SECONDS, told
