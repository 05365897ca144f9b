"""Sources of snapshots: folders, HTTP and MQTT. At-least-once delivery into an idempotent store.

Nothing heavy is imported before it is used: `watch` loads the sources that it was given.
"""

from lineside.machines.streams.message import MOST_BYTES, decode, encode

__all__ = ["MOST_BYTES", "decode", "encode"]
