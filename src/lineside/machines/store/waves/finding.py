"""Finding the waveform of one snapshot, wherever it lies at the moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lineside.core.database import reading
from lineside.core.errors import UserError
from lineside.machines.data.measurement import Measurement
from lineside.machines.store.packing import unpack
from lineside.machines.store.waves import tables
from lineside.machines.store.waves.segments import need_pyarrow, read_snapshot

if TYPE_CHECKING:
    from lineside.machines.store.opening import Store


def waveform(
    store: Store, machine: int, time_us: int, name: str, seconds: float
) -> Measurement | None:
    """Return the snapshot of a machine's number and time, None if its waveform was not kept.

    Raises:
        UserError: if its file is missing or damaged.
    """
    before = None
    while True:
        with reading(store.engine) as connection:
            content = tables.pending_content(connection, machine, time_us)
            place = tables.place_of(connection, machine, time_us) if content is None else None
        if content is not None:
            return unpack(content, name, seconds)
        if place is None:
            return None
        need_pyarrow()
        try:
            return read_snapshot(store.folder / place[0], place[1], name, seconds)
        except FileNotFoundError as error:
            if place == before:  # nobody moved it: it is really gone
                raise UserError(
                    f"{store.folder / place[0]} is missing", "restore a copy of it"
                ) from error
            before = place
