"""Readers of waveform files: CSV and plain text, WAV, MAT, NPZ, TDMS and UFF58."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineside.core.errors import UserError
from lineside.core.run.files import check_file
from lineside.core.run.table_reader import Columns, read_columns
from lineside.machines.data.arrays import read_mat, read_npz
from lineside.machines.data.recording import Recording, check_recording, unit_of

CLOCKS = ("", "time", "t", "date", "datetime", "timestamp", "index", "seconds", "zeit", "datum")
PARTS_OF_SECOND = {"ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
UNEVEN = 0.05
"""Steps of a time column that differ from their median by more than this share are gaps."""
LARGEST_BYTES = 16 * 2**30
MOST_HOLES = 4
"""A waveform is refused if its time column spans more than this multiple of its samples."""


def read_recording(path: Path) -> Recording:
    """Read one file.

    Raises:
        UserError: if it is empty, damaged, of an unknown type, or has no waveform.
    """
    if not check_file(path, LARGEST_BYTES, "recording"):
        raise UserError(f"{path} is empty (0 bytes)", "remove it, or copy it again")
    reader = READERS.get(path.suffix.lower(), read_text)
    try:
        recording = reader(path)
    except UserError:
        raise
    except Exception as error:  # every library has errors of its own
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"{path} cannot be read: {reason}", "it may be damaged: copy it again"
        ) from error
    check_recording(path, recording)
    return recording


def read_text(path: Path) -> Recording:
    """Read one snapshot from columns of text; leading times and counters are not channels."""
    table = read_columns(path)
    numbers = [table.numbers(index) for index in range(len(table.names))]
    first = _first_channel(table, numbers)
    rate, seconds = _clock(numbers[:first])
    channels = range(first, len(numbers))
    if all(np.isnan(numbers[index]).all() for index in channels):
        raise UserError(f"{path} has no numbers", "check separator and decimal sign")
    samples = {table.names[index]: numbers[index].astype(np.float32) for index in channels}
    if first == 1 and table.header:
        rate, positions = _sample_grid(path, table.names[0], numbers[0])
        samples = {name: _on_grid(values, positions) for name, values in samples.items()}
    return Recording(
        samples={name: values[None] for name, values in samples.items()},
        rate_hz=dict.fromkeys(samples, rate),
        times=None if seconds is None else np.array([seconds]),
        of_day=seconds is not None,
    )


def read_wav(path: Path) -> Recording:
    """Read one snapshot from a WAV file; integers become fractions of full scale."""
    from scipy.io import wavfile

    with path.open("rb") as stream:
        stated = int.from_bytes(stream.read(8)[4:], "little") + 8  # RIFF chunk and its header
    size = path.stat().st_size
    if size < 44 or (size < stated < 0xFFFFFFFF):  # 0xFFFFFFFF is written by streaming recorders
        raise UserError(
            f"{path} is cut off: {size} of {max(stated, 44)} bytes",
            "copy it again, or record it again",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks without samples
        rate, values = wavfile.read(path)
    values = values[:, None] if values.ndim == 1 else values
    kind = values.dtype
    scale = 1.0 / -float(np.iinfo(kind).min) if np.issubdtype(kind, np.signedinteger) else 1.0
    if kind == np.uint8:
        values, scale = values.astype(np.int16) - 128, 1.0 / 128
    names = [f"channel_{number}" for number in range(values.shape[1])]
    return Recording(
        samples={name: values[None, :, i] for i, name in enumerate(names)},
        rate_hz=dict.fromkeys(names, float(rate)),
        scale=scale,
    )


def read_tdms(path: Path) -> Recording:
    """Read one snapshot from a National Instruments TDMS file: every channel with numbers.

    Rate, start and unit are waveform properties, if they are given.
    """
    nptdms = _extra("nptdms", path)
    nptdms.log.log_manager.set_level(logging.ERROR)  # damaged files are refused below
    tdms = nptdms.TdmsFile.read(path)
    if tdms.file_status.incomplete_final_segment:
        raise UserError(f"{path} is cut off in its last segment", "copy it again")
    samples: dict[str, NDArray[Any]] = {}
    rates: dict[str, float | None] = {}
    units, starts = {}, []
    for group in tdms.groups():
        for channel in group.channels():
            values = np.asarray(channel[:])
            if not np.issubdtype(values.dtype, np.number) or not len(values):
                continue
            name = channel.name if channel.name not in samples else f"{group.name}.{channel.name}"
            step, start = (channel.properties.get(f"wf_{k}") for k in ("increment", "start_time"))
            samples[name] = (
                values[None]
                if np.iscomplexobj(values)
                else np.asarray(values, dtype=np.float32)[None]
            )
            rates[name] = 1.0 / float(step) if step else None
            units[name] = unit_of(channel.properties.get("unit_string"))
            starts += [start] if isinstance(start, np.datetime64) else []
    seconds = min(starts).astype("datetime64[us]").astype(np.float64) / 1e6 if starts else 0.0
    return Recording(
        samples=samples,
        rate_hz=rates,
        units={name: unit for name, unit in units.items() if unit},
        times=np.array([seconds]) if seconds > 0 else None,
    )


def read_uff(path: Path) -> Recording:
    """Read one snapshot from a universal file: its data sets 58 over time."""
    sets = _extra("pyuff", path).UFF(str(path)).read_sets()
    samples, rates, units = {}, {}, {}
    for number, entry in enumerate([sets] if isinstance(sets, dict) else sets):
        if entry.get("type") == 58 and entry.get("func_type", 1) in (0, 1):
            name = str(entry.get("id1") or "").strip() or f"channel_{number}"
            name = name if name not in samples else f"{name}_{number}"
            samples[name] = np.asarray(entry["data"]).real[None].astype(np.float32)
            x = np.asarray(entry["x"], float)
            rates[name] = (
                (len(x) - 1) / float(x[-1] - x[0]) if len(x) > 1 and x[-1] > x[0] else None
            )
            units[name] = unit_of(entry.get("ordinate_axis_units_lab", "").replace("NONE", ""))
    return Recording(samples=samples, rate_hz=rates, units={n: u for n, u in units.items() if u})


READERS: dict[str, Callable[[Path], Recording]] = {
    ".wav": read_wav,
    ".mat": read_mat,
    ".npz": read_npz,
    ".tdms": read_tdms,
    ".uff": read_uff,
    ".unv": read_uff,
}
SUFFIXES = (*READERS, ".csv", ".txt", ".asc", ".dat", "")


def _first_channel(table: Columns, numbers: Sequence[NDArray[np.float64]]) -> int:
    """Return the number of leading columns that are times, dates or counters, not samples.

    They have such a name, contain words, or never fall; the last of those without such a name
    must rise, since a constant column may be the channel of a dead sensor.
    """
    count = 0
    for index, (name, values) in enumerate(zip(table.names, numbers, strict=True)):
        if index == len(numbers) - 1:
            break
        if table.header and re.split(r"[\s\[(,/]", name.strip().lower())[0] in CLOCKS:
            count = index + 1
            continue
        if np.isnan(values).all():
            if not _has_words(table, index):
                break  # a channel without any sample is reported as such
            count = index + 1
            continue
        steps = np.diff(values)
        if (steps > 0).mean() > 0.95:
            count = index + 1
        elif not (steps >= 0).mean() > 0.95:
            break
    return count


def _has_words(table: Columns, index: int) -> bool:
    """Whether a column without numbers has dates or other words, not just missing numbers."""
    missing = ("", "nan", "na", "null", "none", "-")
    return not all(str(cell).strip().lower() in missing for cell in table.cells[:64, index])


def _sample_grid(
    path: Path, name: str, times: NDArray[np.float64]
) -> tuple[float | None, NDArray[np.intp] | None]:
    """Return the sample rate from a time column, and the grid positions if samples are missing.

    A counter, with steps of one, has no rate.

    Returns:
        Rate in Hz; positions of the samples on an even grid, shape (sample,), None if complete.
    """
    steps = np.diff(times)
    step = float(np.median(steps)) if np.isfinite(steps).all() else 0.0
    if step <= 0 or step == 1.0:
        return None, None
    unit = next((f for u, f in PARTS_OF_SECOND.items() if re.search(rf"\b{u}\b", name)), 1.0)
    if np.abs(steps / step - 1).max() < UNEVEN:
        return 1.0 / (unit * float(steps.mean())), None
    positions = np.round((times - times[0]) / step).astype(np.intp)
    if positions[-1] > MOST_HOLES * len(times) or not (np.diff(positions) > 0).all():
        raise UserError(
            f"{path}: the times of its samples jump", "record at a constant rate, without gaps"
        )
    return 1.0 / (unit * step), positions


def _on_grid(
    values: NDArray[np.float32], positions: NDArray[np.intp] | None
) -> NDArray[np.float32]:
    """Place samples on an even grid, (sample,) -> (grid,); NaN where one is missing."""
    if positions is None:
        return values
    grid = np.full(int(positions[-1]) + 1, np.nan, dtype=np.float32)
    grid[positions] = values
    return grid


def _clock(leading: Sequence[NDArray[np.float64]]) -> tuple[float | None, float | None]:
    """Return sample rate and second of the day from columns hour, minute, second, microsecond."""
    if len(leading) != 4 or not all(np.isfinite(c).all() for c in leading):
        return None, None
    hour, minute, second, micro = leading
    if hour.max() > 23 or minute.max() > 59 or second.max() > 59 or micro.max() >= 1e6:
        return None, None
    seconds = hour * 3600 + minute * 60 + second + micro / 1e6
    steps = np.diff(seconds)
    steps = steps[steps > 0]
    rate = 1.0 / float(steps.mean()) if len(steps) else None
    return rate, float(seconds[0])


def _extra(module: str, path: Path) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"{path} needs the package {module}", "pip install 'lineside[machines]'"
        ) from error
