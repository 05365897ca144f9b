import importlib.util

import pytest

from lineside import doctor


def test_it_says_what_is_there(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("LINESIDE_CACHE", str(tmp_path / "new"))
    assert doctor.doctor() == 0
    told = capsys.readouterr().out
    assert "torch" in told
    assert f"{tmp_path / 'new'} (writable)" in told
    monkeypatch.setenv("LINESIDE_CACHE", "off")
    assert doctor.doctor() == 0
    assert "(off)" in capsys.readouterr().out


@pytest.mark.parametrize("name", doctor.WEIGHTS)
def test_missing_weights_are_named(capsys, monkeypatch, name):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        doctor.importlib.util, "find_spec", lambda n: None if n == name else found(n)
    )
    assert doctor.doctor() == 2
    assert f"missing {name}" in capsys.readouterr().err
