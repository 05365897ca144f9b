"""Every application keeps the contract: what core relies on, on a small data set of its own."""

import dataclasses
import importlib
import json
import subprocess
import sys

import pytest
from tests.contract import samples

import lineside
from lineside.applications import APPLICATIONS, application
from lineside.core.contract import (
    Application,
    Check,
    Explanation,
    Item,
    Method,
    Metric,
    Refusal,
    Result,
    Source,
)
from lineside.core.run import files, tables
from lineside.core.run.progress import Progress
from lineside.core.workflow import evaluate, read, train

QUIET = Progress(quiet=True)
ROLES_IN_TIME = ("train", "validation", "calibration", "test")


@dataclasses.dataclass(frozen=True)
class Trained:
    application: Application
    sample: samples.Sample
    study: object
    hashed: list  # every file that was hashed for the run, once per reading


@pytest.fixture(scope="module", params=list(APPLICATIONS))
def trained(request, tmp_path_factory):
    """A finished run of every application."""
    folder = tmp_path_factory.mktemp(request.param)
    sample = getattr(samples, request.param)(folder)
    hashed = []

    def counted(path):
        hashed.append(path)
        return files.sha256_of_file(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "sha256_of_file", counted)
        record = application(request.param)
        study = train(record, sample.data, folder / "run", sample.config, QUIET)
    return Trained(record, sample, study, hashed)


def plain(results):
    return [json.loads(json.dumps(result.as_json())) for result in results]


def test_the_record(trained):
    record = trained.application
    assert record.config().seed == 0
    assert all(isinstance(metric, Metric) for metric in record.metrics)
    methods = record.methods(record.config())
    assert all(isinstance(method, Method) and method.help for method in methods)
    assert {"deep", "classical", "trivial"} == {method.kind for method in methods}
    verbs = set(importlib.import_module(f"lineside.{record.name}.commands").app)
    assert {"train", "demo", "audit", "evaluate", "predict", "explain"} <= verbs


@pytest.mark.parametrize("name", APPLICATIONS)
@pytest.mark.parametrize("module", ["", ".config", ".commands"])
def test_what_help_needs_is_light(name, module):
    code = (
        f"import sys, lineside.{name}{module};"
        "print(sorted({'torch', 'scipy', 'sklearn', 'matplotlib', 'numpy'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("name", APPLICATIONS)
def test_predicting_loads_no_library_that_only_fits_or_draws(name):
    code = (
        f"import sys, lineside.{name}.application;"
        "print(sorted({'accelerate', 'sklearn', 'matplotlib', 'pandas'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_items_have_sources_and_groups(trained):
    items, refusals = read(trained.application, trained.sample.data, trained.sample.config)
    assert refusals == [] and len(items) > 20
    assert len({item.id for item in items}) == len(items)
    assert len({item.source for item in items}) == len(items)
    for item in items:
        assert isinstance(item, Item) and isinstance(item.source, Source)
        assert item.source.path.is_file()
        assert item.groups and all(isinstance(group, str) for group in item.groups)
    checks = trained.application.audit(
        [*items, Refusal(item="x", message="m")], trained.sample.config
    )
    assert all(isinstance(check, Check) and check.evidence for check in checks)


def test_each_file_is_hashed_once(trained):
    assert len(trained.hashed) == len(set(trained.hashed)) > 0


def test_the_split_is_what_it_says(trained):
    split = trained.study.split
    roles = {}
    for role, item in split.rows():
        for group in item.groups:
            roles.setdefault(group, {}).setdefault(role, []).append(item)
    report = (trained.study.run.folder / "report.html").read_text()
    if split.unit == "group":
        assert all(len(of_group) == 1 for of_group in roles.values())
        assert "No group is in two roles" in report
        return
    assert any(len(of_group) > 1 for of_group in roles.values())
    assert "No group is in two roles" not in report and "split by time" in report
    for of_group in roles.values():
        times = [
            trained.sample.order(item) for role in ROLES_IN_TIME for item in of_group.get(role, [])
        ]
        assert times == sorted(times)


def test_files_are_predicted_and_a_bad_one_is_a_refusal(trained):
    predictor = lineside.load(trained.study.run.folder)
    alone = predictor.predict(trained.sample.fresh)
    assert len(alone) >= len(trained.sample.fresh)
    assert all(isinstance(result, Result) for result in alone)
    both = predictor.predict([*trained.sample.fresh, trained.sample.damaged])
    refusals = [result for result in both if isinstance(result, Refusal)]
    assert len(refusals) == 1 and "damaged" in refusals[0].item + refusals[0].message
    assert plain([r for r in both if not isinstance(r, Refusal)]) == plain(alone)
    one = predictor.predict(str(trained.sample.fresh[0]))
    assert plain(one) == plain(alone[: len(one)])
    for result in alone:
        assert result.item and isinstance(result.finding, bool)
        assert isinstance(result.as_line(), str) and "\n" not in result.as_line()


def test_a_session_gives_what_predict_gives(trained):
    predictor = lineside.load(trained.study.run.folder)
    items = predictor.items(trained.sample.fresh)
    whole = plain(predictor.predict_items(items))
    session = predictor.session()
    first = [session.push(item) for item in items[: len(items) // 2]]
    continued = predictor.session(json.loads(json.dumps(session.state())))
    rest = [continued.push(item) for item in items[len(items) // 2 :]]
    assert plain([*first, *rest]) == whole


def test_a_file_is_explained(trained):
    explanation = lineside.load(trained.study.run.folder).explain(trained.sample.fresh[0])
    assert isinstance(explanation, Explanation)
    assert explanation.text and explanation.figures
    assert all(figure.caption for figure in explanation.figures)


def test_evaluate_gives_the_outcomes_of_the_report(trained):
    study = trained.study
    tested = dataclasses.replace(trained.application, read=lambda data, config: study.split.test)
    again = evaluate(tested, trained.sample.data, study.run.folder, trained.sample.config, QUIET)

    def timeless(outcomes):
        return [
            dataclasses.replace(
                o, value={k: repr(float(v)) for k, v in o.value.items() if k != "ms"}
            )
            for o in outcomes
        ]

    assert timeless(again.outcomes) == timeless(study.best.outcomes["test"])
    assert [o.item for o in again.outcomes] != []
    stored = tables.read_outcomes(study.run.folder / "outcomes.csv")[study.chosen]["test"]
    assert timeless(stored) == timeless(study.best.outcomes["test"])


def test_a_model_comes_back_from_spec_and_tensors(trained):
    model = lineside.load(trained.study.run.folder).model
    bare = trained.application.load(model.spec(), model.tensors())
    assert bare.calibration_block() == {}
    again = bare.with_calibration(model.calibration_block(), model.identity)
    assert again.identity == model.identity
    assert json.dumps(again.spec()) == json.dumps(model.spec())
    items = trained.study.split.test[:6]
    assert plain(again.predict(items)) == plain(model.predict(items))


def test_the_demo_is_read_like_any_data(trained, tmp_path):
    folder = trained.application.demo(tmp_path / "demo", 0, **trained.sample.demo_options)
    items, refusals = read(trained.application, folder, trained.application.config())
    assert refusals == [] and len(items) >= 4
    assert all(item.label for item in items)
