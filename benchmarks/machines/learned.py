"""What it costs to show what the autoencoders of the demo fleet learned."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.learned import looking_and_fit
from benchmarks.results import Say, plain
from lineside.core.workflow import read
from lineside.machines.application import APPLICATION
from lineside.machines.config import Config
from lineside.machines.methods import DETECTORS
from lineside.machines.simulation.demo import FLEET, make_demo


def learned_share(say: Say) -> None:
    """Time of looking at the autoencoders' fits and drawing, as a share of the fits."""
    deep = tuple(name for name, spec in DETECTORS.items() if spec.kind == "deep")
    config = Config(methods=deep)
    with tempfile.TemporaryDirectory() as folder:
        items, _ = read(APPLICATION, make_demo(Path(folder), 0), config)
        found = looking_and_fit(APPLICATION, APPLICATION.split(items, config), config)
    looking, fits = (sum(seconds) for seconds in zip(*found.values(), strict=True))
    reason = f"{looking:.1f} s beside fits of {fits:.1f} s, {len(deep)} autoencoders"
    say("learned_share", plain(looking / fits, "ratio", len(FLEET), "lower", reason))
    worst = max(found, key=lambda name: found[name][0] / found[name][1])
    share = found[worst][0] / found[worst][1]
    say("learned_share_worst", plain(share, "ratio", len(FLEET), "lower", worst))
