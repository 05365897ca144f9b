import dataclasses
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from lineside.core.errors import UserError
from lineside.core.run.codec import TRANSIENT, built_by, chosen_by, decode, encode


@dataclass(frozen=True, kw_only=True)
class Scale:
    center: NDArray[np.float64]
    unit: str = "mm/s"


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    mean: NDArray[np.float32]

    def score(self) -> float:
        return float(self.mean.mean())


@dataclass(frozen=True, kw_only=True)
class Forest:
    left: NDArray[np.int64]

    def score(self) -> float:
        return float(len(self.left))


class Detector(Protocol):
    def score(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Plain:
    count: int
    share: float
    name: str
    good: bool
    kind: Literal["deep", "classical"]
    pair: tuple[float, int]
    names: tuple[str, ...]
    order: list[int]
    steps: Sequence[int]
    levels: Mapping[str, float]
    seen: int | None
    sizes: dict[str, Any]


PLAIN = Plain(
    count=3, share=1.5, name="a", good=True, kind="deep", pair=(1.0, 2), names=("x", "y"),
    order=[2, 1], steps=(4,), levels={"b.c": 0.1}, seen=None, sizes={"hidden": [8, 2]},
)  # fmt: skip
PLAIN_SPEC = {
    "count": 3, "share": 1.5, "name": "a", "good": True, "kind": "deep", "pair": [1.0, 2],
    "names": ["x", "y"], "order": [2, 1], "steps": [4], "levels": {"b.c": 0.1}, "seen": None,
    "sizes": {"hidden": [8, 2]},
}  # fmt: skip


def stored(record):
    """The record after a way through JSON and safetensors."""
    spec, tensors = encode(record)
    text, content = json.dumps(spec, allow_nan=False), save_safetensors(tensors)
    again = decode(type(record), json.loads(text), load_safetensors(content))
    assert encode(again)[0] == spec
    return again


def test_plain_values_are_json_of_the_same_names():
    spec, tensors = encode(PLAIN)
    assert spec == PLAIN_SPEC
    assert list(spec) == list(PLAIN_SPEC)
    assert tensors == {}
    assert stored(PLAIN) == PLAIN


@pytest.mark.parametrize(
    ("value", "text"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")]
)
def test_floats_that_json_lacks_are_kept(value, text):
    @dataclass(frozen=True)
    class Limit:
        danger: float
        other: float | None = None

    spec, _ = encode(Limit(value, value))
    assert spec == {"danger": text, "other": text}
    again = decode(Limit, spec, {})
    assert np.array_equal([again.danger, again.other], [value, value], equal_nan=True)


def test_numbers_take_the_declared_type_so_that_the_hash_of_a_spec_never_changes():
    record = dataclasses.replace(
        PLAIN, share=2, count=np.int64(5), good=np.bool_(True), pair=(np.float32(0.5), 1)
    )
    spec, _ = encode(record)
    assert json.dumps([spec["share"], spec["count"], spec["good"], spec["pair"]]) == (
        "[2.0, 5, true, [0.5, 1]]"
    )


@dataclass(frozen=True, kw_only=True)
class Nested:
    scale: Scale
    others: tuple[Scale, ...]
    by_name: Mapping[str, Scale]
    both: tuple[Tensor, NDArray[np.bool_]]
    none: Scale | None = None
    one: Scale | None = None


def scale(*values):
    return Scale(center=np.array(values))


def test_arrays_are_named_by_their_path():
    record = Nested(
        scale=scale(1.0, 2.0),
        others=(scale(), scale(3.0)),
        by_name={"pump.1": scale(4.0), "50%": scale(5.0)},
        both=(torch.arange(3), np.array([[True], [False]])),
        one=scale(6.0),
    )
    spec, tensors = encode(record)
    one = {"center": "float64 (1,)", "unit": "mm/s"}
    assert spec == {
        "scale": {"center": "float64 (2,)", "unit": "mm/s"},
        "others": [{"center": "float64 (0,)", "unit": "mm/s"}, one],
        "by_name": {"pump.1": one, "50%": one},
        "both": ["int64 (3,)", "bool (2, 1)"],
        "none": None,
        "one": one,
    }
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {
        "scale.center": [1.0, 2.0],
        "others.0.center": [],
        "others.1.center": [3.0],
        "by_name.pump%2E1.center": [4.0],
        "by_name.50%25.center": [5.0],
        "both.0": [0, 1, 2],
        "both.1": [[True], [False]],
        "one.center": [6.0],
    }
    again = stored(record)
    assert again.none is None
    assert again.by_name["pump.1"].center.tolist() == [4.0]
    assert isinstance(again.both[0], Tensor)
    assert again.both[1].dtype == np.bool_
    assert again.others[0].center.shape == (0,)


@pytest.mark.parametrize(
    "array",
    [
        np.array(1.5),
        np.zeros((0, 3)),
        np.array([np.nan, -np.inf, -0.0, 5e-324]),
        np.array([1, 2**62]),
        np.array([1.5], dtype=np.float16),
        np.arange(6.0).reshape(2, 3).T,
        np.array([250], dtype=np.uint8),
    ],
)
def test_arrays_keep_dtype_shape_and_every_bit(array):
    @dataclass(frozen=True)
    class Holds:
        array: NDArray[Any]

    array.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = stored(Holds(array)).array
    assert (again.dtype, again.shape) == (array.dtype, array.shape)
    assert again.tobytes() == array.tobytes()


@dataclass(frozen=True, kw_only=True)
class Autoencoder:
    network: nn.Module = field(metadata=built_by(lambda own: dense(own.width)))
    width: int
    scale: Scale


def dense(width):
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


def test_networks_are_built_from_the_other_fields_and_get_their_weights():
    network = dense(3)
    network(torch.randn(8, 2))
    record = Autoencoder(network=network.eval(), width=3, scale=scale(0.0))
    spec, tensors = encode(record)
    assert spec == {
        "width": 3, "scale": {"center": "float64 (1,)", "unit": "mm/s"},
        "network": "module of 7 tensors",
    }  # fmt: skip
    assert "network.1.running_mean" in tensors
    assert not any(tensor.requires_grad for tensor in tensors.values())
    again = stored(record)
    assert not again.network.training
    x = torch.randn(4, 2)
    assert torch.equal(again.network(x), network(x))


def test_an_integer_of_the_same_width_by_another_name_is_the_declared_one():
    assert stored(Forest(left=np.array([1], dtype=np.longlong))).left.dtype == np.int64


def test_weights_that_do_not_fit_are_refused_by_name():
    spec, tensors = encode(Autoencoder(network=dense(3), width=3, scale=scale(0.0)))
    with pytest.raises(UserError, match=r"network: .*size mismatch for 0.weight"):
        decode(Autoencoder, {**spec, "width": 4}, tensors)


KINDS = {"gaussian": Gaussian, "forest": Forest}


@dataclass(frozen=True, kw_only=True)
class Branch:
    detector: Detector = field(metadata=chosen_by(lambda own: KINDS[own.method]))
    method: str
    spare: Gaussian | Forest | None = None


def test_a_protocol_holds_the_class_that_another_field_names():
    record = Branch(method="forest", detector=Forest(left=np.array([1, 2])))
    spec, tensors = encode(record)
    assert spec == {"method": "forest", "spare": None, "detector": {"left": "int64 (2,)"}}
    assert list(tensors) == ["detector.left"]
    assert stored(record).detector.left.tolist() == [1, 2]


def test_members_of_a_union_are_told_apart_by_class():
    record = Branch(
        method="forest", detector=Forest(left=np.array([1])), spare=Gaussian(mean=np.float32([0]))
    )
    assert encode(record)[0]["spare"] == {"class": "Gaussian", "mean": "float32 (1,)"}
    assert isinstance(stored(record).spare, Gaussian)
    spec, tensors = encode(record)
    spec["spare"]["class"] = "os.system"
    with pytest.raises(UserError, match="spare should be one with a class of Forest, Gaussian"):
        decode(Branch, spec, tensors)


def test_transient_fields_are_not_stored_and_new_fields_take_their_default():
    @dataclass(frozen=True, kw_only=True)
    class Model:
        method: str
        identity: str = field(default="", metadata=TRANSIENT)
        rows: tuple[int, ...] = field(default_factory=tuple)

    spec, tensors = encode(Model(method="pca", identity="abc", rows=(1,)))
    assert (spec, tensors) == ({"method": "pca", "rows": [1]}, {})
    assert decode(Model, {"method": "pca"}, {}) == Model(method="pca")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": "3"}, "count should be of type int, not '3'"),
        ({"count": 3.0}, "count should be of type int, not 3.0"),
        ({"count": True}, "count should be of type int, not True"),
        ({"share": None}, "share should be of type float, not None"),
        ({"share": "1"}, "share should be of type float, not '1'"),
        ({"good": 1}, "good should be of type bool, not 1"),
        ({"name": 1}, "name should be of type str, not 1"),
        ({"kind": "trivial"}, "kind should be one of deep, classical, not 'trivial'"),
        ({"pair": [1.0]}, r"pair should be a list of 2, not \[1.0\]"),
        ({"pair": [1.0, "x"]}, "pair.1 should be of type int, not 'x'"),
        ({"names": "xy"}, "names should be a list, not 'xy'"),
        ({"levels": [1]}, r"levels should be a mapping from names, not \[1\]"),
        ({"levels": {"b": "c"}}, "levels.b should be of type float, not 'c'"),
        ({"colour": 1}, "colour is unknown, Plain has count, good, kind"),
    ],
)
def test_a_field_of_another_type_is_refused_by_name(change, message):
    with pytest.raises(UserError, match=f"not a stored Plain: {message}"):
        decode(Plain, {**PLAIN_SPEC, **change}, {})


