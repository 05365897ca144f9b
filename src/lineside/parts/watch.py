"""``lineside parts watch FOLDER``: judge pictures as they arrive, and keep an audit trail.

Nothing is moved or changed. A file is judged once it has kept its size for two looks and decodes
to the end, so a half-written file is simply looked at again. Every verdict is one line of the
audit trail (image hash, model id, threshold, verdict), written and synced before the next file.
When the pictures or the scores drift, the certificate is suspended: verdicts go on, marked so.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lineside.core.artefact import load_model
from lineside.core.contract import Refusal, UserError
from lineside.core.files import disk_errors, finite
from lineside.core.run import read_rows
from lineside.parts.images import SUFFIXES, digest
from lineside.parts.model import PartResult, PartsModel
from lineside.parts.monitoring import DriftMonitor

PATIENCE_SECONDS = 60.0
SMALLEST_REFERENCE = 10


@dataclass
class Watcher:
    """The state of one watch: what was judged, what is still being written, the drift monitor.

    Attributes:
        folder: The watched folder, searched with its subfolders.
        model: Judges the pictures.
        trail: The audit trail, JSON lines; a restarted watch takes it up.
        drift: Follows the scores of accepted pictures, or None if the model has no reference.
    """

    folder: Path
    model: PartsModel
    trail: Path
    drift: DriftMonitor | None = None
    judged: set[tuple[str, int, int]] = field(default_factory=set)
    seen: dict[Path, tuple[int, int, float]] = field(default_factory=dict)
    views: dict[str, dict[str, float]] = field(default_factory=dict)
    suspended: str = ""

    def resume(self) -> None:
        """Take up the trail: what it holds is not judged again, and drift goes on from there."""
        if not self.trail.exists():
            return
        for row in read_rows(self.trail):
            self.judged.add((row["file"], row["bytes"], row["modified_ns"]))
            if "score" in row:
                self.views.setdefault(row["part"], {})[row["file"]] = row["score"]
                self._follow(row["score"], row["verdict"])
            self.suspended = self.suspended or row.get("suspended", "")

    def look(self) -> Iterator[dict[str, Any]]:
        """Judge every complete new picture once; yield the rows added to the trail."""
        for path in sorted(self._pictures()):
            key = self._key(path)
            if key is None or key in self.judged:
                continue
            if not self._complete(path, key):
                continue
            row = self._judge(path, key)
            if row is not None:
                self._append(row)
                self.judged.add(key)
                self.seen.pop(path, None)
                yield row

    def _pictures(self) -> list[Path]:
        if not self.folder.is_dir():
            raise UserError(
                f"{self.folder} is not a folder", "give the folder the camera writes to"
            )
        return [p for p in self.folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()]

    def _key(self, path: Path) -> tuple[str, int, int] | None:
        try:
            state = path.stat()
        except OSError:  # gone again
            return None
        return (path.relative_to(self.folder).as_posix(), state.st_size, state.st_mtime_ns)

    def _complete(self, path: Path, key: tuple[str, int, int]) -> bool:
        """Return True if size and time have not changed since the last look."""
        before = self.seen.get(path)
        since = before[2] if before and before[:2] == key[1:] else time.monotonic()
        self.seen[path] = (key[1], key[2], since)
        return before is not None and before[:2] == key[1:]

    def _judge(self, path: Path, key: tuple[str, int, int]) -> dict[str, Any] | None:
        """Return the row of a picture, or None to look again while it may still be written."""
        result = self.model.predict([path])[0]
        row: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "file": key[0], "bytes": key[1], "modified_ns": key[2],
            "sha256": digest(path), "model": self.model.identity,
        }  # fmt: skip
        if isinstance(result, Refusal):
            if time.monotonic() - self.seen[path][2] < PATIENCE_SECONDS:
                return None
            return {**row, "verdict": "unreadable", "reason": result.message}
        return {**row, **self._verdict(key[0], result)}

    def _verdict(self, name: str, result: PartResult) -> dict[str, Any]:
        """Return verdict and monitor state; views of one part that came before count too."""
        views = self.views.setdefault(result.part, {})
        views[name] = result.score
        score, verdict = self.model.decide(list(views.values()))
        self._follow(result.score, verdict)
        health = list(result.health)
        self.suspended = self.suspended or self.model.suspended
        return {
            "part": result.part, "score": result.score, "part_score": score,
            "threshold": self.model.threshold, "verdict": verdict, "views": len(views),
            "findings": [finding.as_json() for finding in result.findings],
            "health": health, "suspended": self.suspended,
        }  # fmt: skip

    def _follow(self, score: float, verdict: str) -> None:
        """Push the score of a part that was not rejected to the drift monitor."""
        if self.drift is None or verdict == "reject":
            return
        self.drift.push(score)
        if self.drift.alarm and not self.suspended:
            self.suspended = "the scores of good parts have drifted; recalibrate"

    def _append(self, row: Mapping[str, Any]) -> None:
        with disk_errors(self.trail), self.trail.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(finite(dict(row))) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def run_watch(
    watcher: Watcher,
    *,
    interval_seconds: float,
    once: bool,
    say: Callable[[dict[str, Any]], None],
) -> int:
    """Look again and again; return the number of rejected or unreadable pictures.

    With `once`, the folder is looked at until every picture in it is judged, then it returns.
    """
    watcher.resume()
    findings = 0
    while True:
        for row in watcher.look():
            findings += row["verdict"] in ("reject", "unreadable")
            say(row)
        if once and not watcher.seen:
            return findings
        time.sleep(interval_seconds)


def watch_folder(
    folder: Path,
    model: Path,
    trail: Path,
    *,
    interval_seconds: float,
    once: bool,
    say: Callable[[dict[str, Any]], None],
    part_pattern: str = "",
) -> int:
    """Watch a folder with a stored model; return the number of findings.

    Raises:
        UserError: if folder or model cannot be used.
    """
    fitted: PartsModel = load_model(model)
    if part_pattern:
        settings = dataclasses.replace(fitted.settings, part_pattern=part_pattern)
        fitted = dataclasses.replace(fitted, settings=settings)
    reference = fitted.operating.good_scores if fitted.operating else ()
    drift = DriftMonitor(reference) if len(reference) >= SMALLEST_REFERENCE else None
    watcher = Watcher(folder=folder, model=fitted, trail=trail, drift=drift)
    return run_watch(watcher, interval_seconds=interval_seconds, once=once, say=say)
