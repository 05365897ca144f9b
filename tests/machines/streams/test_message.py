"""The wire format of a snapshot: both forms carry the same bits, and what is wrong is one line."""

import dataclasses
import io
import json
import zipfile

import numpy as np
import pytest
from benchmarks.machines.senders import encode_message

from lineside.core.errors import UserError
from lineside.machines.data.measurement import Channel, Measurement
from lineside.machines.streams import message
from lineside.machines.streams.message import decode


def snapshot():
    rng = np.random.default_rng(0)
    waves = rng.standard_normal((2, 100)).astype(np.float32)
    waves[0, 3] = np.nan
    return Measurement(
        machine="pump 3",
        time=1768600800.123456,
        channels={
            "x.y": Channel(samples=waves[0], rate_hz=12800.1, unit="m/s2"),
            "ü": Channel(samples=waves[1], rate_hz=400.0),
        },
        values={"temperature": 1 / 3, "flow": float("nan")},
        speed_hz=24.9,
    )


@pytest.mark.parametrize("kind", ["npz", "json"])
def test_what_is_decoded_is_what_was_encoded_bit_by_bit(kind):
    given = snapshot()
    got = decode(encode_message(given, kind))
    assert (got.machine, got.time, got.speed_hz, got.load) == (
        given.machine, given.time, given.speed_hz, None,
    )  # fmt: skip
    assert list(got.channels) == list(given.channels)
    for name, channel in given.channels.items():
        assert got.channels[name].samples.dtype == np.float32
        assert got.channels[name].samples.tobytes() == channel.samples.tobytes()
        assert got.channels[name].rate_hz == channel.rate_hz
        assert got.channels[name].unit == channel.unit
    assert got.values["temperature"] == 1 / 3 and np.isnan(got.values["flow"])


def test_integers_are_samples_and_load_is_optional():
    body = npz(machine="m", time=1, load=2, **{"channel.a": np.arange(64, dtype=np.int16),
               "rate_hz.a": 64})  # fmt: skip
    got = decode(body)
    assert got.load == 2.0 and got.channels["a"].samples[-1] == 63 and got.channels["a"].unit == "g"


def npz(**arrays):
    body = io.BytesIO()
    np.savez(body, **arrays)
    return body.getvalue()


def text(**changes):
    fields = {
        "machine": "m", "time": 1.0,
        "channels": {"a": {"samples": [0.5] * 64, "rate_hz": 64}},
    }  # fmt: skip
    fields.update(changes)
    return json.dumps({key: value for key, value in fields.items() if value != "absent"}).encode()


def zipped(**files):
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return body.getvalue()


