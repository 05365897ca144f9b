"""Benchmarks of `parts`; every result can be made alone and is kept, so that a stop loses little.

Run: ``python -m benchmarks.parts --list``, ``python -m benchmarks.parts --only NAME``, or all:
``python -m benchmarks.parts`` (hours on two cores). Numbers go to ``docs/results/parts.json``.
Development images lie outside the project; a benchmark whose data are absent says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from benchmarks.core.certificate_simulation import simulate_certificates
from benchmarks.parts import adversary, findings, pictures_opened, resources, sets, tile_audit
from benchmarks.parts import robustness as robust
from benchmarks.parts import tiles as tile
from benchmarks.parts.cross_validation import (
    Fold,
    difference_of,
    estimate_of,
    mean_of,
    only_kind,
    without_labels,
)
from benchmarks.results import Say, plain, print_results, run_results
from lineside.core.contract import Estimate, Outcome
from lineside.parts.config import METHOD_NAMES

CALIBRATION_PARTS = 30
"""Of the tiles' faulty parts: 29 are the fewest that can prove a recall of 0.90."""
CLASSICAL = ("texture", "gaussian", "pca", "golden_template", "brightness")
REGIMES = dict.fromkeys(("detector", "patch_cnn", "texture"), "labelled")
ABBREVIATIONS = {
    "auroc": "auroc",
    "ap": "ap",
    "frr95": "frr_at_recall95",
    "frr100": "frr_at_recall100",
}


def run_folds(method: str, regime: str, *, without: str = "", maps: bool = False) -> list[Fold]:
    """Return all folds of all splits, computing those that are not stored."""
    found = []
    for seed in tile.SEEDS:
        for fold in range(tile.FOLDS):
            found.append(
                tile.fold_outcome(method, seed, fold, regime=regime, without=without, maps=maps)
            )
            print(
                f"  {method} {regime} {without} split {seed} fold {fold}",
                file=sys.stderr,
                flush=True,
            )
    return found


def tile_goodonly(say: Say) -> None:
    """The default method shown good images only."""
    found = run_folds("detector", "good", maps=True)
    say("tile_goodonly_auroc", estimate_of(found, "auroc"))
    say("tile_goodonly_frr_at_recall95", estimate_of(found, "frr95"))
    say("tile_goodonly_frr_at_recall100", estimate_of(found, "frr100"))
    say("tile_goodonly_ap", estimate_of(found, "ap"))
    say("tile_goodonly_aupro30", _aupro(found))
    _kinds(say, "tile_goodonly_auroc", found)


def tile_labelled(say: Say) -> None:
    """The default method with labels and masks."""
    found = run_folds("detector", "labelled", maps=True)
    say("tile_labelled_auroc", estimate_of(found, "auroc"))
    say("tile_frr_at_recall95", estimate_of(found, "frr95"))
    say("tile_frr_at_recall100", estimate_of(found, "frr100"))
    say("tile_labelled_ap", estimate_of(found, "ap"))
    say("tile_aupro30", _aupro(found))
    _kinds(say, "tile_labelled_auroc", found)


def tile_nested(say: Say) -> None:
    """The default method with labels, beside its own good-only scores on the same test images.

    What the head counts is chosen inside the training parts of each fold. It takes the fits of
    `tile_labelled`; alone it makes them: about 1.5 CPU minutes a fold with the trunk's passes in
    memory, 15 folds, 30 minutes with the passes (measured beside other work).
    """
    found = run_folds("detector", "labelled", maps=True)
    alone = [without_labels(fold) for fold in found]
    say("tile_nested_labelled_auroc", estimate_of(found, "auroc"))
    say("tile_nested_goodonly_auroc", estimate_of(alone, "auroc"))
    say("tile_nested_difference_auroc", difference_of(found, alone, "auroc"))
    say("tile_nested_labelled_frr_at_recall95", estimate_of(found, "frr95"))
    say("tile_nested_goodonly_frr_at_recall95", estimate_of(alone, "frr95"))


def tile_unseen_kind(say: Say) -> None:
    """Leave one kind of defect out of training; test good images against that kind."""
    with_labels, good_only = [], []
    base = run_folds("detector", "good", maps=True)
    for kind in tile.KINDS:
        found = run_folds("detector", "labelled", without=kind)
        ours = _mean_kind(found, kind)
        theirs = _mean_kind(base, kind)
        say(f"tile_unseen_kind_auroc_{kind}", ours)
        say(f"tile_unseen_kind_goodonly_auroc_{kind}", theirs)
        with_labels.append(ours.value)
        good_only.append(theirs.value)
    reason = "mean over kinds; intervals per kind"
    n = len(tile.KINDS)
    say("tile_unseen_kind_auroc", plain(float(np.mean(with_labels)), "fraction", n, reason=reason))
    say(
        "tile_unseen_kind_goodonly_auroc",
        plain(float(np.mean(good_only)), "fraction", n, reason=reason),
    )


def tile_rivals(say: Say) -> None:
    """Every other quick method; the best classical one stands beside the default method."""
    best: tuple[float, str] = (0.0, "")
    for method in METHOD_NAMES:
        if method in ("detector", "patch_cnn"):
            continue
        found = run_folds(method, REGIMES.get(method, "good"), maps=True)
        for measure, name in ABBREVIATIONS.items():
            say(f"tile_{method}_{name}", estimate_of(found, measure))
        say(f"tile_{method}_aupro30", _aupro(found))
        _costs(say, method, found)
        if method in CLASSICAL:
            best = max(best, (mean_of(found, "auroc"), method))
    winner = run_folds(best[1], REGIMES.get(best[1], "good"), maps=True)
    value = estimate_of(winner, "auroc")
    say("tile_classical_auroc", dataclasses.replace(value, method=f"{best[1]}; {value.method}"))


