"""Atomic writing and streamed hashing; everything that core puts on disk goes through here."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lineside.core.errors import UserError

DRAFT = ".lineside"
"""How the name of a file or folder ends that is written and not yet renamed into place."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission into one line for the user.

    Raises:
        UserError: instead of `OSError` for no space, quota, read-only or forbidden places, and
            for a name that is too long.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk is full while writing {path}",
                "free some space and run the same command again, it resumes",
            ) from error
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{path} has too long a name", "give a shorter one") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(
                f"{path} cannot be written: {error.strerror}", "choose another --out folder"
            ) from error
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: temporary file beside it, fsync, rename.

    Raises:
        UserError: if the disk is full or the folder may not be written.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)


def replace_file(path: Path, content: bytes, *, flush: bool = True) -> None:
    """Write to a temporary file beside `path`, then rename.

    Args:
        path: The file; its folder exists.
        content: What it will hold.
        flush: Whether it must survive a power cut.

    Raises:
        OSError: if it cannot be written; the file is as it was.
    """
    shortened = os.fsdecode(os.fsencode(path.name)[:200])
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{shortened}.", suffix=DRAFT)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            if flush:
                os.fsync(stream.fileno())
        os.chmod(name, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Mapping[str, Any] | list[Any]) -> None:
    """Write JSON atomically; NaN and infinity become null, since JSON has neither."""
    write_bytes(path, (json.dumps(finite(value), indent=1, sort_keys=False) + "\n").encode())


LARGEST_JSON = 512 * 2**20
MOST_LEVELS = 64
"""Levels of nested JSON; what is read goes through functions that call themselves."""


def check_file(path: Path, largest: int, what: str = "file") -> int:
    """Return the size of a file, before it is opened: a pipe would be waited for without an end.

    Args:
        path: The file.
        largest: Bytes that fit into memory with what is made of them.
        what: What it should be, for the message.

    Raises:
        UserError: for a folder, pipe, socket or device, and for a larger file.
        OSError: if it is missing.
    """
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        kind = "folder" if stat.S_ISDIR(state.st_mode) else "pipe, socket or device"
        raise UserError(f"{path} is a {kind}, not a {what}", "give a file")
    if state.st_size > largest:
        raise UserError(
            f"{path} is too large: {state.st_size / 2**20:.0f} MB, at most "
            f"{largest / 2**20:.0f} MB are read", "split it, or check that it is the right file",
        )  # fmt: skip
    return state.st_size


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: if it is not JSON, or nested too deeply.
    """
    too_deep = f"it is nested in more than {MOST_LEVELS} levels"
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(too_deep) from None
    level = [value]  # all lists and objects of one depth
    for _ in range(MOST_LEVELS + 1):
        entries = (
            e.values() if isinstance(e, dict) else e for e in level if isinstance(e, dict | list)
        )
        level = [child for below in entries for child in below if isinstance(child, dict | list)]
        if not level:
            return value
    raise ValueError(too_deep)


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        UserError: if the file is missing, no ordinary file, too large, or is not JSON.
    """
    try:
        check_file(path, LARGEST_JSON, "JSON file")
        return parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist", "check the path") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}", "it may be damaged") from error


def finite(value: Any) -> Any:
    """Return a copy with NaN and infinite numbers replaced by None, and tuples by lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return value


def canonical(value: Any) -> bytes:
    """Return the one JSON text of a value that its hash is taken of."""
    return json.dumps(finite(value), sort_keys=True, separators=(",", ":")).encode()


def sha256(content: bytes) -> str:
    """Return the hexadecimal SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, read in pieces, and once while it does not change.

    Raises:
        OSError: if it cannot be read.
    """
    state = _file_state(path)
    if state not in _HASHES:
        with path.open("rb") as stream:
            _remember(state, hashlib.file_digest(stream, "sha256").hexdigest())
    return _HASHES[state]


def read_and_hash(path: Path) -> bytes:
    """Return the content of a file; `sha256_of_file` then knows its hash without reading again.

    Raises:
        OSError: if it cannot be read.
    """
    state = _file_state(path)
    content = path.read_bytes()
    if state not in _HASHES:
        _remember(state, sha256(content))
    return content


MOST_HASHES = 1_000_000
_FileState = tuple[str, int, int, int, int]
_HASHES: dict[_FileState, str] = {}
"""SHA-256 by path, size, inode, time of change of the content and of the inode."""


def _file_state(path: Path) -> _FileState:
    state = path.stat()
    if not stat.S_ISREG(state.st_mode) and not stat.S_ISDIR(state.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe, socket or device")
    return (str(path), state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns)


def _remember(state: _FileState, digest: str) -> None:
    if len(_HASHES) >= MOST_HASHES:
        _HASHES.clear()
    _HASHES[state] = digest
