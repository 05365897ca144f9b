"""Score drift: a sequential test whether good parts still come from one distribution.

`DriftMonitor` bets against an unchanged process with a conformal martingale: its probability of
*ever* raising a false alarm is at most alpha. KS and PSI over a window describe what changed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lineside.core.errors import UserError

POWERS = (0.2, 0.4, 0.6, 0.8)
BETS = 2 * len(POWERS) + 3
LARGEST_EDGES = 128
WINDOW = 200
"""Latest scores that are compared with the reference."""


def bets_of(p: float) -> NDArray[np.float64]:
    """Gain of every bet for a p-value: densities on [0, 1], so that no bet gains on average.

    Powers e * p^(e-1) win if scores rise, their mirror images if scores fall, the sum of the two
    and 1.5 - 6 (p-1/2)^2 if the spread grows or shrinks.
    """
    p = float(np.clip(p, 1e-12, 1 - 1e-12))
    rise = np.array([e * p ** (e - 1) for e in POWERS])
    fall = np.array([e * (1 - p) ** (e - 1) for e in POWERS])
    wider = (rise + fall)[[1, 2]] / 2
    return np.concatenate([rise, fall, wider, [6 * p * (1 - p)]])


def uninvested(seen: int) -> float:
    """Share of the capital not yet invested after `seen` scores; it falls slowly, never to 0."""
    return float(1 / (1 + np.log1p(seen)))


class DriftMonitor:
    """A sequential test whether scores of good parts still come from one distribution.

    Each score gets a conformal p-value among *all* scores so far, reference included; while scores
    are exchangeable these are independent and uniform, whatever their distribution. A fixed
    capital of 1 is bet against that: a share w_k starts betting at score k (to detect a change
    long after the start as well), split evenly over the bets of `bets_of`. The total is a
    martingale: the probability that it *ever* reaches 1 / alpha is at most alpha. Scores of one
    part are not exchangeable with those of others: push one score per part.

    Half of the reference only places the bin edges, and the other half and the run are counted in
    these bins, so memory is bounded and the guarantee exact. Ties are broken at random, by a
    stream that depends on `seed` and the number of the score only.

    Attributes:
        seen: Scores pushed so far.
        counts: Scores of the reference and of the run in each bin.
        capital: Capital of every bet; the rest of the initial capital 1 is not yet invested.
        window: The latest scores, oldest first.
        alarm: True once the capital has reached 1 / alpha: a change is proven at level alpha.
        alpha: Probability of a false alarm in a run of any length.

    Source: Vovk, Nouretdinov & Gammerman, 2003 (exchangeability martingales); Ville's inequality;
    start times mixed as in Shin, Ramdas & Rinaldo, 2024 (e-detectors).
    """

    def __init__(self, reference: Sequence[float], *, alpha: float = 0.01, seed: int = 0) -> None:
        values = np.asarray(reference, dtype=np.float64)
        if len(values) < 8 or not np.isfinite(values).all():
            raise UserError(
                f"{len(values)} reference scores cannot show a drift",
                "give at least 8 finite scores of good parts",
            )
        self.alpha, self.seed = alpha, seed
        self.reference = np.sort(values)
        order = np.random.default_rng(seed).permutation(len(values))
        self.edges = _bin_edges(values[order[: len(values) // 2]])
        bins = np.searchsorted(self.edges, values[order[len(values) // 2 :]], side="right")
        self.counts = np.bincount(bins, minlength=len(self.edges) + 1)
        self.capital = np.zeros(BETS)
        self.window: deque[float] = deque(maxlen=WINDOW)
        self.seen, self.alarm = 0, False

    def push(self, score: float) -> None:
        """Add one score of a good part; one that is not a number ranks above all others."""
        value = float(score) if np.isfinite(score) else np.inf
        index = int(np.searchsorted(self.edges, value, side="right"))
        gains = bets_of(self._p_value(index))
        new = (uninvested(self.seen) - uninvested(self.seen + 1)) / BETS
        self.seen += 1
        self.counts[index] += 1
        # Capped to stay finite: at 1e250 the alarm has long been latched.
        self.capital = np.minimum((self.capital + new) * gains, 1e250)
        total = uninvested(self.seen) + float(self.capital.sum())
        self.alarm = self.alarm or total >= 1 / self.alpha
        # JSON has no infinity: a score that is not a number enters the window as the highest known.
        highest = float(max(self.reference[-1], *self.window, self.edges[-1]))
        self.window.append(value if np.isfinite(value) else highest)

    def _p_value(self, index: int) -> float:
        """Share of scores at least as high, the score itself included, ties broken at random."""
        above, ties = self.counts[index + 1 :].sum(), self.counts[index] + 1
        chance = np.random.default_rng([self.seed, self.seen + 1]).random()
        return float((above + chance * ties) / (self.counts.sum() + 1))

    def summary(self) -> dict[str, float]:
        """Compare the window with the reference: ks, ks_p_value (not sequential), psi, n.

        PSI adds (a - b) ln(a / b) over the tenths of the reference, with half a count added to
        each; by custom 0.1 is a small and 0.25 a large change. NaN with fewer than 10 scores.
        """
        from scipy.stats import ks_2samp

        recent = np.array(self.window)
        if len(recent) < 10:
            return {"n": len(recent), "ks": np.nan, "ks_p_value": np.nan, "psi": np.nan}
        test = ks_2samp(recent, self.reference)
        return {
            "n": len(recent),
            "ks": float(test.statistic),
            "ks_p_value": float(test.pvalue),
            "psi": psi(self.reference, recent),
        }


def _bin_edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quantiles of the values and steps beyond both ends, so that far scores keep their order."""
    inner = np.quantile(values, np.linspace(0, 1, min(len(values), LARGEST_EDGES)))
    low, high = np.quantile(values, [0.25, 0.75])
    steps = np.arange(1, 9) * max(0.25 * (high - low), 1e-9 * max(1.0, abs(high)))
    return np.unique(np.concatenate([inner[0] - steps, inner, inner[-1] + steps]))


def psi(reference: NDArray[np.float64], recent: NDArray[np.float64]) -> float:
    """Population stability index over the tenths of the reference."""
    edges = np.quantile(reference, np.linspace(0.1, 0.9, 9))
    shares = []
    for values in (reference, recent):
        counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=10) + 0.5
        shares.append(counts / counts.sum())
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
