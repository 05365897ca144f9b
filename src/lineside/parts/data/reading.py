"""Reading for the workflow: items that can be used, refusals in the place of those that cannot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.parts.audit.data_audit import propose_parts
from lineside.parts.audit.survey import survey
from lineside.parts.config import Config
from lineside.parts.data.dataset import has_parts, read
from lineside.parts.data.items import PartImage


def read_items(data: Path, config: Config) -> Sequence[PartImage | Refusal]:
    """Read, decode every picture once, and find parts from pictures where none are named.

    Raises:
        UserError: if nothing usable is there.
    """
    found = read(data, config)
    refusals = survey(found).refusals
    refused = {refusal.item for refusal in refusals}
    items: Sequence[PartImage] = [item for item in found if item.id not in refused]
    if not any(not item.faulty for item in items):
        first = f" (first: {refusals[0].message})" if refusals else ""
        raise UserError(f"{data} holds no readable good part{first}", "check the files")
    if not has_parts(items):
        items = propose_parts(items)
    return [*items, *refusals]