def test_missing_fields_and_tensors_that_do_not_fit_are_refused_by_name():
    spec, tensors = encode(Branch(method="gaussian", detector=Gaussian(mean=np.float32([0]))))
    double = {"detector.mean": tensors["detector.mean"].double()}
    declared = {**spec, "detector": {"mean": "float64 (1,)"}}
    for changed, arrays, message in (
        ({}, tensors, "method is missing"),
        (spec, {}, "the tensor detector.mean is missing"),
        (spec, {**tensors, "old": torch.zeros(1)}, "no field holds the tensor 'old'"),
        (spec, double, r"detector.mean should be a tensor float32 \(1,\), not 'float64 \(1,\)'"),
        (declared, double, "detector.mean should be an array of float32, not 'float64'"),
        ({**spec, "detector": 3}, tensors, "detector should be the fields of Gaussian, not 3"),
    ):
        with pytest.raises(UserError, match=message):
            decode(Branch, changed, arrays)


def test_what_could_not_be_read_again_is_not_written():
    @dataclass(frozen=True)
    class Network:
        network: nn.Module

    @dataclass(frozen=True)
    class Either:
        value: int | str

    @dataclass(frozen=True)
    class Numbered:
        value: Mapping[int, str]

    @dataclass(frozen=True)
    class Anything:
        value: Any

    for record, message in (
        (Network(dense(2)), "Network.network holds a network, say what it is built_by"),
        (Either(1), "only dataclasses can be told apart"),
        (Numbered({1: "a"}), "only names can be keys"),
        (Anything(math.nan), "value should be plain JSON, not nan"),
        (Anything(object()), "value should be plain JSON, not <object"),
        (Gaussian(mean=np.zeros(2)), "mean should be an array of float32, not 'float64'"),
        (Scale(center=[1.0]), r"center should be an array, not \[1.0\]"),
        (dataclasses.replace(PLAIN, kind="trivial"), "kind should be one of deep, classical"),
    ):
        with pytest.raises(TypeError, match=message):
            encode(record)