GOOD = {"machine": "m", "time": 1.0, "channel.a": np.zeros(64), "rate_hz.a": 64.0}
BAD_JSON = {
    "no machine": (text(machine="absent"), "no machine"),
    "no time": (text(time="absent"), "no time"),
    "time as text": (text(time="now"), "'now'"),
    "time as bool": (text(time=True), "True"),
    "huge time": (text(time=10**400), "finite"),
    "machine is a number": (text(machine=3), "3"),
    "machine is a path": (text(machine="../x"), "not a path"),
    "machine is hidden": (text(machine=".x"), "not a path"),
    "two lines": (text(machine="a\nb"), "printable"),
    "long name": (text(machine="x" * 999), "characters"),
    "unknown key": (text(chanels={}), "did you mean 'channels'"),
    "no channels": (text(channels={}), "neither"),
    "channels is a list": (text(channels=[1]), "channels is not an object"),
    "channel is a list": (text(channels={"a": [1]}), "is not an object"),
    "no rate": (text(channels={"a": {"samples": [0] * 64}}), "no rate_hz"),
    "no samples": (text(channels={"a": {"rate_hz": 64}}), "no samples"),
    "rate 0": (text(channels={"a": {"samples": [0] * 64, "rate_hz": 0}}), "positive"),
    "unit": (text(channels={"a": {"samples": [0] * 64, "rate_hz": 1, "unit": 1}}), "a word"),
    "few": (text(channels={"a": {"samples": [0] * 9, "rate_hz": 1}}), "9 samples"),
    "words": (text(channels={"a": {"samples": ["0"] * 64, "rate_hz": 1}}), "not numbers"),
    "huge": (text(channels={"a": {"samples": [10**400] * 64, "rate_hz": 1}}), "too large"),
    "nested": (text(channels={"a": {"samples": [[0]] * 64, "rate_hz": 1}}), "not numbers"),
    "text": (text(channels={"a": {"samples": "0", "rate_hz": 1}}), "not a list"),
    "rate twice": (text(channels={"a": {"samples": [], "rate": 1}}), "did you mean 'rate_hz'"),
    "value": (text(values={"t": "warm"}), "'warm'"),
    "speed": (text(speed_hz="fast"), "'fast'"),
    "NaN": (b'{"machine": "m", "time": NaN}', "null"),
    "cut off": (text()[:-5], "not JSON"),
    "deep": (b'{"a":' * 100_000, "not JSON"),
    "empty": (b"", "empty"),
    "a list": (b"[1]", "neither NPZ nor JSON"),
    "binary": (b"\x93NUMPY", "neither NPZ nor JSON"),
    "not UTF-8": (b'{"machine": "\xff"}', "not JSON"),
}
BAD_NPZ = {
    "cut off": (npz(**GOOD)[:-30], "damaged"),
    "pickled": (npz(**GOOD, **{"channel.b": np.array([{}])}), "damaged"),
    "no array": (zipped(note="hello"), "not an array"),
    "unknown": (npz(**GOOD, acc=np.zeros(64)), "'acc'"),
    "rate without channel": (npz(**GOOD, **{"rate_hz.b": 1.0}), "did you mean 'a'|'b'"),
    "no rate": (npz(machine="m", time=1.0, **{"channel.a": np.zeros(64)}), "no rate_hz"),
    "matrix": (npz(**{**GOOD, "channel.a": np.zeros((2, 64))}), "not a list"),
    "complex": (npz(**{**GOOD, "channel.a": np.zeros(64, complex)}), "complex"),
    "bool": (npz(**{**GOOD, "channel.a": np.zeros(64, bool)}), "bool"),
    "times": (npz(**{**GOOD, "time": np.zeros(2)}), "2 entries"),
    "NaN time": (npz(**{**GOOD, "time": np.nan}), "finite"),
    "bomb": (zipped(x=b"\0" * 3_000_000), "larger than"),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_bad_json_is_refused_in_one_line(name):
    check_refused(*BAD_JSON[name])


@pytest.mark.parametrize("name", BAD_NPZ)
def test_bad_npz_is_refused_in_one_line(name, monkeypatch):
    monkeypatch.setattr(message, "MAX_MESSAGE_BYTES", 2_000_000)
    check_refused(*BAD_NPZ[name])


def check_refused(body, words):
    with pytest.raises(UserError) as caught:
        decode(body)
    line = str(caught.value)
    assert any(word in line for word in words.split("|")), line
    assert "\n" not in line and len(line) < 300 and caught.value.hint


def test_a_message_beyond_the_limit_is_not_unpacked(monkeypatch):
    monkeypatch.setattr(message, "MAX_MESSAGE_BYTES", 1000)
    with pytest.raises(UserError, match="larger than"):
        decode(encode_message(snapshot()))


def test_any_damage_is_refused_or_harmless():
    """Bytes flipped anywhere: a refusal, or a snapshot; never another exception."""
    rng = np.random.default_rng(1)
    for kind in ("npz", "json"):
        body = encode_message(snapshot(), kind)
        for _ in range(300):
            damaged = bytearray(body)
            for index in rng.integers(0, len(body), size=3):
                damaged[index] = rng.integers(256)
            try:
                decode(bytes(damaged))
            except UserError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("kind", ["npz", "json"])
def test_speeds_and_units_mean_what_they_mean_in_a_file(kind):
    channels = {
        name: Channel(samples=np.zeros(64, np.float32), rate_hz=100.0, unit=unit)
        for name, unit in (("a", "G"), ("b", "m/s²"), ("c", ""), ("d", "mm/s"))
    }
    given = Measurement(machine="m", time=1.0, channels=channels, speed_hz=-25.0)
    got = decode(encode_message(given, kind))
    assert got.speed_hz == 25.0, "a machine that turns backwards does not stand still"
    assert [c.unit for c in got.channels.values()] == ["g", "m/s2", "g", "mm/s"]
    assert decode(encode_message(dataclasses.replace(given, speed_hz=1e6), kind)).speed_hz is None
