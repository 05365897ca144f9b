"""`machines`: is this machine still healthy? Condition monitoring from vibration and slow values.

The package itself satisfies the contract of an application. Nothing heavy is imported here.

Example:
    >>> from lineside import machines
    >>> from lineside.core.run.progress import Progress
    >>> from lineside.core.workflow import train
    >>> data = machines.demo(Path("fleet"), seed=0)                            # doctest: +SKIP
    >>> run = Path("run")
    >>> study = train("machines", data, run, machines.Config(), Progress())    # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lineside.machines.config import Config
from lineside.machines.items import Snapshot

if TYPE_CHECKING:
    from torch import Tensor

    from lineside.core.contract import Check, Method, Metric, Outcome, Refusal, Section, Split
    from lineside.core.workflow import Study
    from lineside.machines.model import MachinesModel

    METRICS: Sequence[Metric]

__all__ = ["METRICS", "Config", "Snapshot"]


def __getattr__(name: str) -> Any:
    if name == "METRICS":
        from lineside.machines.metrics import METRICS

        return METRICS
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def read(data: Path, config: Config) -> Sequence[Snapshot | Refusal]:
    """Find every snapshot of a folder of machines.

    Returns:
        One item per snapshot in order of time, and a refusal for each that cannot be used.

    Raises:
        UserError: if nothing usable is there.
    """
    from lineside.machines.reading import find_snapshots

    return find_snapshots(Path(data))


def audit(items: Sequence[Snapshot | Refusal], config: Config) -> list[Check]:
    """Look for what spoils a history; see `lineside.machines.auditing`."""
    from lineside.machines.auditing import audit as look

    return look(items, config)


def split(items: Sequence[Snapshot], config: Config) -> Split:
    """Split by time within each machine."""
    from lineside.machines.data import split as divide

    return divide(items, config)


def methods(config: Config) -> Sequence[Method]:
    """Return the detectors to run, the one that predicts first."""
    from lineside.machines.fleet import methods as make

    return make(config)


def outcomes(model: MachinesModel, items: Sequence[Snapshot]) -> list[Outcome]:
    """Return one outcome per snapshot of one machine, in order of time."""
    from lineside.machines.judging import outcomes as judge

    return judge(model, items)


def calibrate(model: MachinesModel, outcomes: Sequence[Outcome], config: Config) -> MachinesModel:
    """Return the model with its limits, set on healthy snapshots that were not fitted."""
    from lineside.machines.judging import calibrate as set_limits

    return set_limits(model, outcomes, config)


def summary(study: Study) -> list[str]:
    """Return the lines that a training prints at its end."""
    from lineside.machines.chapters import summary as tell

    return tell(study)


def sections(study: Study) -> list[Section]:
    """Return the chapters of the report."""
    from lineside.machines.chapters import sections as write

    return write(study)


def numbers(study: Study) -> dict[str, Any]:
    """Return the numbers of the chapters for ``report.json``."""
    from lineside.machines.chapters import numbers as tell

    return tell(study)


def load(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> MachinesModel:
    """Rebuild a model from its spec and tensors."""
    from lineside.machines.model import load as rebuild

    return rebuild(spec, tensors)


def demo(folder: Path, seed: int) -> Path:
    """Make a small fleet of simulated machines with known faults, and return its folder."""
    from lineside.machines.simulation import make_demo

    return make_demo(Path(folder), seed)
