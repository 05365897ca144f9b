"""`watch`: half-written files, crashes, the audit trail, drift, bounded memory."""

import dataclasses
import json
import os
import signal
import threading
import time

import numpy as np
import pytest

import lineside
from lineside.cli import main
from lineside.core.errors import UserError
from lineside.core.run.folder_watcher import Stamp
from lineside.core.run.trail import Trail
from lineside.parts.model import PartsModel
from lineside.parts.monitoring import watch as watch_monitors
from lineside.parts.monitoring.watch import (
    Monitors,
    Watcher,
    _only_writer,
    run_watch,
    watch_folder,
)


@pytest.fixture
def camera(shop, tmp_path):
    for i in range(4):
        shop.picture(tmp_path / "camera" / f"c{i}_v1.png", 130.0 * (i == 2), 300 + i)
    return tmp_path / "camera"


@pytest.fixture
def trail(tmp_path):
    return tmp_path / "log" / "trail.jsonl"


def once(folder, run, trail, **settings):
    told = []
    settings = {"interval_seconds": 0.01, "patience_seconds": 0.05, "once": True, **settings}
    counts = watch_folder(folder, run, trail, say=told.append, **settings)
    return counts, [row for row in told if "verdict" in row]


def rows(trail):
    return [json.loads(line) for line in trail.read_text().splitlines()]


def watcher(folder, model, trail, patience_seconds=0.0):
    trail.parent.mkdir(exist_ok=True)
    return Watcher(
        folder=folder, model=model, trail=trail, patience_seconds=patience_seconds,
        monitors=Monitors.of(model),
    )  # fmt: skip


