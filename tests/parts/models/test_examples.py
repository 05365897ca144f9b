"""The example in the docstring of every method (its fit function or its class) runs as printed."""

import doctest
import importlib

import numpy as np
import pytest

from lineside.parts.methods import METHODS


@pytest.mark.parametrize("name", METHODS)
def test_the_example_of_a_method(name, monkeypatch):
    monkeypatch.setenv("LINESIDE_CACHE", "off")
    module = importlib.import_module(METHODS[name].module)
    find = doctest.DocTestFinder(recurse=False).find
    globs = {**vars(module), "np": np}
    (example,) = (
        test
        for part in (METHODS[name].fit_function, METHODS[name].detector)
        for test in find(getattr(module, part), name, globs=globs)
        if test.examples
    )
    assert 2 <= len(example.examples) <= 6, "an example of a few lines"
    result = doctest.DocTestRunner().run(example)
    assert result.failed == 0
