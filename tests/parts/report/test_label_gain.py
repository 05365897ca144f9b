"""Did labels help? The score beside its good-only term, paired on the same test parts."""

from types import SimpleNamespace

import numpy as np
import pytest

from lineside.core.contract import Outcome
from lineside.core.statistics.estimates import estimate
from lineside.core.statistics.ranking import auroc
from lineside.parts.metrics import METRICS
from lineside.parts.report.label_gain import label_gain, verdict

COUNT = 30


def study_of(with_labels, without):
    """A study of one method whose parts have these scores, the first half good."""
    outcomes = [
        Outcome(
            item=f"i{i}", groups=(f"p{i}",), unit=f"p{i}",
            value={"score": float(score), "label": float(i >= COUNT), "good_only": float(alone)},
        )
        for i, (score, alone) in enumerate(zip(with_labels, without, strict=True))
    ]  # fmt: skip
    return study_with(outcomes)


def study_with(outcomes):
    rng = np.random.default_rng(0)
    method = SimpleNamespace(
        name="detector",
        outcomes={"test": outcomes},
        estimates={metric.name: estimate(outcomes, metric, rng) for metric in METRICS},
    )
    run = SimpleNamespace(rng=lambda name: np.random.default_rng(0))
    return SimpleNamespace(best=method, methods=[method], run=run)


@pytest.fixture
def alone():
    rng = np.random.default_rng(1)
    return np.r_[rng.normal(0, 1, COUNT), rng.normal(1, 1, COUNT)]


def test_labels_that_help_are_said_to_help_with_the_paired_difference(alone):
    faulty = np.arange(2 * COUNT) >= COUNT
    study = study_of(alone + 2 * faulty, alone)
    gain = auroc(alone + 2 * faulty, faulty) - auroc(alone, faulty)
    assert verdict(study).startswith("The labels helped: image AUROC")
    assert f"difference {gain:+.3f} [+" in verdict(study)
    section = label_gain(study)
    first = section.blocks[0].rows[0]
    assert section.lead == verdict(study)
    assert first[0] == "image AUROC"
    assert first[2].startswith(f"{auroc(alone, faulty):.3f} [")
    assert first[3].startswith(f"{gain:.3f} [")


def test_labels_that_do_nothing_more_than_chance_are_said_not_to_help(alone):
    noise = np.random.default_rng(2).normal(0, 0.3, 2 * COUNT)
    assert "did NOT help by more than chance" in verdict(study_of(alone + noise, alone))


def test_a_head_without_weight_is_said_not_to_help(alone):
    assert verdict(study_of(alone, alone)).startswith("The labels did NOT help: ")


def test_labels_that_harm_are_said_to_harm(alone):
    good = np.arange(2 * COUNT) < COUNT
    assert verdict(study_of(alone + 2 * good, alone)).startswith("The labels did HARM")


def test_a_training_without_labels_says_nothing(alone):
    study = study_with(
        [
            Outcome(item=f"i{i}", groups=(f"p{i}",), value={"score": s, "label": float(i % 2)})
            for i, s in enumerate(alone.tolist())
        ]
    )
    assert verdict(study) == ""
    assert not label_gain(study).blocks


def test_without_faulty_test_parts_nothing_is_claimed(alone):
    study = study_of(alone[:COUNT], alone[:COUNT])
    assert verdict(study) == ""
    assert not label_gain(study).blocks
