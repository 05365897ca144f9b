"""The record of `machines` that core works with."""

from lineside.core.contract import Application
from lineside.machines.audit.data_audit import audit
from lineside.machines.config import Config
from lineside.machines.data import find_snapshots
from lineside.machines.data.dataset import split
from lineside.machines.metrics import METRICS
from lineside.machines.model import load
from lineside.machines.outcomes import calibrate, outcomes
from lineside.machines.report.chapters import numbers, sections, summary
from lineside.machines.simulation import make_demo
from lineside.machines.training.fitting import methods

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
