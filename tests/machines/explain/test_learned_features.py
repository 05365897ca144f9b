"""What the report shows of an autoencoder: errors over its training, codes and prototypes."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch

from lineside.machines.data import find_snapshots
from lineside.machines.explain.learned_features import TrainingOnlooker, unexplained
from lineside.machines.explain.learned_figures import (
    draw_codes,
    draw_errors,
    draw_prototypes,
    learned_figures,
)
from lineside.machines.methods import DETECTORS
from lineside.machines.models.networks import build_network
from lineside.machines.models.reconstruction import Fitting
from lineside.machines.simulation.demo import save_history
from lineside.machines.simulation.rig import Rig
from lineside.machines.simulation.scenarios import Scenario, simulate_history
from lineside.machines.training.fitting import fit_machine

SIZES = {
    "dense": {"features": 12, "hidden": [8, 3, 8]},
    "vae": {"features": 12, "hidden": 8, "latent": 3},
    "lstm": {"features": 12, "outer": 6, "inner": 2},
    "mel": {"channels": 2, "mels": 6, "width": 4, "latent": 3},
}


@pytest.mark.parametrize("kind", SIZES)
def test_a_network_draws_what_it_reconstructs_from_its_code(kind):
    network = build_network(kind, SIZES[kind], seed=1).eval()
    window = torch.randn(5, 4 if kind == "lstm" else 1, 12, generator=torch.manual_seed(0))
    with torch.inference_mode():
        latent = network.latent(window)
        assert latent.shape[0] == 5 and latent.shape[1] < 12
        torch.testing.assert_close(network.decode(latent), network(window))


def test_the_unexplained_share_of_a_perfect_and_of_an_ignorant_network():
    windows = torch.randn(200, 1, 3, generator=torch.manual_seed(0))
    windows[:, :, 2] = 4.0  # never changes

    def half(window):
        drawn = window[:, -1].clone()
        drawn[:, 1] = windows[:, -1, 1].mean()
        return drawn

    shares = unexplained(half, windows)
    np.testing.assert_allclose(shares[:2], [0.0, 1.0], atol=1e-6)
    assert np.isnan(shares[2])


@pytest.mark.parametrize("method", ["fc_ae", "denoising_ae", "vae", "lstm_ae"])
def test_looking_changes_no_bit_of_the_fit(method):
    rows = np.random.default_rng(0).normal(size=(60, 10)).astype(np.float32)

    def weights(watch):
        torch.manual_seed(5)
        fitting = Fitting(epochs=3, **({"watch": watch} if watch else {}))
        rng = np.random.default_rng(1)
        found = DETECTORS[method].fit(rows, rng=rng, fitting=fitting)
        return [*found.network.state_dict().values(), torch.rand(1), torch.tensor(rng.random())]

    onlooker = TrainingOnlooker()
    for one, two in zip(weights(None), weights(onlooker.watch), strict=True):
        assert torch.equal(one, two)
    assert not onlooker.failure and onlooker.seconds > 0


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pump")
    scenario = Scenario(
        name="pump", rig=Rig(seconds=0.1), days=14.0, interval_hours=3.0, onset_day=None,
        run_in=0.0, relative_speeds=(0.8, 1.2),
    )  # fmt: skip
    save_history(simulate_history(scenario, np.random.default_rng(3)), folder / "pump")
    return find_snapshots(folder)


def fit(items, onlooker, method="vae"):
    return fit_machine(
        items[:70], method, rng=np.random.default_rng(0), held_out=items[70:], onlooker=onlooker
    )


@pytest.fixture(scope="module")
def learned(items):
    onlooker = TrainingOnlooker()
    fit(items, onlooker)
    assert not onlooker.failure
    return pickle.loads(pickle.dumps(onlooker)).learned  # as it comes back from a worker


def test_a_fitted_machine_is_shown_with_names_units_and_what_is_suspicious(learned):
    assert learned.steps[0] == 0 and len(learned.steps) == len(learned.unexplained)
    assert 0 < (~learned.fitted).sum() < learned.fitted.sum() == 70
    assert learned.prototypes.shape == (3, len(learned.names)) and set(learned.members) == {0, 1, 2}
    line, errors, codes, prototypes = learned_figures([learned])
    assert "pump" in line and "Pictures: pump" in line
    text = prototypes.image.decode()
    assert "frequency [Hz]" in text and "dB re 1 (g)" in text
    assert "speed" in codes.image.decode() and "days" in codes.image.decode()
    for figure in (errors, codes, prototypes):
        assert "uspicious" in figure.caption or "decided" in figure.caption


def test_what_was_learned_first_and_what_never_are_named(learned):
    names = tuple(f"value.v{i}" for i in range(4))
    path = np.array([[1.0, 1.0, 1.0, np.nan], [0.2, 1.0, 0.9, np.nan], [0.1, 0.3, 0.9, np.nan]])
    known = dataclasses.replace(
        learned, names=names, steps=(0, 5, 50), unexplained=path,
        unexplained_later=np.array([0.1, 0.3, 0.95, np.nan]),
    )  # fmt: skip
    caption = draw_errors(known).caption
    assert "Learned first: v0 (update 5), v1 (update 50)." in caption
    assert "Never learned: v2;" in caption and "v3" not in caption
    assert "too few were learned" not in caption
    worse = dataclasses.replace(known, unexplained_later=np.array([0.9, 1.0, 1.5, np.nan]))
    assert "SUSPICIOUS: 3 of 4 groups are drawn far worse" in draw_errors(worse).caption
    assert "SUSPICIOUS" not in caption


def test_codes_that_follow_time_are_called_suspicious(learned):
    time = (learned.times - learned.times.min()) / np.ptp(learned.times)
    noise = np.random.default_rng(0).normal(size=len(time))
    drifting = dataclasses.replace(learned, codes=np.stack([time, 0.05 * noise], axis=1))
    calm = dataclasses.replace(learned, codes=np.stack([noise, noise[::-1]], axis=1))
    assert "SUSPICIOUS: the machine was changing" in draw_codes(drifting).caption
    assert "the machine was changing" not in draw_codes(calm).caption


def test_a_machine_without_waveforms_shows_its_values(learned):
    names = ("value.Temperature", "value.Flow")
    slow = dataclasses.replace(
        learned, names=names, prototypes=np.array([[40.0, 1.0], [50.0, 1.0], [60.0, 1.0]]),
        mean=np.array([50.0, 1.0]), spread=np.array([10.0, 0.1]),
        unexplained=np.ones((len(learned.steps), 2)), unexplained_later=np.full(2, np.nan),
    )  # fmt: skip
    assert "Temperature: 40 to 60" in draw_prototypes(slow).image.decode()
    assert draw_errors(slow).image


def test_an_error_while_looking_is_kept_and_the_machine_is_fitted(items, monkeypatch):
    def broken(network, windows):
        raise ValueError("no\nluck")

    monkeypatch.setattr("lineside.machines.explain.learned_features.unexplained", broken)
    onlooker = TrainingOnlooker()
    machine = fit(items, onlooker)
    assert machine.main.detector is not None and onlooker.learned is None
    assert onlooker.failure == "ValueError: no luck"
