"""Mutated models: each predicts or is refused in one line; the benchmark `fuzz` in small."""

import json

import numpy as np
import pytest
from benchmarks.core import fuzz

from lineside.applications import application
from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.core.run.model_store import load_model


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return fuzz.make_cases(tmp_path_factory.mktemp("fuzz"), fuzz.QUICK)


def test_thirty_mutated_models_predict_or_are_refused_in_one_line(cases):
    assert {case.app for case in cases} == {"parts", "machines"}
    assert fuzz.failures(cases, 30, seed=1) == []


def test_unchanged_models_predict(cases):
    assert [fuzz.attempt(case.app, case.model, case.file) for case in cases] == [""] * len(cases)


def test_a_failure_is_counted(cases, monkeypatch):
    """The counter itself: an exception that is no UserError, and a message of two lines."""

    def broken(path, application):
        raise ZeroDivisionError("no spread")

    monkeypatch.setattr(fuzz, "load_predictor", broken)
    found = fuzz.failures(cases, 2)
    assert len(found) == 2 and "ZeroDivisionError: no spread at test_fuzz.py" in found[0]

    class Long:
        def predict(self, file):
            return [Refusal(item="a", message="one\ntwo")]

    monkeypatch.setattr(fuzz, "load_predictor", lambda path, application: Long())
    assert "more than one line" in fuzz.failures(cases, 1)[0]


def test_a_hash_made_anew_passes_the_hash(cases, tmp_path):
    """Otherwise the mutations would only show that the hash is checked."""
    rng = np.random.default_rng(0)
    words = []
    for number in range(12):
        folder = tmp_path / str(number)
        fuzz.shutil.copytree(cases[0].model, folder)
        fuzz.MUTATIONS["field"](folder, rng)
        try:
            load_model(folder, application(cases[0].app))
        except UserError as error:
            words.append(error.message)
    assert words and not any("altered" in line or "damaged" in line for line in words), words
    assert json.loads((folder / "model.json").read_text())
