"""Waveforms from files: CSV and plain text, WAV, MAT, NPZ, TDMS and UFF58, each to one `Record`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import UserError
from lineside.machines.reading.text import Columns, read_columns

LEAST_SAMPLES = 64
TIMES = ("t", "time", "times")
CLOCKS = ("", "time", "t", "date", "datetime", "index")
SPEED_NAMES, RATE_NAMES = ("rpm",), ("fs", "sr", "rate_hz", "sample_rate")


@dataclass(frozen=True, kw_only=True)
class Record:
    """Snapshots of one file, as they are stored there.

    Attributes:
        samples: Shape (snapshot, sample) by channel name, in `unit` once multiplied by `scale`.
        rate_hz: Samples per second by channel; None where the file does not say.
        times: Seconds of each snapshot, None where the file does not say.
        scale: Unit per stored number.
        speed_hz: Turns per second of each snapshot, None where the file does not say.
        load: Of each snapshot, None where the file does not say.
        values: Slow values of each snapshot by name, each of shape (snapshot,).
    """

    samples: Mapping[str, NDArray[Any]]
    rate_hz: Mapping[str, float | None]
    times: NDArray[np.float64] | None = None
    scale: float = 1.0
    speed_hz: NDArray[np.float64] | None = None
    load: NDArray[np.float64] | None = None
    values: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.samples.values())))


def read_record(path: Path) -> Record:
    """Read one file.

    Raises:
        UserError: if it is empty, damaged, of an unknown kind, or holds no waveform.
    """
    if not path.stat().st_size:
        raise UserError(f"{path} is empty (0 bytes)", "remove it, or copy it anew")
    reader = READERS.get(path.suffix.lower(), read_text)
    try:
        record = reader(path)
    except UserError:
        raise
    except Exception as error:  # every library has errors of its own
        raise UserError(
            f"{path} cannot be read: {type(error).__name__}: {error}", "it may be damaged"
        ) from error
    if not record.samples or not len(record):
        raise UserError(f"{path} holds no waveform", "check what was exported")
    shortest = min(values.shape[1] for values in record.samples.values())
    if shortest < LEAST_SAMPLES:
        raise UserError(
            f"{path} has {shortest} samples, at least {LEAST_SAMPLES} are needed",
            "a table of values needs a header and a first column of dates",
        )
    return record


def read_text(path: Path) -> Record:
    """One snapshot from columns of text; leading columns of times and counters are no channels."""
    table = read_columns(path)
    numbers = [table.numbers(place) for place in range(len(table.names))]
    first = _first_channel(table, numbers)
    rate, seconds = _clock(numbers[:first])
    chosen = range(first, len(numbers))
    if all(np.isnan(numbers[place]).all() for place in chosen):
        raise UserError(f"{path} holds no numbers", "check separator and decimal sign")
    return Record(
        samples={table.names[place]: numbers[place][None].astype(np.float32) for place in chosen},
        rate_hz={table.names[place]: rate for place in chosen},
        times=None if seconds is None else np.array([seconds]),
    )


def read_wav(path: Path) -> Record:
    """One snapshot from a WAV file; integers become fractions of full scale."""
    from scipy.io import wavfile

    rate, values = wavfile.read(path)
    values = values[:, None] if values.ndim == 1 else values
    kind = values.dtype
    scale = 1.0 / -float(np.iinfo(kind).min) if np.issubdtype(kind, np.signedinteger) else 1.0
    if kind == np.uint8:
        values, scale = values.astype(np.int16) - 128, 1.0 / 128
    names = [f"channel_{number}" for number in range(values.shape[1])]
    return Record(
        samples={name: values[None, :, place] for place, name in enumerate(names)},
        rate_hz=dict.fromkeys(names, float(rate)),
        scale=scale,
    )


def read_mat(path: Path) -> Record:
    """One snapshot from a MATLAB file: arrays, or a structure with waveforms and facts."""
    from scipy.io import loadmat

    try:
        content = loadmat(path, squeeze_me=True, struct_as_record=False)
    except NotImplementedError as error:
        raise UserError(
            f"{path} is a MATLAB 7.3 file", "save it with -v7, or as CSV or NPZ"
        ) from error
    fields = _flat({k: v for k, v in content.items() if not k.startswith("__")})
    return _from_fields(path, fields)


def read_npz(path: Path) -> Record:
    """One or many snapshots from arrays named by channel, or one array with ``channels``.

    An array of shape (snapshot, channel, sample) holds a history; ``scale``, ``fs``, ``t``,
    ``rpm`` or ``speed_hz``, ``load`` or ``load_N`` and ``channels`` are understood, further
    arrays of one number per snapshot are slow values.
    """
    with np.load(path, allow_pickle=False) as content:
        fields = {name: content[name] for name in content.files}
    whole = [v for v in fields.values() if getattr(v, "ndim", 0) == 3]
    if not whole:
        return _from_fields(path, fields)
    values = whole[0]
    given = fields.get("channels")
    names = (
        [str(n) for n in given]
        if given is not None and len(given) == values.shape[1]
        else [f"channel_{number}" for number in range(values.shape[1])]
    )
    rate = _fact(fields, RATE_NAMES)
    times = next((np.asarray(fields[k], float) for k in TIMES if k in fields), None)
    count = len(values)
    return Record(
        samples={name: values[:, place] for place, name in enumerate(names)},
        rate_hz=dict.fromkeys(names, rate),
        times=times if times is not None and times.shape == (count,) else None,
        scale=_fact(fields, ("scale",)) or 1.0,
        speed_hz=_each(_speed(fields), fields.get("speed_hz"), count),
        load=_each(_fact(fields, ("load_n", "load")), fields.get("load"), count),
        values={
            name: np.asarray(array, dtype=np.float64)
            for name, array in fields.items()
            if name not in (*TIMES, "load", "speed_hz", "channels")
            and array.shape == (count,)
            and np.issubdtype(array.dtype, np.number)
        },
    )


def read_tdms(path: Path) -> Record:
    """One snapshot from a National Instruments TDMS file: every channel with numbers."""
    tdms = _extra("nptdms", path).TdmsFile.read(path)
    samples, rates = {}, {}
    for group in tdms.groups():
        for channel in group.channels():
            values = np.asarray(channel[:])
            if np.issubdtype(values.dtype, np.number) and len(values):
                name = (
                    channel.name if channel.name not in samples else f"{group.name}.{channel.name}"
                )
                step = channel.properties.get("wf_increment")
                samples[name] = values[None].astype(np.float32)
                rates[name] = 1.0 / float(step) if step else None
    return Record(samples=samples, rate_hz=rates)


def read_uff(path: Path) -> Record:
    """One snapshot from a universal file: its data sets 58 over time."""
    sets = _extra("pyuff", path).UFF(str(path)).read_sets()
    samples, rates = {}, {}
    for number, entry in enumerate([sets] if isinstance(sets, dict) else sets):
        if entry.get("type") == 58 and entry.get("func_type", 1) in (0, 1):
            name = str(entry.get("id1") or "").strip() or f"channel_{number}"
            name = name if name not in samples else f"{name}_{number}"
            samples[name] = np.asarray(entry["data"]).real[None].astype(np.float32)
            x = np.asarray(entry["x"], float)
            rates[name] = 1.0 / float(x[1] - x[0]) if len(x) > 1 else None
    return Record(samples=samples, rate_hz=rates)


READERS: dict[str, Callable[[Path], Record]] = {
    ".wav": read_wav,
    ".mat": read_mat,
    ".npz": read_npz,
    ".tdms": read_tdms,
    ".uff": read_uff,
    ".unv": read_uff,
}
SUFFIXES = (*READERS, ".csv", ".txt", ".asc", ".dat", "")


def _from_fields(path: Path, fields: Mapping[str, Any]) -> Record:
    """Waveforms are the long vectors and matrices among named values; the rest are facts."""
    samples: dict[str, NDArray[Any]] = {}
    for name, value in fields.items():
        array = np.asarray(value)
        if not np.issubdtype(array.dtype, np.number) or array.size < LEAST_SAMPLES:
            continue
        if array.ndim == 1:
            samples[name] = array[None].astype(np.float32)
        elif array.ndim == 2:
            tall = array if array.shape[0] >= array.shape[1] else array.T
            for place in range(tall.shape[1]):
                key = name if tall.shape[1] == 1 else f"{name}_{place}"
                samples[key] = tall[None, :, place].astype(np.float32)
    if not samples:
        raise UserError(f"{path} holds no waveform", "it needs arrays of samples by channel")
    rate = _fact(fields, RATE_NAMES)
    return Record(
        samples=samples,
        rate_hz=dict.fromkeys(samples, rate),
        speed_hz=_each(_speed(fields), None, 1),
        load=_each(_fact(fields, ("load", "load_n")), None, 1),
    )


def _each(one: float | None, many: Any, count: int) -> NDArray[np.float64] | None:
    """One number per snapshot, from an array of them or from one for all."""
    if many is not None and np.shape(many) == (count,):
        return np.asarray(many, dtype=np.float64)
    return None if one is None else np.full(count, one)


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of MATLAB structures beside plain ones, under their own names."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        inner = getattr(value, "_fieldnames", None)
        if inner is None:
            found[name] = value
        else:
            found.update(_flat({key: getattr(value, key) for key in inner}))
    return found


def _fact(fields: Mapping[str, Any], names: Sequence[str]) -> float | None:
    """The first single number of one of these names, whatever its type; None without one."""
    lowered = {name.lower(): value for name, value in fields.items()}
    for name in names:
        value = np.asarray(lowered.get(name, np.nan))
        if value.size == 1:
            try:
                number = float(value.reshape(()).item())
            except ValueError:
                continue
            if np.isfinite(number):
                return number
    return None


def _speed(fields: Mapping[str, Any]) -> float | None:
    """Turns per second: ``rpm`` by the minute, or the shaft's ``rate`` beside a sample rate."""
    rpm = _fact(fields, SPEED_NAMES)
    if rpm is not None:
        return rpm / 60.0
    return _fact(fields, ("speed_hz", "rate"))


def _first_channel(table: Columns, numbers: Sequence[NDArray[np.float64]]) -> int:
    """How many leading columns are times, dates or counters rather than samples.

    They are named so, are no numbers, or stand still or grow; the last of those that are told by
    their numbers must grow, since a channel that stands still is a dead sensor.
    """
    count = 0
    for place, (name, values) in enumerate(zip(table.names, numbers, strict=True)):
        if place == len(numbers) - 1:
            break
        if (table.header and name.strip().lower() in CLOCKS) or np.isnan(values).all():
            count = place + 1
            continue
        steps = np.diff(values)
        if (steps > 0).mean() > 0.95:
            count = place + 1
        elif not (steps >= 0).mean() > 0.95:
            break
    return count


def _clock(leading: Sequence[NDArray[np.float64]]) -> tuple[float | None, float | None]:
    """Sample rate and second of the day from columns hour, minute, second, microsecond."""
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
