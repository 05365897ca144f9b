import json

import pytest

from lineside.cli import expand_config, main
from lineside.core.errors import UserError


def test_a_json_config_stands_for_flags_and_flags_win(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"seed": 4, "robustness": False, "methods": ["memory", "pca"]}))
    tokens = expand_config(["parts", "train", "data", "--seed", "7", "--config", str(path)])
    assert tokens == [
        "parts", "train", "data", "--seed", "7",
        "--no-robustness", "--methods", "memory", "--methods", "pca",
    ]  # fmt: skip


def test_the_config_of_a_run_is_a_config_too(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"application": "parts", "config": {"seed": 4}}))
    assert expand_config(["parts", "train", "--config", str(path)])[-2:] == ["--seed", "4"]


def test_an_unknown_key_names_the_nearest(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text('{"sed": 4}')
    with pytest.raises(UserError, match="did you mean 'seed'"):
        expand_config(["parts", "train", "--config", str(path)])


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["parts", "trian"], 'Did you mean "train"'),
        (["parts", "train", "d", "--sed", "1"], "Did you mean --seed"),
        (["parts", "train", "/nowhere/at/all"], "does not exist"),
        (["parts", "train", "d", "--max-escape", "2"], "fraction between 0 and 1"),
        (["parts", "train", "d", "--methods", "magic"], "unknown method 'magic'"),
        (["parts", "train", "d", "--config", "/nowhere.json"], "cannot be read"),
        (["parts", "predict", "x.png", "--model", "/nowhere"], "holds no model"),
        (["parts", "feedback", "--model", "/nowhere"], "nothing to learn from"),
    ],
)
def test_bad_usage_is_one_line_and_code_2(tokens, words, capsys):
    assert main(tokens) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert words in lines[0]


def test_help_and_version(capsys):
    assert main(["--help"]) == 0
    assert "parts" in capsys.readouterr().out
    assert main(["--version"]) == 0
