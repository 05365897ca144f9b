"""Attacks on own networks and the trace that they leave, on crops of the magnetic tiles.

Protocol: 64-px crops of good tiles against blowholes and cracks; the parts are cut into five
folds, and each of five networks (VGG11 at quarter width) is trained on three of them, calibrated
on the fourth and attacked on the fifth, so that every part is attacked once. Only crops that were
judged correctly are attacked; a success is a flipped prediction; the negatives are all clean test
crops. Which layer, entropies and distance make the trace was chosen on attacked validation crops,
with the calibration leaving out the part it judges. Two recipes are reported: trained as the
product does (the main one, attacked first), and on shifted crops for twice as long, tried because
one part, with its defect at the border of the picture, is missed by a network of the first. Every
part is a validation part of one network and a test part of another, so the choices have seen all
parts, though never a network's own test crops. A number is the mean over the networks
that are right on enough clean test crops (`LEAST_ACCURACY`;
what all five give stands beside it); intervals resample parts. Rehearse with
``python -m benchmarks.core.adversarial`` (two networks, few updates; nothing is published).
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.core import attacked
from benchmarks.core.attacked import (
    CONTROLS,
    EPSILONS,
    POINTS,
    Net,
    changed,
    crops_of,
    measured,
    nets_of,
    point_crops,
)
from benchmarks.results import Say, plain
from lineside.core.contract import Better, Estimate, Metric, Outcome
from lineside.core.explain import adversarial_trace as trace
from lineside.core.statistics.estimates import Floats, each_outcome, estimate
from lineside.core.statistics.ranking import TOLERANCE, Ranking, rank

FALSE_ALARMS = (0.01, 0.05, 0.10)
MAIN, SECOND = "plain", "shifted"
BRIEF = (
    "adversarial_clean_accuracy", "adversarial_balanced_accuracy",
    "adversarial_balanced_accuracy_lowest", "adversarial_nets",
    "adversarial_five_nets_clean_accuracy", "adversarial_five_nets_auc_fgsm",
    "adversarial_auc_fgsm", "adversarial_auc_fgsm_lowest_net", "adversarial_auc_fgsm_highest_net",
    "adversarial_auc_fgsm_validation", "adversarial_auc_fgsm_all", "adversarial_auc_pgd",
    "adversarial_auc_pgd_2", "adversarial_auc_one_pixel", "softmax_auc", "total_variation_auc",
    "noise_control_auc", "clean_twin_auc", "adversarial_successes_fgsm_4",
    "adversarial_success_fgsm_4", "adversarial_success_pgd_4",
)  # fmt: skip
"""What is published of the networks trained by the second recipe."""
LEAST_ACCURACY = 0.97
"""Only networks whose balanced accuracy on clean test crops is at least this are reported."""
METHOD = "mean over networks; bootstrap over parts, 95 %"


@dataclass(frozen=True)
class Judged:
    """What the detectors say about one network's crops; a higher score is more suspicious."""

    net: Net
    labels: NDArray[np.bool_]
    parts: tuple[str, ...]
    right: NDArray[np.bool_]
    logit: Mapping[str, Floats]
    scores: Mapping[str, Mapping[str, Floats]]
    limits: Mapping[float, float]

    def flipped(self, name: str) -> NDArray[np.bool_]:
        """Crops that were judged correctly and, once changed, are not."""
        found: NDArray[np.bool_] = self.right & ((self.logit[name] > 0) != self.labels)
        return found


@functools.cache
def judged(net: Net, role: str = "test") -> Judged:
    """Return the scores of one network's crops; all calibration is on clean validation crops."""
    crops = crops_of(net, role)
    reference = measured(net, "validation", "clean")
    names = ("clean", "fgsm_4") if role == "validation" else tuple(changed(net, role))
    found = {name: measured(net, role, name) for name in names}
    labels = crops.labels.numpy().astype(bool)
    logit = {name: one["logit"] for name, one in found.items()}
    own = trace_scores(reference, reference)
    return Judged(
        net=net, labels=labels, parts=crops.parts, right=(logit["clean"] > 0) == labels,
        logit=logit,
        scores={
            "trace": {name: trace_scores(reference, one) for name, one in found.items()},
            "one_scale": {name: one_scale_scores(reference, one) for name, one in found.items()},
            "own_scale": {name: one["entropies"][:, 0] for name, one in found.items()},
            "softmax": {name: -np.abs(one["logit"]) for name, one in found.items()},
            "variation": {name: one["variation"] for name, one in found.items()},
        },
        limits={f: float(np.quantile(own, 1 - f, method="higher")) for f in FALSE_ALARMS},
    )  # fmt: skip


