"""What a damaged file of a run does: it is refused in one line, or nothing changes.

Every file of finished and of unfinished runs of both applications, of an audit trail and of a
journal is cut, emptied, edited, removed, and replaced by something else. The commands that use it
are run again. A traceback, more than one line, or a result that differs without a word is a fault.
A part of the cases is rehearsed with ``python -m benchmarks.core.damage``.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.results import Say, plain

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
SECONDS = 300
"""A command that takes longer hangs."""
TIMES = ("ms", "ms_median", "ms_p95", "seconds", "heartbeat", "time", "row", "chain", "modified_ns")
Command = Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A folder that is damaged, and what is done with it then.

    Attributes:
        name: Of the scene.
        root: Holds all; it is copied for each damage, under the same path.
        files: What is damaged, relative to the root.
        commands: Command lines; paths are relative to the root.
        result: Reads what the commands were for, after them.
    """

    name: str
    root: Path
    files: Sequence[str]
    commands: Sequence[Command]
    result: Callable[[Path], Any] = lambda root: None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the commands of a scene answered: exit codes, standard output, lines of errors."""

    codes: list[int]
    output: list[Any]
    errors: list[list[str]]
    result: Any


def _edit(place: float) -> Callable[[bytes], bytes]:
    """Change the digit, or else the byte, that is nearest behind a place."""

    def edit(content: bytes) -> bytes:
        start = int(place * len(content))
        for index in [*range(start, len(content)), *range(start)]:
            if content[index : index + 1].isdigit():
                digit = b"7" if content[index : index + 1] != b"7" else b"3"
                return content[:index] + digit + content[index + 1 :]
        return content + b"x"

    return edit


CONTENTS: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[: len(content) // 2],
    "without its last line": lambda content: content[: content.rstrip().rfind(b"\n") + 1],
    "emptied": lambda content: b"",
    "a picture": lambda content: PICTURE,
    "a list": lambda content: b"[1, 2]\n",
    "edited in the middle": _edit(0.5),
    "edited late": _edit(0.9),
    "twice": lambda content: content + content,
}
DAMAGES = (*CONTENTS, "a folder", "missing")


def damage_file(path: Path, damage: str) -> None:
    """Damage a file in place."""
    if damage in CONTENTS:
        path.write_bytes(CONTENTS[damage](path.read_bytes()))
        return
    path.unlink()
    if damage == "a folder":
        path.mkdir()


def damage(say: Say) -> None:
    """Damage every file of runs, a trail and a journal in ten ways and use them again."""
    with tempfile.TemporaryDirectory() as folder:
        tracebacks, silent, count = judge(scenes(Path(folder)), DAMAGES)
    reason = f"damages of files of runs, {len(DAMAGES)} each"
    say("damage_tracebacks", plain(tracebacks, "cases", count, "lower", reason))
    say("damage_silent", plain(silent, "cases", count, "lower", reason))


def judge(found: Sequence[Scene], damages: Sequence[str], every: int = 1) -> tuple[int, int, int]:
    """Return how many cases ended in a traceback, and in another result without a word; of all."""
    cases = [(s, file, kind) for s in found for file in s.files for kind in damages][::every]
    whole: dict[str, Answer] = {}
    tracebacks = silent = 0
    for number, (scene, file, kind) in enumerate(cases):
        if number % 50 == 0:
            print(f"{number} of {len(cases)} damages", file=sys.stderr, flush=True)
        if scene.name not in whole:
            whole[scene.name] = answer(scene, "", "")
            if any(code not in (0, 1) for code in whole[scene.name].codes):
                raise AssertionError(f"{scene.name} does not work: {whole[scene.name]}")
        reply = answer(scene, file, kind)
        fault = fault_of(whole[scene.name], reply, Path(file).name if kind == "missing" else "")
        tracebacks += fault == "traceback"
        silent += fault == "silent"
        if fault:
            print(f"{fault}: {scene.name}, {file} {kind}: {reply.codes} {reply.errors}", flush=True)
    return tracebacks, silent, len(cases)


def fault_of(whole: Answer, reply: Answer, missing: str = "") -> str:
    """Return ``"traceback"``, ``"silent"`` or, if all is well, ``""``.

    Args:
        whole: Of the scene without damage.
        reply: Of the damaged one.
        missing: Name of a file that was removed: where that is said, an output may differ.
    """
    for code, errors in zip(reply.codes, reply.errors, strict=True):
        named = [line for line in errors if line.startswith("error: ")]
        if code not in (0, 1, 2) or any("Traceback" in line for line in errors):
            return "traceback"
        if code == 2 and len(named) != 1:
            return "traceback"
    said = missing and any(missing in line for lines in reply.errors for line in lines)
    pairs = zip(whole.codes, whole.output, reply.codes, reply.output, strict=True)
    if not said and any(b < 2 and (a, out) != (b, other) for a, out, b, other in pairs):
        return "silent"
    return "silent" if 2 not in reply.codes and reply.result != whole.result else ""


def answer(scene: Scene, file: str, kind: str) -> Answer:
    """Damage a file of a copy of the scene and run its commands, each in a process of its own."""
    kept = scene.root.with_name(f"{scene.root.name}-whole")
    shutil.rmtree(kept, ignore_errors=True)
    scene.root.rename(kept)
    shutil.copytree(kept, scene.root)
    try:
        if file:
            damage_file(scene.root / file, kind)
        replies = [_run(scene.root, command) for command in scene.commands]
        codes = [code for code, _, _ in replies]
        result = scene.result(scene.root) if set(codes) <= {0, 1} else None
        return Answer(
            codes=codes, output=[_numbers(text) for _, text, _ in replies],
            errors=[text.splitlines() for _, _, text in replies], result=result,
        )  # fmt: skip
    finally:
        shutil.rmtree(scene.root)
        kept.rename(scene.root)


def _run(root: Path, command: Command) -> tuple[int, str, str]:
    """Run one command in a forked process; the code is that of a killed one if it hangs."""
    target = Path(tempfile.mkdtemp())
    child = os.fork()
    if child == 0:
        code = 3
        try:
            signal.alarm(SECONDS)
            os.chdir(root)
            code = _main(command, target)
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    texts = [(target / n).read_text() if (target / n).exists() else "" for n in ("out", "err")]
    shutil.rmtree(target)
    return status, texts[0], texts[1]


def _main(command: Command, target: Path) -> int:
    from lineside.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(command))
    (target / "out").write_text(out.getvalue())
    (target / "err").write_text(err.getvalue())
    return code


def _numbers(output: str) -> list[Any]:
    """Return the lines of an output, JSON without what differs from call to call."""
    lines: list[Any] = []
    for line in output.splitlines():
        if line.startswith("{"):
            lines.append(timeless(json.loads(line)))
        elif not line.startswith(("ms", "model ", "report ")):
            lines.append(line)
    return lines


def timeless(value: Any) -> Any:
    """Return plain JSON without times."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in TIMES}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def scenes(root: Path) -> list[Scene]:
    """Make the runs that are damaged."""
    preload()
    return [*parts_scenes(root / "parts"), *machines_scenes(root / "machines")]


