"""Every application gives the same in process, on two worker processes and on a cluster."""

import contextlib
import dataclasses
import json

import numpy as np
import pytest

from lineside.applications import application
from lineside.cli import main
from lineside.core.contract import Refusal
from lineside.core.parallel import Executor, open_executor
from lineside.core.predictor import load_predictor
from lineside.core.run.codec import encode
from lineside.core.run.progress import Progress
from lineside.core.run.tables import read_outcomes
from lineside.core.workflow import evaluate, train
from lineside.machines.config import Config as MachinesConfig
from lineside.machines.simulation.demo import save_history
from lineside.machines.simulation.rig import Rig
from lineside.machines.simulation.scenarios import Scenario, simulate_history
from lineside.parts.config import Config as PartsConfig
from lineside.parts.data.images import training_image
from lineside.parts.models.feature_head.feature_head import fit_detector

pytest.importorskip("distributed")
QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def executors():
    """In process, two worker processes, and a scheduler at an address with one worker."""
    from distributed import LocalCluster

    with contextlib.ExitStack() as stack:
        scheduler = stack.enter_context(
            LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0")
        )
        yield {
            "in process": Executor(),
            "workers": stack.enter_context(open_executor(workers=2)),
            "cluster": stack.enter_context(open_executor(cluster=scheduler.scheduler_address)),
        }


def fleet(folder, seed):
    for name in ("pump", "fan"):
        seed += 1
        scenario = Scenario(
            name=name, rig=Rig(seconds=0.05), days=16.0, interval_hours=2.0, onset_day=10.0,
            growth_days=6.0, run_in=0.0,
        )  # fmt: skip
        save_history(simulate_history(scenario, np.random.default_rng(seed)), folder / name)
    return folder


@pytest.fixture(scope="module")
def stored(trained, shop, tmp_path_factory):
    """(run, labelled data that it was not trained on, files to predict) by application."""
    folder = tmp_path_factory.mktemp("stored")
    config = MachinesConfig(methods=("trend",), learn=84, robustness=False)
    train(application("machines"), fleet(folder / "old", 0), folder / "run", config, QUIET)
    new = shop.data(folder / "parts", good=4, faulty=2, seed=9)
    later = fleet(folder / "later", 10)
    broken = folder / "broken.png"
    broken.write_bytes(b"no picture")
    return {
        "parts": (trained, new, [new / "good", broken, folder / "missing.png", new / "defect"]),
        "machines": (folder / "run", later, [later, folder / "missing"]),
    }


@pytest.mark.parametrize("name", ["parts", "machines"])
def test_predictions_are_the_same(name, stored, executors):
    run, _, files = stored[name]
    predictor = load_predictor(run, application(name))
    items = predictor.items(files)
    lines = {
        where: [result.as_json() for result in predictor.predict_items(items, QUIET, executor)]
        for where, executor in executors.items()
    }
    assert len(lines["in process"]) == len(items) > 10
    assert lines["workers"] == lines["in process"]
    assert lines["cluster"] == lines["in process"]


def test_trainings_are_the_same(stored, trained, shop, executors, tmp_path):
    """Models, their ids and calibrations, and outcomes; one fleet, and one shop of two methods."""
    old = {"machines": stored["machines"][0].parent / "old", "parts": trained.parent / "data"}
    configs = {
        "machines": MachinesConfig(methods=("trend",), learn=84, robustness=False),
        "parts": PartsConfig(
            methods=("gaussian", "brightness"), robustness=False, part_pattern=shop.pattern
        ),
    }
    for name, config in configs.items():
        out = tmp_path / name
        study = train(application(name), old[name], out, config, QUIET, executors["workers"])
        in_process = stored[name][0]
        for method in study.methods:
            ours, theirs = (
                json.loads((run / "models" / method.name / "model.json").read_text())
                for run in (out, in_process)
            )
            assert ours == theirs
        tables = [read_outcomes(run / "outcomes.csv") for run in (out, in_process)]
        assert all(flat(table) == flat(tables[0]) for table in tables)


def flat(table):
    return {
        (method, role): [timeless(outcome) for outcome in outcomes]
        for method, roles in table.items()
        for role, outcomes in roles.items()
    }


@pytest.mark.parametrize("name", ["parts", "machines"])
def test_evaluations_are_the_same(name, stored, executors):
    run, data, _ = stored[name]
    found = application(name)
    evaluations = {
        where: evaluate(found, data, run, found.config(), QUIET, executor)
        for where, executor in executors.items()
    }
    for evaluation in evaluations.values():
        assert [timeless(o) for o in evaluation.outcomes] == [
            timeless(o) for o in evaluations["in process"].outcomes
        ]
    assert len(evaluations["workers"].outcomes) > 10


def timeless(outcome):
    value = {k: repr(v) for k, v in outcome.value.items() if k != "ms"}  # repr: NaN is NaN
    return dataclasses.replace(outcome, value=value)


def test_the_verb_prints_the_same_and_a_journal_repeats_nothing(stored, tmp_path, capfd):
    run, _, files = stored["parts"]
    words = ["parts", "predict", *map(str, files), "--model", str(run), "--json"]
    journal = tmp_path / "journal.jsonl"
    texts = []
    for flags in ([], ["--workers", "2"], ["--journal", str(journal)], ["--journal", str(journal)]):
        assert main([*words, *flags]) == 2  # broken.png
        texts.append(capfd.readouterr().out)
    assert len(set(texts)) == 1
    assert journal.read_text().count("\n") == 7  # six parts and the broken picture, each once


def test_a_batch_that_cannot_be_judged_is_a_refusal_for_each_of_its_items(stored, monkeypatch):
    run, _, files = stored["parts"]
    predictor = load_predictor(run, application("parts"))
    items = predictor.items(files[:1])
    killed = Refusal(item="batch", message="killed")
    monkeypatch.setattr(
        "lineside.core.stored_model.map_items", lambda *a, **k: [killed] * (len(items) // 2)
    )
    executor = Executor(client=object)
    results = predictor.predict_items(items, QUIET, executor)
    assert [result.item for result in results] == [item.id for item in items]


def test_the_default_method_learns_the_same_from_features_of_workers(shop, executors, tmp_path):
    data = shop.data(tmp_path / "data", good=6, faulty=3)
    items = application("parts").read(data, PartsConfig(part_pattern=shop.pattern))
    images = [training_image(item) for item in items]
    specs = {}
    for where, executor in executors.items():
        fitted = fit_detector(images, (), rng=np.random.default_rng(0), executor=executor)
        spec, tensors = encode(fitted)
        specs[where] = spec, {name: tensor.tolist() for name, tensor in tensors.items()}
    assert specs["workers"] == specs["in process"]
    assert specs["cluster"] == specs["in process"]
