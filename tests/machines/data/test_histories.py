"""Reading snapshots: every format, every quirk of separators and clocks, bad files in one line."""

import json

import numpy as np
import pytest
from scipy.io import savemat, wavfile

from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.core.run.table_reader import read_columns
from lineside.machines.data import find_snapshots, load_measurement
from lineside.machines.data.formats import read_recording
from lineside.machines.data.histories import time_of_name

RNG = np.random.default_rng(0)
WAVE = RNG.normal(size=(256, 2)).round(3)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def clocked(separator):
    """Columns hour, minute, second, microsecond, two channels, as a test rig wrote them."""
    rows = [
        separator.join(map(str, ("9", "39", "39", f"{i * 39.0625:.4f}", a, b)))
        for i, (a, b) in enumerate(WAVE)
    ]
    return "\n".join(rows)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_text_with_a_clock_tells_rate_and_time(tmp_path, separator):
    record = read_recording(write(tmp_path / "acc_00001.csv", clocked(separator)))
    assert list(record.samples) == ["column_4", "column_5"]
    assert record.rate_hz["column_4"] == pytest.approx(25600, rel=1e-3)
    assert record.times[0] == pytest.approx(9 * 3600 + 39 * 60 + 39)
    np.testing.assert_allclose(record.samples["column_5"][0], WAVE[:, 1], atol=1e-6)


def test_decimal_commas_and_a_header(tmp_path):
    rows = [f"{i};{a}".replace(".", ",") for i, a in enumerate(WAVE[:, 0])]
    record = read_recording(write(tmp_path / "a.csv", "\n".join(["index;x axis", *rows])))
    np.testing.assert_allclose(record.samples["x axis"][0], WAVE[:, 0], atol=1e-6)


def test_plain_columns_of_an_old_rig_without_suffix(tmp_path):
    text = "\n".join("\t".join(map(str, row)) for row in WAVE)
    write(tmp_path / "m" / "2004.02.12.10.32.39", text)
    write(tmp_path / "m" / "machine.json", json.dumps({"rate_hz": 20000, "channels": ["a", "b"]}))
    (snapshot,) = find_snapshots(tmp_path)
    assert snapshot.machine == "m" and snapshot.time == time_of_name("2004.02.12.10.32.39")
    measured = load_measurement(snapshot)
    assert list(measured.channels) == ["a", "b"] and measured.channels["a"].rate_hz == 20000
    np.testing.assert_allclose(measured.channels["b"].samples, WAVE[:, 1], atol=1e-6)


def test_matlab_structures_with_strings_for_numbers(tmp_path):
    wave = WAVE[:, :1]
    content = {"bearing": {"gs": wave, "sr": np.uint16(48828), "rate": np.uint8(25), "load": "50"}}
    savemat(tmp_path / "a.mat", content)
    record = read_recording(tmp_path / "a.mat")
    assert list(record.samples) == ["gs"] and record.rate_hz["gs"] == 48828
    assert record.speed_hz.tolist() == [25.0] and record.load.tolist() == [50.0]


def test_wav_is_scaled_to_one(tmp_path):
    values = (WAVE / np.abs(WAVE).max() * 32767).astype(np.int16)
    wavfile.write(tmp_path / "a.wav", 8000, values)
    record = read_recording(tmp_path / "a.wav")
    assert record.rate_hz["channel_1"] == 8000
    np.testing.assert_allclose(
        record.samples["channel_1"][0] * record.scale, values[:, 1] / 32768, atol=1e-7
    )


def test_a_history_in_one_file_becomes_many_snapshots(tmp_path):
    acc = RNG.integers(-100, 100, size=(5, 2, 128)).astype(np.int16)
    np.savez(
        tmp_path / "pump.npz", acc=acc, scale=0.002, fs=25600.0, t=np.arange(5) * 10.0, rpm=1800,
        channels=np.array(["horizontal", "vertical"]), load=np.arange(5.0), oil=np.arange(5) + 60,
    )  # fmt: skip
    found = find_snapshots(tmp_path)
    assert [s.time for s in found] == [0, 10, 20, 30, 40] and found[0].machine == "pump"
    measured = load_measurement(found[3])
    assert (measured.speed_hz, measured.load, measured.values) == (30.0, 3.0, {"oil": 63.0})
    np.testing.assert_allclose(
        measured.channels["vertical"].samples, acc[3, 1] * np.float32(0.002), rtol=1e-6
    )


