"""Train the detector that comes with lineside, on pages that it engraved itself.

Run: ``python -m lineside.scores.pretraining PAGES --out FOLDER [--steps 20000]``; the same command
continues from its checkpoint. `PAGES` is a folder of ``lineside scores make``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from lineside.core.run.codec import encode
from lineside.core.run.files import write_json
from lineside.core.run.folder import Stopped, rng_of
from lineside.core.training.loop import Hooks, Progress
from lineside.scores.models.watershed.fitting import fit_watershed
from lineside.scores.models.watershed.training import WatershedTraining
from lineside.scores.training.crops import Pages

SPEC, TENSORS = "detector.json", "detector.safetensors"
WEIGHTS = Path(__file__).parent / "models" / "watershed" / "weights"
"""Where the weights lie that come with lineside."""
SECONDS_BETWEEN_LINES = 60.0


def main(arguments: list[str] | None = None) -> int:
    """Train, and write ``detector.json`` and ``detector.safetensors``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pages", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after; 0: at the end")
    parser.add_argument("--half-precision", action="store_true", help="compute in bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    training = WatershedTraining(
        steps=options.steps, batch=options.batch, half_precision=options.half_precision
    )
    begin, last = time.monotonic(), [0.0]
    options.out.mkdir(parents=True, exist_ok=True)

    def tell(progress: Progress) -> None:
        if time.monotonic() - last[0] > SECONDS_BETWEEN_LINES:
            last[0] = time.monotonic()
            left = progress.seconds_left / 60
            print(
                f"step {progress.step}: loss {progress.loss:.3f}, {left:.0f} min left", flush=True
            )

    def write(row: dict[str, Any]) -> None:
        with (options.out / "log.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row, default=str) + "\n")

    hooks = Hooks(
        log=write, progress=tell, checkpoint=options.out / "checkpoint",
        stop=lambda: 0 < options.minutes < (time.monotonic() - begin) / 60,
    )  # fmt: skip
    rng = rng_of(options.seed, "watershed")
    try:
        detector = fit_watershed(Pages(options.pages), rng=rng, training=training, hooks=hooks)
    except Stopped:
        print("stopped; the same command continues")
        return 130
    spec, tensors = encode(detector)
    write_json(options.out / SPEC, spec)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, options.out / TENSORS
    )
    print(f"{sum(p.numel() for p in detector.network.parameters())} parameters: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
