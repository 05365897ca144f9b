"""Segments: Parquet files of waveforms, one row group per snapshot, one row per channel.

Any program that reads Parquet can read them. Samples are float32, split into their bytes and
compressed by zstd. Files are written under a temporary name, flushed to the disk, then renamed.
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
from lineside.machines.store.packing import key_of

SUFFIX, TEMPORARY = ".parquet", ".part"


def need_pyarrow() -> None:
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

    part = path.with_suffix(TEMPORARY)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with parquet.ParquetWriter(
                part, _schema(), compression="zstd", use_dictionary=False,
                column_encoding={"samples.list.element": "BYTE_STREAM_SPLIT"},
            ) as writer:  # fmt: skip
                for measurement in snapshots:
                    writer.write_table(_table(measurement))
            _flush(part)
            os.replace(part, path)
            _flush(path.parent)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return path.stat().st_size


def read_snapshot(path: Path, place: int, machine: str, time: float) -> Measurement:
    """Return the snapshot in one place of a segment.

    Raises:
        FileNotFoundError: the file is gone.
        UserError: it is damaged.
    """
    from pyarrow import lib, parquet

    try:
        with parquet.ParquetFile(path) as file:
            rows = file.read_row_group(place)
    except (lib.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise UserError(f"{path} cannot be read: {error}", "restore a copy of it") from error
    channels = {}
    samples = rows.column("samples").combine_chunks()
    for row, head in enumerate(rows.drop_columns("samples").to_pylist()):
        if head["channel"] is not None:
            wave = np.array(samples[row].values, dtype=np.float32)
            channels[head["channel"]] = Channel(
                samples=wave, rate_hz=head["rate_hz"], unit=head["unit"]
            )
    head = rows.slice(0, 1).drop_columns("samples").to_pylist()[0]
    return Measurement(
        machine=machine, time=time, channels=channels, values=json.loads(head["values"]),
        speed_hz=head["speed_hz"], load=head["load"],
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
    """Return one row per channel; a snapshot without any still has one row."""
    import pyarrow as pa

    channels: list[tuple[str | None, Channel]] = list(measurement.channels.items()) or [
        (None, Channel(samples=np.zeros(0, dtype=np.float32), rate_hz=0.0, unit=""))
    ]
    ends = np.cumsum([0, *(len(channel.samples) for _, channel in channels)], dtype=np.int32)
    samples = np.concatenate([channel.samples for _, channel in channels])
    same = {
        "machine": measurement.machine, "time_us": key_of(measurement.time),
        "seconds": measurement.time, "speed_hz": measurement.speed_hz, "load": measurement.load,
        "values": json.dumps(dict(measurement.values)),
    }  # fmt: skip
    columns = [[value] * len(channels) for value in same.values()]
    columns += [[name for name, _ in channels]]
    columns += [[channel.unit for _, channel in channels]]
    columns += [[float(channel.rate_hz) for _, channel in channels]]
    arrays = [
        pa.array(values, type=field.type) for values, field in zip(columns, _schema(), strict=False)
    ]
    arrays.append(pa.ListArray.from_arrays(pa.array(ends), pa.array(samples, type=pa.float32())))
    return pa.Table.from_arrays(arrays, schema=_schema())


def _flush(path: Path) -> None:
    """Make the disk hold what the file system says it holds."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
