import json
from pathlib import Path

import pytest
import torch

from lineside.core.errors import UserError
from lineside.core.run import model_store


class Toy:
    def __init__(self, tensors):
        self._tensors = tensors

    def spec(self):
        return {"a": 1.5, "pair": (1, 2)}

    def tensors(self):
        return self._tensors

    def calibration_block(self):
        return {}


def test_tensors_that_share_memory_or_lie_column_wise_are_stored():
    square = torch.arange(9.0).reshape(3, 3)
    model = Toy({"x": square, "same": square, "turned": square.T, "part": square[:, 1]})
    plain = Toy({k: v.clone().contiguous() for k, v in model.tensors().items()})
    assert model_store.identity_of("parts", model) == model_store.identity_of("parts", plain)


def test_a_model_is_replaced_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = tmp_path / "models" / "m"
    first = model_store.save_model(folder, "parts", Toy({"x": torch.zeros(2)}), card="one")
    with monkeypatch.context() as patch:
        patch.setattr(model_store, "write_sealed", _full)
        with pytest.raises(UserError, match="disk is full"):
            model_store.save_model(folder, "parts", Toy({"x": torch.ones(2)}), card="two")
    assert json.loads((folder / "model.json").read_text())["id"] == first
    assert [p.name for p in folder.parent.iterdir()] == ["m"], "no draft is left"
    second = model_store.save_model(
        folder, "parts", Toy({"x": torch.ones(2)}), card="two", beside={"used.csv": "item\n"}
    )
    assert second != first
    assert (folder / "MODEL_CARD.md").read_text() == "two"
    assert (folder / "used.csv").read_text() == "item\n"
    assert [p.name for p in folder.parent.iterdir()] == ["m"]


def _full(path, value):
    raise OSError(28, "No space left on device")


def test_runs_nearby_are_named_without_a_search_of_the_whole_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/status.json", "b/c/status.json", "b/c/d/e/status.json"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("{}")
    with pytest.raises(UserError, match=r"runs here: a, b/c$"):
        model_store.model_folder(Path("run"))


def test_a_model_of_an_older_format_is_refused_in_one_line(tmp_path):
    folder = tmp_path / "m"
    model_store.save_model(folder, "parts", Toy({"x": torch.zeros(2)}))
    description = json.loads((folder / "model.json").read_text())
    assert description["format"] == 2 and description.pop("lineside")
    (folder / "model.json").write_text(json.dumps({**description, "format": 1}))
    says = "m has format 1, written by lineside 0.1.0; this version reads format 2 - train the"
    with pytest.raises(UserError, match=says):
        model_store.application_of(folder)
