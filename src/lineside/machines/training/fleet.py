"""Fitting one method on every machine of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from lineside.core.contract import Method, Split
from lineside.core.errors import UserError
from lineside.core.run.folder import Run
from lineside.machines.config import Config
from lineside.machines.data.dataset import by_machine
from lineside.machines.methods import DETECTORS

if TYPE_CHECKING:
    from lineside.machines.model import MachinesModel


def methods(config: Config) -> Sequence[Method]:
    """Return the methods of a configuration in its order."""
    return [
        Method(
            name=name, kind=DETECTORS[name].kind, help=DETECTORS[name].help, fit=partial(_fit, name)
        )
        for name in config.methods
    ]


def _fit(name: str, split: Split, config: Config, run: Run) -> MachinesModel:
    """Learn every machine; the recorder's rows of one machine carry its name as phase.

    Raises:
        UserError: if a machine cannot be learned.
    """
    from lineside.machines.model import MachinesModel
    from lineside.machines.training.fitting import learn_machine

    machines = by_machine(split.train)
    if not machines:
        raise UserError(
            "there is no snapshot to learn from", "lineside machines audit DATA says why"
        )
    later = by_machine(split.calibration)
    options = options_of(name, config)
    found = {}
    for machine, own in machines.items():
        run.check_stop()

        def log(row: Mapping[str, Any], phase: str = machine) -> None:
            run.log({"method": name, "phase": phase, **row})

        found[machine] = learn_machine(
            own, name, rng=run.rng(f"{name} {machine}"), log=log, stop=run.stopping,
            options=options, held_out=later.get(machine, ()),
        )  # fmt: skip
    return MachinesModel(method=name, machines=found)


def options_of(name: str, config: Config) -> dict[str, Any]:
    """Return the constants of a published preset for a method, none for our own."""
    from lineside.machines.models import preset

    wanted = preset(config.preset).detectors.values()
    for settings in wanted:
        if settings["fit"] == name:
            return {key: value for key, value in settings.items() if key != "fit"}
    return {}
