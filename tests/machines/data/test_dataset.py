"""Splitting by time within each machine, and the audit of histories."""

from pathlib import Path

import numpy as np
import pytest

from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.machines.audit.data_audit import audit
from lineside.machines.config import Config
from lineside.machines.data.dataset import split
from lineside.machines.data.items import Snapshot


def history(machine, count, label="", every=600.0, gap_at=None):
    times = np.arange(count) * every
    if gap_at is not None:
        times[gap_at:] += 100 * every
    return [
        Snapshot(id=f"{machine}@{t}", machine=machine, time=t, path=Path("x"), index=i, label=label)
        for i, t in enumerate(times)
    ]


def checks(items, **config):
    return {check.name: check for check in audit(items, Config(**config))}


def test_each_machine_learns_from_its_own_beginning():
    items = [*history("b", 400), *reversed(history("a", 400))]
    roles = split(items, Config(learn=150))
    for name in ("a", "b"):
        times = [
            [s.time for s in role if s.machine == name]
            for role in (roles.train, roles.calibration, roles.test)
        ]
        assert [len(role) for role in times] == [100, 50, 250]
        train, calibration, test = times
        assert train == sorted(train)
        assert train[-1] < calibration[0] < calibration[-1] < test[0]


def test_run_in_is_left_out_and_short_histories_keep_a_test():
    roles = split(history("a", 400), Config(learn=150, run_in_hours=10))
    assert roles.train[0].time == 36000.0
    short = split(history("a", 50), Config(learn=150))
    assert [len(short.train), len(short.calibration), len(short.test)] == [20, 10, 20]


def test_audit_names_what_is_wrong():
    fine = checks(history("a", 400), learn=150)
    assert {c.status for c in fine.values()} <= {"ok", "info", "unknown"}
    assert checks(history("a", 40))["amount"].status == "warn"
    gappy = checks(history("a", 400, gap_at=200))["gaps"]
    assert gappy.status == "warn" and "1 gap of" in gappy.evidence
    assert (
        checks([*history("a", 400), Refusal(item="f", message="empty")])[
            "unreadable or duplicate snapshots"
        ].count
        == 1
    )
    learned = checks(history("a", 400, label="faulty"))["faults in the training period"]
    assert learned.status == "fail" and learned.count == 200


def test_irregular_intervals_are_told():
    items = history("a", 400)
    rng = np.random.default_rng(0)
    shaken = [
        Snapshot(id=s.id, machine="a", time=s.time + rng.uniform(0, 250), path=s.path)
        for s in items
    ]
    assert checks(shaken)["interval"].status == "warn"


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"methods": ("pcaa",)}, "unknown method 'pcaa'"),
        ({"methods": ()}, "no method"),
        ({"methods": ("pca", "pca")}, "given twice"),
        ({"learn": 5}, "30 snapshots"),
        ({"budget": 0.0}, "budget must be positive"),
    ],
)
def test_wishes_that_cannot_be_are_refused(wish, words):
    with pytest.raises(UserError, match=words):
        Config(**wish)
