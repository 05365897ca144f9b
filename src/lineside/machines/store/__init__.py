"""The store: features, verdicts, events and operators' actions in SQL, waveforms in Parquet."""

from lineside.machines.store import queries
from lineside.machines.store.ingest_result import IngestResult
from lineside.machines.store.journal import Journal, replay
from lineside.machines.store.retention import RetentionPolicy, tidy
from lineside.machines.store.store import Store, add_action, open_store

__all__ = [
    "IngestResult", "Journal", "RetentionPolicy", "Store", "add_action", "open_store",
    "queries", "replay", "tidy",
]  # fmt: skip
