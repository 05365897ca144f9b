"""Processes that torchrun starts: process 0 owns the run, the others join its trainings.

All of them run the same command. Process 0 works as if it were alone and announces every fit that
trains in the loop; the others wait for announcements, do the same fit beside it, which meets
process 0 in the loop, and throw their result away.
"""

from __future__ import annotations

import os


def process_count() -> int:
    """Return how many processes torchrun started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_index() -> int:
    """Return which of them this is, 0 without torchrun."""
    return int(os.environ.get("RANK", "0")) if process_count() > 1 else 0


def announce(method: str) -> None:
    """Tell the other processes whose fit begins now; an empty name lets them end."""
    if process_count() > 1:
        _from_process_0(method)


def next_method() -> str:
    """Wait for the name of the method that process 0 fits next; empty at the end."""
    return _from_process_0("")


def _from_process_0(method: str) -> str:
    from lineside.core.training.loop import Processes

    name: str = Processes().from_main(method)
    return name
