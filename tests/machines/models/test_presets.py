"""The preset of the study of 2019: its constants, and that they reach a learned machine."""

import json

import numpy as np
import pytest

from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.core.run.codec import decode, encode
from lineside.core.run.folder import Stopped
from lineside.machines.data import find_snapshots
from lineside.machines.models.presets import preset
from lineside.machines.models.scaling import Scaling, fit_scaling
from lineside.machines.training.fitting import fit_machine

SNAPSHOTS, SAMPLES = 60, 512


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory):
    """Two channels of noise around a tone, as a history with times of its own."""
    folder = tmp_path_factory.mktemp("rig") / "pump"
    folder.mkdir()
    rng = np.random.default_rng(0)
    tone = 200 * np.sin(2 * np.pi * 0.1 * np.arange(SAMPLES))
    acc = (tone + 100 * rng.normal(size=(SNAPSHOTS, 2, SAMPLES))).astype(np.int16)
    times = 600.0 * np.arange(SNAPSHOTS)
    np.savez(folder / "history.npz", acc=acc, scale=0.002, fs=25_600.0, t=times)
    return [s for s in find_snapshots(folder) if not isinstance(s, Refusal)]


def learn(snapshots, method, stop=lambda: False):
    options = preset("beyond-imagenet").get(method, {})
    return fit_machine(
        snapshots, method, rng=np.random.default_rng(0), log=lambda row: None, stop=stop,
        options=options,
    )  # fmt: skip


def test_the_study_of_2019_is_one_preset():
    study = preset("beyond-imagenet")
    assert list(study) == [
        "ocsvm", "gmm", "mahalanobis", "pca", "fc_ae", "lstm_ae", "denoising_ae", "vae",
    ]  # fmt: skip
    assert study["ocsvm"]["nu"] == 0.1
    assert study["gmm"]["components"] == 16
    assert study["mahalanobis"]["components"] == 50
    assert study["pca"]["statistic"] == "spe"
    assert len(study["fc_ae"]["hidden"]) == 5
    assert (study["lstm_ae"]["outer"], study["lstm_ae"]["inner"]) == (10, 4)
    assert study["denoising_ae"]["hidden"] == 10
    assert (study["vae"]["hidden"], study["vae"]["latent"]) == (32, 4)
    for options in study.values():
        fitting = options.get("fitting")
        assert options.get("scaling", fitting and fitting.scaling) == "energies"
        assert fitting is None or (fitting.epochs, fitting.batch) == (50, 20)
    with pytest.raises(UserError, match="unknown preset"):
        preset("imagenet")
    assert preset("default") == {}


def test_energies_are_scaled_by_their_median_and_mad():
    rows = np.log(np.array([[1.0, 2e-12], [2.0, 3e-12], [4.0, 7e-12]] * 4, np.float32))
    scaling = fit_scaling(rows, "energies")
    assert scaling.center == pytest.approx([2.0, 3e-12], rel=1e-6)
    assert scaling.spread == pytest.approx([1.0, 1e-12], rel=1e-5)
    assert scaling(rows[:3])[:, 1] == pytest.approx([-1.0, 0.0, 4.0], abs=1e-4)
    again = decode(Scaling, *encode(scaling))
    assert again.undo_log and np.array_equal(again(rows), scaling(rows))
    assert not decode(Scaling, *encode(fit_scaling(rows, "robust"))).undo_log
    with pytest.raises(UserError, match="infinity"):
        fit_scaling(rows + 800.0, "energies")


@pytest.mark.parametrize("method", ["ocsvm", "gmm", "mahalanobis", "pca", "denoising_ae"])
def test_the_constants_reach_a_machine_through_the_configuration(snapshots, method):
    main = learn(snapshots, method).main
    assert len(main.columns) == 200  # 100 sub-bands of either channel, nothing else
    assert main.detector.scaling.undo_log
    spec, tensors = encode(main.detector)
    constants = json.dumps(spec)
    expected = {
        "ocsvm": "gamma" in constants,
        "gmm": len(tensors.get("weights", ())) == 16,
        "mahalanobis": np.linalg.matrix_rank(tensors.get("whitening", np.eye(1))) == 50,
        "pca": '"spe"' in constants and len(tensors.get("axes", ())) == 50,
        "denoising_ae": '"hidden": [10]' in constants,
    }
    assert expected[method]


def test_a_training_with_the_preset_can_be_stopped(snapshots):
    with pytest.raises(Stopped):
        learn(snapshots, "vae", stop=lambda: True)


def test_the_preset_needs_waveforms(tmp_path):
    lines = ["time,temperature"]
    lines += [f"2026-01-01 {i // 60:02}:{i % 60:02}:00,{20 + i % 7}" for i in range(60)]
    (tmp_path / "oven.csv").write_text("\n".join(lines))
    slow = [s for s in find_snapshots(tmp_path) if not isinstance(s, Refusal)]
    with pytest.raises(UserError, match="needs waveforms"):
        learn(slow, "pca")
