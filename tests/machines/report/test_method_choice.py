"""Which detector, and is deep learning worth it: on records, and on histories of each kind."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from lineside.core.contract import Outcome, Split
from lineside.core.run.folder import rng_of
from lineside.machines.config import Config
from lineside.machines.data import find_snapshots
from lineside.machines.data.dataset import split as split_items
from lineside.machines.data.items import Snapshot
from lineside.machines.methods import DETECTORS
from lineside.machines.model import MachinesModel
from lineside.machines.models.knn import fit_knn
from lineside.machines.models.pca import fit_pca
from lineside.machines.outcomes import calibrate, outcomes
from lineside.machines.report.baselines import WindowDetector, fit_baselines, stack_windows
from lineside.machines.report.chapters import detector_answers, detectors_section
from lineside.machines.report.method_choice import (
    DetectorRecord,
    choose_detector,
    explain_choice,
    make_record,
    poisson_p_value,
)
from lineside.machines.simulation.demo import FLEET, save_history
from lineside.machines.simulation.scenarios import simulate_history
from lineside.machines.training.fitting import fit_machine


def record(method, kind, false=0, found=1, delay=50.0, faults=1, **more):
    delay = delay if found else float("nan")
    return DetectorRecord(
        method=method, kind=kind, false=false, months=0.4, faults=faults, found=found,
        delay_hours=delay, lead_hours=240.0 - delay, **more,
    )  # fmt: skip


PCA = record("pca", "classical")


@pytest.mark.parametrize(
    ("deep", "simple", "choice"),
    [
        (record("vae", "deep", delay=20), PCA, "deep"),  # 30 h of 240 earlier
        (record("vae", "deep", delay=40), PCA, "tie"),  # 10 h of 240 earlier
        (record("vae", "deep", delay=80), PCA, "simple"),
        (record("vae", "deep", found=0), PCA, "simple"),
        (record("vae", "deep"), record("pca", "classical", found=0), "deep"),
        (record("vae", "deep", false=9), record("pca", "classical", found=0), "deep"),
        (record("vae", "deep", false=1, delay=10), PCA, "tie"),
        (record("vae", "deep"), record("pca", "classical", false=1), "tie"),
        (record("vae", "deep"), record("pca", "classical", false=2), "deep"),
        (record("vae", "deep", found=0), record("pca", "classical", found=0), "tie"),
        (record("vae", "deep", faults=0, found=0), record("pca", "trivial", faults=0, found=0),
         "no fault"),
    ],
)  # fmt: skip
def test_a_deep_detector_must_be_clearly_better(deep, simple, choice):
    made = choose_detector([deep, simple])
    assert made.choice == choice
    assert made.use.kind == ("deep" if choice == "deep" else simple.kind)
    worth_it = "is worth it here" in explain_choice([simple, deep])
    assert worth_it == (choice == "deep")


def test_every_simple_detector_counts_not_the_first_one():
    deep = record("lstm_ae", "deep", delay=30)
    slow = record("knn", "classical", delay=200)
    assert choose_detector([deep, slow]).choice == "deep"
    assert choose_detector([deep, slow, record("trend", "trivial", delay=30)]).choice == "tie"


def test_it_is_the_inputs_where_a_simple_detector_with_the_same_ones_does_as_well():
    deep, blind = record("lstm_ae", "deep"), record("pca", "classical", found=0)
    as_good = record("knn on windows", "classical", delay=45)
    made = choose_detector([deep, blind], [as_good])
    assert made.choice == "inputs" and made.use is deep and made.baseline is as_good
    told = explain_choice([deep, blind], [as_good])
    assert "not its depth" in told and "knn on windows" in told and "use lstm_ae" in told
    worse = record("knn on windows", "classical", delay=150)
    assert choose_detector([deep, blind], [worse]).choice == "deep"
    assert "Its depth counts" in explain_choice([deep, blind], [worse])
    # Baselines count only where a deep detector is better.
    assert choose_detector([deep, PCA], [as_good]).choice == "tie"


def test_the_answer_says_why_what_it_costs_and_how_little_it_rests_on():
    deep = record("vae", "deep", delay=100, fit_seconds=4.0, ms=2.0)
    told = explain_choice([dataclasses.replace(PCA, fit_seconds=0.5, ms=1.0), deep])
    assert "not worth it here: use pca, which warned 50 h earlier" in told
    assert "50 h after it began, 190 h before the failure" in told
    assert "4.0 against 0.5 s to fit, 2.0 against 1.0 ms per snapshot" in told
    assert "one fault of one machine: weak evidence" in told
    many = [dataclasses.replace(r, faults=9, found=9) for r in (PCA, deep)]
    assert "weak evidence" not in explain_choice(many)
    noisy = explain_choice([record("pca", "classical", false=4), record("vae", "deep")])
    assert "0 false alarms instead of 4 (p = 0.12" in noisy  # 2 * 0.5**4


def test_one_kind_only_is_said():
    assert "Only one kind" in explain_choice([PCA, record("knn", "classical", delay=60)])
    assert choose_detector([PCA]).use is PCA


def test_two_counts_are_compared_by_the_binomial_test():
    assert poisson_p_value(0, 0) == 1.0
    assert poisson_p_value(0, 6) == pytest.approx(2 * 0.5**6)


def test_a_record_is_made_of_outcomes():
    values = [
        {"label": 0, "episode": 1.0, "seconds": 86400.0, "ms": 1.0},
        {"label": 0, "episode": 0.0, "seconds": 86400.0, "ms": 3.0},
        {"label": 1, "episode": 1.0, "seconds": 86400.0, "ms": 2.0, "onset": 1.0, "found": 1.0,
         "delay_hours": 4.0, "lead_hours": 40.0},
    ]  # fmt: skip
    own = [Outcome(item=str(i), groups=("m",), unit="m", value=v) for i, v in enumerate(values)]
    made = make_record("pca", "classical", own, 0.5)
    assert (made.false, made.faults, made.found, made.missed) == (1.0, 1, 1, 0)
    assert (made.delay_hours, made.lead_hours, made.ms, made.fit_seconds) == (4.0, 40.0, 2.0, 0.5)
    assert made.months == pytest.approx(2 / 30.4375)


def test_windows_are_rows_side_by_side():
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    found = stack_windows(rows, 2)
    assert found.shape == (4, 6)
    np.testing.assert_array_equal(found[1], [2, 3, 4, 5, 6, 7])
    assert stack_windows(rows, 0) is not rows and np.array_equal(stack_windows(rows, 0), rows)


def test_a_detector_on_windows_sees_what_a_single_row_does_not_show():
    rng = np.random.default_rng(0)
    states = np.eye(4, dtype=np.float32)
    rows = states[np.arange(80) % 4] + 0.05 * rng.standard_normal((80, 4)).astype(np.float32)
    detector = WindowDetector(detector=fit_knn(stack_windows(rows[:60], 1), rng=rng), history=1)
    alone = fit_knn(rows[:60], rng=rng)
    wrong = rows[[61, 63, 61, 60]]  # healthy rows in an order that never was
    assert detector.score(wrong).min() > 2 * detector.score(rows[60:]).max()
    assert alone.score(wrong).max() < 2 * alone.score(rows[60:]).max()
    # One by one as in a stream: the same scores.
    single = [detector.score(rows[i : i + 2])[0] for i in range(60, 79)]
    np.testing.assert_array_equal(single, detector.score(rows[60:]))
    shares = WindowDetector(detector=fit_pca(stack_windows(rows[:60], 1)), history=1).contributions(
        rows[60:]
    )
    assert shares.shape == (4,) and shares.sum() == pytest.approx(1.0)


def judged(scenario, methods, folder, seed=0):
    """Records of methods on one history, models, and the split, as a run makes them."""
    save_history(simulate_history(scenario, rng_of(seed, scenario.name)), folder / scenario.name)
    config = Config(seed=seed, methods=methods)
    split = split_items([s for s in find_snapshots(folder) if isinstance(s, Snapshot)], config)
    models, found = {}, []
    for name in methods:
        machine = fit_machine(
            split.train, name, rng=rng_of(seed, name), log=lambda row: None, stop=lambda: False
        )
        model = MachinesModel(method=name, machines={scenario.name: machine})
        models[name] = calibrate(model, list(outcomes(model, split.calibration)), config)
        tested = list(outcomes(models[name], split.test))
        found.append(make_record(name, DETECTORS[name].kind, tested))
    return found, models, split, config


def test_the_simulator_has_a_history_where_deep_learning_is_worth_it(tmp_path):
    scenario = next(s for s in FLEET if s.name == "reactor")
    scenario = dataclasses.replace(scenario, onset_day=19.0, days=26.0, growth_days=10.0)
    found, models, split, config = judged(scenario, ("pca", "lstm_ae"), tmp_path)
    made = choose_detector(found)
    assert (made.choice, made.use.method, made.use.false) == ("deep", "lstm_ae", 0)
    assert made.simple.found == 0
    # With the rows of its window laid side by side simple detectors see the order as well.
    baselines = fit_baselines(models["lstm_ae"], "reactor", split, config, names=("knn",))
    assert [r.found for r in baselines] == [1]
    assert choose_detector(found, baselines).choice == "inputs"


def test_and_one_where_it_is_not(tmp_path):
    scenario = next(s for s in FLEET if s.name == "pump")
    found, *_ = judged(scenario, ("pca", "vae"), tmp_path)
    made = choose_detector(found)
    assert made.use.kind == "classical" and made.use.found == 1 and made.use.false == 0
    assert "not worth it here" in explain_choice(found)


def test_the_chapter_shows_baselines_only_where_a_deep_detector_won():
    outcome = Outcome(
        item="0", groups=("m",), unit="m", value={"label": 0, "episode": 0.0, "seconds": 86400.0}
    )
    fault = Outcome(
        item="1",
        groups=("m",),
        unit="m",
        value={"label": 1, "onset": 1.0, "found": 1.0, "delay_hours": 5.0},
    )
    blind = dataclasses.replace(fault, value={"label": 1, "onset": 1.0, "found": 0.0})
    split = Split(train=(), calibration=(), test=())
    config = Config(methods=("pca", "vae"))

    def study(deep, simple):
        methods = [
            SimpleNamespace(name=n, kind=k, fit_seconds=1.5, model=None, outcomes={"test": own})
            for n, k, own in (
                ("pca", "classical", [outcome, simple]), ("vae", "deep", [outcome, deep]),
            )
        ]  # fmt: skip
        return SimpleNamespace(methods=methods, best=methods[0], split=split, config=config)

    page = detectors_section(study(blind, fault))
    text, table = page.blocks
    assert text.startswith("m: Deep learning is not worth it here: use pca")
    assert [row[:4] for row in table.rows] == [
        ("pca", "classical", "0", "1 of 1"), ("vae", "deep", "0", "0 of 1"),
    ]  # fmt: skip
    assert table.rows[0][4:] == ("5", "-", "1.5", "-")
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "lineside.machines.report.baselines.fit_baselines",
            lambda model, machine, *rest: asked.append(machine) or [record("knn", "classical")],
        )
        page = detectors_section(study(fault, blind))
        assert asked == ["m"] and [row[0] for row in page.blocks[1].rows][-1] == "knn"
        assert "Its depth counts" in page.blocks[0]
        assert detector_answers(study(fault, blind))[0].endswith("that no simple one found.")
