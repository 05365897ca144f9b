"""What worker processes do with a model: each loads it once, from its folder."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lineside.core.contract import Application, Outcome, Refusal
from lineside.core.errors import UserError
from lineside.core.parallel import Executor, WorkerError, map_items
from lineside.core.run.files import canonical, finite, read_json, sha256, sha256_of_file
from lineside.core.run.journal import Journal
from lineside.core.run.model_store import load_model

Items = Sequence[Any]
"""Items that are judged together: the views of a part, the history of a machine."""


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """A model by name, as it travels to workers.

    Attributes:
        application: Name of its application.
        folder: The model folder; every worker sees it under the same path.
        identity: Id of the model.
        calibration: Hash of its calibration, which may change under the same id.
    """

    application: str
    folder: Path
    identity: str
    calibration: str

    def predict(self, items: Items) -> list[Any]:
        """Return one `Result` or `Refusal` per item."""
        results: list[Any] = _loaded(self).predict(items)
        return results

    def outcomes(self, items: Items) -> list[Outcome]:
        """Return one outcome per labelled item."""
        return list(self.record().outcomes(_loaded(self), items))

    def record(self) -> Application:
        """Return the record of the application."""
        module = importlib.import_module(f"lineside.{self.application}.application")
        application: Application = module.APPLICATION
        return application

    def content_hash(self, items: Items) -> str:
        """Return the hash of all that results depend on: model, items and their files."""
        paths = sorted({item.source.path for item in items})
        hashes = [sha256_of_file(path) for path in paths]
        model = [self.identity, self.calibration]
        return sha256(canonical([model, [repr(item) for item in items], hashes]))


@functools.lru_cache(maxsize=2)
def _loaded(stored: StoredModel) -> Any:
    """Load a model once in each process.

    Raises:
        WorkerError: if it is not there, or another one is.
    """
    try:
        if stored_model(stored.application, stored.folder) != stored:
            raise WorkerError(f"a worker sees another model in {stored.folder}")
        return load_model(stored.folder, stored.record())
    except UserError as error:
        raise WorkerError(f"a worker cannot load the model: {error}") from error


def stored_model(application: str, folder: Path) -> StoredModel:
    """Return the model in a folder by name.

    Raises:
        UserError: if there is none.
    """
    described = read_json(folder / "model.json")
    return StoredModel(
        application=application,
        folder=folder,
        identity=described["id"],
        calibration=described["calibration_sha256"],
    )


def predict_batches(
    stored: StoredModel, batches: Sequence[Items], executor: Executor | None, journal: Path | None
) -> Iterator[list[Any]]:
    """Yield the results of each batch in order; a batch that kills its worker is all refusals.

    Args:
        stored: The model.
        batches: Items that must be judged together.
        executor: Where to predict.
        journal: File of finished batches, see `Journal`.
    """
    kept = None
    if journal is not None:
        kept = Journal(
            path=journal, content_hash=stored.content_hash, encode=_encode, decode=_decode
        )
    results = map_items(stored.predict, batches, executor, name_of=_name, journal=kept)
    for batch, answer in zip(batches, results, strict=True):
        if isinstance(answer, Refusal):
            yield [dataclasses.replace(answer, item=item.id) for item in batch]
        else:
            yield answer


def outcomes_of(stored: StoredModel, items: Items, executor: Executor) -> list[Outcome]:
    """Return one outcome per item, in order; each group is judged by one worker.

    Raises:
        UserError: if one cannot be judged.
    """
    batches = [[items[index] for index in batch] for batch in batches_of(items)]
    outcomes: dict[str, Outcome] = {}
    for answer in map_items(stored.outcomes, batches, executor, name_of=_name):
        if isinstance(answer, Refusal):
            raise UserError(f"{answer.item}: {answer.message}", answer.hint)
        outcomes |= {outcome.item: outcome for outcome in answer}
    return [outcomes[item.id] for item in items]


def batches_of(items: Items) -> Iterator[list[int]]:
    """Yield the indices of items that must be judged together: those of the same groups.

    Views of a part share its verdict, and a machine's snapshots are judged in order of time.
    """
    batches: dict[tuple[str, ...], list[int]] = {}
    for index, item in enumerate(items):
        if not isinstance(item, Refusal):
            batches.setdefault(item.groups, []).append(index)
    yield from batches.values()


def _name(items: Items) -> str:
    return items[0].id if len(items) == 1 else f"{items[0].id} and {len(items) - 1} more"


@dataclass(frozen=True, kw_only=True)
class JournalledResult:
    """A `Result` of an earlier run: what it printed."""

    item: str
    finding: bool
    line: str
    fields: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return the plain dictionary of one JSON line."""
        return dict(self.fields)

    def as_line(self) -> str:
        """Return the line of the table."""
        return self.line


def _encode(results: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        dataclasses.asdict(result)
        if isinstance(result, Refusal)
        else {
            "item": result.item,
            "finding": result.finding,
            "line": result.as_line(),
            "fields": finite(result.as_json()),
        }
        for result in results
    ]


def _decode(rows: Sequence[dict[str, Any]]) -> list[JournalledResult | Refusal]:
    return [JournalledResult(**row) if "fields" in row else Refusal(**row) for row in rows]
