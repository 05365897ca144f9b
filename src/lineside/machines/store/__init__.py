"""The store: features, verdicts, events and operators' actions in SQL, waveforms in Parquet."""

from lineside.machines.store import queries
from lineside.machines.store.journal import Journal
from lineside.machines.store.opening import Store, open_store
from lineside.machines.store.replaying import replay
from lineside.machines.store.ring import Ring
from lineside.machines.store.taken import Taken
from lineside.machines.store.waves import Tidied

__all__ = ["Journal", "Ring", "Store", "Taken", "Tidied", "open_store", "queries", "replay"]