def test_a_table_is_read_with_labels_gaps_and_copies(tmp_path):
    write(
        tmp_path / "pump.csv",
        "datetime;Current;Flow;anomaly;changepoint\n"
        "2020-03-09 10:14:33;1,5;32;0;0\n2020-03-09 10:14:35;;31;0;0\n"
        "2020-03-09 10:14:35;9;9;0;0\n2020-03-09 10:14:34;1,7;30;1;1\n",
    )
    found = find_snapshots(tmp_path)
    refused = [f for f in found if isinstance(f, Refusal)]
    snapshots = [f for f in found if not isinstance(f, Refusal)]
    assert len(refused) == 1 and "second snapshot of the same time" in refused[0].message
    assert [s.label for s in snapshots] == ["healthy", "faulty", "healthy"]
    first, _, last = (load_measurement(s).values for s in snapshots)
    assert first == {"Current": 1.5, "Flow": 32.0}
    assert np.isnan(last["Current"]) and last["Flow"] == 31.0


def test_failure_date_labels_what_comes_after(tmp_path):
    for hour in range(4):
        write(tmp_path / "m" / f"2026-01-31T0{hour}-00-00.csv", clocked(","))
    write(tmp_path / "m" / "machine.json", json.dumps({"failed_at": "2026-01-31 02:30:00"}))
    assert [s.label for s in find_snapshots(tmp_path)] == ["", "", "", "faulty"]
    write(tmp_path / "m" / "machine.json", json.dumps({"fault_from": "2026-01-31 01:00"}))
    assert [s.label for s in find_snapshots(tmp_path)] == ["healthy", *["faulty"] * 3]


def test_one_bad_file_does_not_stop_the_rest(tmp_path):
    write(tmp_path / "m" / "2026-01-31T00-00-00.csv", clocked(","))
    write(tmp_path / "m" / "2026-01-31T01-00-00.csv", "")
    write(tmp_path / "m" / "2026-01-31T02-00-00.csv", "1,2\n1,2,3\n")
    (tmp_path / "m" / "2026-01-31T03-00-00.mat").write_bytes(b"\x00\x01")
    found = find_snapshots(tmp_path)
    messages = [f.message for f in found if isinstance(f, Refusal)]
    assert len(found) == 4 and len(messages) == 3
    assert any("0 bytes" in m for m in messages)
    assert any("line 2 has 3 columns" in m for m in messages)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n", "a header and no rows"),
        ("1\n2\n3\n", "3 samples"),
        ("\n".join("x,y" for _ in range(100)), "has no numbers"),
    ],
)
def test_text_without_a_waveform_is_refused_in_words(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        read_recording(write(tmp_path / "a.csv", text))


def test_missing_facts_are_asked_for(tmp_path):
    text = "\n".join(",".join(map(str, row)) for row in WAVE)
    write(tmp_path / "m" / "snapshot.csv", text)
    (refused,) = find_snapshots(tmp_path)
    assert "the time of" in refused.message and "interval_seconds" in refused.hint
    write(tmp_path / "m" / "machine.json", json.dumps({"interval_seconds": 600}))
    with pytest.raises(UserError, match="sample rate"):
        load_measurement(find_snapshots(tmp_path)[0])
    write(tmp_path / "m" / "machine.json", json.dumps({"intervall_seconds": 600}))
    (refused,) = find_snapshots(tmp_path)
    assert refused.item.endswith("machine.json") and "machine m is left out" in refused.message
    assert "did you mean 'interval_seconds'" in refused.hint


def test_an_empty_folder_says_what_is_expected(tmp_path):
    with pytest.raises(UserError, match="has no snapshots"):
        find_snapshots(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "1.5 2.5\n3.5 4.5\n", "1,5 2,5\n3,5 4,5\n", "1,5\t2,5\n3,5\t4,5\n", "1,5;2,5\n3,5;4,5\n",
        "1.5,2.5\r\n3.5,4.5", '"1,5","2,5"\n"3,5","4,5"\n', "1.5;2.5;\n3.5;4.5;\n",
        "  1.5   2.5\n  3.5   4.5\n",
    ],
)  # fmt: skip
def test_separators_and_decimal_signs_are_told_apart(tmp_path, content):
    table = read_columns(write(tmp_path / "a.txt", content))
    assert np.stack([table.numbers(0), table.numbers(1)]).tolist() == [[1.5, 3.5], [2.5, 4.5]]
    assert len(table.names) == 2 and not table.header


def test_a_table_that_has_grown_is_read_anew(tmp_path):
    path = write(tmp_path / "slow.csv", "time,a\n0,1\n60,2\n")
    assert len(find_snapshots(path)) == 2
    write(path, "time,a\n0,1\n60,2\n120,3\n")
    found = find_snapshots(path)
    assert len(found) == 3 and load_measurement(found[2]).values == {"a": 3.0}