def trace_scores(reference: Mapping[str, Floats], one: Mapping[str, Floats]) -> Floats:
    """Return the distance of the two entropies from clean crops of the predicted class."""
    classes = (reference["logit"] > 0).astype(np.int64)
    centre, precision = trace.clean_entropies(reference["entropies"], classes, 2)
    classes = (one["logit"] > 0).astype(np.int64)
    return trace.distance(one["entropies"], classes, centre, precision)


def one_scale_scores(reference: Mapping[str, Floats], one: Mapping[str, Floats]) -> Floats:
    """Return the entropy on one scale of 256 levels, standardised by predicted class."""
    found = np.zeros(len(one["logit"]))
    for label in (False, True):
        clean = reference["plain"][(reference["logit"] > 0) == label]
        at = (one["logit"] > 0) == label
        found[at] = (one["plain"][at] - clean.mean()) / clean.std(ddof=1)
    return found


@dataclass(frozen=True)
class MeanOverNets:
    """A measure of a ranking within each network, averaged over networks."""

    statistic: Callable[[Ranking], Floats]

    def __call__(self, outcomes: Sequence[Outcome]) -> float:
        return float(self.weighted(outcomes)(np.ones((1, len(outcomes))))[0])

    def weighted(self, outcomes: Sequence[Outcome]) -> Callable[[Floats], Floats]:
        units = each_outcome(outcomes)
        nets = np.array([outcome.slices["net"] for outcome in outcomes])

        def value(weights: Floats) -> Floats:
            rows = []
            for net in np.unique(nets):
                at = nets == net
                ranking = rank(units.scores[at], units.labels[at], weights[:, at])
                rows.append(self.statistic(ranking))
            seen = np.array(rows)
            counts = np.isfinite(seen).sum(0)
            return np.where(counts > 0, np.nansum(seen, 0) / np.maximum(counts, 1), np.nan)

        return value


@dataclass(frozen=True)
class Share:
    """The share of outcomes whose score is 1."""

    def __call__(self, outcomes: Sequence[Outcome]) -> float:
        return float(np.mean([outcome.value["score"] for outcome in outcomes]))

    def weighted(self, outcomes: Sequence[Outcome]) -> Callable[[Floats], Floats]:
        scores = each_outcome(outcomes).scores
        return lambda weights: (weights * scores).sum(1) / weights.sum(1)


def rows_of(one: Judged, scores: Floats, label: int, which: NDArray[np.bool_]) -> list[Outcome]:
    """Return the chosen crops of one network as outcomes."""
    net = str(one.net.fold)
    return [
        Outcome(item=f"{net}-{i}-{label}", groups=(one.parts[i],),
                unit=one.parts[i], slices={"net": net},
                value={"score": float(scores[i]), "label": float(label)})
        for i in np.flatnonzero(which)
    ]  # fmt: skip


def compared(
    nets: Sequence[Judged],
    detector: str,
    name: str,
    which: Callable[[Judged], NDArray[np.bool_]],
    statistic: Callable[[Ranking], Floats] = Ranking.auroc,
) -> Estimate:
    """Return how well a detector ranks chosen changed crops above all clean ones.

    With ``name="clean"`` the chosen crops are compared with all other clean crops.
    """
    outcomes: list[Outcome] = []
    for one in nets:
        chosen, scores = which(one), one.scores[detector]
        rest = ~chosen if name == "clean" else np.ones_like(chosen)
        outcomes += rows_of(one, scores["clean"], 0, rest) + rows_of(one, scores[name], 1, chosen)
    metric = Metric(name="auc", unit="fraction", better="higher", of=MeanOverNets(statistic))
    found = estimate(outcomes, metric, np.random.default_rng(0))
    return dataclasses.replace(found, method=METHOD if found.method else "")


