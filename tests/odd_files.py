"""What may lie where a file is expected: a pipe, a socket, a folder, a device, 40 GB of nothing."""

import os
import signal
import socket
from contextlib import contextmanager


def _socket(path):
    here = os.getcwd()
    os.chdir(path.parent)  # the address of a socket has at most 108 characters
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def _sparse(path):
    with path.open("wb") as stream:
        stream.truncate(40 * 2**30)


ODD = {
    "pipe": (os.mkfifo, "is a pipe, socket or device"),
    "socket": (_socket, "is a pipe, socket or device"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a pipe, socket or device"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "sparse": (_sparse, "too large: 40960 MB"),
}
"""How each is made, and what is said of it."""


@contextmanager
def no_longer_than(seconds):
    """Raise instead of waiting for ever."""

    def late(number, frame):
        raise TimeoutError(f"it takes longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
