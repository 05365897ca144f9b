"""Moving waveforms into their segments while a watch goes on, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lineside.core.contract import UserError

if TYPE_CHECKING:
    from lineside.machines.store import Store

FIRST_SECONDS, EVERY_SECONDS = 60.0, 600.0


@dataclass(kw_only=True)
class Upkeep:
    """Tidies a store every ten minutes.

    Attributes:
        store: Which.
        note: Is told what goes wrong, when that changes; called in another thread.
    """

    store: Store
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
        wait, said = FIRST_SECONDS, ""
        while not self._end.wait(wait):
            told = ""
            try:
                self.store.tidy()
            except UserError as error:
                told = str(error)
            except Exception as error:  # waveforms wait in the store; judging goes on
                told = f"waveforms cannot be moved: {type(error).__name__}: {error}"
            if told and told != said:
                self.note(told)
            wait, said = EVERY_SECONDS, told
