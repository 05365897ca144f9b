"""What the layers of networks put out: size, zeros, units that no item moves, saturation.

Hooks hang on a layer from `attach` until it was measured; `detach` takes the rest away. A network
that was called takes its own hooks away, also when its call fails.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

# Activations beyond this count are not measured: the first items of a batch are a fair sample.
_MEASURED_ACTIVATIONS = 1 << 18
_UNIT_ITEMS, _UNIT_ACTIVATIONS = 64, 1 << 17
_FEWEST_ITEMS, _FEWEST_UNITS = 8, 8
"""Fewer say nothing about a share of silent units, or about an output that never changes."""
_EQUAL = 1e-6
"""Of the largest output of a layer: a unit that varies less is silent."""
_MOST_CALLS = 8
"""Of a layer in a step, e.g. one that is unrolled in time."""
_PATIENCE_STEPS = 100
"""Layers that were not called for so many steps are given up until the next sample."""
_CHANNELS_SECOND = (
    nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm,
)  # fmt: skip
_RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish)
_OBSERVED = (nn.Linear, nn.RNNBase, *_RECTIFIERS, nn.Tanh, nn.Sigmoid)
_SATURATED: dict[type[nn.Module], tuple[float, float]] = {
    nn.Tanh: (0.0, 0.99), nn.Sigmoid: (0.5, 0.495),
}  # fmt: skip
"""Middle and distance from it, beyond which the slope is below 2 % of the steepest."""


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """An observed layer; `axis` of its output are the units."""

    module: nn.Module
    axis: int


@dataclass(kw_only=True)
class _Seen:
    """What one layer put out in a step: statistics of each call, and where the output lies."""

    calls: list[Tensor]
    address: int = 0


class ActivationStatistics:
    """Statistics of the layers of one or several networks, each layer once per sample.

    Args:
        networks: By name; ``""`` for a single network.

    Attributes:
        seconds: Time spent in hooks since the last `take`.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self._networks = dict(networks)
        self._layers = {n: dict(_observed(n, net)) for n, net in self._networks.items()}
        self._affine = {
            name
            for layers in self._layers.values()
            for name, layer in layers.items()
            if isinstance(layer.module, nn.Linear)
        }
        self._due: dict[str, set[str]] = {}
        self._patience = 0
        self._hooks: dict[str, ExitStack] = {}
        self._seen: dict[str, _Seen] = {}
        self._outputs: dict[str, Tensor] = {}
        self._addresses: set[int] = set()
        self.seconds = 0.0

    def expect(self) -> None:
        """Begin a sample: every layer is to be measured when its network is next called."""
        self._due = {name: set(layers) for name, layers in self._layers.items() if layers}
        self._patience = _PATIENCE_STEPS

    def attach(self) -> bool:
        """Hang hooks on the layers that are still to be measured; return whether there are any."""
        if not self._due:
            return False
        self._seen, self._outputs, self._addresses, self.seconds = {}, {}, set(), 0.0
        self._patience -= 1
        if self._patience < 0:
            self._due = {}
        for name, due in self._due.items():
            hooks = self._hooks.setdefault(name, ExitStack())
            for layer in due:
                hook = partial(self._measure, layer, self._layers[name][layer])
                hooks.enter_context(self._layers[name][layer].module.register_forward_hook(hook))
            root = self._networks[name]
            end = partial(self._end_call, name)
            hooks.enter_context(root.register_forward_hook(end, always_call=True))
        return bool(self._due)

    def detach(self) -> None:
        """Remove all hooks."""
        for hooks in self._hooks.values():
            hooks.close()

    def take(self) -> dict[str, dict[str, Any]]:
        """Return ``layers``: statistics by name, in the order in which they were called.

        Beside them ``outputs``: by network, how far its output varies over the items, as a share
        of its largest value. Both are left out where nothing was called. Layers that are ``affine``
        may well put out zeros: heads are often initialised so.
        """
        for name in [*self._due]:
            self._due[name] -= self._seen.keys()
            if not self._due[name]:
                del self._due[name]
        if not self._seen:
            return {}
        joined = [_join(torch.stack(seen.calls)) for seen in self._seen.values()]
        table = torch.stack(joined).tolist()
        last = {self._network_of(name): name for name in self._seen}.values()
        layers: dict[str, dict[str, Any]] = {}
        for (name, seen), (mean, spread, zeros, silent, saturated) in zip(
            self._seen.items(), table, strict=True
        ):
            layers[name] = {"mean": mean, "spread": spread, "zero_share": zeros}
            if name in self._affine:
                layers[name]["affine"] = True
            if silent >= 0:
                layers[name]["silent_units"] = silent
            # An output that is sure of itself is no fault.
            if saturated >= 0 and name not in last and seen.address not in self._addresses:
                layers[name]["saturated_share"] = saturated
        outputs = {name: float(variation) for name, variation in self._outputs.items()}
        return {"layers": layers, "outputs": outputs} if outputs else {"layers": layers}

    def _network_of(self, layer: str) -> str:
        return next(name for name, layers in self._layers.items() if layer in layers)

    def _measure(
        self, name: str, layer: _Layer, module: nn.Module, inputs: Any, output: Any
    ) -> None:
        begin = time.perf_counter()
        output = output[0] if isinstance(output, tuple) else output  # recurrent: and states
        output = getattr(output, "data", output)  # packed sequences
        if isinstance(output, Tensor) and output.is_floating_point() and output.numel():
            seen = self._seen.setdefault(name, _Seen(calls=[]))
            if len(seen.calls) < _MOST_CALLS:
                seen.calls.append(_statistics(output.detach(), module, layer.axis))
            seen.address = output.untyped_storage().data_ptr()
        self.seconds += time.perf_counter() - begin

    def _end_call(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """Measure how far a network's output varies over its items; end its hooks."""
        begin = time.perf_counter()
        self._hooks[name].close()
        tensors = [t for t in _tensors(output) if t.is_floating_point() and t.ndim and t.numel()]
        self._addresses |= {t.untyped_storage().data_ptr() for t in tensors}
        if tensors and all(len(t) >= _FEWEST_ITEMS for t in tensors):
            self._outputs[name] = torch.stack([_variation(t.detach()) for t in tensors]).amax()
        self.seconds += time.perf_counter() - begin


def _observed(name: str, network: nn.Module) -> Iterator[tuple[str, _Layer]]:
    """Yield the observed layers of a network with their full names."""
    axis = -1
    for layer, module in network.named_modules(prefix=name):
        if isinstance(module, _CHANNELS_SECOND):
            axis = 1
        elif isinstance(module, nn.Linear | nn.RNNBase | nn.LayerNorm | nn.Embedding):
            axis = -1
        if isinstance(module, _OBSERVED):
            yield layer, _Layer(module=module, axis=axis)


def _tensors(output: Any) -> list[Tensor]:
    """The tensors of a network's output: one, or in a sequence or mapping."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        output = tuple(output.values())
    return [t for t in output if isinstance(t, Tensor)] if isinstance(output, tuple | list) else []


def _statistics(output: Tensor, module: nn.Module, axis: int) -> Tensor:
    """Mean, spread, share of zeros, of silent units and of saturated outputs, shape (5,).

    The last two are -1 where they cannot be judged.
    """
    few = output[: max(1, _MEASURED_ACTIVATIONS // max(output[:1].numel(), 1))]
    count = max(few.numel(), 1)
    precise = torch.promote_types(few.dtype, torch.float32)  # sums in half precision overflow
    mean = few.sum(dtype=precise) / count
    square = torch.linalg.vector_norm(few, dtype=precise).square() / count
    spread = (square - mean.square()).clamp_min(0.0).sqrt()
    zeros = 1.0 - torch.count_nonzero(few) / count
    unknown = zeros.new_full((), -1.0)
    silent = _silent_units(output, axis) if isinstance(module, _RECTIFIERS) else None
    saturated: Tensor | None = None
    if type(module) in _SATURATED:
        middle, distance = _SATURATED[type(module)]
        saturated = ((few - middle).abs() > distance).sum() / count
    shares = [unknown if share is None else share.float() for share in (silent, saturated)]
    return torch.stack((mean.float(), spread.float(), zeros.float(), *shares))


def _join(calls: Tensor) -> Tensor:
    """(call, 5) -> (5,): means, but the worst call for silent units and saturation."""
    return torch.cat((calls[:, :3].mean(0), calls[:, 3:].amax(0)))


def _silent_units(output: Tensor, axis: int) -> Tensor | None:
    """The share of units that put out the same for all items and places, or None."""
    if output.ndim < 2 or len(output) < _FEWEST_ITEMS or output.shape[axis] < _FEWEST_UNITS:
        return None
    few = output[:_UNIT_ITEMS]
    stride = -(-few.numel() // _UNIT_ACTIVATIONS)
    if stride > 1 and few.ndim > 2:  # every so many columns (or rows of a sequence)
        few = few[..., ::stride] if axis == 1 else few[:, ::stride]
    others = [d for d in range(few.ndim) if d != axis % few.ndim]
    low, high = few.amin(others), few.amax(others)  # (unit,)
    largest = torch.maximum(high.amax(), -low.amin())
    return (high - low <= _EQUAL * largest).float().mean()


def _variation(output: Tensor) -> Tensor:
    """The largest range of an output over items, as a share of the largest output."""
    few = output[:_UNIT_ITEMS].flatten(1)[:, :4096] if output.ndim > 1 else output[:_UNIT_ITEMS]
    largest = few.abs().amax().clamp_min(torch.finfo(few.dtype).tiny)
    return ((few.amax(0) - few.amin(0)).amax() / largest).float()
