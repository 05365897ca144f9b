"""300 mutated models of `parts` and `machines`: each predicts, or is refused in one line.

Models of several methods are made from small data of our own. A mutation truncates a file, flips
bits, changes a field of ``model.json`` (another type, size or sign, NaN, deep nesting) or a tensor
(shape, dtype, values; missing, exchanged, more); mostly the hashes are recomputed, so that what is
in the model must be checked and not only whether it is the same. A case fails if another exception
than `UserError` comes, or none of both within a time limit.
"""

from __future__ import annotations

import contextlib
import copy
import json
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from benchmarks.results import ROOT, Say, plain
from lineside.applications import application
from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.core.predictor import load_predictor
from lineside.core.run.files import canonical, sha256
from lineside.core.run.folder import rng_of
from lineside.core.run.model_store import model_id
from lineside.core.run.progress import Progress
from lineside.core.run.seal import write_sealed
from lineside.core.workflow import train

CASES = 300
SECONDS = 60.0
"""A case that takes longer hangs."""
MOST_MEMORY = 8 * 2**30
METHODS = {
    "parts": (
        "detector", "memory", "patch_cnn", "texture", "gaussian", "pca", "golden_template",
        "brightness", "patch_pca",
    ),
    "machines": (
        "pca", "trend", "mahalanobis", "gmm", "knn", "ocsvm", "iforest", "fc_ae", "vae", "lstm_ae",
        "conv_ae",
    ),
}  # fmt: skip
QUICK = {"parts": ("gaussian", "brightness", "texture"), "machines": ("pca", "trend", "iforest")}
"""Methods of the small version, which is a test."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model to mutate.

    Attributes:
        app: Its application.
        model: Its folder.
        file: What it predicts.
    """

    app: str
    model: Path
    file: Path


# ---- models


def make_cases(folder: Path, methods: dict[str, tuple[str, ...]]) -> list[Case]:
    """Train every method on small data; they are taken from the folder if they are there."""
    cases = []
    for app, make in (("parts", _parts), ("machines", _machines)):
        data, file, config = make(folder / app, methods[app])
        run = folder / f"{app}_run"
        if not (run / "report.html").exists():
            study = train(application(app), data, run, config, Progress(quiet=True))
            assert not study.failures, study.failures
        models = sorted(path.parent for path in (run / "models").glob("*/model.json"))
        cases += [Case(app=app, model=model, file=file) for model in models]
    return cases


def _parts(folder: Path, methods: tuple[str, ...]) -> tuple[Path, Path, Any]:
    from PIL import Image

    from lineside.parts.config import Config

    rows, columns = np.indices((96, 96))
    for number in range(34):
        faulty = number >= 24
        rng = rng_of(number, "fuzz")
        grey = 110 + 20 * np.sin(columns / 7) + rng.normal(0, 4, (96, 96))
        row, column = rng.integers(20, 76, 2)
        grey[(np.hypot(rows - row, columns - column) < 7) & faulty] += 60
        path = folder / ("spot" if faulty else "good") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(path)
    config = Config(methods=methods, robustness=False, insight=False, cnn_steps=20, crop_px=32)
    return folder, folder / "spot" / "33.png", config


def _machines(folder: Path, methods: tuple[str, ...]) -> tuple[Path, Path, Any]:
    from lineside.machines.config import Config
    from lineside.machines.simulation.demo import save_history
    from lineside.machines.simulation.rig import Rig
    from lineside.machines.simulation.scenarios import Scenario, simulate_history

    for name, where, days in (("pump", "data", 20.0), ("pump", "new", 2.0)):
        plan = Scenario(
            name=name, rig=Rig(seconds=0.1), interval_hours=3.0, run_in=0.0, days=days,
            onset_day=None,
        )  # fmt: skip
        save_history(simulate_history(plan, rng_of(int(days), "fuzz")), folder / where / name)
    config = Config(methods=methods, learn=120, robustness=False)
    return folder / "data", folder / "new" / "pump" / "history.npz", config


