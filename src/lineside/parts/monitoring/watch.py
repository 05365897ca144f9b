"""``lineside parts watch FOLDER``: inspect pictures as they arrive, and keep an audit trail.

Nothing is moved or changed. A file is inspected once size and time are the same in two scans and it
decodes to the end; a half-written file waits for the next scan, one that stays broken is reported
after a timeout. Every verdict is one line of the audit trail (image hash, model id, threshold,
verdict), written and synced before the next file, so that nothing is inspected twice after a crash.
When image quality or scores drift, the certificate is suspended: verdicts continue, marked as such,
until the model is recalibrated and the watch restarted.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.core.run.files import canonical, disk_errors, finite, sha256
from lineside.core.run.folder import iter_rows, repair_lines
from lineside.core.run.folder_watcher import FolderWatcher, PendingFile, Stamp, stamp_of
from lineside.core.run.model_store import load_model
from lineside.parts.application import APPLICATION
from lineside.parts.data.images import digest
from lineside.parts.data.sources import pictures_in, unlabelled
from lineside.parts.model import PartResult, PartsModel
from lineside.parts.monitoring.monitors import Monitors

JUDGED_KEPT = 200_000
"""Deleted files are forgotten only beyond this number: a network share may come back."""

Say = Callable[[Mapping[str, Any]], None]


@dataclass(kw_only=True)
class Watcher:
    """The state of one watch: inspected files, files still being written, the monitors.

    Attributes:
        folder: The watched folder, searched with its subfolders.
        model: Inspects the pictures.
        trail: The audit trail, JSON lines; a restarted watch resumes it.
        patience_seconds: An unreadable file is reported when unchanged for this long.
        monitors: Views of parts, score drift, image quality.
        files: Inspected files and those that may still be written, by name below the folder.
        most_judged: From this number on, deleted files are forgotten.
    """

    folder: Path
    model: PartsModel
    trail: Path
    patience_seconds: float
    monitors: Monitors
    files: FolderWatcher[PendingFile] = field(init=False)
    most_judged: int = 2 * JUDGED_KEPT

    def __post_init__(self) -> None:
        self.files = FolderWatcher(kind=PendingFile, name_of=self._name_of)

    @property
    def calibration(self) -> str:
        """Digest of the operating point: a recalibration resets the monitors."""
        return sha256(canonical(self.model.calibration_block()))[:16]

    def started(self) -> dict[str, Any]:
        """Return the first line for the user; it is not part of the trail."""
        drift = "followed"
        if self.monitors.drift is None:
            drift = "not followed: too few good calibration parts were accepted"
        return {
            "event": "started", "folder": str(self.folder), "model": self.model.identity,
            "threshold": self.model.threshold, "judged": len(self.files.done), "drift": drift,
            "suspended": self.monitors.suspended,
        }  # fmt: skip

    def resume(self) -> None:
        """Replay the trail: its files count as inspected, and the monitors continue."""
        repair_lines(self.trail)
        same = {"model": self.model.identity, "calibration": self.calibration}
        for row in iter_rows(self.trail):
            if "verdict" not in row:
                continue
            self._remember(row["file"], Stamp(row["bytes"], row["modified_ns"]))
            same_model = all(row.get(key) == value for key, value in same.items())
            if same_model and "score" in row:
                seconds = datetime.fromisoformat(row["time"]).timestamp()
                score = float("nan") if row["score"] is None else row["score"]
                self.monitors.update(row["part"], score, row["health"], seconds)

    def scan(self) -> Iterator[dict[str, Any]]:
        """Inspect every complete new picture once; yield the rows added to the trail."""
        pending = self.files.look(dict.fromkeys(pictures_in(self.folder), ""))
        for file in sorted(pending, key=lambda file: (file.stamp.modified_ns, file.name)):
            if not file.complete:
                continue
            rows = self._inspect(file)
            if rows:
                self._append(rows)
                self._remember(file.name, file.stamp)
            yield from rows

    def pending(self) -> set[str]:
        """Return the names of the pictures in the folder that have not been inspected."""
        stamps = {self._name_of(path): stamp_of(path) for path in pictures_in(self.folder)}
        return {n for n, s in stamps.items() if s is not None and self.files.done.get(n) != str(s)}

    def _name_of(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _remember(self, name: str, stamp: Stamp) -> None:
        """Note an inspected file; when there are too many, forget the oldest deleted ones."""
        self.files.finish(name, str(stamp))
        if len(self.files.done) > self.most_judged:
            present = {self._name_of(path) for path in pictures_in(self.folder)}
            self.files.forget_gone(present, JUDGED_KEPT)
            self.most_judged = 2 * max(len(self.files.done), JUDGED_KEPT)

    def _inspect(self, file: PendingFile) -> list[dict[str, Any]]:
        """Return the trail rows of a picture; none while it may still be written."""
        item = unlabelled(file.path, self.model.settings.part_pattern)
        result = self.model.predict([item])[0]
        if stamp_of(file.path) != file.stamp:  # overwritten meanwhile
            return []
        now = datetime.now(UTC)
        row: dict[str, Any] = {
            "time": now.isoformat(timespec="milliseconds"),
            "file": file.name, "bytes": file.stamp.size, "modified_ns": file.stamp.modified_ns,
        }  # fmt: skip
        model = {"model": self.model.identity, "calibration": self.calibration}
        if isinstance(result, Refusal):
            if file.unchanged_seconds < self.patience_seconds:
                return []
            refusal = {"verdict": "unreadable", "reason": result.message}
            return [{**row, "sha256": _digest(file.path), **model, **refusal}]
        before = self.monitors.suspended
        verdict = {**row, "sha256": result.sha256, **model, **self._verdict(file.name, result, now)}
        after = self.monitors.suspended
        if after == before:
            return [verdict]
        drift = self.monitors.drift
        event = {"time": row["time"], "event": "suspended", "reason": after, **model}
        return [verdict, {**event, "drift": drift.summary() if drift is not None else {}}]

    def _verdict(self, name: str, result: PartResult, now: datetime) -> dict[str, Any]:
        """Return verdict and monitor state; earlier views of the part count too."""
        named = self.model.settings.part_pattern != ""
        part = result.part if named and result.part != result.item else name
        joined = self.monitors.update(part, result.score, result.health, now.timestamp())
        return {
            "part": part, "score": result.score, "part_score": joined.score,
            "threshold": self.model.threshold, "verdict": joined.verdict, "views": joined.views,
            "findings": [asdict(finding) for finding in result.findings],
            "health": list(result.health), "suspended": self.monitors.suspended,
        }  # fmt: skip

    def _append(self, rows: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(finite(row)) + "\n" for row in rows)
        with disk_errors(self.trail), self.trail.open("a", encoding="utf-8") as stream:
            stream.write(lines)
            stream.flush()
            os.fsync(stream.fileno())


def _digest(path: Path) -> str:
    try:
        return digest(path)
    except UserError:
        return ""


@contextmanager
def _only_writer(trail: Path) -> Iterator[None]:
    """Lock the trail, so that two watches never write to it."""
    with disk_errors(trail):
        trail.parent.mkdir(parents=True, exist_ok=True)
        stream = trail.open("a", encoding="utf-8")
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"{trail} is in use by another watch", "end it first") from error
        yield


def run_watch(
    watcher: Watcher, *, interval_seconds: float, once: bool, say: Say
) -> tuple[int, int]:
    """Scan repeatedly; return the numbers of pictures not accepted, and unreadable.

    With `once`, until every picture that was there at the start is inspected.
    """
    findings = unreadable = 0
    with _only_writer(watcher.trail):
        watcher.resume()
        say(watcher.started())
        due = watcher.pending()
        while True:
            for row in watcher.scan():
                verdict = row.get("verdict", "accept")
                unreadable += verdict == "unreadable"
                findings += verdict not in ("accept", "unreadable")
                say(row)
            if once and not due & watcher.pending():
                return findings, unreadable
            time.sleep(interval_seconds)


def watch_folder(
    folder: Path,
    model: Path,
    trail: Path,
    *,
    interval_seconds: float,
    patience_seconds: float,
    once: bool,
    say: Say,
    part_pattern: str = "",
) -> tuple[int, int]:
    """Watch a folder with a stored model; return as `run_watch`.

    Raises:
        UserError: if folder, model or trail cannot be used.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder", "give the folder the camera writes to")
    loaded: PartsModel = load_model(model, APPLICATION)
    fitted = loaded.with_pattern(part_pattern)
    watcher = Watcher(
        folder=folder, model=fitted, trail=trail, patience_seconds=patience_seconds,
        monitors=Monitors.of(fitted),
    )  # fmt: skip
    return run_watch(watcher, interval_seconds=interval_seconds, once=once, say=say)
