"""What a run folder says about itself: its state, its chosen model, the hashes of its files."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lineside.core.errors import UserError
from lineside.core.run.files import disk_errors, read_json, sha256_of_file
from lineside.core.run.seal import SEAL, check_seal, key, write_sealed

FORMAT = 2
"""Of the run folder: since 2 its status is sealed and its log is a trail."""
STATUS, LOG = "status.json", "metrics.jsonl"
FILES = ("config.json", "environment.json", "split.csv", "outcomes.csv", LOG, "report.json")
"""Files that do not change once a run is finished; its status holds their hashes."""
OTHER_FILES = (STATUS, "report.html", "log", "stop", ".lock")
FOLDERS = ("models", "checkpoint", "snapshots", "figures")
MODEL_FILES = ("model.json", "model.safetensors", "MODEL_CARD.md", "used.csv")


def read_status(folder: Path) -> dict[str, Any]:
    """Return the status of a run; one that was killed is "stopped", and its file says so then.

    Runs of format 1 have no seal; they are read as they are unless a key is given.

    Raises:
        UserError: if it is missing, damaged or altered.
    """
    path = folder / STATUS
    hint = "copy the run again, or name one of its models: --model RUN/models/NAME"
    value = read_json(path)
    if isinstance(value, dict) and SEAL not in value and key() is None and _is_old(folder):
        facts = dict(value)
    else:
        facts = check_seal(path, value, hint)
    if facts.get("state") == "running" and not is_held(folder):
        facts["state"] = "stopped"
        with contextlib.suppress(OSError, UserError):  # a run that may only be read
            write_sealed(path, facts)
    return facts


def is_held(folder: Path) -> bool:
    """Return whether a process works in a run folder: it holds the lock, which ends with it."""
    try:
        if not (folder / ".lock").is_file():  # a pipe would be waited for
            return False
        with (folder / ".lock").open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def choose_model(folder: Path, name: str) -> None:
    """Make another model of a run its chosen one; a folder without a status stays as it is."""
    if (folder / STATUS).exists():
        write_sealed(folder / STATUS, {**read_status(folder), "model": name})


def hashes_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the files that a finished run will not change."""
    return {name: sha256_of_file(folder / name) for name in FILES if (folder / name).is_file()}


def run_file(folder: Path, name: str) -> Path | None:
    """Return a file of a run, None where the run has none.

    Args:
        folder: The run; a folder that is none, since a model was copied out of it, has no files.
        name: One of `FILES`.

    Raises:
        UserError: if it is not the file that the finished run had.
    """
    path = folder / name
    files = read_status(folder).get("files") if (folder / STATUS).exists() else None
    if not isinstance(files, Mapping) or name not in files:
        return path if path.exists() else None
    try:
        found = sha256_of_file(path) if path.is_file() else ""
    except OSError:
        found = ""
    if found != files[name]:
        what = "was altered" if path.is_file() else "is missing"
        raise UserError(f"{path} {what} since its run was finished", "copy the run again")
    return path


def check_kinds(folder: Path) -> None:
    """Refuse a run in which a folder lies in the place of a file, or the other way round.

    Raises:
        UserError: with the first one.
    """
    models = [path for path in folder.glob("models/*") if not path.name.startswith(".")]
    files = [folder / name for name in (*FILES, *OTHER_FILES)]
    files += [model / name for model in models for name in MODEL_FILES]
    files += folder.glob("figures/*.json")
    for path in files:
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is not a file", "remove it and run the same command again")
    for path in (*(folder / name for name in FOLDERS), *models):
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is not a folder", "remove it and run the same command again")


def take_lock(folder: Path) -> Any:
    """Take the folder's lock; the kernel gives it back when the process ends, however it ends.

    Raises:
        UserError: if another process has it.
    """
    path = folder / ".lock"
    with disk_errors(path):
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is not a file", "remove it")
        handle = path.open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise UserError(
            f"{folder} is in use by another process", "wait for it, or choose another --out"
        ) from error
    return handle


def _is_old(folder: Path) -> bool:
    """Whether a run was begun before there were seals; one whose environment is lost was not."""
    try:
        environment = read_json(folder / "environment.json")
    except UserError:
        return False
    return isinstance(environment, dict) and "format" not in environment
