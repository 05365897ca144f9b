"""Waveforms: waiting in the database, moved into Parquet segments, thinned by the ring."""

from lineside.machines.store.waves.finding import waveform
from lineside.machines.store.waves.tidying import Tidied, sweep, tidy

__all__ = ["Tidied", "sweep", "tidy", "waveform"]
