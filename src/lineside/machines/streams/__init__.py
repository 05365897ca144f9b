"""Snapshots as they come in: from a folder, over HTTP and over MQTT, each judged and stored once.

Nothing heavy is imported before it is used: `watching` loads the sources that a watch was given.
"""

from lineside.machines.streams.message import MOST_BYTES, decode, encode

__all__ = ["MOST_BYTES", "decode", "encode"]