# ---- mutations


def mutate(case: Case, folder: Path, rng: np.random.Generator) -> str:
    """Write a mutated copy of a model to a folder, and return what was done to it."""
    shutil.copytree(case.model, folder)
    kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    return f"{case.app} {case.model.name}: {kind}: {MUTATIONS[kind](folder, rng)}"


def _truncate(folder: Path, rng: np.random.Generator) -> str:
    path = folder / str(rng.choice(["model.json", "model.safetensors"]))
    content = path.read_bytes()
    length = int(rng.choice([0, 1, 7, 8, rng.integers(len(content))]))
    path.write_bytes(content[:length])
    if rng.random() < 0.5 and path.suffix != ".json":
        _sign(folder)
    return f"{path.name} to {length} bytes"


def _flip(folder: Path, rng: np.random.Generator) -> str:
    path = folder / str(rng.choice(["model.json", "model.safetensors", "model.safetensors"]))
    content = bytearray(path.read_bytes())
    places = rng.integers(min(len(content), int(rng.choice([64, 4096, 2**40]))), size=8)
    for place in places:
        content[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        _sign(folder)
    return f"{path.name} at {sorted(places.tolist())}"


def _field(folder: Path, rng: np.random.Generator) -> str:
    """Change one value of the description, most often within spec or calibration."""
    path = folder / "model.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    root = description[str(rng.choice(["spec", "spec", "calibration"]))]
    if rng.random() < 0.1:
        root = description
    places = list(_places(root))
    if not places:
        return "nothing to change"
    holder, key = places[int(rng.integers(len(places)))]
    old, new = holder[key], _other(holder[key], rng)
    done = f"{key} from {str(old)[:40]!r} to {str(new)[:40]!r}"
    if new is _GONE:
        del holder[key]
    else:
        holder[key] = new
    if isinstance(holder, dict) and rng.random() < 0.05:
        holder["one more"] = 1
    text = json.dumps(description).replace('"@deep"', "[" * 5000 + "]" * 5000)
    path.write_text(text, encoding="utf-8")
    with contextlib.suppress(TypeError, KeyError, RecursionError, AttributeError):
        _sign(folder)
    return done


def _tensor(folder: Path, rng: np.random.Generator) -> str:
    """Change one tensor, and half of the time what the description says of its shape."""
    path = folder / "model.safetensors"
    tensors = tensors_from_bytes(path.read_bytes())
    if not tensors:
        return "no tensor"
    name = str(rng.choice(sorted(tensors)))
    before = _summary(tensors[name])
    how = str(rng.choice(list(TENSOR_CHANGES)))
    changed = TENSOR_CHANGES[how](tensors[name].clone(), rng)
    if how == "missing":
        del tensors[name]
    elif how == "exchanged":
        other = str(rng.choice(sorted(tensors)))
        tensors[name], tensors[other] = tensors[other].clone(), tensors[name].clone()
    elif how == "one more":
        tensors[f"{name}.more"] = changed
    else:
        tensors[name] = changed
    path.write_bytes(tensors_to_bytes({k: v.contiguous() for k, v in tensors.items()}))
    if name in tensors and rng.random() < 0.7:
        _describe(folder, name, before, _summary(tensors[name]))
    _sign(folder)
    return f"{name} {before}: {how}"


def _content(folder: Path, rng: np.random.Generator) -> str:
    """Put something else in the place of a file."""
    path = folder / str(rng.choice(["model.json", "model.safetensors"]))
    other = str(rng.choice(list(CONTENTS)))
    path.write_bytes(CONTENTS[other])
    return f"{path.name} is {other}"


_GONE = object()
CONTENTS = {
    "a list": b"[1, 2]", "null": b"null", "deep": b"[" * 200_000, "not UTF-8": b"\xff\xfe\xe9",
    "zeros": bytes(4096), "a long header": (2**62).to_bytes(8, "little") + b"{}",
    "a number": b"9" * 5000, "an object": b'{"format": 2}',
    "deep objects": b'{"a":' * 900 + b"1" + b"}" * 900,
}  # fmt: skip
TENSOR_CHANGES: dict[str, Callable[[Tensor, np.random.Generator], Tensor]] = {
    "missing": lambda x, rng: x,
    "exchanged": lambda x, rng: x,
    "one more": lambda x, rng: x,
    "NaN": lambda x, rng: x.double().mul(float("nan")).to(x.dtype),
    "infinite": lambda x, rng: x.double().add(float("inf")).nan_to_num(nan=1e300).to(x.dtype),
    "huge": lambda x, rng: (x.double() * 1e30 + 1e30).to(x.dtype),
    "negative": lambda x, rng: -x.to(torch.float64).abs().add(1).to(x.dtype),
    "zero": lambda x, rng: torch.zeros_like(x),
    "float64": lambda x, rng: x.double(),
    "int64": lambda x, rng: x.double().nan_to_num().clamp(-1e9, 1e9).long(),
    "bool": lambda x, rng: x.bool(),
    "half": lambda x, rng: x.half(),
    "empty": lambda x, rng: x.flatten()[:0],
    "no rows": lambda x, rng: x[:0] if x.ndim else x,
    "flat": lambda x, rng: x.flatten(),
    "one axis more": lambda x, rng: x[None],
    "scalar": lambda x, rng: x.flatten()[0] if x.numel() else x.sum(),
    "transposed": lambda x, rng: x.T if x.ndim == 2 else x.flip(0) if x.ndim else x,
    "half of the rows": lambda x, rng: x[: (len(x) + 1) // 2] if x.ndim else x,
    "twice the rows": lambda x, rng: torch.cat([x, x]) if x.ndim else x,
    "one column less": lambda x, rng: x[..., :-1] if x.ndim else x,
}
MUTATIONS: dict[str, Callable[[Path, np.random.Generator], str]] = {
    "truncated": _truncate,
    "bits": _flip,
    "field": _field,
    "tensor": _tensor,
    "content": _content,
}
SHARES = {"truncated": 0.06, "bits": 0.1, "field": 0.44, "tensor": 0.34, "content": 0.06}


def _other(value: Any, rng: np.random.Generator) -> Any:
    """Return another value for a field: of another type, size or sign."""
    choices: list[Any] = [
        _GONE, None, True, -1, 0, 1, 2**31, -(2**63), 10**30, 1e308, -1e-300, "", "nan", "-inf",
        "x" * 10_000, [], {}, [value] * 3, {"class": "x"}, "@deep", [[[[]]]], "\u0000\n\x1b[2J",
    ]  # fmt: skip
    if isinstance(value, bool):
        choices += [not value] * 5
    elif isinstance(value, int):
        choices += [-value, value + 1, value * 1000, 10**9, -7, float(value)] * 3
    elif isinstance(value, float):
        choices += [
            -value,
            0.0,
            value * 1e9,
            "inf",
            "nan",
            int(value) if abs(value) < 1e9 else 3,
        ] * 3
    elif isinstance(value, list):
        choices += [value[:-1], value + value[-1:], value[::-1], value * 50] * 4
    elif isinstance(value, dict):
        choices += [dict(list(value.items())[:-1]), {**value, "more": 1}] * 4
    elif isinstance(value, str):
        choices += [value + "x", value[::-1], value.upper(), "float32 (1000000, 1000000)"] * 3
    chosen = choices[int(rng.integers(len(choices)))]
    return _GONE if chosen is _GONE else copy.deepcopy(chosen)


def _places(root: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every (list or object, key) within a value."""
    keys = (
        list(root) if isinstance(root, dict) else range(len(root)) if isinstance(root, list) else ()
    )
    for key in keys:
        yield root, key
        yield from _places(root[key])


def _summary(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _describe(folder: Path, name: str, before: str, after: str) -> None:
    """Make the description agree with a changed tensor; its name is a path through the spec."""
    path = folder / "model.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    for holder, key in _places(description["spec"]):
        if holder[key] == before and (isinstance(key, int) or name.split(".")[-1] == str(key)):
            holder[key] = after
    path.write_text(json.dumps(description), encoding="utf-8")


def _sign(folder: Path) -> None:
    """Recompute all hashes, as someone would who changes a model on purpose."""
    path = folder / "model.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    arrays = (folder / "model.safetensors").read_bytes()
    description["tensors"] = {"sha256": sha256(arrays), "bytes": len(arrays)}
    block = description["calibration"]
    description["calibration_sha256"] = sha256(canonical(block))
    description["id"] = model_id(description["application"], description["spec"], arrays)
    write_sealed(path, description)


# ---- trying them


def attempt(app: str, model: Path, file: Path) -> str:
    """Load a model and predict; return what is wrong, or "" if it predicts or is refused."""
    try:
        for result in load_predictor(model, application(app)).predict(file):
            text = json.dumps(result.as_json())
            line = result.message if isinstance(result, Refusal) else result.as_line()
            if not text or "\n" in line:
                return f"more than one line: {line[:200]!r}"
    except UserError as error:
        return f"more than one line: {str(error)[:200]!r}" if "\n" in str(error) else ""
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        own = [f for f in traceback.extract_tb(error.__traceback__) if "/lineside/" in f.filename]
        where = own[-1] if own else place
        named = f"{type(error).__name__}: {str(error)[:200]}"
        return f"{named} at {Path(where.filename).name}:{where.lineno}"
    return ""


class Attempts:
    """A process that tries models; it is killed and replaced when one hangs or crashes it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def attempt(self, case: Case, folder: Path) -> str:
        """Return what `attempt` does, or that it hangs, or ends its process."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.core.fuzz"], cwd=ROOT, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            self._ask("", 20 * SECONDS)  # it imports
        answer = self._ask(json.dumps([case.app, str(folder), str(case.file)]), SECONDS)
        return (
            f"no answer within {SECONDS:.0f} s, or its process ended" if answer is None else answer
        )

    def _ask(self, line: str, seconds: float) -> str | None:
        assert self._process and self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError:
            return None
        if select.select([self._process.stdout], [], [], seconds)[0]:
            answer = self._process.stdout.readline()
            if answer:
                return str(json.loads(answer))
        self.close()
        return None

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def failures(
    cases: Sequence[Case], count: int, *, seed: int = 0, attempts: Attempts | None = None
) -> list[str]:
    """Return one line for each of `count` mutated models that neither predicts nor is refused.

    Args:
        cases: Models; each is mutated about equally often.
        count: Number of mutations.
        seed: Of the mutations.
        attempts: Tries the models in a process of its own; None tries them in this one.
    """
    found = []
    for number in range(count):
        case = cases[number % len(cases)]
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            done = mutate(case, folder, np.random.default_rng([seed, number]))
            if attempts is None:
                wrong = attempt(case.app, folder, case.file)
            else:
                wrong = attempts.attempt(case, folder)
        if wrong:
            found.append(f"case {number}: {done}: {wrong}")
    return found


def fuzz(say: Say) -> None:
    """Count the mutated models that give a traceback or hang."""
    attempts = Attempts()
    with tempfile.TemporaryDirectory() as folder:
        cases = make_cases(Path(folder), METHODS)
        try:
            found = failures(cases, CASES, attempts=attempts)
        finally:
            attempts.close()
    for line in found:
        print(line)
    say("fuzz_failures", plain(len(found), "models", CASES, better="lower", reason="a count"))


def _serve() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    answers = sys.stdout
    for line in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):
            asked = json.loads(line) if line.strip() else None
            answer = attempt(asked[0], Path(asked[1]), Path(asked[2])) if asked else ""
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
