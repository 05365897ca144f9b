"""Graded degradations: what each does, that it repeats, and how answers are counted."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from lineside.core.contract import Split
from lineside.machines.config import Config
from lineside.machines.data import find_snapshots
from lineside.machines.data.items import Snapshot
from lineside.machines.data.measurement import Channel, Measurement
from lineside.machines.model import MachinesModel
from lineside.machines.outcomes import calibrate, outcomes
from lineside.machines.report import robustness as chapter
from lineside.machines.report.robustness import _sentence
from lineside.machines.simulation import Rig, Scenario, save_history, simulate_history
from lineside.machines.simulation.degradations import (
    FASTER,
    GAIN_LOST,
    GRADES,
    LOUDER,
    MISSING_SHARE,
    NOISE_SHARE,
    SUITE,
    Answer,
    degrade,
)
from lineside.machines.training.fitting import learn_machine

RATE_HZ, HZ = 5000.0, 100.0
OF = {each.name: each for each in SUITE}


def wave(place=0, seconds=1.0):
    rng = np.random.default_rng(place)
    t = np.arange(int(RATE_HZ * seconds)) / RATE_HZ
    samples = np.sin(2 * np.pi * HZ * t) + 0.01 * rng.standard_normal(len(t))
    channels = {
        name: Channel(samples=samples.astype(np.float32), rate_hz=RATE_HZ) for name in ("a", "b")
    }
    return Measurement(machine="m", time=float(place), channels=channels, speed_hz=HZ)


def row(place=0):
    values = {"flow": 10.0 + place, "heat": 40.0}
    return Measurement(machine="m", time=float(place), values=values)


def plain(series):
    return [
        (m.time, m.speed_hz, repr(m.values), [c.samples.tobytes() for c in m.channels.values()])
        for m in series
    ]


def worse(name, grade, series):
    return degrade(series, OF[name], grade, seed=0)


def level(measurement, name="a"):
    return float(np.nanstd(measurement.channels[name].samples))


@pytest.mark.parametrize("each", SUITE, ids=lambda each: each.name)
@pytest.mark.parametrize("make", [wave, row])
def test_it_repeats_and_leaves_the_original_alone(each, make):
    if each.waves_only and make is row:
        pytest.skip("slow values have no speed")
    series = [make(place) for place in range(8)]
    for grade in GRADES:
        first, second = (degrade(series, each, grade, seed=1) for _ in range(2))
        assert plain(first) == plain(second)
        assert all(m.time in range(8) for m in first)
    assert plain(series) == plain([make(place) for place in range(8)])
    strongest = degrade(series, each, GRADES[-1], seed=1)
    assert plain(strongest) != plain(series)


@pytest.mark.parametrize("grade", GRADES)
def test_a_waveform_played_faster_has_its_line_higher_up(grade):
    for name, stated in (
        ("speed (stated)", HZ * (1 + FASTER[grade - 1])),
        ("speed (not stated)", HZ),
    ):
        quick = worse(name, grade, [wave()])[0]
        samples = quick.channels["a"].samples
        assert len(samples) == RATE_HZ and quick.speed_hz == pytest.approx(stated)
        spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
        assert spectrum.argmax() == pytest.approx(HZ * (1 + FASTER[grade - 1]), abs=1.01)


@pytest.mark.parametrize("grade", GRADES)
def test_amounts_are_what_they_say(grade):
    series = [wave(place) for place in range(200)]
    before = level(series[0])
    assert level(worse("load", grade, series[:1])[0]) == pytest.approx(
        LOUDER[grade - 1] * before, rel=1e-4
    )
    drifted = worse("gain drift", grade, series)
    assert level(drifted[0]) == pytest.approx(before, rel=1e-3)
    assert level(drifted[-1]) == pytest.approx((1 - GAIN_LOST[grade - 1]) * before, rel=1e-3)
    assert level(drifted[-1], "b") == pytest.approx(before, rel=1e-3)
    noisy = level(worse("noise", grade, series[:1])[0])
    assert noisy == pytest.approx(before * np.hypot(1, NOISE_SHARE[grade - 1]), rel=0.02)
    missing = [len(m.channels) for m in worse("missing sensor", grade, series)]
    assert missing.count(1) / 200 == pytest.approx(MISSING_SHARE[grade - 1], abs=0.08)


def test_torn_samples_and_lost_snapshots():
    series = [wave(place) for place in range(100)]
    shares = [
        np.isnan(worse("torn samples", grade, series)[0].channels["a"].samples).mean()
        for grade in GRADES
    ]
    assert shares == sorted(shares) and 0 < shares[0] <= 0.001 and 0.2 < shares[-1] <= 0.4
    counts = [len(worse("lost snapshots", grade, series)) for grade in GRADES]
    assert counts == sorted(counts, reverse=True) and counts[0] > 80 and counts[-1] < 40


def test_slow_values_get_worse_too():
    series = [row(place) for place in range(3)]
    assert worse("load", 4, series)[0].values["heat"] == pytest.approx(40 * LOUDER[-1])
    assert worse("gain drift", 4, series)[2].values == pytest.approx({"flow": 12 * 0.4, "heat": 40})
    assert list(worse("missing sensor", 4, series)[0].values) == ["heat"]


def test_answers_add_up_and_are_told_in_words():
    clean = Answer(healthy=10, faults=1, found=1, snapshots=20)
    fooled = dataclasses.replace(clean, fooled=8, episodes=1, found=0)
    blind = Answer(faults=1, told=20, snapshots=20)
    assert (clean + fooled).fooled == 8 and (clean + fooled).snapshots == 40
    rows = {"noise": [clean, clean, fooled, fooled, fooled], "gaps": [clean] * 4 + [blind]}
    told = _sentence("pca", rows)
    assert told == (
        "pca raises false alarms under noise from grade 2; cannot find the fault, and says why, "
        "under gaps from grade 4; misses a fault without a word under noise from grade 2."
    )
    assert _sentence("pca", {"noise": [clean] * 5}) == "pca raises no false alarm."


@pytest.fixture(scope="module")
def pump(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet")
    scenario = Scenario(
        name="pump", rig=Rig(seconds=0.1), days=14.0, onset_day=9.0, growth_days=5.0, run_in=0.0
    )
    save_history(simulate_history(scenario, np.random.default_rng(0)), folder / "pump")
    items = [s for s in find_snapshots(folder) if isinstance(s, Snapshot)]
    machine = learn_machine(
        items[:56], "pca", rng=np.random.default_rng(0), log=lambda row: None, stop=lambda: False
    )
    model = MachinesModel(method="pca", machines={"pump": machine}, identity="abc")
    config = Config(methods=("pca",))
    return calibrate(model, outcomes(model, items[56:84]), config), items[84:], config


def study_of(pump, folder):
    model, items, config = pump
    method = SimpleNamespace(
        name="pca", kind="classical", model=model, outcomes={"test": outcomes(model, items)}
    )
    run = SimpleNamespace(folder=folder, check_stop=lambda: None, beat=lambda **facts: None)
    return SimpleNamespace(
        run=run, methods=[method], chosen="pca", best=method, config=config,
        split=Split(test=tuple(items)),
    )  # fmt: skip


def test_the_suite_runs_once_and_being_told_is_not_being_fooled(pump, tmp_path, monkeypatch):
    monkeypatch.setattr(chapter, "BUDGET_SECONDS", 0.1)
    study = study_of(pump, tmp_path)
    found = chapter.numbers(study)
    assert found["snapshots"] == 2 * chapter.FEWEST and found["machines"] == ["pump"]
    own = found["methods"]["pca"]
    clean = own["load"][0]
    assert clean["faults"] == 1 and clean["found"] == 1 and clean["episodes"] == 0
    assert own["missing sensor"][4]["told"] == found["snapshots"]
    assert own["missing sensor"][4]["fooled"] == 0
    assert own["load"][4]["fooled"] > own["load"][4]["healthy"] / 2
    before = (tmp_path / chapter.NAME).stat().st_mtime_ns
    section = chapter.robustness(study)
    assert (tmp_path / chapter.NAME).stat().st_mtime_ns == before
    assert section.blocks[0].startswith("pca ") and b"lost snapshots" in section.blocks[1].image


def test_without_healthy_snapshots_there_is_no_chapter(pump, tmp_path):
    study = study_of((pump[0], [s for s in pump[1] if s.label == "faulty"], pump[2]), tmp_path)
    assert chapter.robustness(study).blocks == ()
