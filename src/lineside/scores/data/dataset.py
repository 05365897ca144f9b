"""Pages to learn from and pages to read, and their roles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lineside.core.contract import Refusal, Source, Split
from lineside.core.errors import UserError
from lineside.core.run.table_reader import read_named_rows
from lineside.scores.config import Config
from lineside.scores.data.page_files import SUFFIXES, page_count
from lineside.scores.engraving.page import TABLE, truth_of

SHARES = {"train": 0.6, "calibration": 0.2, "test": 0.2}


@dataclass(frozen=True, kw_only=True)
class PageItem:
    """A page.

    Attributes:
        id: Its name.
        source: The image, and the number of the page where a file has several.
        label: Engraver and font of a page whose symbols are known; empty for one to read.
        group: What belongs together: a song, or a cycle of songs.
    """

    id: str
    source: Source
    label: str = ""
    group: str = ""

    @property
    def groups(self) -> tuple[str, ...]:
        """The song or cycle."""
        return (self.group or self.id,)

    @property
    def truth(self) -> Path:
        """The file that says what is on the page."""
        return truth_of(self.source.path)


def read(data: Path, config: Config) -> list[PageItem | Refusal]:
    """Return the pages of a folder that the page maker wrote, as its table names them.

    Raises:
        UserError: if there is no such table.
    """
    table = data / TABLE if data.is_dir() else data
    if not table.exists():
        raise UserError(
            f"there is no {TABLE} in {data}", "make pages: lineside scores make FOLDER SCORES"
        )
    entries: list[PageItem | Refusal] = []
    names, rows = read_named_rows(table)
    missing = [name for name in ("page", "group", "engraver") if name not in names]
    if missing:
        raise UserError(
            f"{table} has no column {missing[0]!r}", "let lineside scores make write it"
        )
    for row in rows:
        page = table.parent / f"{row['page']}.png"
        item = PageItem(
            id=row["page"], source=Source(page), label=row["engraver"] or "unknown",
            group=row["group"],
        )  # fmt: skip
        absent = next((path for path in (page, item.truth) if not path.is_file()), None)
        if absent is None:
            entries.append(item)
        else:
            message = f"{absent} does not exist"
            entries.append(Refusal(item=item.id, message=message, hint="make the pages again"))
    return entries


def sources(files: Sequence[Path], config: Config) -> list[PageItem | Refusal]:
    """Return the pages of files and folders; a file that cannot be read is a refusal."""
    found: list[PageItem | Refusal] = []
    for path in files:
        inside = [path]
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise UserError(f"no page in {path}", f"readable are {' '.join(SUFFIXES)}")
        for file in inside:
            try:
                count = page_count(file)
            except UserError as error:
                found.append(Refusal(item=str(file), message=error.message, hint=error.hint))
                continue
            for number in range(1, count + 1):
                locator = str(number) if count > 1 else ""
                source = Source(file, locator)
                found.append(PageItem(id=str(source), source=source))
    return found


def split(items: Sequence[PageItem], config: Config) -> Split:
    """Give every song (or cycle) one role, drawn by the seed.

    Raises:
        UserError: if there are fewer than three songs.
    """
    groups = sorted({item.groups[0] for item in items})
    if len(groups) < len(SHARES):
        raise UserError(
            f"the pages are of {len(groups)} songs", f"give pages of {len(SHARES)} or more"
        )
    order = np.random.default_rng(config.seed).permutation(len(groups))
    ends = np.cumsum(list(SHARES.values())) * len(groups)
    # Every role gets a song: the first three go one to each.
    roles = {groups[order[i]]: role for i, role in enumerate(SHARES)}
    for rank, index in enumerate(order[len(SHARES) :], start=len(SHARES)):
        roles[groups[index]] = list(SHARES)[int(np.searchsorted(ends, rank, side="right"))]
    train, calibration, test = (
        tuple(item for item in items if roles[item.groups[0]] == role) for role in SHARES
    )
    return Split(train=train, calibration=calibration, test=test)