def tile_patch_cnn(say: Say) -> None:
    """The patch CNN of the original work, which takes longest."""
    found = run_folds("patch_cnn", "labelled", maps=True)
    for measure, name in ABBREVIATIONS.items():
        say(f"tile_patch_cnn_{name}", estimate_of(found, measure))
    say("tile_patch_cnn_aupro30", _aupro(found))
    _costs(say, "patch_cnn", found)


def certificate(say: Say) -> None:
    """Do certificates by part keep their promise in 1,000 resamplings of held-out scores?"""
    outcomes = _held_out_outcomes()
    found = simulate_certificates(
        outcomes, np.random.default_rng(0), repetitions=1000, n_calibration=CALIBRATION_PARTS
    )
    for name, simulation in found.items():
        key = name.replace(", ", "_").replace(" ", "_")
        count = simulation.repetitions
        say(f"certificate_violation_{key}", plain(simulation.violation, "fraction", count, "lower"))
        say(f"certificate_expected_{key}", plain(simulation.expected, "fraction", count, "lower"))
    by_part = found["by group"]
    say("certificate_excess_sigma", plain(by_part.excess_sigma, "standard errors", 1000, "lower"))


def _held_out_outcomes() -> list[Outcome]:
    """Return cross-validated scores of split 0, scaled per fold to good images' mean and spread."""
    outcomes = []
    for fold in range(tile.FOLDS):
        found = tile.fold_outcome("detector", 0, fold, regime="labelled", maps=True)
        good = found.scores[found.labels == 0]
        scores = (found.scores - good.mean()) / max(float(good.std()), 1e-9)
        outcomes += [
            Outcome(
                item=f"{fold}-{i}", groups=(part,), unit=part, slices={"kind": kind},
                value={"score": float(score), "label": float(label)},
            )
            for i, (part, kind, score, label) in enumerate(
                zip(found.parts, found.kinds, scores, found.labels, strict=True)
            )
        ]  # fmt: skip
    return outcomes


def _aupro(found: Sequence[Fold]) -> Estimate:
    """Return the mean over folds; its interval takes the folds of a split as all there is."""
    values = [fold.aupro30 for fold in found if not np.isnan(fold.aupro30)]
    mean = float(np.mean(values))
    reach = float(stats.t.ppf(0.975, tile.FOLDS - 1) * np.std(values, ddof=1) / tile.FOLDS**0.5)
    return Estimate(
        value=mean,
        low=mean - reach,
        high=min(1.0, mean + reach),
        n=tile.FOLDS,
        method="mean over folds and splits; t interval over the folds of one split, 95 %",
    )


def _mean_kind(found: Sequence[Fold], kind: str) -> Estimate:
    """Return AUROC of good images against one kind, with an interval from resampling parts."""
    return estimate_of([only_kind(fold, kind) for fold in found], "auroc")


def _kinds(say: Say, name: str, found: Sequence[Fold]) -> None:
    for kind in tile.KINDS:
        say(f"{name}_{kind}", _mean_kind(found, kind))


def _costs(say: Say, method: str, found: Sequence[Fold]) -> None:
    """Publish times, unless trunk passes were kept in memory."""
    if not found[0].read_ms:
        return
    seconds = [fold.fit_seconds for fold in found]
    times = np.concatenate([fold.read_ms for fold in found])
    count = len(found)
    say(f"tile_{method}_fit_seconds", plain(float(np.median(seconds)), "s", count, "lower"))
    say(
        f"tile_{method}_read_ms_p50",
        plain(float(np.percentile(times, 50)), "ms", len(times), "lower"),
    )
    say(
        f"tile_{method}_read_ms_p95",
        plain(float(np.percentile(times, 95)), "ms", len(times), "lower"),
    )


ONE_SEED = (
    "help", "resources", "many_images", "learned_share", "pictures_opened", "audit",
    "certificate", "adversary",
)  # fmt: skip
"""Results that come from one seed (0) only."""
RESULTS: dict[str, Callable[[Say], None]] = {
    "help": resources.help_seconds,
    "resources": resources.fit_and_predict,
    "many_images": resources.fit_many_images,
    "learned_share": resources.learned_share,
    "pictures_opened": pictures_opened.pictures_opened,
    "audit": tile_audit.audit_pairs,
    "tile_goodonly": tile_goodonly,
    "tile_labelled": tile_labelled,
    "tile_nested": tile_nested,
    "certificate": certificate,
    "tile_unseen_kind": tile_unseen_kind,
    "tile_rivals": tile_rivals,
    "tile_patch_cnn": tile_patch_cnn,
    "elpv": sets.solar_cells,
    "demo": sets.demo_set,
    "robustness": robust.robustness,
    "findings": findings.findings,
    "findings_demo": findings.findings_demo,
    "adversary": adversary.adversary,
}


def main() -> int:
    """Run the named results, or all of them in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=RESULTS, default=None)
    parser.add_argument("--splits", type=int, nargs="+", default=tile.SEEDS)
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    tile.SEEDS = tuple(options.splits)
    if options.list:
        print_results(RESULTS)
        return 0
    splits = ["--splits", *map(str, options.splits)]
    return run_results(
        "parts", RESULTS, options.only, lambda n: (0,) if n in ONE_SEED else tile.SEEDS, splits
    )


if __name__ == "__main__":
    sys.exit(main())
