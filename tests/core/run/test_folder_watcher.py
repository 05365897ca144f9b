import os

import pytest

from lineside.core.run.folder_watcher import FolderWatcher, PendingFile, Stamp, stamp_of


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def pending(watcher, folder, context=""):
    files = watcher.look(dict.fromkeys(sorted(folder.iterdir()), context))
    return {file.name: file for file in files}


@pytest.fixture
def watcher():
    return FolderWatcher(kind=PendingFile, name_of=lambda path: path.name)


def test_a_file_is_complete_when_it_has_kept_size_and_time_for_two_looks(watcher, tmp_path, clock):
    path = tmp_path / "a"
    for content in ("", "half"):
        path.write_text(content)
        clock(1.0)
        assert not pending(watcher, tmp_path)["a"].complete
    clock(3.0)
    file = pending(watcher, tmp_path)["a"]
    assert (file.complete, file.unchanged_seconds, file.waited_seconds) == (True, 3.0, 4.0)
    os.utime(path, ns=(5, 5))
    clock(1.0)
    file = pending(watcher, tmp_path)["a"]
    assert (file.complete, file.stamp, file.waited_seconds) == (False, Stamp(4, 5), 5.0)


def test_what_is_done_is_pending_again_only_when_it_changes(watcher, tmp_path):
    path = tmp_path / "a"
    path.write_text("one")
    watcher.finish("a", pending(watcher, tmp_path)["a"].marks[0])
    assert not pending(watcher, tmp_path)
    assert not pending(watcher, tmp_path, "another context")
    path.write_text("three")
    assert list(pending(watcher, tmp_path)) == ["a"]


def test_what_was_refused_is_pending_again_when_its_context_changes(watcher, tmp_path):
    (tmp_path / "a").write_text("one")
    watcher.finish("a", pending(watcher, tmp_path, "no unit")["a"].marks[1])
    assert not pending(watcher, tmp_path, "no unit")
    assert pending(watcher, tmp_path, "mm/s")["a"].context == "mm/s"


def test_a_new_watcher_goes_on_from_names_and_marks(watcher, tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(name)
    watcher.finish("b", str(stamp_of(tmp_path / "b")))
    assert list(pending(watcher, tmp_path)) == ["a"]


def test_files_that_are_gone_are_forgotten_oldest_first(watcher, tmp_path):
    for name in "abcd":
        watcher.finish(name, "1-1")
    watcher.finish("a", "2-2")  # the newest now
    watcher.forget_gone({"b"}, keep=2)
    assert list(watcher.done) == ["b", "a"]
    watcher.forget_gone({"b"})
    assert list(watcher.done) == ["b"]
    (tmp_path / "x").write_text("")
    assert list(pending(watcher, tmp_path)) == ["x"]
    (tmp_path / "x").unlink()
    assert not pending(watcher, tmp_path) and not watcher.pending and not watcher.present
