"""Formats as their own libraries and measuring rigs write them, with their quirks."""

import json
import sys
from datetime import datetime

import numpy as np
import pytest
from scipy.io import savemat

from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.core.run import table_reader
from lineside.machines.data import arrays, find_snapshots, load_measurement
from lineside.machines.data.formats import read_recording
from lineside.machines.data.tables import is_table, read_table

RNG = np.random.default_rng(0)
WAVE = RNG.normal(size=(2, 2560)).astype(np.float32)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def tdms_file(path, *, seconds=None, **properties):
    nptdms = pytest.importorskip("nptdms")
    facts = {"wf_increment": 1 / 25600, "unit_string": "m/s^2", **properties}
    if seconds is not None:
        facts["wf_start_time"] = datetime.fromtimestamp(seconds)
    channels = [
        nptdms.ChannelObject("vibration", "x", WAVE[0].astype(np.float64), properties=facts),
        nptdms.ChannelObject(
            "vibration", "y", WAVE[1, :640], properties={"wf_increment": 1 / 6400}
        ),
        nptdms.ChannelObject("notes", "operator", ["nobody"]),
    ]
    with nptdms.TdmsWriter(str(path)) as writer:
        writer.write_segment(channels)
    return path


def test_tdms_tells_rates_units_and_its_start(tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    (tmp_path / "m").mkdir()
    path = tdms_file(tmp_path / "m" / "run.tdms", seconds=1_700_000_000.25)
    (snapshot,) = find_snapshots(tmp_path)
    assert snapshot.time == pytest.approx(1_700_000_000.25, abs=1e-3) and snapshot.path == path
    channels = load_measurement(snapshot).channels
    assert channels["x"].unit == "m/s2" and channels["y"].unit == "g"
    assert channels["x"].rate_hz == pytest.approx(25600)
    assert channels["y"].rate_hz == pytest.approx(6400) and len(channels["y"].samples) == 640
    np.testing.assert_array_equal(channels["x"].samples, WAVE[0])
    write(tmp_path / "m" / "machine.json", json.dumps({"unit": "g"}))
    assert load_measurement(snapshot).channels["x"].unit == "g"


def test_a_tdms_file_that_was_cut_off_is_refused(tmp_path):
    path = tdms_file(tmp_path / "a.tdms")
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(UserError, match="cut off in its last segment"):
        read_recording(path)


def uff_file(path):
    pyuff = pytest.importorskip("pyuff")
    sets = [
        {
            "type": 58, "func_type": 1, "rsp_node": index, "rsp_dir": 3, "ref_node": 0,
            "ref_dir": 0, "data": wave.astype(np.float64), "x": np.arange(len(wave)) / 25600,
            "id1": name, "rsp_ent_name": name, "ref_ent_name": "NONE",
            "abscissa_spec_data_type": 17, "ordinate_spec_data_type": 12,
            "ordinate_axis_units_lab": "m/s^2", "binary": 0,
            "load_case_id": 0, "orddenom_spec_data_type": 0,
        }
        for index, (name, wave) in enumerate(zip(("x", "y"), WAVE, strict=True))
    ]  # fmt: skip
    pyuff.UFF(str(path)).write_sets(sets, "overwrite")
    return path


def test_uff58_tells_names_rates_and_units(tmp_path):
    record = read_recording(uff_file(tmp_path / "a.uff"))
    assert list(record.samples) == ["x", "y"] and record.units["x"] == "m/s2"
    assert record.rate_hz["x"] == pytest.approx(25600, rel=1e-4)
    np.testing.assert_allclose(record.samples["y"][0], WAVE[1], rtol=1e-4, atol=1e-5)


def test_a_uff_file_that_was_cut_off_is_refused(tmp_path):
    path = uff_file(tmp_path / "a.uff")
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[: len(lines) // 4]))
    with pytest.raises(UserError):
        read_recording(path)


@pytest.mark.parametrize(("suffix", "package"), [("tdms", "nptdms"), ("uff", "pyuff")])
def test_a_missing_library_names_the_extra(tmp_path, monkeypatch, suffix, package):
    monkeypatch.setitem(sys.modules, package, None)
    path = write(tmp_path / f"a.{suffix}", "anything")
    with pytest.raises(UserError) as error:
        read_recording(path)
    assert package in error.value.message and "lineside[machines]" in error.value.hint


def rig_text(separator, start, *, floating):
    """Rows of hour, minute, second, microsecond and two channels."""
    hour, rest = divmod(int(start), 3600)
    rows = []
    for index, (a, b) in enumerate(WAVE.T):
        micro = 1e6 * (start % 1) + index * 39.0625
        shown = f"{micro:.4e}" if floating else f"{micro:.0f}"
        cells = (hour, rest // 60, rest % 60, shown, f"{a:.3f}", f"{b:.3f}")
        rows.append(separator.join(map(str, cells)))
    return "\n".join(rows)


@pytest.mark.parametrize(("separator", "floating"), [(",", False), (";", True)])
def test_rig_files_with_two_notations_of_microseconds(tmp_path, separator, floating):
    content = rig_text(separator, 9 * 3600 + 39 * 60 + 39.065664, floating=floating)
    (snapshot,) = find_snapshots(write(tmp_path / "acc_00001.csv", content))
    measured = load_measurement(snapshot)
    assert snapshot.time == pytest.approx(9 * 3600 + 39 * 60 + 39.065664, abs=1e-5)
    assert measured.channels["column_4"].rate_hz == pytest.approx(25600, rel=1e-4)
    np.testing.assert_allclose(measured.channels["column_5"].samples, WAVE[1], atol=6e-4)


def test_a_clock_without_a_date_goes_on_after_midnight(tmp_path):
    for number in range(1, 12):  # not filled up with zeros: 10 stands before 2
        start = (86400 - 45 + 10 * number) % 86400
        write(tmp_path / "m" / f"acc_{number}.csv", rig_text(",", start + 0.06, floating=False))
    found = find_snapshots(tmp_path)
    assert not any(isinstance(f, Refusal) for f in found)
    assert [f.path.stem for f in found] == [f"acc_{number}" for number in range(1, 12)]
    assert np.diff([f.time for f in found]) == pytest.approx([10.0] * 10)


def test_matlab_variables_of_any_name_in_any_direction(tmp_path):
    for name, shape in (("V0", (-1, 1)), ("VarName6", (1, -1)), ("inside5d_1200_1", (-1,))):
        savemat(tmp_path / f"{name}.mat", {name: WAVE[0].reshape(shape), "note": "text"})
        record = read_recording(tmp_path / f"{name}.mat")
        assert list(record.samples) == [name] and record.rate_hz[name] is None
        np.testing.assert_array_equal(record.samples[name][0], WAVE[0])


def test_a_column_of_sample_times_tells_the_rate_and_is_no_table(tmp_path):
    seconds = np.arange(2560) / 25600
    for header, factor in (("time", 1.0), ("Time (ms)", 1e3)):
        rows = [f"{factor * t:.7f},{a:.4f}" for t, a in zip(seconds, WAVE[0], strict=True)]
        path = write(tmp_path / "a.csv", "\n".join([f"{header},x", *rows]))
        assert not is_table(path)
        record = read_recording(path)
        assert list(record.samples) == ["x"]
        assert record.rate_hz["x"] == pytest.approx(25600, rel=1e-4)


def test_missing_sample_times_become_gaps(tmp_path):
    indices = [index for index in range(2560) if not 100 <= index < 150]
    rows = [f"{index / 25600:.9f},{WAVE[0, index]:.4f}" for index in indices]
    record = read_recording(write(tmp_path / "a.csv", "\n".join(["time,x", *rows])))
    wave = record.samples["x"][0]
    assert wave.shape == (2560,) and np.flatnonzero(np.isnan(wave)).tolist() == list(
        range(100, 150)
    )
    np.testing.assert_allclose(wave[200:], WAVE[0, 200:], atol=1e-4)
    rows[50] = f"7,{WAVE[0, 0]}"
    with pytest.raises(UserError, match="times of its samples jump"):
        read_recording(write(tmp_path / "b.csv", "\n".join(["time,x", *rows])))


def test_no_column_is_lost_to_an_equal_name(tmp_path):
    rows = "\n".join(f"{a},{b}" for a, b in WAVE.T)
    assert list(read_recording(write(tmp_path / "a.csv", "a,a\n" + rows)).samples) == ["a", "a_2"]
    acc = WAVE[None]
    np.savez(tmp_path / "a.npz", acc=acc, channels=["a", "a"], fs=1.0)
    assert list(read_recording(tmp_path / "a.npz").samples) == ["a", "a_2"]
    np.savez(tmp_path / "b.npz", acc=WAVE, channels=["a", "b"], fs=1.0)
    assert list(read_recording(tmp_path / "b.npz").samples) == ["a", "b"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"channels": ["a", "b", "c"]}, "has 2 channels and names 3"),
        ({"t": [1.0, 2.0]}, "1 snapshots and 2 times"),
        ({"fs": -5.0}, "sample rate of -5 Hz"),
        ({"acc": WAVE[None] * 1j}, "complex numbers"),
        ({"acc": WAVE[None, :, :10]}, "10 samples"),
    ],
)
def test_histories_that_contradict_themselves_are_refused(tmp_path, fields, words):
    np.savez(tmp_path / "a.npz", **{"acc": WAVE[None], "fs": 25600.0, **fields})
    with pytest.raises(UserError, match=words):
        read_recording(tmp_path / "a.npz")


