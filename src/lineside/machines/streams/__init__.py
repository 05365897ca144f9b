"""Sources of snapshots: folders, HTTP and MQTT. At-least-once delivery into an idempotent store.

Nothing heavy is imported before it is used: `watch` loads the sources that it was given.
"""

from lineside.machines.streams.message import MAX_MESSAGE_BYTES, decode, encode

__all__ = ["MAX_MESSAGE_BYTES", "decode", "encode"]