def shared(
    nets: Sequence[Judged],
    hits: Callable[[Judged], NDArray[np.bool_]],
    which: Callable[[Judged], NDArray[np.bool_]],
    better: Better = "higher",
) -> Estimate:
    """Return the share of chosen crops that are hits, over all networks."""
    outcomes = [
        row for one in nets for row in rows_of(one, hits(one).astype(np.float64), 0, which(one))
    ]
    metric = Metric(name="share", unit="fraction", better=better, of=Share())
    return estimate(outcomes, metric, np.random.default_rng(0))


def adversarial(say: Say) -> None:
    """Attack every network on its test parts and publish what its trace, and rivals, find."""

    def briefly(name: str, value: Estimate) -> None:
        if name in BRIEF:
            say(f"{SECOND}_{name}", value)

    for recipe, tell in ((MAIN, say), (SECOND, briefly)):
        every = [judged(net) for net in nets_of(recipe)]
        nets = [one for one in every if balanced_accuracy(one) >= LEAST_ACCURACY] or every
        for publish in (_accuracy, _successes, _areas, _controls, _rates):
            publish(tell, nets)
        tell("adversarial_five_nets_clean_accuracy", _right(every))
        tell("adversarial_five_nets_auc_fgsm", compared(every, "trace", "fgsm_4", _broken))
        validation = [judged(net, "validation") for net in nets_of(recipe)]
        found = compared(validation, "trace", "fgsm_4", _broken)
        tell("adversarial_auc_fgsm_validation", found)


def balanced_accuracy(one: Judged) -> float:
    """Return the mean of the shares of good and of defective clean crops that are judged right."""
    return float(np.mean([one.right[one.labels == v].mean() for v in (False, True)]))


def _right(nets: Sequence[Judged]) -> Estimate:
    return shared(nets, lambda one: one.right, lambda one: one.right | True)


def _broken(one: Judged) -> NDArray[np.bool_]:
    return one.flipped("fgsm_4")


def _accuracy(say: Say, nets: Sequence[Judged]) -> None:
    say("adversarial_nets", plain(len(nets), "networks", len(nets), reason="a count"))
    say("adversarial_clean_accuracy", _right(nets))
    each = [balanced_accuracy(one) for one in nets]
    say("adversarial_balanced_accuracy", plain(float(np.mean(each)), "fraction", len(nets)))
    say("adversarial_balanced_accuracy_lowest", plain(min(each), "fraction", len(nets)))


def _tried(one: Judged, attack: str) -> NDArray[np.bool_]:
    """Crops that an attack was tried on: judged correctly, and searched where search is dear."""
    if not attack.startswith("points"):
        return one.right
    searched = np.zeros_like(one.right)
    searched[point_crops(crops_of(one.net, "test"))] = True
    found: NDArray[np.bool_] = one.right & searched
    return found


def _successes(say: Say, nets: Sequence[Judged]) -> None:
    strengths = [*(f"{a}_{e}" for a in ("fgsm", "pgd", "noise") for e in EPSILONS),
                 *(f"points_{c}" for c in POINTS)]  # fmt: skip
    for name in strengths:
        tried = sum(int(_tried(one, name).sum()) for one in nets)
        count = sum(int((one.flipped(name) & _tried(one, name)).sum()) for one in nets)
        say(
            f"adversarial_success_{name}",
            shared(nets, lambda o, n=name: o.flipped(n), lambda o, n=name: _tried(o, n), "lower"),
        )
        say(f"adversarial_successes_{name}", plain(count, "crops", tried, "lower", "a count"))


