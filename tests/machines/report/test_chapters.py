"""The first lines of a `machines` report decide."""

import pytest

from lineside.machines.alarms.calibration import poisson_upper_bound
from lineside.machines.report.chapters import decision


def test_it_is_used_where_all_faults_were_found_and_the_budget_is_proven():
    (line,) = decision(found=3, faults=3, false=0, months=31.0, budget=0.1)
    assert line.startswith("Use it, because it found all 3 faults")
    assert poisson_upper_bound(0, 31.0) < 0.1 < poisson_upper_bound(0, 29.0)


@pytest.mark.parametrize(
    ("found", "faults", "months", "reasons"),
    [
        (2, 3, 31.0, ["it missed 1 of 3 faults"]),
        (0, 0, 31.0, ["nothing is known about missed faults"]),
        (3, 3, 2.0, ["the budget of false alarms is not proven"]),
        (0, 0, 0.0, ["nothing is known about missed faults", "is not proven"]),
    ],
)
def test_every_reason_against_it_is_said(found, faults, months, reasons):
    line, *more = decision(found=found, faults=faults, false=0, months=months, budget=0.1)
    assert line.startswith("Do not rely on it alone yet, because ")
    assert all(reason in line for reason in reasons)
    assert len(more) == (months < 29)


def test_the_months_that_would_prove_the_budget_are_enough():
    _, advice = decision(found=1, faults=1, false=2, months=5.0, budget=0.5)
    more = int(advice.split("checks; ")[1].split()[0])
    assert poisson_upper_bound(2, 5.0 + more + 0.5) <= 0.5 < poisson_upper_bound(2, 5.0 + more - 1)
