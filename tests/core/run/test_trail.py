"""The hash chain of a trail: every edit is named by its line, and a kill is none."""

import json

import pytest

from lineside.core.errors import UserError
from lineside.core.run.seal import KEY_VARIABLE
from lineside.core.run.trail import check_trail, head_path_of, iter_rows, open_trail

ROWS = [{"verdict": verdict, "score": i / 3} for i, verdict in enumerate("arraarar")]


@pytest.fixture
def trail(tmp_path):
    path = tmp_path / "trail.jsonl"
    open_trail(path)[0].append(ROWS)
    return path


def key_file(folder, content):
    path = folder / f"key-{content[:1].hex()}"
    path.write_bytes(content)
    return str(path)


def edit(path, change):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))
    return list(check_trail(path).faults)


def test_a_trail_grows_over_restarts_and_holds_what_was_written(trail):
    again, before = open_trail(trail)
    assert before == 0 and again.head.rows == 8
    (row,) = again.append([{"score": float("nan"), "name": "Bär\n"}])
    assert row["row"] == 9 and row["score"] is None
    assert list(iter_rows(trail))[-1] == row
    assert [r["verdict"] for r in iter_rows(trail) if "verdict" in r] == list("arraarar")
    assert check_trail(trail).faults == []


def test_the_chain_is_the_stated_hash(tmp_path):
    """By the formula of the module, with nothing of its code."""
    import hashlib

    path = tmp_path / "t.jsonl"
    open_trail(path)[0].append([{"a": 1}])
    start = hashlib.sha256(b"").hexdigest()
    text = '{"a": 1, "row": 1}'
    link = hashlib.sha256(f"{start}\n{text}".encode()).hexdigest()
    assert path.read_text() == f'{text[:-1]}, "chain": "{link}"}}\n'


EDITS = {
    "flipped": (
        lambda x: [*x[:2], x[2].replace(b'"r"', b'"a"'), *x[3:]],
        ["line 3 was changed"],
    ),
    "first": (lambda x: [x[0].replace(b'"a"', b'"r"'), *x[1:]], ["line 1 was changed"]),
    "last": (lambda x: [*x[:7], x[7].replace(b'"r"', b'"a"')], ["line 8 was changed"]),
    "spaced": (lambda x: [x[0].replace(b": ", b":  ", 1), *x[1:]], ["line 1 was changed"]),
    "deleted": (lambda x: [*x[:3], *x[5:]], ["rows 4 to 5 are missing before line 4"]),
    "deleted first": (lambda x: x[1:], ["row 1 is missing before line 1"]),
    "deleted last": (lambda x: x[:-2], ["rows 7 to 8 are missing at the end"]),
    "emptied": (lambda x: [], ["the lines are not those of before, of which there were 8"]),
    "copied": (
        lambda x: [*x[:4], x[1], *x[4:]],
        ["line 5 is out of place, it was written as row 2"],
    ),
    "inserted": (
        lambda x: [*x[:4], b'{"verdict": "a"}\n', *x[4:]],
        ["line 5 has no hash, it was changed or inserted"],
    ),
    "swapped": (
        lambda x: [*x[:3], x[4], x[3], *x[5:]],
        [
            "row 4 is missing before line 4",
            "line 5 is out of place, it was written as row 4",
        ],
    ),
    "cut": (lambda x: [*x[:7], x[7][:20]], ["row 8 is missing at the end"]),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_named_by_its_line_and_the_trail_is_not_continued(trail, name):
    change, faults = EDITS[name]
    assert edit(trail, change) == faults
    with pytest.raises(UserError, match="was altered"):
        open_trail(trail)


def forged(lines, place, old, new):
    """Recompute all hashes after an edit, as somebody would who knows the format."""
    import hashlib

    link, out = hashlib.sha256(b"").hexdigest(), []
    for number, line in enumerate(lines):
        row = json.loads(line.replace(old, new) if number == place else line)
        row.pop("chain", row.pop("hmac", None))
        row.pop("hmac", None)
        text = json.dumps(row)
        link = hashlib.sha256(f"{link}\n{text}".encode()).hexdigest()
        out.append(f'{text[:-1]}, "chain": "{link}"}}\n'.encode())
    return out


def test_a_chain_made_anew_does_not_fit_its_head(trail):
    faults = edit(trail, lambda x: forged(x, 2, b'"r"', b'"a"'))
    assert faults == ["line 8 is not the row that was written, its hash was recomputed"]


def test_without_its_head_an_end_cannot_be_checked(trail):
    head_path_of(trail).unlink()
    (fault,) = check_trail(trail).faults
    assert "head is missing" in fault
    head_path_of(trail).write_text("{}")
    (fault,) = check_trail(trail).faults
    assert "altered" in fault


def test_a_kill_between_rows_and_head_is_no_fault(trail):
    head = head_path_of(trail).read_bytes()
    open_trail(trail)[0].append(ROWS[:2])
    head_path_of(trail).write_bytes(head)
    assert check_trail(trail).faults == []
    with trail.open("ab") as stream:
        stream.write(b'{"verdict": "a", "sc')
    assert check_trail(trail).faults == []
    again, _ = open_trail(trail)
    assert again.head.rows == 10


def test_old_lines_are_kept_and_fixed_from_then_on(tmp_path):
    path = tmp_path / "old.jsonl"
    path.write_text('{"verdict": "a"}\n{"verdict": "r"}\n')
    trail, before = open_trail(path)
    assert before == 2
    assert open_trail(path)[1] == 2, "also when it was killed before it wrote a line"
    trail.append(ROWS[:2])
    assert check_trail(path).faults == [] and check_trail(path).before == 2
    assert [row.get("row") for row in iter_rows(path)] == [None, None, 3, 4]
    faults = edit(path, lambda x: [x[0].replace(b'"a"', b'"r"'), *x[1:]])
    assert faults == ["line 3 or a line before it was changed"]


def test_with_a_key_nobody_else_can_make_the_chain(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, key_file(tmp_path, b"k" * 32))
    path = tmp_path / "signed.jsonl"
    open_trail(path)[0].append(ROWS)
    assert check_trail(path).faults == []
    whole = path.read_bytes()
    assert edit(path, EDITS["flipped"][0]) == ["line 3 was changed"]
    path.write_bytes(whole)
    with pytest.raises(UserError, match="is not signed"):
        edit(path, lambda x: forged(x, 2, b'"r"', b'"a"'))
    path.write_bytes(b'{"verdict": "a"}\n')
    head_path_of(path).unlink()
    assert check_trail(path).faults == ["row 1 is not signed with the key"]
    path.write_bytes(whole)
    monkeypatch.setenv(KEY_VARIABLE, key_file(tmp_path, b"x" * 32))
    assert "line 1 was changed" in check_trail(path).faults
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(UserError, match="signed with a key"):
        check_trail(path)