def _areas(say: Say, nets: Sequence[Judged]) -> None:
    def success(name: str) -> Callable[[Judged], NDArray[np.bool_]]:
        return lambda one: one.flipped(name) & _tried(one, name)

    say("adversarial_auc_fgsm", compared(nets, "trace", "fgsm_4", success("fgsm_4")))
    each = [compared([one], "trace", "fgsm_4", success("fgsm_4")).value for one in nets]
    for name, value in (("lowest", np.nanmin(each)), ("highest", np.nanmax(each))):
        say(f"adversarial_auc_fgsm_{name}_net", plain(float(value), "fraction", len(each)))
    say("adversarial_auc_pgd", compared(nets, "trace", "pgd_4", success("pgd_4")))
    for attack in ("fgsm", "pgd"):
        say(f"adversarial_auc_{attack}_all",
            compared(nets, "trace", f"{attack}_4", lambda o: o.right | True))  # fmt: skip
        for epsilon in EPSILONS:
            name = f"{attack}_{epsilon}"
            say(f"adversarial_auc_{name}", compared(nets, "trace", name, success(name)))
            say(f"softmax_auc_{name}", compared(nets, "softmax", name, success(name)))
    names = dict(zip(POINTS, ("one_pixel", "three_pixels", "five_pixels"), strict=True))
    for count, name in names.items():
        chosen = success(f"points_{count}")
        say(f"adversarial_auc_{name}", compared(nets, "trace", f"points_{count}", chosen))
        say(f"softmax_auc_{name}", compared(nets, "softmax", f"points_{count}", chosen))
    rivals = {
        "softmax_auc": "softmax",
        "total_variation_auc": "variation",
        "adversarial_auc_fgsm_one_scale": "one_scale",
        "adversarial_auc_fgsm_own_scale": "own_scale",
    }
    for name, detector in rivals.items():
        say(name, compared(nets, detector, "fgsm_4", success("fgsm_4")))


def _controls(say: Say, nets: Sequence[Judged]) -> None:
    say("noise_control_auc", compared(nets, "trace", "noise_4", _broken))
    say("clean_twin_auc", compared(nets, "trace", "clean", _broken))
    say("clean_twin_softmax_auc", compared(nets, "softmax", "clean", _broken))
    say("noise_all_auc", compared(nets, "trace", "noise_4", lambda o: o.right | True))
    for name in CONTROLS:
        say(f"{name}_control_auc", compared(nets, "trace", name, lambda o: o.right | True))
        say(f"{name}_same_crops_auc", compared(nets, "trace", name, _broken))


def recall_at_fpr(ranking: Ranking, fpr: float) -> NDArray[np.float64]:
    """Return the largest recall over thresholds with at most this false-positive rate."""
    allowed = ranking.false <= fpr * ranking.negatives + TOLERANCE
    recall = np.where(allowed, ranking.recall, 0.0).max(axis=-1)
    return np.where(ranking.negatives[..., 0] > 0, recall, np.nan)


def _rates(say: Say, nets: Sequence[Judged]) -> None:
    """Detection rates along the ROC curve, and at the limits set on clean validation crops."""
    for alarm in FALSE_ALARMS:
        percent = round(100 * alarm)
        for attack in ("fgsm_4", "pgd_4", "pgd_2"):
            found = compared(
                nets, "trace", attack, lambda o, a=attack: o.flipped(a),
                lambda r, f=alarm: recall_at_fpr(r, f),
            )  # fmt: skip
            say(f"adversarial_found_{attack}_at_fpr{percent}", found)
        softmax = compared(
            nets, "softmax", "fgsm_4", lambda o: o.flipped("fgsm_4"),
            lambda r, f=alarm: recall_at_fpr(r, f),
        )  # fmt: skip
        say(f"softmax_found_fgsm_4_at_fpr{percent}", softmax)
        for name, which in (("fgsm_4", lambda o: o.flipped("fgsm_4")), ("clean", None)):
            better: Better = "lower" if name == "clean" else "higher"
            value = shared(
                nets, lambda o, n=name, f=alarm: o.scores["trace"][n] > o.limits[f],
                which or (lambda o: o.right | True), better,
            )  # fmt: skip
            say(f"adversarial_limit{percent}_alarms_{name}", value)


def main() -> int:
    """Rehearse: two networks of few updates, in a folder of their own; nothing is published."""
    attacked.STEPS.update(plain=30, shifted=30)
    attacked.NETS, attacked.POINT_CROPS = (0, 3), 2
    attacked.GOOD_CROPS.update(validation=1, test=1)
    attacked.DEFECT_CROPS.update(validation=2, test=1)
    with tempfile.TemporaryDirectory() as folder:
        attacked.STORE = Path(folder)
        adversarial(lambda name, value: print(f"{name:<44} {value.value:.3f} n={value.n}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
