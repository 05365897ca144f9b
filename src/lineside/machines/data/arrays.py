"""Waveforms from named arrays: MATLAB files and NPZ."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineside.core.errors import UserError
from lineside.core.run.table_reader import distinct
from lineside.machines.data.recording import LEAST_SAMPLES, Recording, seconds_since_1970, unit_of

TIMES = ("t", "time", "times")
SPEED_NAMES, RATE_NAMES = ("rpm",), ("fs", "sr", "rate_hz", "sample_rate")
FACTS = (*TIMES, "load", "speed_hz", "channels")
LARGEST_BYTES = 4_000_000_000
"""Unpacked size; a file is read into memory as a whole."""


def read_mat(path: Path) -> Recording:
    """Read one snapshot from a MATLAB file: arrays, or a structure with waveforms and facts."""
    from scipy.io import loadmat

    try:
        content = loadmat(path, squeeze_me=True, struct_as_record=False)
    except NotImplementedError as error:
        raise UserError(
            f"{path} is a MATLAB 7.3 file", "save it with -v7, or as CSV or NPZ"
        ) from error
    fields = _flatten({k: v for k, v in content.items() if not k.startswith("__")})
    return _from_fields(path, fields)


def read_npz(path: Path) -> Recording:
    """Read one or many snapshots from arrays named by channel, or from one with ``channels``.

    An array of shape (snapshot, channel, sample) holds a history; ``scale``, ``fs``, ``t``,
    ``rpm`` or ``speed_hz``, ``load`` or ``load_N``, ``unit`` and ``channels`` are understood,
    further arrays of one number per snapshot are slow values.
    """
    fields = _arrays(path)
    histories = [v for v in fields.values() if getattr(v, "ndim", 0) == 3]
    if not histories:
        return _from_fields(path, fields)
    values = histories[0]  # (snapshot, channel, sample)
    count, width = values.shape[:2]
    names = _channel_names(path, fields, width) or [f"channel_{i}" for i in range(width)]
    return Recording(
        samples={name: values[:, i] for i, name in enumerate(names)},
        rate_hz=dict.fromkeys(names, _fact(fields, RATE_NAMES)),
        times=_times(path, fields, count),
        scale=_fact(fields, ("scale",)) or 1.0,
        units=_units(fields, names),
        speed_hz=_each(_speed(fields), fields.get("speed_hz"), count),
        load=_each(_fact(fields, ("load_n", "load")), fields.get("load"), count),
        values={
            name: np.asarray(array, dtype=np.float64)
            for name, array in fields.items()
            if name not in FACTS
            and array.shape == (count,)
            and np.issubdtype(array.dtype, np.number)
        },
    )


def _arrays(path: Path) -> dict[str, Any]:
    """Return the arrays of an NPZ file; pickled objects could run code and are never loaded."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{path} cannot be read: it is not an NPZ file, or incomplete",
            "copy it again, or save it again",
        ) from error
    if size > LARGEST_BYTES:
        raise UserError(f"{path} has {size / 1e9:.1f} GB", "split the history into several files")
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
        arrays = {}
        for name in content.files:
            try:
                arrays[name] = content[name]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise
                raise UserError(
                    f"{path}: {name} has pickled Python objects, which could run code",
                    "save arrays of numbers and plain text only",
                ) from error
    return arrays


def _channel_names(path: Path, fields: Mapping[str, Any], width: int) -> list[str]:
    """Return the names of the channels in the file, empty without any."""
    given = fields.get("channels")
    if given is None:
        return []
    names = [str(name) for name in np.atleast_1d(given)]
    if len(names) != width:
        raise UserError(f"{path} has {width} channels and names {len(names)}", "name all of them")
    return list(distinct(names))


def _times(path: Path, fields: Mapping[str, Any], count: int) -> NDArray[np.float64] | None:
    given = next((np.asarray(fields[name]) for name in TIMES if name in fields), None)
    if given is None:
        return None
    if given.shape != (count,):
        raise UserError(
            f"{path} has {count} snapshots and {given.size} times", "give one time per snapshot"
        )
    if np.issubdtype(given.dtype, np.datetime64):
        seconds = given.astype("datetime64[us]").astype(np.float64) / 1e6
        return np.where(np.isnat(given), np.nan, seconds)
    return seconds_since_1970(given.astype(np.float64))


def _units(fields: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    given = np.atleast_1d(fields.get("unit", fields.get("units", "")))
    if len(given) not in (1, len(names)) or given.dtype.kind not in "US":
        return {}
    units = [unit_of(text) for text in (given if len(given) > 1 else [given[0]] * len(names))]
    return {name: unit for name, unit in zip(names, units, strict=True) if unit}


def _from_fields(path: Path, fields: Mapping[str, Any]) -> Recording:
    """Read waveforms from the long vectors and matrices among named values; the rest are facts."""
    samples: dict[str, NDArray[Any]] = {}
    for name, value in fields.items():
        array = np.asarray(value)
        if not np.issubdtype(array.dtype, np.number) or array.size < LEAST_SAMPLES:
            continue
        if array.ndim == 1:
            samples[name] = _single(array)[None]
        elif array.ndim == 2:
            tall = array if array.shape[0] >= array.shape[1] else array.T
            width = tall.shape[1]
            names = _channel_names(path, fields, width) if "channels" in fields else []
            for i in range(width):
                key = names[i] if names else name if width == 1 else f"{name}_{i}"
                samples[key] = _single(tall[:, i])[None]
    if not samples:
        raise UserError(f"{path} has no waveform", "save an array of samples for each channel")
    return Recording(
        samples=samples,
        rate_hz=dict.fromkeys(samples, _fact(fields, RATE_NAMES)),
        units=_units(fields, list(samples)),
        speed_hz=_each(_speed(fields), None, 1),
        load=_each(_fact(fields, ("load", "load_n")), None, 1),
    )


def _single(array: NDArray[Any]) -> NDArray[Any]:
    return array if np.iscomplexobj(array) else array.astype(np.float32)


def _each(one: float | None, many: Any, count: int) -> NDArray[np.float64] | None:
    """Return one number per snapshot, shape (snapshot,), from an array or from one for all."""
    if many is not None and np.shape(many) == (count,):
        return np.asarray(many, dtype=np.float64)
    return None if one is None else np.full(count, one)


def _flatten(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of nested MATLAB structures under their own names."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        inner = getattr(value, "_fieldnames", None)
        if inner is None:
            flat[name] = value
        else:
            flat.update(_flatten({key: getattr(value, key) for key in inner}))
    return flat


def _fact(fields: Mapping[str, Any], names: Sequence[str]) -> float | None:
    """Return the first single number under one of these names, None without one."""
    lowered = {name.lower(): value for name, value in fields.items()}
    for name in names:
        value = np.asarray(lowered.get(name, np.nan))
        if value.size == 1:
            try:
                number = float(value.reshape(()).item())
            except (TypeError, ValueError):
                continue
            if np.isfinite(number):
                return number
    return None


def _speed(fields: Mapping[str, Any]) -> float | None:
    """Return the shaft speed in Hz: ``rpm`` / 60, or ``speed_hz``, or ``rate`` (of MFPT)."""
    rpm = _fact(fields, SPEED_NAMES)
    if rpm is not None:
        return rpm / 60.0
    return _fact(fields, ("speed_hz", "rate"))
