"""Teaching a stored model, and calibrating it anew: parents, suspension, refusals."""

import csv
import dataclasses
import json

import numpy as np
import pytest

import lineside
from lineside.cli import main
from lineside.core.errors import UserError
from lineside.core.run import model_store
from lineside.core.run.codec import encode
from lineside.core.run.tables import refuse_known
from lineside.parts.config import Config
from lineside.parts.data.images import training_image
from lineside.parts.data.items import PartImage
from lineside.parts.methods import DetectorMethod
from lineside.parts.model import Settings, fit_references, make_model
from lineside.parts.models.detector import Prediction
from lineside.parts.models.feature_head.feature_head import fit_detector
from lineside.parts.outcomes import calibrate, outcomes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pupil:
    """A detector that can be taught: the score is the largest value minus a lesson."""

    lesson: float = 0.0

    def predict(self, image):
        score = float(255 * image.max()) - self.lesson
        return Prediction(score=score, map=np.full((4, 4), score, np.float32))

    def update(self, examples, *, rng):
        scores = [self.predict(example.image()).score for example in examples if not example.faulty]
        return Pupil(lesson=self.lesson + (max(scores) if scores else 0.0))


@pytest.fixture
def taught_run(run, monkeypatch):
    """The trained run with a model that can be taught as the chosen one."""
    monkeypatch.setattr(DetectorMethod, "detector_class", lambda self: Pupil)
    return _with(run, Pupil())


def _with(run, detector):
    description = json.loads((run / "models/gaussian/model.json").read_text())
    tensors = {k: v for k, v in _tensors(run).items() if k.startswith("library.")}

    class Stored:
        def spec(self):
            return {**description["spec"], "detector": encode(detector)[0]}

        def tensors(self):
            mine = {f"detector.{k}": v for k, v in encode(detector)[1].items()}
            return {**tensors, **mine}

        def calibration_block(self):
            return description["calibration"]

    model_store.save_model(run / "models/gaussian", "parts", Stored())
    return run


def _tensors(run):
    from safetensors.torch import load_file

    return load_file(run / "models/gaussian/model.safetensors")


def items_of(run, role):
    with (run / "split.csv").open(newline="") as stream:
        return [row["item"] for row in csv.DictReader(stream) if row["role"] == role]


def feedback(run, *tokens):
    return main(["parts", "feedback", "--model", str(run), *map(str, tokens)])


def recalibrate(run, data, *tokens):
    return main(["parts", "recalibrate", str(data), "--model", str(run), *map(str, tokens)])


def test_a_child_is_made_chosen_and_suspended(taught_run, shop, tmp_path, capsys):
    parent = lineside.load(taught_run).model
    rejected = shop.picture(tmp_path / "new" / "x_v1.png", seed=1)
    missed = shop.picture(tmp_path / "new" / "y_v1.png", spot=60, seed=2)
    assert feedback(taught_run, "--false-reject", rejected, "--missed", missed) == 0
    told = capsys.readouterr().out
    child = lineside.load(taught_run).model
    home = taught_run / "models" / "gaussian-taught1"
    assert json.loads((home / "model.json").read_text())["parent"] == parent.identity
    assert child.identity != parent.identity and child.identity in told
    assert child.detector.lesson > 0
    assert "updated by feedback" in child.suspended and child.certificate.startswith("suspended")
    assert lineside.load(taught_run / "models" / "gaussian").model.suspended == ""
    assert str(missed) in (home / "MODEL_CARD.md").read_text()
    main(["parts", "predict", str(missed), "--model", str(taught_run)])
    assert "certificate is suspended" in capsys.readouterr().err
    assert feedback(taught_run, "--false-reject", rejected) == 0
    second = taught_run / "models" / "gaussian-taught2"
    assert json.loads((second / "model.json").read_text())["parent"] == child.identity


def test_recalibration_lifts_the_suspension_with_the_settings_of_the_run(
    taught_run, shop, tmp_path, capsys
):
    fresh = shop.data(tmp_path / "fresh", good=6, faulty=3, seed=7)
    assert feedback(taught_run, "--missed", shop.picture(tmp_path / "y_v1.png", 60)) == 0
    identity = lineside.load(taught_run).model.identity
    assert recalibrate(taught_run, fresh, "--max-escape", 0.2) == 0
    model = lineside.load(taught_run).model
    assert model.suspended == "" and model.identity == identity
    point = model.operating.point
    assert (point.n_negative, point.n_positive) == (6, 3), (
        "counted by part: the pattern is the run's"
    )
    assert point.recall == pytest.approx(0.8)
    assert recalibrate(taught_run, fresh) == 0, "the same parts may set another point"
    assert lineside.load(taught_run).model.operating.point.recall == pytest.approx(0.95)
    assert main(["parts", "evaluate", str(fresh), "--model", str(taught_run)]) == 2
    assert "were used to make" in capsys.readouterr().err


