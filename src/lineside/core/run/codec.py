"""Frozen dataclasses to plain JSON and tensors, and back: how every model is stored.

``spec, tensors = encode(record)`` and ``decode(Record, spec, tensors)`` are inverses of each other.
The type hints of the fields say how each value is stored:

==============================================  ===================================  ==============
type hint                                       in the spec                          in the tensors
==============================================  ===================================  ==============
bool, int, str, Literal                         itself
float                                           itself; "nan", "inf", "-inf"
X | None                                        null, or as X
tuple[X, ...], tuple[X, Y], list[X]             list                                 PATH.0, PATH.1
Sequence[X] (decoded as a tuple)                list                                 PATH.0, PATH.1
Mapping[str, X], dict[str, X]                   object                               PATH.KEY
a dataclass                                     object, one entry per field          PATH.FIELD
A | B, dataclasses                              the same with ``"class": "A"``       PATH.FIELD
NDArray[dtype], Tensor                          dtype and shape, "float32 (64, 192)" PATH
nn.Module with `built_by`                       "module of 12 tensors"               PATH.PARAMETER
a protocol with `chosen_by`                     as the dataclass that is chosen      PATH.FIELD
Any                                             plain JSON (tuples become lists)
==============================================  ===================================  ==============

A method stores its detector like this; a file without a later field gives that field its default::

    @dataclass(frozen=True, kw_only=True)
    class Autoencoder:
        width: int
        center: NDArray[np.float32]
        network: nn.Module = field(metadata=built_by(lambda own: ConvAutoencoder(own.width)))
        identity: str = field(default="", metadata=TRANSIENT)

        def spec(self) -> dict[str, Any]:
            return encode(self)[0]

        def tensors(self) -> dict[str, Tensor]:
            return encode(self)[1]


    def load_autoencoder(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Autoencoder:
        return decode(Autoencoder, spec, tensors)

Types of fields must be importable at run time, not under ``TYPE_CHECKING`` only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from lineside.core.errors import UserError

Record = TypeVar("Record")

TRANSIENT: Mapping[str, Any] = {"transient": True}
"""Metadata of a field that is not stored; `decode` gives it its default."""
NOT_FINITE = ("nan", "inf", "-inf")


def built_by(build: Callable[[Any], nn.Module]) -> Mapping[str, Any]:
    """Return the metadata of a network field.

    Args:
        build: Makes the network with arbitrary weights; it gets the other fields of the record as
            attributes. `decode` loads the weights into it and sets it to evaluation mode.
    """
    return {"build": build}


def chosen_by(choose: Callable[[Any], type]) -> Mapping[str, Any]:
    """Return the metadata of a field that holds one of several dataclasses.

    Args:
        choose: Returns the class; it gets the other fields of the record as attributes.
    """
    return {"choose": choose}


class _MisfitError(TypeError):
    """A value does not fit the type hint of its field."""

    def __init__(self, path: str, expected: str, value: object) -> None:
        super().__init__(f"{path} should be {expected}, not {repr(value)[:60]}")


def encode(record: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a dataclass as plain JSON and as tensors named by their dotted path.

    Raises:
        TypeError: a value does not fit its type hint, or a hint is not in the table above.
    """
    tensors: dict[str, Tensor] = {}
    return _encode_record(record, "", tensors), tensors


