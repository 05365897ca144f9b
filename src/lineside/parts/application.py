"""The record of `parts` that core works with."""

from lineside.core.contract import Application
from lineside.parts.audit.checks import audit
from lineside.parts.config import Config
from lineside.parts.data.dataset import read_items
from lineside.parts.data.frames import item_of
from lineside.parts.data.grouping import split
from lineside.parts.data.sources import sources
from lineside.parts.fitting import methods
from lineside.parts.metrics import METRICS
from lineside.parts.model import PartsModel, load, notes, probe
from lineside.parts.outcomes import calibrate, check_guarantee, outcomes
from lineside.parts.report.chapters import facts, numbers, sections, summary
from lineside.parts.simulation import demo

APPLICATION = Application(
    name="parts",
    config=Config,
    metrics=METRICS,
    read=read_items,
    sources=sources,
    in_memory=lambda value, index, config: item_of(value, index, config.part_pattern),
    audit=audit,
    split=split,
    methods=methods,
    outcomes=outcomes,
    independent_groups=True,
    load=load,
    probe=probe,
    calibrate=calibrate,
    check_guarantee=check_guarantee,
    config_for=PartsModel.config_for,
    columns=f"{'verdict':<7} {'score':>8} {'limit':>8}  item",
    notes=notes,
    summary=summary,
    facts=facts,
    sections=sections,
    numbers=numbers,
    demo=demo,
)
