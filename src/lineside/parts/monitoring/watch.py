"""``lineside parts watch FOLDER``: judge pictures as they arrive, and keep an audit trail.

Nothing is moved or changed. A file is judged once it has kept its size and time for two looks and
decodes to the end, so a half-written file is simply looked at again; one that stays broken is
reported after a while. Every verdict is one line of the audit trail (image hash, model id,
threshold, verdict), written and synced before the next file, so that nothing is judged twice
after a crash. When pictures or scores drift, the certificate is suspended: verdicts go on, marked
so, until the model is calibrated anew and the watch is started again.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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
"""Files that are gone are forgotten only beyond this number: a share may come back."""

Say = Callable[[Mapping[str, Any]], None]


@dataclass(kw_only=True)
class Watcher:
    """The state of one watch: what was judged, what is still being written, the monitors.

    Attributes:
        folder: The watched folder, searched with its subfolders.
        model: Judges the pictures.
        trail: The audit trail, JSON lines; a restarted watch takes it up.
        patience_seconds: A file that is unreadable and unchanged for so long is reported.
        monitors: Views, drift, health.
        files: What was judged and what may still be written; names are below the folder.
        most_judged: From this number on, judged files that are gone are forgotten.
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
        """Digest of the operating point: after a recalibration the monitors begin anew."""
        return sha256(canonical(self.model.calibration_block()))[:16]

    def started(self) -> dict[str, Any]:
        """Return what a person should know first; it is no part of the trail."""
        drift = "followed"
        if self.monitors.drift is None:
            drift = "not followed: too few good calibration parts were accepted"
        return {
            "event": "started", "folder": str(self.folder), "model": self.model.identity,
            "threshold": self.model.threshold, "judged": len(self.files.done), "drift": drift,
            "suspended": self.monitors.suspended,
        }  # fmt: skip

    def resume(self) -> None:
        """Take up the trail: what it holds is not judged again, and the monitors go on."""
        repair_lines(self.trail)
        same = {"model": self.model.identity, "calibration": self.calibration}
        for row in iter_rows(self.trail):
            if "verdict" not in row:
                continue
            self._remember(row["file"], Stamp(row["bytes"], row["modified_ns"]))
            mine = all(row.get(key) == value for key, value in same.items())
            if mine and "score" in row:
                seconds = datetime.fromisoformat(row["time"]).timestamp()
                score = float("nan") if row["score"] is None else row["score"]
                self.monitors.take(row["part"], score, row["health"], seconds)

    def look(self) -> Iterator[dict[str, Any]]:
        """Judge every complete new picture once; yield the rows added to the trail."""
        pending = self.files.look(dict.fromkeys(pictures_in(self.folder), ""))
        for file in sorted(pending, key=lambda file: (file.stamp.modified_ns, file.name)):
            if not file.complete:
                continue
            rows = self._judge(file)
            if rows:
                self._append(rows)
                self._remember(file.name, file.stamp)
            yield from rows

    def unjudged(self) -> set[str]:
        """Return the names of the pictures in the folder that have not been judged."""
        stamps = {self._name_of(path): stamp_of(path) for path in pictures_in(self.folder)}
        return {n for n, s in stamps.items() if s is not None and self.files.done.get(n) != str(s)}

    def _name_of(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _remember(self, name: str, stamp: Stamp) -> None:
        """Note a judged file; when there are too many, forget the oldest that are gone."""
        self.files.finish(name, str(stamp))
        if len(self.files.done) > self.most_judged:
            present = {self._name_of(path) for path in pictures_in(self.folder)}
            self.files.forget_gone(present, JUDGED_KEPT)
            self.most_judged = 2 * max(len(self.files.done), JUDGED_KEPT)

    def _judge(self, file: PendingFile) -> list[dict[str, Any]]:
        """Return the rows of a picture; none to look again while it may still be written."""
        item = unlabelled(file.path, self.model.settings.part_pattern)
        result = self.model.predict([item])[0]
        if (
            stamp_of(file.path) != file.stamp
        ):  # it changed meanwhile: what was judged is not what is there
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
            found = {"verdict": "unreadable", "reason": result.message}
            return [{**row, "sha256": _digest(file.path), **model, **found}]
        before = self.monitors.suspended
        judged = {**row, "sha256": result.sha256, **model, **self._verdict(file.name, result, now)}
        after = self.monitors.suspended
        if after == before:
            return [judged]
        drift = self.monitors.drift
        event = {"time": row["time"], "event": "suspended", "reason": after, **model}
        return [judged, {**event, "drift": drift.summary() if drift is not None else {}}]

    def _verdict(self, name: str, result: PartResult, now: datetime) -> dict[str, Any]:
        """Return verdict and monitor state; views of one part that came before count too."""
        named = self.model.settings.part_pattern != ""
        part = result.part if named and result.part != result.item else name
        joined = self.monitors.take(part, result.score, result.health, now.timestamp())
        return {
            "part": part, "score": result.score, "part_score": joined.score,
            "threshold": self.model.threshold, "verdict": joined.verdict, "views": joined.views,
            "findings": [finding.as_json() for finding in result.findings],
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
    """Hold the trail, so that two watches never judge the same pictures into it."""
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
    """Look again and again; return the numbers of pictures not accepted, and unreadable.

    With `once`, the folder is looked at until every picture that was in it is judged.
    """
    findings = unreadable = 0
    with _only_writer(watcher.trail):
        watcher.resume()
        say(watcher.started())
        due = watcher.unjudged()
        while True:
            for row in watcher.look():
                verdict = row.get("verdict", "accept")
                unreadable += verdict == "unreadable"
                findings += verdict not in ("accept", "unreadable")
                say(row)
            if once and not due & watcher.unjudged():
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