def decode(cls: type[Record], spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Record:
    """Return the dataclass that `encode` stored.

    Raises:
        UserError: a field is missing, unknown or of another type, or a tensor is unknown.
    """
    unused = dict(tensors)
    try:
        record = _decode_record(cls, spec, "", unused)
        if unused:
            raise TypeError(f"no field holds the tensor {min(unused)!r}")
    except TypeError as error:
        raise UserError(
            f"this is not a stored {cls.__name__}: {error}",
            "it was changed by hand, or written by another version of lineside",
        ) from error
    return record


def _encode_record(record: Any, path: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {
        field.name: _encode(getattr(record, field.name), hint, _join(path, field.name), tensors)
        for field, hint in _stored_fields(type(record), record)
    }


def _decode_record(cls: type[Record], spec: Any, path: str, tensors: dict[str, Tensor]) -> Record:
    if not isinstance(spec, Mapping):
        raise _MisfitError(path or "it", f"the fields of {cls.__name__}", spec)
    own, names = SimpleNamespace(), set()
    for field, hint in _stored_fields(cls, own):
        name, place = field.name, _join(path, field.name)
        names.add(name)
        if name not in spec:
            setattr(own, name, _default(field, place))
        elif "build" in field.metadata and spec[name] is not None:
            setattr(own, name, _decode_module(field.metadata["build"](own), place, tensors))
        else:
            setattr(own, name, _decode(spec[name], hint, place, tensors))
    if unknown := sorted(set(spec) - names):
        raise TypeError(
            f"{_join(path, unknown[0])} is unknown, {cls.__name__} has {', '.join(sorted(names))}"
        )
    return cls(**vars(own))


def _stored_fields(cls: type, own: object) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    """Yield the stored fields with their type hints, those last that depend on others.

    Args:
        cls: The dataclass.
        own: Has the fields as attributes, at least those that were yielded before.
    """
    hints = _hints(cls)
    fields = [f for f in dataclasses.fields(cls) if f.init and "transient" not in f.metadata]
    fields.sort(key=lambda f: ("choose" in f.metadata) + 2 * ("build" in f.metadata))
    for field in fields:
        hint = hints[field.name]
        if "choose" in field.metadata:
            chosen = field.metadata["choose"](own)
            hint = chosen | None if NoneType in get_args(hint) else chosen
        members, _ = _members(hint)
        if "build" not in field.metadata and any(_is_class(m, nn.Module) for m in members):
            raise TypeError(f"{cls.__name__}.{field.name} holds a network, say what it is built_by")
        yield field, hint


def _encode(value: Any, hint: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    members, optional = _members(hint)
    if optional and value is None:
        return None
    if len(members) > 1:
        if type(value) not in members:
            raise _MisfitError(path, " or ".join(m.__name__ for m in members), value)
        return {"class": type(value).__name__, **_encode_record(value, path, tensors)}
    (hint,) = members
    kind = get_origin(hint) or hint
    if dataclasses.is_dataclass(kind):
        if type(value) is not kind:
            raise _MisfitError(path, hint.__name__, value)
        return _encode_record(value, path, tensors)
    if kind is Tensor or kind is np.ndarray:
        return _encode_array(value, hint, path, tensors)
    if _is_class(kind, nn.Module):
        state = value.state_dict()
        tensors.update({f"{path}.{k}": v.detach().cpu().contiguous() for k, v in state.items()})
        return f"module of {len(state)} tensors"
    if kind in (tuple, list, Sequence):
        hints = _item_hints(hint, value, path)
        return [_encode(v, h, f"{path}.{i}", tensors) for i, (v, h) in enumerate(hints)]
    if kind in (dict, Mapping):
        entry = _entry_hint(hint, value, path)
        return {k: _encode(v, entry, f"{path}.{_escaped(k)}", tensors) for k, v in value.items()}
    plain = _plain(value, hint, path)
    finite = not isinstance(plain, float) or math.isfinite(plain)
    return plain if finite or kind is Any else str(plain)


def _decode(value: Any, hint: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    members, optional = _members(hint)
    if optional and value is None:
        return None
    if len(members) > 1:
        names = {member.__name__: member for member in members}
        name = value.get("class") if isinstance(value, Mapping) else None
        if name not in names:
            raise _MisfitError(path, f"one with a class of {', '.join(sorted(names))}", value)
        rest = {k: v for k, v in value.items() if k != "class"}
        return _decode_record(names[name], rest, path, tensors)
    (hint,) = members
    kind = get_origin(hint) or hint
    if dataclasses.is_dataclass(kind):
        return _decode_record(kind, value, path, tensors)  # type: ignore[arg-type]
    if kind is Tensor or kind is np.ndarray:
        return _decode_array(value, hint, path, tensors)
    if kind in (tuple, list, Sequence):
        hints = _item_hints(hint, value, path)
        items = [_decode(v, h, f"{path}.{i}", tensors) for i, (v, h) in enumerate(hints)]
        return items if kind is list else tuple(items)
    if kind in (dict, Mapping):
        entry = _entry_hint(hint, value, path)
        return {k: _decode(v, entry, f"{path}.{_escaped(k)}", tensors) for k, v in value.items()}
    if kind is float and isinstance(value, str) and value in NOT_FINITE:
        return float(value)
    return _plain(value, hint, path)


def _encode_array(value: Any, hint: Any, path: str, tensors: dict[str, Tensor]) -> str:
    if hint is Tensor:
        if not isinstance(value, Tensor):
            raise _MisfitError(path, "a tensor", value)
        tensors[path] = value.detach().cpu().contiguous()
    else:
        _check_dtype(value, hint, path)
        tensors[path] = torch.from_numpy(np.array(value, order="C"))  # a copy: may be read-only
    return _summary(tensors[path])


def _decode_array(value: Any, hint: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if path not in tensors:
        raise TypeError(f"the tensor {path} is missing")
    tensor = tensors.pop(path)
    if value != _summary(tensor):
        raise _MisfitError(path, f"a tensor {value}", _summary(tensor))
    if hint is Tensor:
        return tensor
    array = tensor.numpy()
    _check_dtype(array, hint, path)
    return array


def _check_dtype(value: Any, hint: Any, path: str) -> None:
    """Compare with ``NDArray[dtype]``, which is ``ndarray[shape, dtype[scalar type]]``."""
    (scalar,) = get_args(get_args(hint)[1]) if get_args(hint) else (Any,)
    scalar = get_origin(scalar) or scalar
    if not isinstance(value, np.ndarray):
        raise _MisfitError(path, "an array", value)
    own = np.dtype(value.dtype.str)  # C's long long is int64 by another name
    if scalar is not Any and not np.issubdtype(own, scalar):
        raise _MisfitError(path, f"an array of {scalar.__name__}", f"{value.dtype}")


def _summary(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _decode_module(module: nn.Module, path: str, tensors: dict[str, Tensor]) -> nn.Module:
    names = [name for name in tensors if name.startswith(f"{path}.")]
    state = {name.removeprefix(f"{path}."): tensors.pop(name) for name in names}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise TypeError(f"{path}: {' '.join(str(error).split())}") from error
    return module.eval()


def _plain(value: Any, hint: Any, path: str) -> Any:
    """Return a value of a plain type as JSON has it; NumPy's numbers become Python's."""
    number = isinstance(value, int | float | np.integer | np.floating)
    if hint is Any:
        return _json(value, path)
    if get_origin(hint) is Literal:
        if any(value == choice and type(value) is type(choice) for choice in get_args(hint)):
            return value
        raise _MisfitError(path, f"one of {', '.join(map(str, get_args(hint)))}", value)
    if hint is bool and isinstance(value, bool | np.bool_):
        return bool(value)
    if hint is float and number and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    if hint is str and isinstance(value, str):
        return str(value)
    if hint in (bool, float, int, str):
        raise _MisfitError(path, f"of type {hint.__name__}", value)
    raise TypeError(f"{path} has the type {hint}, which is not stored")


def _json(value: Any, path: str) -> Any:
    """Return a copy of plain JSON; tuples become lists."""
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _json(entry, f"{path}.{key}") for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json(entry, f"{path}.{i}") for i, entry in enumerate(value)]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise _MisfitError(path, "plain JSON", value)


def _members(hint: Any) -> tuple[tuple[Any, ...], bool]:
    """Return the members of a union without None, and whether None is one of them."""
    if get_origin(hint) not in (Union, UnionType):
        return (hint,), False
    members = tuple(member for member in get_args(hint) if member is not NoneType)
    if len(members) > 1 and not all(dataclasses.is_dataclass(member) for member in members):
        raise TypeError(f"{hint} is not stored: only dataclasses can be told apart")
    return members, NoneType in get_args(hint)


def _item_hints(hint: Any, value: Any, path: str) -> list[tuple[Any, Any]]:
    """Return the items of a list or tuple with their type hints."""
    args = get_args(hint)
    if not isinstance(value, list | tuple):
        raise _MisfitError(path, "a list", value)
    if get_origin(hint) is not tuple or Ellipsis in args:
        return [(item, args[0]) for item in value]
    if len(value) != len(args):
        raise _MisfitError(path, f"a list of {len(args)}", value)
    return list(zip(value, args, strict=True))


def _entry_hint(hint: Any, value: Any, path: str) -> Any:
    """Return the type hint of the entries of a mapping."""
    if get_args(hint)[0] is not str:
        raise TypeError(f"{path} has the type {hint}, only names can be keys")
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _MisfitError(path, "a mapping from names", value)
    return get_args(hint)[1]


@cache
def _hints(cls: type) -> dict[str, Any]:
    try:
        return get_type_hints(cls)
    except NameError as error:
        raise TypeError(f"{cls.__name__} has a type that is not imported: {error}") from error


def _default(field: dataclasses.Field[Any], path: str) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    raise TypeError(f"{path} is missing")


def _is_class(hint: Any, kind: type) -> bool:
    return isinstance(hint, type) and issubclass(hint, kind)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _escaped(key: str) -> str:
    """Return a key without dots, so that two paths never share a tensor's name."""
    return key.replace("%", "%25").replace(".", "%2E")
