"""The example of docs/adding_a_method.md works as printed, beside a baseline."""

import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import lineside
from lineside.cli import main
from lineside.core.errors import UserError
from lineside.core.run.codec import decode, encode
from lineside.parts import config, methods
from lineside.parts.models.detector import TrainingImage

DOCS = Path(__file__).resolve().parents[3] / "docs" / "adding_a_method.md"
NAME = "lineside.parts.models.classical.median_image"


@pytest.fixture
def example(monkeypatch):
    """The module of the first block, registered as the second block says."""
    code, entry = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S)
    module = types.ModuleType(NAME)
    monkeypatch.setitem(sys.modules, NAME, module)
    exec(compile(code, str(DOCS), "exec"), module.__dict__)
    for name, method in eval(f"{{{entry}}}", vars(methods)).items():
        monkeypatch.setitem(methods.METHODS, name, method)
        monkeypatch.setattr(config, "OPTIONAL_NAMES", (*config.OPTIONAL_NAMES, name))
    return module


def pixels(seed, spot=0.0):
    image = np.random.default_rng(seed).normal(0.5, 0.02, (60, 80, 1)).astype(np.float32)
    image[20:30, 50:60] += spot
    return image


def test_fit_predict_and_store(example):
    images = [TrainingImage.from_array(pixels(seed)) for seed in range(6)]
    method = methods.METHODS["median_image"]
    detector = method.fit(images, [], rng=np.random.default_rng(0), log=lambda row: None)
    good, bad = detector.predict(pixels(10)), detector.predict(pixels(11, spot=0.3))
    assert bad.score > 3 * good.score
    row, column = np.unravel_index(bad.map.argmax(), bad.map.shape)
    assert 20 <= row * 60 / 64 <= 30 and 50 <= column * 80 / 64 <= 60
    spec, tensors = encode(detector)
    again = decode(method.detector_class(), json.loads(json.dumps(spec)), tensors)
    assert again.predict(pixels(11, spot=0.3)).score == bad.score
    with pytest.raises(UserError, match="no good"):
        method.fit([], [], rng=np.random.default_rng(0), log=lambda row: None)


def test_a_run_beside_a_baseline(example, shop, tmp_path, capsys):
    data, run = shop.data(tmp_path / "data", good=12, faulty=5), tmp_path / "run"
    flags = ["--methods", "median_image", "--methods", "brightness", "--no-robustness"]
    command = ["parts", "train", str(data), "--out", str(run), "--part-pattern", shop.pattern]
    assert main([*command, *flags]) == 0
    report = json.loads((run / "report.json").read_text())
    assert "median_image" in json.dumps(report) and "brightness" in json.dumps(report)
    assert isinstance(
        lineside.load(run / "models" / "median_image").model.detector, example.MedianImage
    )
    new = shop.picture(tmp_path / "new_v1.png", spot=130, seed=9)
    capsys.readouterr()
    model = str(run / "models" / "median_image")
    assert main(["parts", "predict", str(new), "--model", model, "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out.splitlines()[0])["score"] > 0
