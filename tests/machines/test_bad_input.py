"""Bad files through the public path: one clear line each, and the rest is judged."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy.io import savemat, wavfile
from tests.odd_files import ODD, no_longer_than

import lineside
from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.core.run.progress import Progress
from lineside.core.workflow import train
from lineside.machines.application import APPLICATION
from lineside.machines.audit.data_audit import audit
from lineside.machines.config import Config
from lineside.machines.data import find_snapshots, load_measurement
from lineside.machines.simulation.rig import Condition, Rig, simulate_vibration

RIG = Rig(rate_hz=12800.0, seconds=0.08, gains=(1.0, 0.7), channels=("x", "y"))
MACHINE = "Pumpe Nr. 1 (süd) & \"b'"
LEARNED = 100
RNG = np.random.default_rng(0)


def wave():
    return simulate_vibration(RIG, Condition(speed_hz=25.0), RNG)[:, :1024].astype(np.float32)


def name_of(hour):
    return (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour)).strftime("%Y-%m-%dT%H-%M-%S")


def as_text(samples, separator=",", decimal=".", header="x,y"):
    rows = [separator.join(f"{v:.5f}".replace(".", decimal) for v in row) for row in samples.T]
    return "\n".join([header.replace(",", separator), *rows]) + "\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / MACHINE
    folder.mkdir()
    (folder / "machine.json").write_text(json.dumps({"rate_hz": 12800, "speed_hz": 25.0}))
    for hour in range(LEARNED):
        (folder / f"{name_of(hour)}.csv").write_text(as_text(wave()))
    return folder.parent


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "run"
    config = Config(methods=("pca",), learn=60, robustness=False)
    train(APPLICATION, data, out, config, Progress(quiet=True))
    return out


@pytest.fixture
def folder(data, tmp_path):
    """A folder for later snapshots of the same machine."""
    later = tmp_path / MACHINE
    later.mkdir()
    (later / "machine.json").write_text((data / MACHINE / "machine.json").read_text())
    return later


def judged(folder, model):
    """Verdicts by file, what was refused by file, and all in one line."""
    found = lineside.load(model).predict([folder])
    for each in found:
        assert "\n" not in (each.message if isinstance(each, Refusal) else each.as_line())
    return [f for f in found if not isinstance(f, Refusal)], [
        f for f in found if isinstance(f, Refusal)
    ]


GOOD = {
    "semicolons": lambda w: as_text(w, ";").encode(),
    "decimal commas": lambda w: as_text(w, ";", ",").encode(),
    "tabs": lambda w: as_text(w, "\t").encode(),
    "quoted": lambda w: as_text(w, header='"x","y"').encode(),
    "separator at the end": lambda w: as_text(w, ";").replace("\n", ";\n").encode(),
    "windows": lambda w: as_text(w).replace("\n", "\r\n").encode("utf-8-sig"),
    "utf-16": lambda w: as_text(w).encode("utf-16"),
    "one gap": lambda w: as_text(w).replace("\n", "\n,0.1\n", 1).encode(),
    "one word": lambda w: as_text(w).replace("\n", "\nerror,0.1\n", 1).encode(),
    "infinite": lambda w: as_text(w).replace("\n", "\ninf,-inf\n", 1).encode(),
}


def test_ways_to_write_numbers_are_all_read_and_judged(folder, model):
    for hour, make in enumerate(GOOD.values(), LEARNED):
        (folder / f"{name_of(hour)}.csv").write_bytes(make(wave()))
    verdicts, refused = judged(folder, model)
    assert refused == []
    assert [v.state for v in verdicts] == ["normal"] * len(GOOD), list(GOOD)


BAD = {
    "zero.csv": (b"", "0 bytes"),
    "header.csv": (b"x,y\n", "a header and no rows"),
    "blank.csv": (b"\n\n", "is empty"),
    "binary.csv": (bytes(range(256)) * 9, "is no text file"),
    "short line.csv": (as_text(wave()).encode() + b"0.1\n", "line 1026 has 1 columns"),
    "zeros.csv": (as_text(wave()).encode() + bytes(40), "ends in 40 zero bytes"),
    "few.csv": (as_text(wave()[:, :20]).encode(), "has 20 samples"),
    "words.csv": (b"x,y\n" + b"a,b\n" * 100, "has no numbers"),
    "no.npz": (b"nothing", "it is not an NPZ file"),
    "no.tdms": (b"nothing", "has no waveform"),
    "no.uff": (b"nothing", "has no waveform"),
    "half.tdms": (b"TDSm" + bytes(30), "cannot be read"),
    "half.uff": (b"    -1\n    58\nname\n", "has no waveform"),
    "half.wav": (b"RIFF\x10\x27\x00\x00WAVEfmt " + bytes(40), "is cut off"),
    "old.mat": (b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM\x0f\0\0\0", "cannot be read"),
    "hdf.mat": (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400), "MATLAB 7.3"),
}


def test_every_bad_file_gets_one_line_and_the_good_one_is_judged(folder, model):
    for hour, (name, (content, _)) in enumerate(BAD.items(), LEARNED + 1):
        (folder / f"{name_of(hour)}_{name}").write_bytes(content)
    (folder / f"{name_of(LEARNED)}.csv").write_text(as_text(wave()))
    verdicts, refused = judged(folder, model)
    assert [v.state for v in verdicts] == ["normal"]
    assert len(refused) == len(BAD)
    for name, (_, words) in BAD.items():
        (refusal,) = [r for r in refused if name in r.item]
        assert words in refusal.message and refusal.hint, refusal


def test_pickled_objects_are_refused_and_never_run(folder, model):
    class Harm:
        def __reduce__(self):
            return (open, (str(folder / "harmed"), "w"))

    x, y = wave()
    path = folder / f"{name_of(LEARNED)}.npz"
    np.savez(path, x=x, y=y, harm=np.array([Harm()], dtype=object))
    verdicts, (refused,) = judged(folder, model)
    assert verdicts == [] and "harm has pickled Python objects" in refused.message
    assert not (folder / "harmed").exists()


def test_files_that_were_cut_off_are_refused(folder, model):
    samples = wave()
    whole = {
        "mat": lambda p: savemat(p, {"x": samples[0], "y": samples[1]}),
        "npz": lambda p: np.savez(p, x=samples[0], y=samples[1]),
        "wav": lambda p: wavfile.write(p, 12800, samples.T),
    }
    for hour, (suffix, write) in enumerate(whole.items(), LEARNED):
        path = folder / f"{name_of(hour)}.{suffix}"
        write(path)
        path.write_bytes(path.read_bytes()[:3000])
    verdicts, refused = judged(folder, model)
    assert verdicts == [] and len(refused) == 3
    assert all("copy it again" in r.hint for r in refused)


def sensor_notes(folder, model, content, hour=LEARNED):
    (folder / f"{name_of(hour)}.csv").write_bytes(content)
    (verdict,), refused = judged(folder, model)
    assert refused == []
    return verdict


def test_what_a_sensor_did_is_told_apart_from_the_machine(folder, model):
    samples = wave()
    holed, still = samples.copy(), samples.copy()
    holed[0, 100:300] = np.nan
    still[1] = 0.3
    lost = samples.copy()
    lost[0] = np.nan
    for changed, words in (
        (holed, "sensor x lacks 200 of 1024 samples"),
        (still, "sensor y reads 0.3 g throughout"),
        (lost, "sensor x has no finite sample"),
        (samples[:1], "sensor y is not in this snapshot"),
        (samples[:, :900], "has 900 samples instead of 1024"),
    ):
        header = "x,y" if len(changed) == 2 else "x"
        verdict = sensor_notes(folder, model, as_text(changed, header=header).encode())
        assert verdict.state == "sensor fault" and words in verdict.note


def test_unknown_columns_are_told_and_not_used(folder, model):
    samples = np.vstack([wave(), np.full((1, 1024), 0.5)])
    verdict = sensor_notes(folder, model, as_text(samples, header="x,y,z").encode())
    assert verdict.state == "normal" and "z was never learned" in verdict.as_line()
    verdict = sensor_notes(folder, model, as_text(wave(), header="u,v").encode())
    assert verdict.state == "sensor fault"
    assert "sensor x is not in this snapshot, which has u, v" in verdict.note


def test_a_rate_that_changes_is_told_and_not_judged(folder, model):
    (folder / "machine.json").write_text("{}")
    for hour, rate in ((LEARNED, 12800), (LEARNED + 1, 6400), (LEARNED + 2, 12800)):
        x, y = wave()
        np.savez(folder / f"{name_of(hour)}.npz", x=x, y=y, fs=rate, speed_hz=25.0)
    verdicts, refused = judged(folder, model)
    assert refused == [] and [v.state for v in verdicts] == ["normal", "sensor fault", "normal"]
    assert "was sampled at 6400 Hz instead of 12800 Hz" in verdicts[1].note


def test_times_that_are_doubled_missing_or_out_of_order(folder, model):
    hours = [LEARNED + 2, LEARNED, LEARNED, LEARNED + 1, LEARNED + 3, LEARNED + 4]
    times = [datetime(2026, 1, 1, tzinfo=UTC).timestamp() + 3600 * hour for hour in hours]
    times[4], times[5] = np.nan, np.inf
    acc = np.stack([wave() for _ in hours])
    np.savez(folder / "history.npz", acc=acc, fs=12800, t=np.array(times), channels=["x", "y"])
    verdicts, refused = judged(folder, model)
    assert [v.time for v in verdicts] == sorted(times[:2] + times[3:4])
    assert sorted(r.message.split(f"of {MACHINE} ")[1] for r in refused) == [
        "has no time", "has no time", "is a second snapshot of the same time",
    ]  # fmt: skip
    checks = audit(find_snapshots(folder.parent), Config())
    assert next(c for c in checks if c.name.startswith("unreadable")).count == 3


def test_nothing_is_left_out_without_a_word(folder):
    (folder / f"{name_of(0)}.csv").write_text(as_text(wave()))
    (folder / "more.xlsx").write_bytes(b"PK")
    (folder.parent / "loose.csv").write_text(as_text(wave()))
    (folder.parent / "README.txt").write_text("for people")
    refused = [f for f in find_snapshots(folder.parent) if isinstance(f, Refusal)]
    assert len(refused) == 2
    assert "beside the folders of machines" in refused[0].message
    assert "of a type that is not read" in refused[1].message


@pytest.mark.parametrize("constant", [0.5, np.nan])
def test_a_sensor_that_was_dead_from_the_beginning_does_not_blind_the_others(tmp_path, constant):
    acc = np.stack([wave() for _ in range(LEARNED)])
    acc[:, 1] = constant
    times = np.arange(LEARNED) * 3600.0
    np.savez(tmp_path / "m.npz", acc=acc, fs=12800, t=times, speed_hz=25.0, channels=["x", "y"])
    config = Config(methods=("pca",), learn=60, robustness=False)
    train(APPLICATION, tmp_path, tmp_path / ".run", config, Progress(quiet=True))
    verdicts = lineside.load(tmp_path / ".run").predict(tmp_path / "m.npz")
    assert {v.state for v in verdicts} == {"normal"}
    assert "sensor y was never learned and is not used" in verdicts[0].as_line()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda acc: acc * 0 + 1, "sensor channel_0 reads 1 g throughout"),
        (lambda acc: acc * np.nan, "sensor channel_0 has no finite sample"),
        (lambda acc: acc * np.float32(1e25), "has values of the order"),
    ],
)
def test_a_machine_without_a_sound_sensor_is_refused_with_the_reason(tmp_path, change, words):
    acc = change(np.stack([wave() for _ in range(60)]))
    np.savez(tmp_path / "m.npz", acc=acc, fs=12800, t=np.arange(60) * 3600.0)
    config = Config(methods=("pca",), learn=30, robustness=False)
    with pytest.raises(UserError, match=words):
        train(APPLICATION, tmp_path, tmp_path / ".run", config, Progress(quiet=True))


def test_speeds_that_no_shaft_turns_are_not_known(tmp_path):
    acc = np.stack([wave() for _ in range(3)])
    np.savez(tmp_path / "m.npz", acc=acc, fs=12800, t=[0, 1, 2], speed_hz=[-25.0, 1e9, np.nan])
    found = [load_measurement(s).speed_hz for s in find_snapshots(tmp_path)]
    assert found == [25.0, None, None]


@pytest.mark.adversary("l")
@pytest.mark.parametrize("kind", [kind for kind in ODD if kind != "folder"])
@pytest.mark.parametrize("suffix", [".csv", ".wav", ".npz", ".mat", ".tdms", ".uff"])
def test_an_odd_file_gets_one_line_at_once(folder, model, kind, suffix):
    ODD[kind][0](folder / f"{name_of(LEARNED + 1)}{suffix}")
    (folder / f"{name_of(LEARNED)}.csv").write_text(as_text(wave()))
    with no_longer_than(60):
        verdicts, (refused,) = judged(folder, model)
    assert [v.state for v in verdicts] == ["normal"]
    assert ODD[kind][1] in refused.message or "40960 MB" in refused.message


@pytest.mark.adversary("l")
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_sidecar_is_told(folder, model, kind):
    (folder / f"{name_of(LEARNED)}.csv").write_text(as_text(wave()))
    (folder / "machine.json").unlink()
    ODD[kind][0](folder / "machine.json")
    with no_longer_than(60):
        verdicts, (refused,) = judged(folder, model)
    assert verdicts == [] and ODD[kind][1] in refused.message


@pytest.mark.adversary("l")
def test_a_deeply_nested_sidecar_is_told(folder, model):
    (folder / f"{name_of(LEARNED)}.csv").write_text(as_text(wave()))
    for text in ("[" * 100_000, '{"bearing": ' + '{"a": ' * 900 + "1" + "}" * 901):
        (folder / "machine.json").write_text(text)
        verdicts, (refused,) = judged(folder, model)
        assert verdicts == [] and "nested in more than 64 levels" in refused.message


def test_bad_facts_of_one_machine_leave_the_others(folder, model):
    (folder / f"{name_of(LEARNED)}.csv").write_text(as_text(wave()))
    other = folder.parent / "other"
    other.mkdir()
    (other / f"{name_of(LEARNED)}.csv").write_text(as_text(wave()))
    for text in ("{", '{"speed": 25}', '{"rate_hz": "fast"}'):
        (other / "machine.json").write_text(text)
        found = lineside.load(model).predict([folder.parent])
        verdicts = [f for f in found if not isinstance(f, Refusal)]
        (refused,) = [f for f in found if isinstance(f, Refusal)]
        assert [v.state for v in verdicts] == ["normal"]
        assert "machine other is left out" in refused.message