def preload() -> None:
    """Import what commands need, so that their forked processes begin at once; one thread each."""
    for name in (
        "lineside.cli", "lineside.parts.application", "lineside.machines.application",
        "lineside.core.workflow", "lineside.core.report", "lineside.machines.streams.commands",
        "lineside.parts.models.patch_cnn.training", "sklearn.linear_model", "matplotlib.figure",
    ):  # fmt: skip
        importlib.import_module(name)
    torch.set_num_threads(1)


def parts_scenes(root: Path, *, deep: bool = True) -> list[Scene]:
    """Runs of `parts`: finished, stopped between methods, stopped in a training; with a watch."""
    from lineside.parts.simulation.dataset import demo

    root.mkdir(parents=True)
    demo(root / "data", 0, good_parts=16, faulty_parts=9, exposures=1, size_px=96)
    demo(root / "fresh", 5, good_parts=4, faulty_parts=3, exposures=1, size_px=96)
    pictures = sorted(str(p.relative_to(root)) for p in (root / "fresh").rglob("*.png"))[:4]
    light = ["--methods", "gaussian", "--methods", "brightness", "--no-robustness"]
    train = ["parts", "train", "data", "--out", "run", *light]
    patch = ["--methods", "patch_cnn", "--cnn-steps", "6", "--crop-px", "32", "--no-robustness"]
    cnn = ["parts", "train", "data", "--out", "cnn", *patch, "--no-insight"]
    predict = ["parts", "predict", *pictures, "--model", "run", "--json"]
    watch = [
        "parts", "watch", "fresh", "--model", "run", "--trail", "trail.jsonl", "--once",
        "--interval-seconds", "0.01",
    ]  # fmt: skip
    journal = [*predict, "--journal", "done.jsonl"]
    found = [
        _finished("parts", root, [train, watch, journal], [
            predict, ["parts", "evaluate", "fresh", "--model", "run"], watch, journal,
            ["parts", "recalibrate", "fresh", "--model", "run"],
        ], ["trail.jsonl", "trail.jsonl.head", "done.jsonl"]),
        _stopped("parts", root, train, "run", step="fitting brightness"),
    ]  # fmt: skip
    if deep:
        scene = _stopped("parts", root, cnn, "cnn", step="", training=2)
        own = [file for file in scene.files if "checkpoint" in file or "metrics" in file]
        found.append(replace(scene, files=own))
    return found