def killed(work):
    """Run `work` in a process that is killed in it; nothing of it is cleaned up."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_the_trail_says_what_was_decided_and_why(trained, camera, trail):
    before = {p.name: p.read_bytes() for p in camera.iterdir()}
    (findings, unreadable), told = once(camera, trained, trail)
    assert (findings, unreadable) == (1, 0)
    assert {p.name: p.read_bytes() for p in camera.iterdir()} == before, "nothing is moved"
    assert rows(trail) == json.loads(json.dumps(told))
    model = lineside.load(trained).model
    assert [row["verdict"] for row in told] == ["accept", "accept", "reject", "accept"]
    for row in told:
        assert row["model"] == model.identity
        assert row["threshold"] == model.threshold
        assert len(row["sha256"]) == 64
    assert once(camera, trained, trail) == ((0, 0), []), "nothing is judged twice"


def test_exit_codes_on_the_command_line(trained, camera, trail, capsys):
    tokens = ["parts", "watch", str(camera), "--model", str(trained), "--trail", str(trail)]
    tokens += ["--once", "--interval-seconds", "0.01", "--patience-seconds", "0.05"]
    assert main(tokens) == 1
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main(tokens) == 0
    (camera / "none_v1.png").touch()
    assert main(tokens) == 2
    assert main(["parts", "watch", str(camera / "no"), "--model", str(trained)]) == 2


def test_a_half_written_file_is_judged_when_it_is_complete(trained, camera, trail):
    model = lineside.load(trained).model
    mine = watcher(camera, model, trail, patience_seconds=1000)
    content = (camera / "c2_v1.png").read_bytes()
    path = camera / "late_v1.png"
    list(mine.scan())
    assert len(list(mine.scan())) == 4
    for part in (content[:0], content[:500], content[:2500]):
        path.write_bytes(part)
        assert [list(mine.scan()) for _ in range(3)] == [[], [], []]
    path.write_bytes(content)
    assert list(mine.scan()) == [], "it has just changed"
    (row,) = mine.scan()
    assert (row["file"], row["verdict"]) == ("late_v1.png", "reject")


def test_a_file_that_stays_broken_is_reported_once(trained, camera, trail):
    (camera / "cut_v1.png").write_bytes((camera / "c0_v1.png").read_bytes()[:700])
    (findings, unreadable), told = once(camera, trained, trail)
    assert (findings, unreadable) == (1, 1)
    (row,) = [row for row in told if row["verdict"] == "unreadable"]
    assert "damaged" in row["reason"]
    assert once(camera, trained, trail) == ((0, 0), [])
    (camera / "cut_v1.png").write_bytes((camera / "c0_v1.png").read_bytes())
    _, told = once(camera, trained, trail)
    assert [row["verdict"] for row in told] == ["accept"], "mended, it is judged"


@pytest.mark.parametrize("moment", ["before", "within", "after"])
def test_a_kill_loses_and_repeats_nothing(trained, camera, trail, moment, monkeypatch):
    """Killed before, in the middle of, or after writing the second line of the trail."""
    append = Watcher._append

    def dying(self, found):
        last = found[0]["file"] == "c1_v1.png"
        if not last or moment == "after":
            append(self, found)
        if last and moment == "within":
            with self.trail.open("a") as stream:
                stream.write(json.dumps(found[0])[:80])
        if last:
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "_append", dying)
        killed(lambda: once(camera, trained, trail))
    assert once(camera, trained, trail)[0] == (1, 0)
    assert [row["file"] for row in rows(trail)] == [f"c{i}_v1.png" for i in range(4)]


def test_a_line_that_lacks_only_its_break_counts(trained, camera, trail):
    once(camera, trained, trail)
    trail.write_text(trail.read_text().rstrip("\n"))
    assert once(camera, trained, trail) == ((0, 0), [])
    assert len(rows(trail)) == 4


def test_two_watches_cannot_share_a_trail(trained, camera, trail):
    with _only_writer(trail), pytest.raises(UserError, match="in use by another watch"):
        once(camera, trained, trail)


def test_views_join_also_after_a_restart_and_not_for_ever(trained, shop, camera, trail):
    shop.picture(camera / "p_v1.png", 130, 1)
    os.utime(camera / "p_v1.png", (1, 1))
    once(camera, trained, trail)
    shop.picture(camera / "p_v2.png", 0, 2)
    _, (row,) = once(camera, trained, trail)
    assert (row["part"], row["views"], row["verdict"]) == ("p", 2, "reject")
    monitors = Monitors.of(lineside.load(trained).model)
    monitors.update("p", 1e6, [], 0.0)
    assert monitors.update("p", 0.0, [], 60.0).verdict == "reject"
    assert monitors.update("p", 0.0, [], 60.0 + 2 * watch_monitors.PART_SECONDS).verdict == "accept"


def test_without_a_pattern_a_name_that_comes_again_is_another_part(trained, shop, tmp_path):
    model = lineside.load(trained).model
    plain = dataclasses.replace(
        model, settings=dataclasses.replace(model.settings, part_pattern="")
    )
    mine = watcher(tmp_path / "in", plain, tmp_path / "t.jsonl")
    for spot, verdict in ((130, "reject"), (0, "accept")):
        shop.picture(tmp_path / "in" / "latest.png", spot, 7)
        found = [row for _ in range(2) for row in mine.scan()]
        assert [row["verdict"] for row in found] == [verdict]
    assert not mine.monitors.parts


@pytest.fixture
def calm(trained):
    """The trained model with a reference of plainly normal scores."""
    model = lineside.load(trained).model
    scores = tuple(np.random.default_rng(0).normal(0, 1, 200).tolist())
    operating = dataclasses.replace(
        model.operating, good_scores=scores, good_view_scores=scores
    )  # fmt: skip
    return dataclasses.replace(model, operating=operating)


def follow(monitors, scores, health=(), views=2, batch="a"):
    for number, score in enumerate(scores):
        for view in range(views):
            monitors.update(f"{batch}{number}", score - view, health, float(number))


def test_one_score_per_part_and_drift_suspends(calm):
    rng = np.random.default_rng(1)
    monitors = Monitors.of(calm)
    follow(monitors, rng.normal(0, 1, 300))
    assert monitors.drift.seen == 300 - watch_monitors.OPEN_PARTS
    assert monitors.suspended == ""
    follow(monitors, rng.normal(2, 1, 60), batch="b")
    assert "drifted" in monitors.suspended


def test_a_run_of_unhealthy_pictures_suspends_and_a_single_one_does_not(calm):
    monitors = Monitors.of(calm)
    monitors.update("a", 0.0, ["sharpness 1 is low"], 0.0)
    follow(monitors, np.zeros(5))
    assert monitors.suspended == ""
    follow(monitors, np.zeros(6), batch="b", health=["sharpness 1 is low"])
    assert "sharpness 1 is low" in monitors.suspended


def test_a_run_of_rejected_parts_suspends(calm):
    monitors = Monitors.of(calm)
    follow(monitors, np.full(watch_monitors.HELD_BACK + watch_monitors.OPEN_PARTS, 1e6))
    assert "not accepted" in monitors.suspended


def test_a_suspension_is_in_the_trail_and_outlives_a_restart(trained, shop, tmp_path, trail):
    folder = tmp_path / "camera"
    for i in range(12):
        shop.picture(folder / f"d{i:02}_v1.png", seed=i, light=90)
    _, told = once(folder, trained, trail)
    events = [row for row in rows(trail) if row.get("event") == "suspended"]
    assert len(events) == 1
    assert "brightness" in events[0]["reason"]
    assert told[0]["suspended"] == "" and told[-1]["suspended"] == events[0]["reason"]
    shop.picture(folder / "e_v1.png", seed=99)
    _, (row,) = once(folder, trained, trail)
    assert row["suspended"] == events[0]["reason"]
    assert row["verdict"] == "accept", "verdicts go on"


def test_memory_is_bounded_over_weeks(calm, tmp_path, trail, monkeypatch):
    monitors = Monitors.of(calm)
    follow(monitors, np.random.default_rng(2).normal(0, 1, 3000), views=1)
    assert len(monitors.parts) == watch_monitors.PARTS_KEPT
    monkeypatch.setattr("lineside.parts.monitoring.watch.JUDGED_KEPT", 50)
    (tmp_path / "camera").mkdir()
    (tmp_path / "camera" / "here.png").touch()
    mine = watcher(tmp_path / "camera", calm, trail)
    mine.most_judged = 100
    state = (tmp_path / "camera" / "here.png").stat()
    mine._remember("here.png", Stamp(0, state.st_mtime_ns))
    for i in range(1000):
        mine._remember(f"gone{i}.png", Stamp(1, 1))
    assert len(mine.files.done) <= 100
    assert mine.pending() == set(), "what is still there is never forgotten"


def test_a_file_that_changes_while_it_is_judged_is_looked_at_again(
    trained, shop, tmp_path, trail, monkeypatch
):
    path = shop.picture(tmp_path / "camera" / "x_v1.png", seed=1)
    mine = watcher(tmp_path / "camera", lineside.load(trained).model, trail)
    predict = PartsModel.predict

    def meanwhile(self, items):
        found = predict(self, items)
        shop.picture(path, 130, 2)
        return found

    list(mine.scan())
    with monkeypatch.context() as patch:
        patch.setattr(PartsModel, "predict", meanwhile)
        assert list(mine.scan()) == []
    found = [row for _ in range(3) for row in mine.scan()]
    assert [row["verdict"] for row in found] == ["reject"]


def test_a_full_disk_ends_the_watch_in_one_line(trained, camera, trail, monkeypatch, capsys):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    tokens = ["parts", "watch", str(camera), "--model", str(trained), "--trail", str(trail)]
    assert main([*tokens, "--once", "--interval-seconds", "0.01"]) == 2
    errors = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error")]
    assert len(errors) == 1 and "disk is full" in errors[0]


def test_it_goes_on_watching(trained, shop, camera, trail):
    """Without `once` new pictures are judged as they come; a folder that goes away may return."""
    mine = watcher(camera, lineside.load(trained).model, trail)
    told = []

    class EnoughError(Exception):
        pass

    def say(row):
        told.append(row)
        if row.get("file") == "new_v1.png":
            raise EnoughError

    def work():
        time.sleep(0.3)
        camera.rename(camera.parent / "away")
        time.sleep(0.1)
        (camera.parent / "away").rename(camera)
        shop.picture(camera / "new_v1.png", seed=5)

    thread = threading.Thread(target=work)
    thread.start()
    with pytest.raises(EnoughError):
        run_watch(mine, interval_seconds=0.02, once=False, say=say)
    thread.join()
    assert len(rows(trail)) == 5


def flip(lines):
    return [line.replace('"verdict": "reject"', '"verdict": "accept"') for line in lines]


@pytest.mark.adversary("h")
@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (flip, "line 3 was changed"),
        (lambda lines: lines[:1] + lines[2:], "row 2 is missing before line 2"),
        (lambda lines: lines[:-1], "row 4 is missing at the end"),
        (lambda lines: [*lines[:2], lines[3], lines[2]], "line 4 is out of place"),
        (lambda lines: [*lines, lines[0]], "line 5 is out of place"),
    ],
)
def test_an_edited_trail_is_named_by_line_and_not_continued(
    trained, camera, trail, capsys, edit, named
):
    once(camera, trained, trail)
    assert main(["parts", "watch", "--verify", "--trail", str(trail)]) == 0
    assert "4 rows are as they were written" in capsys.readouterr().out
    trail.write_text("".join(edit(trail.read_text().splitlines(keepends=True))))
    before = trail.read_bytes()
    assert main(["parts", "watch", "--verify", "--trail", str(trail)]) == 1
    assert named in capsys.readouterr().out
    tokens = ["parts", "watch", str(camera), "--model", str(trained), "--trail", str(trail)]
    assert main([*tokens, "--once", "--interval-seconds", "0.01"]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "was altered" in error and named in error
    assert trail.read_bytes() == before


def test_a_trail_from_before_is_said_once_and_continued(trained, shop, camera, trail, capsys):
    once(camera, trained, trail)
    old = [{k: v for k, v in row.items() if k not in ("row", "chain")} for row in rows(trail)]
    trail.write_text("".join(json.dumps(row) + "\n" for row in old))
    trail.with_name("trail.jsonl.head").unlink()
    shop.picture(camera / "x_v1.png", seed=9)
    told = []
    settings = {"interval_seconds": 0.01, "patience_seconds": 0.05, "once": True}
    watch_folder(camera, trained, trail, say=told.append, **settings)
    assert [row["event"] for row in told if "event" in row] == ["chain", "started"]
    assert "4 older lines have no hash" in told[0]["begins"]
    assert "5 rows" not in told[1]["trail"] and "4 rows" in told[1]["trail"]
    assert [row["file"] for row in rows(trail)][-1] == "x_v1.png" and len(rows(trail)) == 5
    assert main(["parts", "watch", "--verify", "--trail", str(trail)]) == 0
    assert "first 4 lines were written without a hash" in capsys.readouterr().out
    trail.write_text(trail.read_text().replace('"accept"', '"reject"', 1))
    assert main(["parts", "watch", "--verify", "--trail", str(trail)]) == 1


def test_a_kill_between_line_and_head_is_resumed(trained, camera, trail, monkeypatch):
    save = Trail.save_head

    def dying(self):
        if self.head.rows == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        save(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trail, "save_head", dying)
        killed(lambda: once(camera, trained, trail))
    assert len(rows(trail)) == 2
    assert once(camera, trained, trail)[0] == (1, 0)
    assert [row["row"] for row in rows(trail)] == [1, 2, 3, 4]
