"""Segments: Parquet files of waveforms, one row group per snapshot, one row per channel.

Any program that reads Parquet can read them. Samples are float32, split into their bytes
(BYTE_STREAM_SPLIT: the four planes compress better than the floats) and compressed by zstd.

Durability: a file is written under a temporary name, flushed to the disk, renamed, and its folder
flushed. A segment that has its name is therefore complete, after a power cut as well.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lineside.core.errors import UserError
from lineside.core.run.files import disk_errors
from lineside.machines.data.measurement import Channel, Measurement
from lineside.machines.store.packing import time_key

SUFFIX, TEMPORARY_SUFFIX = ".parquet", ".part"


def require_pyarrow() -> None:
    """Make sure that segments can be written.

    Raises:
        UserError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise UserError(
            "waveforms are kept in Parquet files, and pyarrow is missing",
            "pip install 'lineside[machines]', or keep no waveforms",
        ) from error


def write_segment(path: Path, snapshots: Iterable[Measurement]) -> int:
    """Write the snapshots of one machine, one at a time; return the size in bytes.

    Raises:
        UserError: if the disk is full or may not be written.
    """
    from pyarrow import parquet

    temporary = path.with_suffix(TEMPORARY_SUFFIX)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with parquet.ParquetWriter(
                temporary, _schema(), compression="zstd", use_dictionary=False,
                column_encoding={"samples.list.element": "BYTE_STREAM_SPLIT"},
            ) as writer:  # fmt: skip
                for measurement in snapshots:
                    writer.write_table(_table(measurement))  # a row group
            _fsync(temporary)
            os.replace(temporary, path)
            _fsync(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return path.stat().st_size


def read_snapshot(path: Path, row_group: int, machine: str, time: float) -> Measurement:
    """Return the snapshot of one row group of a segment.

    Raises:
        FileNotFoundError: the file is gone.
        UserError: it is damaged.
    """
    from pyarrow import lib, parquet

    try:
        with parquet.ParquetFile(path) as file:
            table = file.read_row_group(row_group)
    except (lib.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise UserError(f"{path} cannot be read: {error}", "restore a copy of it") from error
    samples = table.column("samples").combine_chunks()
    rows = table.drop_columns("samples").to_pylist()  # one per channel, at least one
    channels = {
        row["channel"]: Channel(
            samples=np.array(samples[number].values, dtype=np.float32),
            rate_hz=row["rate_hz"], unit=row["unit"],
        )
        for number, row in enumerate(rows)
        if row["channel"] is not None
    }  # fmt: skip
    return Measurement(
        machine=machine, time=time, channels=channels, values=json.loads(rows[0]["values"]),
        speed_hz=rows[0]["speed_hz"], load=rows[0]["load"],
    )  # fmt: skip


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            ("machine", pa.string()), ("time_us", pa.int64()), ("seconds", pa.float64()),
            ("speed_hz", pa.float64()), ("load", pa.float64()), ("values", pa.string()),
            ("channel", pa.string()), ("unit", pa.string()), ("rate_hz", pa.float64()),
            ("samples", pa.list_(pa.float32())),
        ]
    )  # fmt: skip


def _table(measurement: Measurement) -> Any:
    """Return one row per channel; a snapshot without any has one row with a null channel."""
    import pyarrow as pa

    channels: list[tuple[str | None, Channel]] = list(measurement.channels.items()) or [
        (None, Channel(samples=np.zeros(0, dtype=np.float32), rate_hz=0.0, unit=""))
    ]
    # Arrow's list layout: the samples of all channels in a row, and where each channel's begin.
    offsets = np.cumsum([0, *(len(channel.samples) for _, channel in channels)], dtype=np.int32)
    samples = np.concatenate([channel.samples for _, channel in channels])
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(samples, type=pa.float32()))
    snapshot = {
        "machine": measurement.machine, "time_us": time_key(measurement.time),
        "seconds": measurement.time, "speed_hz": measurement.speed_hz, "load": measurement.load,
        "values": json.dumps(dict(measurement.values)),
    }  # fmt: skip
    rows = [
        {**snapshot, "channel": name, "unit": channel.unit, "rate_hz": float(channel.rate_hz)}
        for name, channel in channels
    ]
    *fields, samples_field = _schema()
    return pa.Table.from_pylist(rows, schema=pa.schema(fields)).append_column(samples_field, lists)


def _fsync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