def machines_scenes(root: Path) -> list[Scene]:
    """Runs of `machines`: finished, with a store, and stopped between methods."""
    from lineside.machines.simulation.demo import save_history
    from lineside.machines.simulation.rig import Rig
    from lineside.machines.simulation.scenarios import Scenario, simulate_history

    for seed, (name, days, onset) in enumerate(
        [
            ("data/pump", 16.0, 11.0),
            ("data/fan", 16.0, None),
            ("new/pump", 3.0, None),
            ("fresh/pump", 12.0, 6.0),
        ]
    ):
        machine = name.partition("/")[2]
        plan = Scenario(
            name=machine, rig=Rig(seconds=0.1), interval_hours=3.0, run_in=0.0, days=days,
            onset_day=onset, growth_days=5.0,
        )  # fmt: skip
        save_history(simulate_history(plan, np.random.default_rng(seed)), root / name)
    light = ["--methods", "pca", "--methods", "trend", "--learn", "72", "--no-robustness"]
    train = ["machines", "train", "data", "--out", "run", *light]
    watch = ["machines", "watch", "new", "--model", "run", "--once", "--json", "--all"]
    watch += ["--interval-seconds", "0.01"]
    return [
        _finished("machines", root, [train, watch], [
            ["machines", "predict", "new", "--model", "run", "--json"],
            ["machines", "evaluate", "fresh", "--model", "run"],
            ["machines", "ledger", "--model", "run"], watch,
            ["machines", "fleet", "--json"],
        ], ["machines.db"]),
        _stopped("machines", root, train, "run", step="fitting trend"),
    ]  # fmt: skip


def _finished(
    name: str, data: Path, first: Sequence[Command], commands: Sequence[Command],
    beside: Sequence[str],
) -> Scene:  # fmt: skip
    """A finished run, used and used again."""
    home = data.with_name(f"{name}-finished")
    shutil.copytree(data, home)
    for command in first:
        code, _, errors = _run(home, command)
        if code not in (0, 1):
            raise AssertionError(errors)
    files = [f for f in _files(home, "run") if not f.endswith((".html", ".lock"))]
    return Scene(name=home.name, root=home, files=[*files, *beside], commands=commands)


def _stopped(
    name: str, data: Path, train: Command, out: str, *, step: str, training: int = 0
) -> Scene:
    """A run that was stopped at a step of the workflow, or within a training after some updates."""
    from lineside.core.run.folder import Run

    asked = {"stop": False, "steps": 0}
    status = Run.status

    def watched(self: Run, state: str, **facts: Any) -> None:
        status(self, state, **facts)
        asked["stop"] |= facts.get("step") == step

    def stopping(self: Run) -> bool:
        asked["steps"] += self._fit is not None
        return asked["stop"] or (training > 0 and asked["steps"] > training)

    home = data.with_name(f"{name}-{out}-stopped")
    shutil.copytree(data, home)
    with mock.patch.object(Run, "status", watched), mock.patch.object(Run, "stopping", stopping):
        code, _, errors = _run(home, train)
    if code != 130:
        raise AssertionError(f"not stopped: {code} {errors}")
    return Scene(
        name=home.name, root=home, files=_files(home, out), commands=[train],
        result=lambda where: _trained(where / out),
    )  # fmt: skip


def _files(home: Path, run: str) -> list[str]:
    return sorted(str(p.relative_to(home)) for p in (home / run).rglob("*") if p.is_file())


def _trained(run: Path) -> Any:
    """Return models, operating points and estimates of a finished run, without times."""
    models = {}
    for path in sorted(run.glob("models/*/model.json")):
        described = json.loads(path.read_text())
        models[path.parent.name] = (described["id"], described["calibration"])
    return [models, timeless(list(_estimates(json.loads((run / "report.json").read_text()))))]


def _estimates(report: Any) -> Iterator[Any]:
    """Yield the numbers of a report by method."""
    for name, method in report["methods"].items():
        yield name, {k: v for k, v in method["estimates"].items() if not k.startswith("ms")}


def main(arguments: Sequence[str]) -> int:
    """Rehearse every n-th case, 20 by default."""
    every = int(arguments[0]) if arguments else 20
    with tempfile.TemporaryDirectory() as folder:
        print(judge(scenes(Path(folder)), DAMAGES, every))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
