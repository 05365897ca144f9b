"""Models on disk: safetensors and JSON, checked by size and hash, never pickle.

``models/NAME/`` holds ``model.safetensors`` (arrays), ``model.json`` (everything else, sealed, and
signed if a key is given) and ``MODEL_CARD.md``. The id of a model is the hash of its spec and
arrays; the operating point is a block of its own, since a threshold can be set again without
changing what the model computes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from lineside import __version__
from lineside.core.contract import Application
from lineside.core.errors import UserError
from lineside.core.run.files import (
    DRAFT,
    canonical,
    check_file,
    disk_errors,
    read_json,
    sha256,
    write_bytes,
)
from lineside.core.run.seal import SEAL, check_seal, key, write_sealed
from lineside.core.run.status import STATUS, read_status

FORMAT_VERSION = 2
LARGEST_ARRAYS = 8 * 2**30
REPAIR = "copy the model again, or train it again"


def model_id(application: str, spec: Mapping[str, Any], tensors: bytes) -> str:
    """Return the id of a model: SHA-256 over application, spec and arrays (16 digits)."""
    return sha256(canonical([application, spec, sha256(tensors)]))[:16]


def save_model(
    folder: Path,
    application: str,
    model: Any,
    *,
    parent: str = "",
    card: str = "",
    beside: Mapping[str, str] | None = None,
) -> str:
    """Write a model folder as a whole or not at all, and return the model's id.

    Args:
        folder: ``RUN/models/NAME``; an older one of the same name is replaced.
        application: Name of the application that can load it.
        model: Anything with ``spec()``, ``tensors()`` and ``calibration_block()``.
        parent: Id of the model that this one was made from by feedback.
        card: Text of ``MODEL_CARD.md``.
        beside: Further text files of the folder, text by name.

    Raises:
        UserError: if the disk is full or the folder may not be written.
    """
    spec, arrays = model.spec(), _bytes_of(model)
    identity = model_id(application, spec, arrays)
    block = model.calibration_block()
    description = {
        "format": FORMAT_VERSION,
        "lineside": __version__,
        "application": application,
        "id": identity,
        "parent": parent,
        "tensors": {"sha256": sha256(arrays), "bytes": len(arrays)},
        "spec": spec,
        "calibration": block,
        "calibration_sha256": sha256(canonical(block)),
        "beside": {name: sha256(_encoded(text)) for name, text in (beside or {}).items()},
    }
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _replaced(folder) as draft:
            write_bytes(draft / "model.safetensors", arrays)
            for name, text in {"MODEL_CARD.md": card, **(beside or {})}.items():
                write_bytes(draft / name, _encoded(text))
            write_sealed(draft / "model.json", description)
    return identity


def identity_of(application: str, model: Any) -> str:
    """Return the id that a model will have when it is saved."""
    return model_id(application, model.spec(), _bytes_of(model))


def _encoded(text: str) -> bytes:
    """Return text as UTF-8; a name of a file that is not UTF-8 has its bytes as codes."""
    return text.encode(errors="backslashreplace")


def _bytes_of(model: Any) -> bytes:
    content = tensors_to_bytes({k: _plain(v) for k, v in sorted(model.tensors().items())})
    return bytes(content)


def _plain(tensor: Tensor) -> Tensor:
    """Return the tensor as safetensors takes it: contiguous, in memory that no other shares."""
    return tensor.detach().cpu().contiguous().clone()


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """Give an empty folder, which is put in the place of another one when it is full.

    The old one goes after the new one is in.
    """
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=DRAFT))
    try:
        yield draft
        os.chmod(draft, 0o755)
        if folder.exists():
            old = tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=DRAFT)
            os.replace(folder, old)  # an empty folder is replaced
            os.replace(draft, folder)
            shutil.rmtree(old)
        else:
            os.replace(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def save_calibration(
    folder: Path, block: Mapping[str, Any], beside: Mapping[str, str] | None = None
) -> None:
    """Replace the operating point of a stored model; what the model computes stays as it is.

    Args:
        folder: The model folder.
        block: The new operating point.
        beside: Text files of the folder that change with it, text by name.

    Raises:
        UserError: if the model was altered, or cannot be written.
    """
    description = _unsealed(folder, _description(folder))
    description["calibration"] = dict(block)
    description["calibration_sha256"] = sha256(canonical(block))
    if not beside:
        write_sealed(folder / "model.json", description)
        return
    description.setdefault("beside", {}).update({k: sha256(_encoded(v)) for k, v in beside.items()})
    with disk_errors(folder), _replaced(folder) as draft:
        shutil.copytree(folder, draft, dirs_exist_ok=True)
        for name, text in beside.items():
            write_bytes(draft / name, _encoded(text))
        write_sealed(draft / "model.json", description)


def file_beside(folder: Path, name: str) -> Path | None:
    """Return a file that was saved beside a model, None if there is none.

    Raises:
        UserError: if it is not the one that was saved.
    """
    path, stored = folder / name, folder / "model.json"
    description = _unsealed(folder, _description(folder)) if stored.exists() else {}
    hashes = description.get("beside", {})
    if name not in hashes:
        return path if path.exists() else None
    if not path.is_file() or sha256(path.read_bytes()) != hashes[name]:
        what = "was altered" if path.is_file() else "is missing"
        raise UserError(f"{path} {what} since its model was saved", REPAIR)
    return path


def load_model(path: str | Path, application: Application) -> Any:
    """Load a model from a run folder or a model folder.

    Raises:
        UserError: if nothing is there, or if it is damaged, altered, foreign or of a newer format.
    """
    folder = model_folder(Path(path))
    description = _description(folder)
    if description["application"] != application.name:
        raise UserError(
            f"{folder} is a model of {description['application']!r}, not of {application.name!r}",
            f"use lineside {description['application']}",
        )
    description = _unsealed(folder, description)
    arrays = _arrays(folder, description)
    try:
        model = application.load(description["spec"], tensors_from_bytes(arrays))
        model = model.with_calibration(description["calibration"], identity=description["id"])
        application.probe(model)
    except Exception as error:  # whatever a library raises on what does not fit together
        named = (
            error.message if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        )
        reason = " ".join(named.split())
        raise UserError(
            f"{folder} holds a model that this version cannot read ({reason})",
            "train it again with this version",
        ) from error
    return model


def application_of(path: str | Path) -> str:
    """Return the name of the application that a stored model belongs to.

    Raises:
        UserError: if there is no model, or it is damaged or of a newer format.
    """
    return str(_description(model_folder(Path(path)))["application"])


def model_folder(path: Path) -> Path:
    """Return the model folder that a path means: itself, or the chosen model of a run.

    Raises:
        UserError: if the path holds no model; the hint lists runs beside it.
    """
    if (path / "model.json").is_file():
        return path
    if path.name == "model.json" and path.is_file():
        return path.parent
    if (path / STATUS).is_file():
        facts = read_status(path)
        chosen, state = str(facts.get("model", "")), facts.get("state")
        if chosen and (path / "models" / chosen / "model.json").is_file():
            return path / "models" / chosen
        if chosen:
            raise UserError(
                f"{path} is a run without a finished model: models/{chosen} holds none", REPAIR
            )
        raise UserError(
            f"{path} is a run without a finished model ({state})",
            "wait for it" if state == "running" else "repeat its train command to finish it",
        )
    near = [*Path().glob("*/status.json"), *Path().glob("*/*/status.json")]
    runs = [str(status.parent) for status in sorted(near)[:5]]
    hint = f"runs here: {', '.join(runs)}" if runs else "make one with: lineside APP train DATA"
    raise UserError(f"{path} holds no model", hint)


def _description(folder: Path) -> dict[str, Any]:
    description = read_json(folder / "model.json")
    if not isinstance(description, dict) or "format" not in description:
        raise UserError(f"{folder}/model.json is not a lineside model", "check the path")
    if description["format"] != FORMAT_VERSION:
        version = "".join(str(description.get("lineside", "0.1.0")).split())[:20]
        raise UserError(
            f"{folder} has format {description['format']!r:.20}, written by lineside {version}; "
            f"this version reads format {FORMAT_VERSION}",
            "train the model again, or install the version that wrote it",
        )
    missing = {"application", "spec", "tensors", "calibration", "calibration_sha256", "id"}
    missing -= set(description)
    missing |= {"tensors"} - {k for k, v in description.items() if isinstance(v, dict)}
    if missing:
        raise UserError(f"{folder}/model.json lacks {', '.join(sorted(missing))}", REPAIR)
    if sha256(canonical(description["calibration"])) != description["calibration_sha256"]:
        raise UserError(
            f"the calibration in {folder}/model.json was altered", "calibrate the model again"
        )
    return description


def _unsealed(folder: Path, description: dict[str, Any]) -> dict[str, Any]:
    """Return a description that fits its seal, and the key if one is given."""
    if key() is None and SEAL not in description:  # models were not always sealed
        return description
    return check_seal(folder / "model.json", description, REPAIR)


def _arrays(folder: Path, description: Mapping[str, Any]) -> bytes:
    path = folder / "model.safetensors"
    expected = description["tensors"]
    try:
        size = check_file(path, LARGEST_ARRAYS)
        arrays = path.read_bytes() if size == expected.get("bytes") else b""
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", REPAIR) from error
    if len(arrays) != expected.get("bytes") or sha256(arrays) != expected.get("sha256"):
        raise UserError(f"{path} is damaged or was altered", REPAIR)
    if model_id(description["application"], description["spec"], arrays) != description["id"]:
        raise UserError(f"{folder}/model.json was altered", REPAIR)
    return arrays
