"""The example in the docstring of every method's fit function runs as printed."""

import doctest
import importlib

import numpy as np
import pytest

from lineside.parts.methods import METHODS


@pytest.mark.parametrize("name", METHODS)
def test_the_example_of_a_method(name, monkeypatch):
    monkeypatch.setenv("LINESIDE_CACHE", "off")
    module = importlib.import_module(METHODS[name].module)
    function = getattr(module, METHODS[name].fit_function)
    (example,) = doctest.DocTestFinder(recurse=False).find(
        function, name, globs={**vars(module), "np": np}
    )
    assert 2 <= len(example.examples) <= 6, "an example of a few lines"
    result = doctest.DocTestRunner().run(example)
    assert result.failed == 0
