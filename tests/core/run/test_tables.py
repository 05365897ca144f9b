from dataclasses import dataclass

import pytest
from tests.odd_files import ODD, no_longer_than

from lineside.core.contract import Outcome, Source, Split
from lineside.core.errors import UserError
from lineside.core.run.status import is_held
from lineside.core.run.table_reader import read_columns, read_named_rows
from lineside.core.run.tables import (
    FITTED_ROLES,
    familiar,
    read_outcomes,
    read_split,
    read_used,
    refuse_known,
    used_items,
    used_text,
    write_outcomes,
    write_split,
)


@dataclass(frozen=True)
class Thing:
    id: str
    source: Source
    label: str
    groups: tuple[str, ...]


def thing(folder, name, group="", content=None):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content or name)
    return Thing(name, Source(path), "good", (group or name,))


@pytest.fixture
def model(tmp_path):
    split = Split(
        train=(thing(tmp_path, "a"),),
        calibration=(thing(tmp_path, "b"),),
        test=(thing(tmp_path, "c"),),
    )
    folder = tmp_path / "run" / "models" / "m"
    folder.mkdir(parents=True)
    write_split(tmp_path / "run" / "split.csv", split)
    return folder


def test_known_is_what_was_fitted_or_calibrated_on_by_content(model, tmp_path):
    copy = thing(tmp_path / "new", "renamed", content="a")
    with pytest.raises(UserError, match=r"1 of 2 items .*renamed"):
        refuse_known([thing(tmp_path, "x"), copy], model)
    with pytest.raises(UserError):
        refuse_known([thing(tmp_path, "b")], model)
    refuse_known([thing(tmp_path, "b")], model, FITTED_ROLES)
    refuse_known([thing(tmp_path, "c"), thing(tmp_path, "x")], model)


def test_taught_items_count_with_their_whole_group(model, tmp_path):
    rows = used_items([thing(tmp_path, "v1", group="p"), thing(tmp_path, "lone")], "taught")
    (model / "used.csv").write_text(used_text(rows))
    assert read_used(model) == rows
    for item in (thing(tmp_path, "v1"), thing(tmp_path, "v2", group="p"), thing(tmp_path, "lone")):
        with pytest.raises(UserError):
            refuse_known([item], model, FITTED_ROLES)
    refuse_known([thing(tmp_path, "lone", content="another of that name")], model)
    (model / "used.csv").write_text("file\n")
    with pytest.raises(UserError, match="not a table of used items"):
        refuse_known([thing(tmp_path, "x")], model)


def test_outcomes_come_back(tmp_path):
    found = [
        Outcome(
            item="a, b\n",
            groups=("g",),
            unit="g",
            slices={"kind": "ü"},
            value={"score": 0.1, "label": 1.0},
        ),
        Outcome(item="c", groups=("g",), unit="g", value={"score": float("nan")}),
    ]
    write_outcomes(tmp_path / "o.csv", {"m": {"calibration": found, "test": []}})
    back = read_outcomes(tmp_path / "o.csv")["m"]
    assert back["calibration"][0] == found[0]
    assert back["calibration"][1].value["score"] != back["calibration"][1].value["score"]
    assert back["test"] == []


def test_names_of_fitted_groups_give_a_note_not_a_refusal(tmp_path):
    split = Split(
        train=(thing(tmp_path, "a1", "part 1"), thing(tmp_path, "lone")),
        calibration=(thing(tmp_path, "b1", "part 2"),),
    )
    folder = tmp_path / "run" / "models" / "m"
    folder.mkdir(parents=True)
    assert "unknown" in familiar([], folder)
    write_split(tmp_path / "run" / "split.csv", split)
    fresh = [thing(tmp_path, "a2", "part 1"), thing(tmp_path, "b2", "part 2")]
    refuse_known(fresh, folder)
    assert familiar(fresh, folder).startswith("1 of 2 items")
    assert familiar([thing(tmp_path / "new", "lone")], folder) == ""


@pytest.mark.adversary("l")
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("read", [read_split, read_outcomes, read_columns, read_named_rows])
def test_what_is_no_table_is_refused_before_it_is_opened(tmp_path, kind, read):
    path = tmp_path / "split.csv"
    ODD[kind][0](path)
    with no_longer_than(10), pytest.raises(UserError, match=f"{ODD[kind][1]}|holds 42.9 GB"):
        read(path)


def test_a_pipe_is_no_lock(tmp_path):
    ODD["pipe"][0](tmp_path / ".lock")
    with no_longer_than(10):
        assert not is_held(tmp_path)
