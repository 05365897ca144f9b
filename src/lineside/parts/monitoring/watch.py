"""``lineside parts watch FOLDER``: inspect pictures as they arrive, and keep an audit trail.

Nothing is moved or changed. A file is inspected once size and time are the same in two scans and it
decodes to the end; a half-written file waits for the next scan, one that stays broken is reported
after a timeout. Every verdict is one line of the audit trail (image hash, model id, threshold,
verdict), written and synced before the next file, so that nothing is inspected twice after a crash.
Each line holds the hash of the one before (`core.run.trail`); a trail that was altered is refused.
`Monitors` follow image quality and scores: when they drift, the certificate is suspended; verdicts
continue, marked as such, until the model is recalibrated and the watch restarted. Memory is
bounded, and the monitors' state depends on the inspected pictures only, so that replaying the trail
restores it.
"""

from __future__ import annotations

import fcntl
import itertools
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.core.run.files import canonical, disk_errors, sha256
from lineside.core.run.folder_watcher import FolderWatcher, PendingFile, Stamp, stamp_of
from lineside.core.run.model_store import load_model
from lineside.core.run.trail import Trail, iter_rows, open_trail
from lineside.parts.application import APPLICATION
from lineside.parts.data.images import digest, tell_unread
from lineside.parts.data.sources import pictures_in, unlabelled
from lineside.parts.model import PartResult, PartsModel
from lineside.parts.monitoring.drift import DriftMonitor

SMALLEST_REFERENCE = 8
PARTS_KEPT = 1000
OPEN_PARTS = 8
"""A part counts as complete after this many later parts."""
PART_SECONDS = 3600.0
"""A view this much later than the last one belongs to another part of the same name."""
PICTURES, UNHEALTHY = 20, 10
"""Of the last 20 pictures, 10 of unusual quality suspend the certificate."""
PARTS, HELD_BACK = 40, 20
"""Of the last 40 parts, 20 that are not accepted suspend the certificate."""


@dataclass
class Part:
    """A part so far: the joined score of its views, not the views."""

    views: int
    score: float
    verdict: str
    last_seconds: float
    usual: bool
    counted: bool = False


@dataclass
class Monitors:
    """Monitors of inspected pictures; they suspend the certificate when it no longer holds.

    Attributes:
        model: Joins and decides.
        drift: Gets one score per accepted part; None without a reference.
        suspended: Why the certificate does not hold, or ``""``; once set it stays until the
            model is recalibrated.
        parts: The latest parts, the one with the latest view last; empty without a part pattern.
        unhealthy: For the latest pictures, whether the image quality was unusual.
        held_back: For the latest parts, whether one was not accepted.
    """

    model: PartsModel
    drift: DriftMonitor | None
    suspended: str = ""
    parts: OrderedDict[str, Part] = field(default_factory=OrderedDict)
    unhealthy: deque[bool] = field(default_factory=lambda: deque(maxlen=PICTURES))
    held_back: deque[bool] = field(default_factory=lambda: deque(maxlen=PARTS))

    @classmethod
    def of(cls, model: PartsModel) -> Monitors:
        """Return the monitors of a model before its first picture."""
        scores: Sequence[float] = ()  # of good calibration parts, joined as in production
        if model.operating is not None:
            named = model.settings.part_pattern
            scores = model.operating.good_scores if named else model.operating.good_view_scores
        accepted = [score for score in scores if score < model.threshold]
        drift = DriftMonitor(accepted) if len(accepted) >= SMALLEST_REFERENCE else None
        return cls(model=model, drift=drift, suspended=model.suspended)

    def update(self, name: str, score: float, health: Sequence[str], seconds: float) -> Part:
        """Add one inspected picture and return its part as it stands now.

        Args:
            name: The part.
            score: Of the picture.
            health: What is unusual about the picture.
            seconds: Time of the inspection, seconds since 1970.
        """
        self.unhealthy.append(bool(health))
        if self.suspended == "" and sum(self.unhealthy) >= UNHEALTHY:
            self.suspended = (
                f"{sum(self.unhealthy)} of the last {len(self.unhealthy)} pictures are unusual "
                f"(the last: {health[0] if health else 'healthy'}); check camera and light"
            )
        part = self._add_view(name, score, not health, seconds)
        if not self.model.settings.part_pattern:
            self._count(part)  # every picture is a part of its own, complete at once
            return part
        self.parts[name] = part
        self.parts.move_to_end(name)
        for complete in itertools.islice(reversed(self.parts.values()), OPEN_PARTS, OPEN_PARTS + 1):
            self._count(complete)
        if len(self.parts) > PARTS_KEPT:
            self.parts.popitem(last=False)
        return part

    def _add_view(self, name: str, score: float, usual: bool, seconds: float) -> Part:
        """Return the part with one more view."""
        before = self.parts.get(name)
        if before is None or seconds - before.last_seconds > PART_SECONDS:
            if before is not None:
                self._count(before)
            joined, verdict = self.model.decide([score], usual=usual)
            return Part(views=1, score=joined, verdict=verdict, last_seconds=seconds, usual=usual)
        usual = usual and before.usual
        before.score, before.verdict = self.model.decide([before.score, score], usual=usual)
        before.views, before.last_seconds, before.usual = before.views + 1, seconds, usual
        return before

    def _count(self, part: Part) -> None:
        """Count a complete part once: its verdict, and its score if it was accepted.

        The reference holds scores below the threshold only, so that both samples are alike.
        """
        if part.counted:
            return
        part.counted = True
        self.held_back.append(part.verdict != "accept")
        if self.drift is not None and part.verdict == "accept":
            self.drift.push(part.score)
        if self.suspended:
            return
        if self.drift is not None and self.drift.alarm:
            self.suspended = "the scores of accepted parts have drifted; recalibrate"
        elif sum(self.held_back) >= HELD_BACK:
            self.suspended = (
                f"{sum(self.held_back)} of the last {len(self.held_back)} parts were not accepted; "
                "check parts and camera, then recalibrate"
            )


