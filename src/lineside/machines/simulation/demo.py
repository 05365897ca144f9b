"""A small fleet for the demo: known onsets, and what makes condition monitoring hard."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from lineside.core.run.files import write_json
from lineside.core.run.folder import rng_of
from lineside.machines.data.sidecar import NAME
from lineside.machines.simulation.rig import STEP_G, Rig, Sensor
from lineside.machines.simulation.scenarios import (
    History,
    Scenario,
    SensorEpisode,
    simulate_history,
)

FLEET = (
    Scenario(name="pump", gaps=((17.0, 2.0),), drift=0.05),
    Scenario(
        name="gearbox", rig=Rig(speed_hz=20.0, teeth=31, noise_g=0.06), fault="inner race",
        relative_speeds=(0.7, 0.85, 1.0, 1.15), loads=(0.5, 1.0), idle_share=0.05, onset_day=27.0,
        growth_days=12.0,
    ),
    Scenario(
        name="fan", rig=Rig(speed_hz=16.0, teeth=17, resonance_hz=2600.0), onset_day=None,
        days=36.0,
        episodes=(
            SensorEpisode(channel=1, from_day=22.0, until_day=23.5, sensor=Sensor(kind="dead")),
            SensorEpisode(
                channel=0, from_day=29.0, until_day=30.0, sensor=Sensor(kind="clipped", size=0.1)
            ),
        ),
    ),
    # One snapshot per step, each healthy: only the order shows this fault, so only a detector on
    # several snapshots can find it. A lost snapshot looks like a skipped step to it.
    Scenario(
        name="reactor", fault="sequence", growth_days=12.0,
        rig=Rig(steps_hz=(600.0, 1100.0, 1600.0, 2100.0, 2600.0, 4300.0, 4900.0, 5500.0)),
    ),
)  # fmt: skip


def make_demo(folder: Path, seed: int) -> Path:
    """Write the fleet's histories into a folder, one folder per machine, and return it."""
    for scenario in FLEET:
        history = simulate_history(scenario, rng_of(seed, scenario.name))
        save_history(history, folder / scenario.name)
    return folder


def save_history(history: History, folder: Path) -> None:
    """Write a history as ``history.npz``, what a user knows of it as ``machine.json``.

    The true severity of the fault, which no user has, is in ``truth.json``; nothing reads it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rig = history.scenario.rig
    np.savez_compressed(
        folder / "history.npz", acc=history.counts, scale=STEP_G, fs=rig.rate_hz, t=history.times,
        speed_hz=history.speed_hz, load=history.load, temperature=history.temperature,
        channels=np.array(rig.channels),
    )  # fmt: skip
    healthy_until = float(history.times[-1]) + 1.0  # without a fault
    facts = {
        "unit": "g",
        "bearing": {"balls": rig.balls, "ball_mm": rig.ball_mm, "pitch_mm": rig.pitch_mm},
        "fault_from": healthy_until if history.fault_from is None else history.fault_from,
        "failed_at": history.failed_at,
    }
    write_json(folder / NAME, {key: value for key, value in facts.items() if value is not None})
    truth = {"fault": history.scenario.fault, "severity": np.round(history.severity, 3).tolist()}
    (folder / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
