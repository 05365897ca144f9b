"""What a method shows of its own fit: figures and lines, stored until the report is written.

A model holds no training data, and a resumed run does not fit again: what needs the training itself
is drawn once, when the fit ends, and stored as ``figures/METHOD.json``. It never decides about the
run: an error while looking becomes a line of the report, and the time it takes is logged.
"""

from __future__ import annotations

import base64
import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lineside.core.contract import Figure
from lineside.core.run.files import sha256_of_file
from lineside.core.run.folder import Run, Stopped
from lineside.core.run.seal import read_sealed, write_sealed

EVENT = "figures"
"""Event in ``metrics.jsonl`` with the seconds that a method's figures took."""

Shown = str | Figure
SUSPICIOUS = re.compile(r"\bSUSPICIOUS: (.+?)\.(?=\s|$)", re.DOTALL)
"""What a caption says where a rule of its figure is broken; in other letters it is only advice."""


@dataclass
class Onlooker:
    """Guards code that only looks at a fit.

    Attributes:
        seconds: Time spent looking.
        failure: The first error; nothing is looked at after it.
    """

    seconds: float = 0.0
    failure: str = ""

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Add up the time of a block; an error ends the block and is kept, not raised."""
        start = time.perf_counter()
        try:
            yield
        except Stopped:
            raise
        except Exception as error:
            text = " ".join(str(error).split())
            self.failure = self.failure or f"{type(error).__name__}: {text}"
        finally:
            self.seconds += time.perf_counter() - start


def draw_figures(
    run: Run, method: str, draw: Callable[[], Sequence[Shown]], onlooker: Onlooker | None = None
) -> None:
    """Draw and store what a method learned; the time is logged and does not count as fit.

    Args:
        run: The run.
        method: Whose figures they are.
        draw: Draws them; an error becomes a line in their place.
        onlooker: What looked at the fit until now.
    """
    import matplotlib.figure  # noqa: F401 - the report needs it anyway: no time of these figures

    onlooker = onlooker or Onlooker()
    before, blocks = onlooker.seconds, list[Shown]()
    if not onlooker.failure:
        with onlooker.looking():
            blocks += draw()
    if onlooker.failure:
        blocks = [f"What it learned could not be shown ({onlooker.failure})."]
    save_figures(run.folder, method, blocks)
    run.shared_seconds += onlooker.seconds - before
    row = {"event": EVENT, "method": method, "seconds": onlooker.seconds}
    run.log({**row, "failure": onlooker.failure} if onlooker.failure else row)


def save_figures(run_folder: Path, method: str, blocks: Sequence[Shown]) -> None:
    """Store figures and lines of one method, in the order of reading; earlier ones are replaced."""
    write_sealed(_path(run_folder, method), {"figures": [_row(block) for block in blocks]})


def load_figures(run_folder: Path, method: str) -> list[Shown]:
    """Return what `save_figures` stored, or an empty list.

    Raises:
        UserError: if it was altered.
    """
    path = _path(run_folder, method)
    hint = f"remove it and models/{method} to fit the method again"
    rows = read_sealed(path, hint)["figures"] if path.exists() else []
    return [_block(row) for row in rows]


def _row(block: Shown) -> dict[str, Any]:
    if isinstance(block, str):
        return {"text": block}
    return {**dataclasses.asdict(block), "image": base64.b64encode(block.image).decode()}


def _block(row: dict[str, Any]) -> Shown:
    if "text" in row:
        return str(row["text"])
    return Figure(**{**row, "image": base64.b64decode(row["image"])})


def figures_hash(run_folder: Path, method: str) -> str:
    """Return the SHA-256 of what `save_figures` stored, ``""`` if there is nothing."""
    path = _path(run_folder, method)
    return sha256_of_file(path) if path.is_file() else ""


def _path(run_folder: Path, method: str) -> Path:
    return run_folder / "figures" / f"{method}.json"
