"""The record of `machines` that core works with."""

from lineside.core.contract import Application
from lineside.machines.audit.data_audit import audit
from lineside.machines.config import Config
from lineside.machines.data import find_snapshots
from lineside.machines.data.dataset import sources, split
from lineside.machines.metrics import METRICS
from lineside.machines.model import FleetSession, load, probe
from lineside.machines.outcomes import calibrate, outcomes
from lineside.machines.report.chapters import numbers, sections, summary
from lineside.machines.simulation.demo import make_demo
from lineside.machines.training.fitting import methods
from lineside.machines.training.learning_record import consent_notes

APPLICATION = Application(
    name="machines",
    config=Config,
    metrics=METRICS,
    read=lambda data, config: find_snapshots(data),
    sources=sources,
    audit=audit,
    split=split,
    methods=methods,
    outcomes=outcomes,
    independent_groups=True,
    load=load,
    probe=probe,
    calibrate=calibrate,
    session=FleetSession,
    columns=f"{'state':<13} {'novelty':>8}  {'time (UTC)':<19}  machine",
    notes=lambda model, results: consent_notes(model),
    summary=summary,
    sections=sections,
    numbers=numbers,
    demo=make_demo,
)
