"""Models, runs and trails signed with a key: what was altered on purpose is refused with it."""

import json
import shutil

import pytest

from lineside.cli import main
from lineside.core.run.files import canonical, sha256
from lineside.core.run.seal import KEY_VARIABLE

FLAGS = ("--methods", "gaussian", "--methods", "brightness", "--no-robustness")


@pytest.fixture(scope="module")
def signed_once(shop, tmp_path_factory):
    root = tmp_path_factory.mktemp("signed")
    (root / "key").write_bytes(b"secret of the line 7")
    data, key = shop.data(root / "data", good=7, faulty=3), str(root / "key")
    train = ["parts", "train", str(data), "--part-pattern", shop.pattern, *FLAGS, "--key", key]
    assert main([*train, "--out", str(root / "run")]) == 0
    return root


@pytest.fixture
def signed(signed_once, tmp_path):
    return shutil.copytree(signed_once, tmp_path / "signed")


def predict(root, capsys, *flags, run=None):
    picture = next((root / "data" / "good").iterdir())
    code = main(["parts", "predict", str(picture), "--model", str(run or root / "run"), *flags])
    told = capsys.readouterr()
    return code, [line for line in told.err.splitlines() if line.startswith("error")]


def made_anew(description):
    """All hashes of a model.json as its author would make them."""
    description["calibration_sha256"] = sha256(canonical(description["calibration"]))
    plain = {k: v for k, v in description.items() if k not in ("sha256", "hmac")}
    return {**plain, "sha256": sha256(canonical(plain))} | (
        {"hmac": description["hmac"]} if "hmac" in description else {}
    )


@pytest.mark.adversary("h")
def test_a_threshold_whose_hash_was_made_anew_is_refused_with_the_key(signed, capsys):
    key = ("--key", str(signed / "key"))
    assert predict(signed, capsys, *key)[0] in (0, 1)
    path = signed / "run/models/gaussian/model.json"
    description = json.loads(path.read_text())
    assert description["calibration"]["point"]["threshold"] < 1e9
    description["calibration"]["point"]["threshold"] = 1e9
    for hmac in (True, False):  # the old signature kept, or cut out
        altered = made_anew(description)
        path.write_text(json.dumps(altered if hmac else {**altered, "hmac": None}))
        code, errors = predict(signed, capsys, *key)
        assert code == 2 and len(errors) == 1
        assert ("altered, or signed with another key" if hmac else "is not signed") in errors[0]


def test_another_model_of_the_run_cannot_be_put_in_its_place(signed, capsys):
    path = signed / "run/status.json"
    status = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("sha256", "hmac")}
    status["model"] = "brightness"
    path.write_text(json.dumps({**status, "sha256": sha256(canonical(status))}))
    assert predict(signed, capsys)[0] in (0, 1), "a plain hash can be recomputed"
    code, errors = predict(signed, capsys, "--key", str(signed / "key"))
    assert code == 2 and "is not signed" in errors[0]


def test_without_a_signature_or_with_another_key_it_is_refused_in_one_line(
    signed, trained, tmp_path, capsys, monkeypatch
):
    code, errors = predict(signed, capsys, "--key", str(signed / "key"), run=trained)
    assert code == 2 and len(errors) == 1 and "is not signed" in errors[0]
    (tmp_path / "other").write_bytes(b"another secret key")
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "other"))
    code, errors = predict(signed, capsys)
    assert code == 2 and len(errors) == 1 and "another key" in errors[0]
    monkeypatch.delenv(KEY_VARIABLE)
    assert predict(signed, capsys)[0] in (0, 1), "without a key signed models are read as others"
    for key in ("none", "short", "folder"):
        (tmp_path / "short").write_bytes(b"7")
        (tmp_path / "folder").mkdir(exist_ok=True)
        code, errors = predict(signed, capsys, "--key", str(tmp_path / key))
        assert code == 2 and len(errors) == 1 and "head -c 32 /dev/urandom" in errors[0]
    assert main(["parts", "predict", "x.png", "--key"]) == 2


def test_recalibration_and_watch_keep_the_signature(signed, shop, tmp_path, capsys):
    key = ("--key", str(signed / "key"))
    fresh = shop.data(tmp_path / "fresh", good=8, faulty=8, seed=4)
    run = str(signed / "run")
    pattern = ("--part-pattern", shop.pattern)
    assert main(["parts", "recalibrate", str(fresh), "--model", run, *pattern, *key]) == 0
    assert predict(signed, capsys, *key)[0] in (0, 1)
    trail = tmp_path / "trail.jsonl"
    watch = ["parts", "watch", str(fresh / "good"), "--model", run, "--trail", str(trail)]
    assert main([*watch, "--once", "--interval-seconds", "0.01", *key]) in (0, 1)
    verify = ["parts", "watch", "--verify", "--trail", str(trail)]
    assert main([*verify, *key]) == 0
    capsys.readouterr()
    assert main(verify) == 2
    assert "is signed with a key" in capsys.readouterr().err
