"""The record of `machines` that core works with."""

from lineside.core.contract import Application
from lineside.machines.auditing import audit
from lineside.machines.chapters import numbers, sections, summary
from lineside.machines.config import Config
from lineside.machines.data import split
from lineside.machines.fleet import methods
from lineside.machines.judging import calibrate, outcomes
from lineside.machines.metrics import METRICS
from lineside.machines.model import load
from lineside.machines.reading import find_snapshots
from lineside.machines.simulation import make_demo

APPLICATION = Application(
    name="machines",
    config=Config,
    metrics=METRICS,
    read=lambda data, config: find_snapshots(data),
    audit=audit,
    split=split,
    methods=methods,
    outcomes=outcomes,
    load=load,
    calibrate=calibrate,
    summary=summary,
    sections=sections,
    numbers=numbers,
    demo=make_demo,
)
