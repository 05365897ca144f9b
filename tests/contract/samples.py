"""A small labelled data set of every application, with files to predict and a damaged one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Sample:
    """What the contract test needs of an application.

    Attributes:
        data: Labelled data to train on.
        config: Light methods only.
        fresh: Files without labels.
        damaged: A file that cannot be read.
        order: Sorts the items of a group where the split is by time.
        demo_options: Make the demo small.
    """

    data: Path
    config: Any
    fresh: tuple[Path, ...]
    damaged: Path
    order: Callable[[Any], float] | None = None
    demo_options: Mapping[str, Any] = field(default_factory=dict)


def parts(folder: Path) -> Sample:
    """Pictures of parts with two views each, some with a bright spot."""
    from tests.conftest import PATTERN, Shop

    from lineside.parts.config import Config

    shop = Shop()
    damaged = folder / "new" / "damaged_v1.png"
    fresh = tuple(
        shop.picture(folder / "new" / f"n{i}_v1.png", spot, 50 + i)
        for i, spot in enumerate((0.0, 120.0, 0.0))
    )
    damaged.write_bytes(b"\x89PNG no picture")
    return Sample(
        data=shop.data(folder / "data", good=20, faulty=8),
        config=Config(methods=("gaussian", "brightness"), robustness=False, part_pattern=PATTERN),
        fresh=fresh,
        damaged=damaged,
        demo_options={"good_parts": 2, "faulty_parts": 2, "exposures": 1, "size_px": 96},
    )


def machines(folder: Path) -> Sample:
    """Two simulated machines, one of which wears out at the end."""
    from lineside.machines.config import Config
    from lineside.machines.simulation.demo import save_history
    from lineside.machines.simulation.rig import Rig
    from lineside.machines.simulation.scenarios import Scenario, simulate_history

    def save(name: str, where: str, seed: int, **scenario: Any) -> Path:
        plan = Scenario(name=name, rig=Rig(seconds=0.1), interval_hours=3.0, run_in=0.0, **scenario)
        target = folder / where / name
        save_history(simulate_history(plan, np.random.default_rng(seed)), target)
        return target / "history.npz"

    save("pump", "data", 0, days=16.0, onset_day=11.0, growth_days=5.0)
    save("fan", "data", 1, days=16.0, onset_day=None)
    fresh = save("pump", "new", 2, days=3.0, onset_day=None)
    damaged = fresh.with_name("damaged.wav")
    damaged.write_bytes(b"RIFF no sound")
    return Sample(
        data=folder / "data",
        config=Config(methods=("pca", "trend"), learn=72, robustness=False),
        fresh=(fresh,),
        damaged=damaged,
        order=lambda item: item.time,
    )


def scores(folder: Path) -> Sample:
    """Pages of two short tunes a song, engraved."""
    from lineside.core.run.progress import Progress
    from lineside.scores.config import Config
    from lineside.scores.engraving.page_maker import Settings, find_scores, make_pages

    rng = np.random.default_rng(0)
    for number in range(24):
        song = folder / "tunes" / f"set{number // 2}" / f"tune{number}"
        song.mkdir(parents=True)
        bars = "|".join("".join(rng.choice(list("CDEFGABc"), 4)) for _ in range(6))
        (song / f"t{number}.abc").write_text(f"X:1\nL:1/4\nM:4/4\nK:G\n{bars}|]\n")
    quiet = Progress(quiet=True)
    make_pages(find_scores([folder / "tunes"]), folder / "data", Settings(), quiet)
    (folder / "tunes" / "set0" / "tune0" / "t0.abc").rename(folder / "fresh.abc")
    make_pages(find_scores([folder / "fresh.abc"]), folder / "new", Settings(seed=9), quiet)
    damaged = folder / "new" / "damaged.png"
    damaged.write_bytes(b"\x89PNG no page")
    return Sample(
        data=folder / "data",
        config=Config(methods=("blobs", "run_length"), insight=False),
        fresh=(folder / "new" / "fresh-1.png",),
        damaged=damaged,
        demo_options={"songs": 4},
    )
