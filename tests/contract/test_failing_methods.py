"""A method that fails is a row with its reason, in every application; none takes its place."""

import dataclasses
import json

import numpy as np
import pytest
from tests.contract import samples
from tests.contract.test_example import numbers, toy  # noqa: F401 - fixtures

from lineside.applications import APPLICATIONS, application
from lineside.core.contract import Method
from lineside.core.errors import UserError
from lineside.core.run.progress import Progress
from lineside.core.workflow import train

QUIET = Progress(quiet=True)
pytestmark = pytest.mark.adversary("a")


def with_methods(app, names):
    """The application with copies of its first method: all called `broken...` fail."""

    def methods(config):
        first = app.methods(config)[0]

        def fit(name, split, config, run):
            if name.startswith("broken"):
                raise ZeroDivisionError("no spread")
            return first.fit(split, config, run)

        return [
            Method(
                name=name, kind="classical", help=name,
                fit=lambda split, config, run, name=name: fit(name, split, config, run),
            )
            for name in names
        ]  # fmt: skip

    return dataclasses.replace(app, methods=methods)


def test_a_method_that_fails_is_a_row_and_the_run_goes_on(toy, numbers, tmp_path):  # noqa: F811
    app = with_methods(toy.APPLICATION, ["distance", "broken", "again"])
    study = train(app, numbers, tmp_path / "run", toy.Config(), QUIET)
    assert [method.name for method in study.methods] == ["distance", "again"]
    (failure,) = study.failures
    assert (failure.name, failure.reason) == ("broken", "ZeroDivisionError: no spread")
    written = json.loads((tmp_path / "run" / "report.json").read_text())
    assert list(written["methods"]) == ["distance", "again"]
    assert written["failures"][0]["reason"] == "ZeroDivisionError: no spread"
    assert "failed: ZeroDivisionError: no spread" in (tmp_path / "run/report.html").read_text()
    card = (tmp_path / "run/models/distance/MODEL_CARD.md").read_text()
    assert "broken (classical): failed: ZeroDivisionError: no spread" in card
    assert "Traceback" in (tmp_path / "run/metrics.jsonl").read_text()


def test_a_method_without_a_score_is_a_row(toy, numbers, tmp_path, monkeypatch):  # noqa: F811
    """NaN at the calibration and NaN at the test, from the second fit on."""
    copies = with_methods(toy.APPLICATION, ["distance", "second", "third"])
    fits = []

    def outcomes(model, items):
        for i, outcome in enumerate(toy.outcomes(model, items)):
            role = "test" if model.point else "calibration"
            if i == 3 and role == {2: "calibration", 3: "test"}.get(len(fits)):
                if role == "test":
                    raise UserError(f"no score for {outcome.item}")
                outcome = dataclasses.replace(outcome, value={**outcome.value, "score": np.nan})
            yield outcome

    def methods(config):
        def counted(split, config, run, fit):
            fits.append(fit)
            return fit(split, config, run)

        return [
            dataclasses.replace(m, fit=lambda s, c, r, fit=m.fit: counted(s, c, r, fit))
            for m in copies.methods(config)
        ]

    app = dataclasses.replace(copies, outcomes=outcomes, methods=methods)
    study = train(app, numbers, tmp_path / "run", toy.Config(), QUIET)
    assert [method.name for method in study.methods] == ["distance"]
    assert [f.name for f in study.failures] == ["second", "third"]
    assert all("no score" in failure.reason for failure in study.failures)


def test_nothing_predicts_in_the_place_of_the_one_that_failed(toy, numbers, tmp_path):  # noqa: F811
    app = with_methods(toy.APPLICATION, ["broken", "distance"])
    with pytest.raises(UserError) as caught:
        train(app, numbers, tmp_path / "run", toy.Config(), QUIET)
    line = str(caught.value)
    assert "\n" not in line and "broken, the method that predicts, failed" in line
    assert f"--model {tmp_path / 'run/models/distance'} (auroc " in line
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert status["state"] == "failed" and "model" not in status
    stored = json.loads((tmp_path / "run/models/distance/model.json").read_text())
    assert stored["calibration"]  # it can be used as it is
    with pytest.raises(UserError, match="failed"):  # and a repeated command fits it no second time
        train(app, numbers, tmp_path / "run", toy.Config(), QUIET)
    log = (tmp_path / "run/metrics.jsonl").read_text()
    assert log.count('"fitted"') == 1


def test_where_every_method_fails_the_reason_is_told_as_it_is(toy, numbers, tmp_path):  # noqa: F811
    app = with_methods(toy.APPLICATION, ["broken", "broken too"])
    with pytest.raises(ZeroDivisionError, match="no spread"):
        train(app, numbers, tmp_path / "run", toy.Config(), QUIET)


def test_a_full_disk_is_no_failure_of_the_method(toy, numbers, tmp_path):  # noqa: F811
    app = with_methods(toy.APPLICATION, ["distance", "writes"])

    def methods(config):
        first, second = app.methods(config)

        def fit(split, config, run):
            raise UserError("the disk is full") from OSError(28, "no space")

        return [first, dataclasses.replace(second, fit=fit)]

    with pytest.raises(UserError, match="the disk is full"):
        train(
            dataclasses.replace(app, methods=methods), numbers, tmp_path / "run", toy.Config(),
            QUIET,
        )  # fmt: skip


@pytest.mark.parametrize("name", list(APPLICATIONS))
def test_every_application_reports_beside_a_failed_method(name, tmp_path):
    """A rival that raises, through the chapters of the application's own report."""
    sample = getattr(samples, name)(tmp_path)
    record = application(name)

    def methods(config):
        first, second = record.methods(config)

        def fit(split, config, run):
            raise FloatingPointError("not a number")

        return [first, dataclasses.replace(second, fit=fit)]

    broken = dataclasses.replace(record, methods=methods)
    study = train(broken, sample.data, tmp_path / "run", sample.config, QUIET)
    assert [failure.reason for failure in study.failures] == ["FloatingPointError: not a number"]
    assert "failed: FloatingPointError" in (tmp_path / "run" / "report.html").read_text()
    assert record.summary(study)