JUDGED_KEPT = 200_000
"""Deleted files are forgotten only beyond this number: a network share may come back."""

Say = Callable[[Mapping[str, Any]], None]


@dataclass(kw_only=True)
class Watcher:
    """The state of one watch: inspected files, files still being written, the monitors.

    Attributes:
        folder: The watched folder, searched with its subfolders.
        model: Inspects the pictures.
        trail: Where the audit trail lies; a restarted watch resumes it.
        patience_seconds: An unreadable file is reported when unchanged for this long.
        monitors: Views of parts, score drift, image quality.
        files: Inspected files and those that may still be written, by name below the folder.
        most_judged: From this number on, deleted files are forgotten.
        skipped: Numbers of files that are no pictures, by ending, as far as the user was told.
    """

    folder: Path
    model: PartsModel
    trail: Path
    patience_seconds: float
    monitors: Monitors
    files: FolderWatcher[PendingFile] = field(init=False)
    most_judged: int = 2 * JUDGED_KEPT
    skipped: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.files = FolderWatcher(kind=PendingFile, name_of=self._name_of)

    @cached_property
    def rows(self) -> Trail:
        """The trail, checked and open for more rows."""
        return open_trail(self.trail)[0]

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
            "trail": f"{self.rows.head.rows} rows, the last {self.rows.head.last}",
        }  # fmt: skip

    def resume(self) -> int:
        """Replay the trail: its files count as inspected, and the monitors continue.

        Returns:
            How many lines were written before trails had a hash in each line.

        Raises:
            UserError: if the trail was altered.
        """
        self.rows, before = open_trail(self.trail)
        for place, row in enumerate(iter_rows(self.trail), start=1):
            if "verdict" in row:
                try:
                    self._replay(row)
                except (KeyError, TypeError, ValueError) as error:  # of a line without a hash
                    raise UserError(
                        f"{self.trail} row {place} is no verdict of lineside: {error!r}",
                        "keep it as evidence and begin another one",
                    ) from error
        return before

    def _replay(self, row: Mapping[str, Any]) -> None:
        self._remember(row["file"], Stamp(row["bytes"], row["modified_ns"]))
        same = {"model": self.model.identity, "calibration": self.calibration}
        if "score" in row and all(row.get(key) == value for key, value in same.items()):
            seconds = datetime.fromisoformat(row["time"]).timestamp()
            score = float("nan") if row["score"] is None else row["score"]
            self.monitors.update(row["part"], score, row["health"], seconds)

    def scan(self) -> Iterator[dict[str, Any]]:
        """Inspect every complete new picture once; yield the rows added to the trail."""
        skipped: Counter[str] = Counter()
        pending = self.files.look(dict.fromkeys(pictures_in(self.folder, skipped), ""))
        if skipped.keys() - self.skipped.keys():  # an ending that it has not told of
            tell_unread(self.folder, skipped)
            self.skipped |= skipped
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
        """Write rows; number and hash are added to them."""
        rows[:] = self.rows.append(rows)


def _digest(path: Path) -> str:
    try:
        return digest(path)
    except UserError:
        return ""


@contextmanager
def _only_writer(trail: Path) -> Iterator[None]:
    """Lock the trail, so that two watches never write to it."""
    with disk_errors(trail):
        if trail.exists() and not trail.is_file():
            raise UserError(f"{trail} is not a file", "choose another --trail")
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
        if before := watcher.resume():
            say(
                {"event": "chain", "begins": f"now; {before} older lines have no hash of their own"}
            )
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
