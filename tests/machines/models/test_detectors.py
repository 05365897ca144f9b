"""Detectors: against second formulas, one by one as in a batch, and through their arrays."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.svm import OneClassSVM

from lineside.core.errors import UserError
from lineside.core.run.codec import decode, encode
from lineside.machines.models.autoencoders import (
    fit_conv_ae,
    fit_denoising_ae,
    fit_fc_ae,
    fit_lstm_ae,
    fit_vae,
)
from lineside.machines.models.gmm import fit_gmm
from lineside.machines.models.isolation_forest import _average_path, fit_iforest
from lineside.machines.models.knn import fit_knn
from lineside.machines.models.mahalanobis import fit_mahalanobis
from lineside.machines.models.ocsvm import fit_ocsvm
from lineside.machines.models.pca import FOLDS, fit_pca
from lineside.machines.models.reconstruction import Fitting
from lineside.machines.models.trend import fit_trend

FEATURES = 8
SHORT = Fitting(epochs=8)
MEL = ((0, 1, 2, 3), (4, 5, 6, 7))
Fit = Callable[..., Any]
CASES: dict[str, tuple[Fit, dict[str, Any]]] = {
    "trend": (fit_trend, {}),
    "pca": (fit_pca, {}),
    "pca_t2": (fit_pca, {"statistic": "t2"}),
    "pca_spe": (fit_pca, {"statistic": "spe"}),
    "mahalanobis": (fit_mahalanobis, {}),
    "gmm": (fit_gmm, {}),
    "ocsvm": (fit_ocsvm, {}),
    "iforest": (fit_iforest, {"trees": 20}),
    "knn": (fit_knn, {}),
    "fc_ae": (fit_fc_ae, {"fitting": SHORT}),
    "denoising_ae": (fit_denoising_ae, {"fitting": SHORT}),
    "vae": (fit_vae, {"fitting": SHORT}),
    "lstm_ae": (fit_lstm_ae, {"fitting": SHORT}),
    "conv_ae": (
        fit_conv_ae,
        {"fitting": SHORT, "columns": MEL},
    ),
}


def healthy(rows: int = 80, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(rows, 3))
    mixing = np.random.default_rng(99).normal(size=(3, FEATURES))
    return (hidden @ mixing + 0.3 * rng.normal(size=(rows, FEATURES))).astype(np.float32)


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    return {
        name: fit(healthy(), rng=np.random.default_rng(1), **options)
        for name, (fit, options) in CASES.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_one_by_one_is_the_batch_bit_for_bit(fitted: dict[str, Any], name: str) -> None:
    detector, rows = fitted[name], healthy(20, seed=5)
    whole, length = detector.score(rows), detector.history + 1
    alone = [detector.score(rows[i : i + length])[0] for i in range(len(whole))]
    assert len(whole) == len(rows) - detector.history
    assert whole.tolist() == [float(value) for value in alone]
    assert (whole > 0).all()


@pytest.mark.parametrize("name", CASES)
def test_a_far_row_is_more_unusual_and_its_feature_is_named(
    fitted: dict[str, Any], name: str
) -> None:
    detector, rows = fitted[name], healthy(40, seed=6)
    usual = np.median(detector.score(rows))
    far = rows.copy()
    # A forest hardly sees one odd feature among eight.
    far[-1, 3 if name != "iforest" else slice(None)] += 30.0
    assert detector.score(far)[-1] > usual
    parts = detector.contributions(far)
    assert parts.shape == (FEATURES,)
    assert parts.sum() == pytest.approx(1.0)
    assert (parts >= 0).all()
    if name not in ("pca_t2", "conv_ae", "mahalanobis", "fc_ae", "iforest"):
        assert parts.argmax() == 3


@pytest.mark.parametrize("name", CASES)
def test_it_survives_json_and_arrays(fitted: dict[str, Any], name: str) -> None:
    detector, rows = fitted[name], healthy(12, seed=7)
    spec, tensors = encode(detector)
    again = decode(type(detector), json.loads(json.dumps(spec)), tensors)
    assert again.score(rows).tolist() == detector.score(rows).tolist()
    assert again.history == detector.history


def test_the_same_seed_gives_the_same_network() -> None:
    one, two, other = (
        fit_lstm_ae(healthy(), rng=np.random.default_rng(seed), fitting=SHORT) for seed in (3, 3, 4)
    )
    rows = healthy(9, seed=8)
    assert one.score(rows).tolist() == two.score(rows).tolist()
    assert one.score(rows).tolist() != other.score(rows).tolist()


def test_training_tells_the_recorder_and_learns() -> None:
    told: list[dict[str, Any]] = []
    rows = healthy(60)
    long = Fitting(epochs=150, learning_rate=1e-2)
    raw = fit_denoising_ae(rows, rng=np.random.default_rng(0), fitting=Fitting(epochs=0))
    learned = fit_denoising_ae(rows, rng=np.random.default_rng(0), fitting=long, log=told.append)
    assert told
    assert learned.score(rows).mean() < 0.5 * raw.score(rows).mean()


def test_iforest_scores_are_those_of_sklearn() -> None:
    rows = healthy(100)
    detector = fit_iforest(rows, rng=np.random.default_rng(2), trees=30)
    seed = int(np.random.default_rng(2).integers(2**31))
    scaled = detector.scaling(rows)
    reference = IsolationForest(n_estimators=30, random_state=seed).fit(scaled)
    assert detector.score(rows) == pytest.approx(-reference.score_samples(scaled), abs=1e-9)
    assert _average_path(np.array([1, 2]))[:2].tolist() == [0.0, 1.0]


def test_ocsvm_orders_rows_as_sklearn_and_saturates() -> None:
    rows = healthy(100)
    detector = fit_ocsvm(rows)
    reference = OneClassSVM(nu=0.1, gamma=detector.gamma).fit(detector.scaling(rows))
    decided = reference.decision_function(detector.scaling(rows))
    assert np.corrcoef(decided, detector.score(rows))[0, 1] == pytest.approx(-1.0)
    far = detector.score(rows[-1:] + np.float32(1e6))[0]
    assert far == pytest.approx(detector.ceiling)


def test_gmm_differs_from_the_log_density_by_a_constant() -> None:
    rows = healthy(100)
    detector = fit_gmm(rows, rng=np.random.default_rng(4), components=3)
    seed = int(np.random.default_rng(4).integers(2**31))
    mixture = GaussianMixture(
        3, covariance_type="diag", reg_covar=0.01, random_state=seed, n_init=2
    ).fit(detector.scaling(rows))
    summed = mixture.score_samples(detector.scaling(rows)) + detector.score(rows)
    assert np.ptp(summed) < 1e-8


def test_t2_and_spe_against_the_textbook() -> None:
    rows = healthy(100)
    detector = fit_pca(rows, components=3, statistic="t2")
    z = detector.scaling(rows)
    _, _, axes = np.linalg.svd(z, full_matrices=False)
    plane = z @ axes[:3].T
    t2 = (plane @ np.linalg.inv(np.cov(plane.T)) * plane).sum(1)
    spe = ((z - plane @ axes[:3]) ** 2).sum(1)
    assert detector.score(rows) == pytest.approx(t2, rel=1e-6)
    assert fit_pca(rows, components=3, statistic="spe").score(rows) == pytest.approx(spe, rel=1e-6)
    # Left-out blocks, not the fitted rows, say what is usual.
    assert FOLDS == 5
    assert detector.norms[1, 0] > np.log(np.median(spe))


def test_mahalanobis_against_the_inverse_covariance() -> None:
    rows = healthy(400)
    detector = fit_mahalanobis(rows, components=FEATURES)
    z = detector.scaling(rows)
    d = z - z.mean(0)
    expected = (d @ np.linalg.inv(np.cov(z.T)) * d).sum(1)
    assert detector.score(rows) == pytest.approx(expected, rel=1e-6)


def test_trend_by_hand() -> None:
    rows = np.tile(np.linspace(-1, 1, 21, dtype=np.float32)[:, None], (1, 2))
    mean = fit_trend(rows, relative=True, fusion="mean")
    assert np.log(mean.score(np.array([[1.0, 3.0]], np.float32)))[0] == pytest.approx(2.0)
    largest = fit_trend(rows)
    expected = 3.0 / (1.4826 * 0.5)
    assert np.log(largest.score(np.array([[1.0, 3.0]], np.float32)))[0] == pytest.approx(expected)
    falls = np.array([[0.0, -3.0]], np.float32)
    assert np.log(largest.score(falls))[0] == pytest.approx(0.0)
    both = fit_trend(rows, both_ways=True)
    assert np.log(both.score(falls))[0] == pytest.approx(expected)


def test_bad_rows_are_refused() -> None:
    with pytest.raises(UserError, match="too few"):
        fit_pca(healthy(4))
    broken = healthy(40)
    broken[3, 2] = np.nan
    with pytest.raises(UserError, match="NaN"):
        fit_knn(broken)
    with pytest.raises(UserError, match="log-mel"):
        fit_conv_ae(healthy(), rng=np.random.default_rng(0), columns=((0, 1),))
    constant = healthy(40)
    constant[:, 1] = 2.0
    assert np.isfinite(fit_pca(constant).score(constant)).all()