def test_recalibration_refuses_what_the_model_or_its_parents_learned_from(
    taught_run, trained, shop, tmp_path, capsys
):
    data = trained.parent / "data"
    assert recalibrate(taught_run, data) == 2
    fresh = shop.data(tmp_path / "fresh", good=6, faulty=3, seed=7)
    assert feedback(taught_run, "--missed", fresh / "defect/spot/d00_v1.png") == 0
    assert feedback(taught_run, "--false-reject", shop.picture(tmp_path / "z_v1.png")) == 0
    capsys.readouterr()
    assert recalibrate(taught_run, fresh) == 2
    assert "2 of 18 items were used" in capsys.readouterr().err, "the other view counts as well"
    assert recalibrate(taught_run, data) == 2
    assert lineside.load(taught_run).model.suspended
    for view in (1, 2):
        (fresh / f"defect/spot/d00_v{view}.png").unlink()
    assert recalibrate(taught_run, fresh) == 0


def test_an_unreadable_picture_is_listed_and_the_rest_calibrates(
    taught_run, shop, tmp_path, capsys
):
    fresh = shop.data(tmp_path / "fresh", good=6, faulty=3, seed=7)
    (fresh / "good" / "q_v1.png").write_bytes(b"")
    assert recalibrate(taught_run, fresh) == 2
    assert "q_v1.png" in capsys.readouterr().err
    assert lineside.load(taught_run).model.operating.point.n_negative == 6


@pytest.mark.parametrize("case", ["none", "gone", "both", "deaf"])
def test_what_cannot_be_taught_changes_nothing(
    taught_run, shop, tmp_path, capsys, monkeypatch, case
):
    picture = shop.picture(tmp_path / "y_v1.png", 60)
    tokens = {
        "none": [],
        "gone": ["--missed", picture, tmp_path / "gone.png"],
        "both": ["--missed", picture, "--false-reject", picture],
        "deaf": ["--missed", picture],
    }[case]
    if case == "deaf":
        monkeypatch.delattr(Pupil, "update")
    assert feedback(taught_run, *tokens) == 2
    words = {"none": "nothing to learn", "gone": "gone.png", "both": "once", "deaf": "be updated"}
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error")]
    assert len(lines) == 1 and words[case] in lines[0]
    assert sorted(p.name for p in (taught_run / "models").iterdir()) == ["brightness", "gaussian"]


def _item(path, label="good"):
    return PartImage(id=path.name, path=path, label=label, part=path.name)


def test_the_real_detector_learns_a_missed_defect(run, shop, tmp_path, monkeypatch):
    """A faint defect that is missed scores higher after feedback; a loaded model scores alike."""
    monkeypatch.setattr("lineside.parts.models.feature_head.incremental.STEPS_ON", 80)
    made = [_item(shop.picture(tmp_path / "t" / f"g{i}.png", 0, 400 + i)) for i in range(11)]
    spots = [shop.picture(tmp_path / "t" / f"s{i}.png", 60, 450 + i) for i in range(3)]
    examples = [training_image(i) for i in [*made[:7], *(_item(path, "spot") for path in spots)]]
    detector = fit_detector(
        examples, [], rng=np.random.default_rng(0), log=lambda row: None,
        hidden=16, least_steps=30, most_steps=30,
    )  # fmt: skip
    references = fit_references(examples, np.random.default_rng(0))
    model = make_model("detector", detector, Settings(), references)
    model = calibrate(model, list(outcomes(model, made[7:])), Config())
    model_store.save_model(run / "models" / "gaussian", "parts", model)
    stored = lineside.load(run).model
    again = [stored.predict_image(example.image()).score for example in examples[-4:]]
    assert again == [model.predict_image(example.image()).score for example in examples[-4:]]
    missed = [shop.picture(tmp_path / "m" / f"m{i}.png", 25, 500 + i) for i in range(4)]
    assert feedback(run, "--missed", *missed, "--kind", "faint") == 0
    child = lineside.load(run).model
    assert child.detector.kinds == {"faint": 4, "spot": 3}
    before = [result.score for result in stored.predict([_item(path, "") for path in missed])]
    after = [result.score for result in child.predict([_item(path, "") for path in missed])]
    assert np.mean(after) > np.mean(before)
    with pytest.raises(UserError, match="4 of 4"):
        refuse_known([_item(path, "faint") for path in missed], model_store.model_folder(run))