def test_what_is_too_large_is_refused_before_it_is_read(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", acc=np.zeros((4, 2, 25600)))
    write(tmp_path / "a.csv", "1,2\n" * 1000)
    monkeypatch.setattr(arrays, "LARGEST_BYTES", 1_000_000)
    monkeypatch.setattr(table_reader, "LARGEST_BYTES", 1000)
    with pytest.raises(UserError, match=r"has 0\.0 GB"):
        read_recording(tmp_path / "a.npz")
    with pytest.raises(UserError, match="GB of text"):
        read_recording(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("content", "times", "first"),
    [
        ("time,a\n0,1\n1,2\n", [0, 1], [1, 2]),
        (
            "Zeit;T °C\n1.2.2026 10:00:00;20,5\n01.02.2026 10:01;21\n",
            [1769940000, 1769940060],
            None,
        ),
        ("timestamp,a\n1700000000000,1\n1700000001000,2\n", [1.7e9, 1.7e9 + 1], [1, 2]),
        ("timestamp,a\n2026-01-01T01:00:00+01:00,1\n2026-01-01T00:00:01Z,2\n", None, [1, 2]),
        ("time,a\n2020-01-01,1\nyesterday,2\n,3\n", [1577836800, np.nan, np.nan], [1, 2, 3]),
        ('date,a\n2020-01-01,"1,5"\n2020-01-02,"1,7"\n', None, [1.5, 1.7]),
        (",Max\n2003-10-22 12:09:00,0.388\n2003-10-22 12:14:00,0.317\n", None, [0.388, 0.317]),
        ("time;a\n0;NA\n1;hot\n2;3\n", [0, 1, 2], [np.nan, np.nan, 3]),
    ],
)
def test_tables_with_every_way_to_write_times(tmp_path, content, times, first):
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode("cp1252"))
    assert is_table(path)
    table = read_table(path)
    if times is not None:
        np.testing.assert_allclose(table.times, times)
    if first is not None:
        np.testing.assert_allclose(table.values[:, 0], first)


def test_dates_that_could_be_read_in_two_ways_are_refused(tmp_path):
    write(tmp_path / "a.csv", "timestamp,v\n02/03/2026 10:00,1\n03/03/2026 10:00,2\n")
    (refused,) = find_snapshots(tmp_path)
    assert "'02/03/2026 10:00' is not a date" in refused.message


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"rate_hz": -1}, "rate_hz is -1"),
        ({"rate_hz": "fast"}, "rate_hz is 'fast'"),
        ({"interval_seconds": 0}, "interval_seconds is 0"),
        ({"channels": "xy"}, "channels is 'xy'"),
        ({"channels": ["x", "x"]}, "channels is"),
        ({"bearing": "6205"}, "bearing is '6205'"),
        ({"bearing": {"balls": "nine"}}, "bearing is"),
        ({"failed_at": "soon"}, "'soon' is not a date"),
    ],
)
def test_what_people_say_wrongly_is_told(tmp_path, facts, words):
    np.savez(tmp_path / "a.npz", acc=WAVE[None], fs=1.0, t=[0.0])
    write(tmp_path / "machine.json", json.dumps(facts))
    (refused,) = find_snapshots(tmp_path)
    assert words in refused.message
