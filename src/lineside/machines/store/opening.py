"""Opening a store, and what people ask of it directly."""

from __future__ import annotations

import time as clock
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from lineside.core.database import Engine, open_engine, writing
from lineside.core.errors import UserError
from lineside.machines.store.ring import Ring
from lineside.machines.store.tables import METADATA, VERSION
from lineside.machines.store.taking import tables
from lineside.machines.store.waves import Tidied, sweep, tidy
from lineside.machines.store.waves.segments import need_pyarrow

if TYPE_CHECKING:
    from lineside.machines.model import MachinesModel
    from lineside.machines.store.journal import Journal


class Store:
    """Features, verdicts, events and waveforms of any number of machines; see `open_store`.

    Attributes:
        engine: Where the tables are.
        folder: Where the segments of waveforms lie.
        ring: How long waveforms stay.
    """

    def __init__(self, engine: Engine, folder: Path, ring: Ring) -> None:
        self.engine, self.folder, self.ring = engine, folder, ring

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()

    def journal(self, model: MachinesModel, *, keep_waveforms: bool = True) -> Journal:
        """Return what judges snapshots with a model and keeps them here.

        Raises:
            UserError: waveforms are to be kept, and pyarrow is missing.
        """
        from lineside.machines.store.journal import Journal

        keep_waveforms = keep_waveforms and not self.ring.off
        if keep_waveforms:
            need_pyarrow()
        return Journal(self, model, keep_waveforms=keep_waveforms)

    def tidy(self, *, everything: bool = False) -> Tidied:
        """Move waveforms into their Parquet segments and turn the ring; call it now and then.

        It may run in a thread or a process of its own; two at a time do no harm.

        Args:
            everything: Do not wait until a day is over or a segment is full.

        Raises:
            UserError: pyarrow is missing, or the disk is full; nothing is lost then.
        """
        return tidy(self, everything=everything)

    def acknowledge(self, machine: str, by: str, why: str = "") -> None:
        """Note that a person has seen the running alarm; takes effect with the next snapshot.

        Raises:
            UserError: if the store never saw the machine, or nobody is named.
        """
        self._ask(machine, "acknowledge", by, why, None)

    def mute(self, machine: str, until_seconds: float, by: str, why: str = "") -> None:
        """Hold a machine's alarms back until a time; takes effect with the next snapshot.

        Raises:
            UserError: if the store never saw the machine, or nobody is named.
        """
        self._ask(machine, "mute", by, why, float(until_seconds))

    def _ask(self, machine: str, kind: str, by: str, why: str, until: float | None) -> None:
        if not by:
            raise UserError("nobody is named", "say who asks for it")
        with writing(self.engine) as connection:
            row = tables.machine_row(connection, machine, make=False)
            if row is None:
                raise UserError(
                    f"the store never saw a machine {machine!r}", "its fleet lists those it knows"
                )
            asked = {
                "machine": row["id"], "kind": kind, "who": by, "why": why, "until": until,
                "asked": clock.time(),
            }  # fmt: skip
            tables.put_action(connection, asked)
            tables.stir(connection, row["id"])


def open_store(
    where: str | Path,
    *,
    ring: Ring | None = None,
    waves: Path | None = None,
    durable: bool = False,
) -> Store:
    """Open the store of a fleet, or make a new one.

    Args:
        where: A path (SQLite), or a URL: ``postgresql://USER@HOST/NAME``.
        ring: How long waveforms stay.
        waves: Folder of the waveforms; by default ``STORE.waves`` beside a SQLite file, and for
            PostgreSQL ``machines.waves`` in the working folder.
        durable: See `lineside.core.database.open_engine`.

    Raises:
        UserError: see `lineside.core.database.open_engine`.
    """
    engine = open_engine(where, METADATA, application="machines", version=VERSION, durable=durable)
    if waves is None:
        database = engine.url.database if engine.dialect.name == "sqlite" else "machines"
        waves = Path(f"{database}.waves")
    store = Store(engine, waves, ring or Ring())
    sweep(store)
    return store
