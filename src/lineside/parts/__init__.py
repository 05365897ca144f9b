"""`parts`: is this part faulty, and where? Industrial quality control from images.

The package itself satisfies the contract of an application. Nothing heavy is imported here.

Example:
    >>> from lineside import parts
    >>> from lineside.core.run.progress import Progress
    >>> from lineside.core.workflow import train
    >>> data = parts.demo(Path("demo"), seed=0)                            # doctest: +SKIP
    >>> study = train("parts", data, Path("run"), parts.Config(), Progress())  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lineside.parts.config import Config
from lineside.parts.items import PartImage

if TYPE_CHECKING:
    from torch import Tensor

    from lineside.core.contract import Check, Method, Metric, Outcome, Refusal, Section, Split
    from lineside.core.workflow import Study
    from lineside.parts.model import PartsModel

    METRICS: Sequence[Metric]

__all__ = ["METRICS", "Config", "PartImage"]


def __getattr__(name: str) -> Any:
    if name == "METRICS":
        from lineside.parts.metrics import METRICS

        return METRICS
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def read(data: Path, config: Config) -> Sequence[PartImage | Refusal]:
    """Read a folder or table; parts are found from pictures where none are named.

    Returns:
        One item per image, and a refusal in the place of each that cannot be decoded.

    Raises:
        UserError: if nothing usable is there.
    """
    from lineside.parts.reading import read_items

    return read_items(Path(data), config)


def audit(items: Sequence[PartImage | Refusal], config: Config) -> list[Check]:
    """Look for what spoils a data set; see `lineside.parts.auditing`."""
    from lineside.parts.auditing import audit as look

    return look(items, config)


def split(items: Sequence[PartImage], config: Config) -> Split:
    """Split by part, stratified by kind of defect."""
    from lineside.parts.data import split as divide

    return divide(items, config)


def methods(config: Config) -> Sequence[Method]:
    """Return the methods to run, the one that predicts first."""
    from lineside.parts.recipes import methods as make

    return make(config)


def outcomes(model: PartsModel, items: Sequence[PartImage]) -> list[Outcome]:
    """Return one outcome per item: score, label, peak of the map, milliseconds."""
    from lineside.parts.judging import outcomes as judge

    return judge(model, items)


def calibrate(model: PartsModel, outcomes: Sequence[Outcome], config: Config) -> PartsModel:
    """Return the model with an operating point by part."""
    from lineside.parts.judging import calibrate as set_point

    return set_point(model, outcomes, config)


def summary(study: Study) -> list[str]:
    """Return the lines that a training prints at its end."""
    from lineside.parts.chapters import summary as tell

    return tell(study)


def sections(study: Study) -> list[Section]:
    """Return the chapters of the report."""
    from lineside.parts.chapters import sections as write

    return write(study)


def load(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> PartsModel:
    """Rebuild a model from its spec and tensors."""
    from lineside.parts.model import load as rebuild

    return rebuild(spec, tensors)


def demo(folder: Path, seed: int) -> Path:
    """Make pictures of catheter-like parts with and without defects; return the folder."""
    from lineside.parts.simulation import demo as make

    return make(folder, seed)
