"""A stored model beside the application that can read its files: what `lineside.load` returns."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lineside.core.contract import Application, Explanation, Refusal, Session
from lineside.core.errors import UserError
from lineside.core.parallel import Executor
from lineside.core.run.model_store import load_model, model_folder
from lineside.core.run.progress import Progress
from lineside.core.stored_model import batches_of, predict_batches, stored_model

Files = Any
"""A path, something in memory that the application takes, or several of both."""


@dataclass(frozen=True)
class Predictor:
    """Predicts from files; the same for every application.

    Attributes:
        model: The fitted model, immutable.
        application: How its files are read.
        config: Settings that files are read with, the model's own where it has some.
        folder: Where the model lies.
    """

    model: Any
    application: Application
    config: Any
    folder: Path

    def items(self, files: Files) -> list[Any]:
        """Return the items of files and folders in order, a `Refusal` for what cannot be read.

        Args:
            files: A path, or something in memory that the application takes, or several of both.

        Raises:
            UserError: if no file is given, a folder holds nothing to predict, or the application
                takes nothing but files.
        """
        given = [files] if _is_one(files) else list(files)
        if not given:
            raise UserError(
                "no files are given", f"e.g. lineside {self.application.name} predict FILES"
            )
        sources, in_memory = self.application.sources, self.application.in_memory
        odd = [value for value in given if not isinstance(value, str | os.PathLike)]
        if not odd:
            return list(sources([Path(path) for path in given], self.config))
        if in_memory is None:
            raise UserError(f"a {type(odd[0]).__name__} is no file", "give files or folders")
        items: list[Any] = []
        for index, value in enumerate(given):
            if isinstance(value, str | os.PathLike):
                items += sources([Path(value)], self.config)
            else:
                items.append(in_memory(value, index, self.config))
        return items

    def predict(self, files: Files) -> list[Any]:
        """Return one `Result` or `Refusal` per item of the files, in order.

        Raises:
            UserError: if no file is given, a folder holds nothing to predict, or the model was
                never calibrated.
        """
        return self.predict_items(self.items(files))

    def predict_items(
        self,
        items: Sequence[Any],
        progress: Progress | None = None,
        executor: Executor | None = None,
        journal: Path | None = None,
    ) -> list[Any]:
        """Return one `Result` or `Refusal` per item; refusals among the items stay as they are.

        Args:
            items: What `items` returned.
            progress: Shows how far it is.
            executor: Where to predict; in this process by default.
            journal: File of finished items: those of an earlier run are not repeated.
        """
        results: list[Any] = list(items)
        indices = list(batches_of(items))
        batches = [[items[index] for index in batch] for batch in indices]
        if journal is None and (executor is None or executor.client is None):
            answers: Iterator[list[Any]] = map(self.model.predict, batches)
        else:
            stored = stored_model(self.application.name, self.folder)
            answers = predict_batches(stored, batches, executor, journal)
        tracked = (progress or Progress(quiet=True)).track(answers, "predicting", len(batches))
        for batch, answer in zip(indices, tracked, strict=True):
            for index, result in zip(batch, answer, strict=True):
                results[index] = result
        return results

    def explain(self, file: Any) -> Explanation:
        """Explain the result of a file; of several items in it the last, the newest of a history.

        Args:
            file: A path, or something in memory that the application takes.

        Raises:
            UserError: if the file cannot be read.
        """
        items = self.items([file])
        usable = [item for item in items if not isinstance(item, Refusal)]
        if not usable:
            raise UserError(f"{items[0].item}: {items[0].message}", items[0].hint)
        explanation: Explanation = self.model.explain(usable[-1])
        return explanation

    def session(self, state: dict[str, Any] | None = None) -> Session:
        """Return the model's memory of one stream, fresh or continued from a `Session.state`."""
        if self.application.session is None:
            return _WithoutMemory(self.model)
        return self.application.session(self.model, state)


def _is_one(files: Any) -> bool:
    """Whether it is one thing: a path, or an array, whose rows are no things of their own."""
    alone = isinstance(files, str | os.PathLike) or hasattr(type(files), "__array__")
    return alone or not isinstance(files, Iterable)


@dataclass(frozen=True)
class _WithoutMemory:
    """The session of a model that has none: each item stands alone."""

    model: Any

    def push(self, item: Any) -> Any:
        return self.model.predict([item])[0]

    def state(self) -> dict[str, Any]:
        return {}


def load_predictor(path: str | Path, application: Application, config: Any = None) -> Predictor:
    """Load a model from a run folder or a model folder.

    Args:
        path: ``RUN`` (its chosen model is taken) or ``RUN/models/NAME``.
        application: The application that it belongs to.
        config: Settings to read files with; the model's own where they are not given.

    Raises:
        UserError: if there is no model, or it is damaged, altered, foreign or of another format.
    """
    model = load_model(path, application)
    settings = application.config_for(model, config or application.config())
    return Predictor(model, application, settings, model_folder(Path(path)))
