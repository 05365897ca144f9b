"""The frozen backbone in ONNX Runtime: the same maps as PyTorch's in less than half of the time.

ONNX Runtime fuses a convolution with its ReLU6 and keeps weights and maps in the order of the
processor's vectors. The graph is written from the weights of the PyTorch network when a process
first needs it, which takes 0.1 s: no file that could be stale, torn or foreign. Each session is
compared with PyTorch on a fixed input before it is used.

Format: protocol buffers, field numbers of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from lineside.parts.models.backbone import Lite0

OPSET, IR_VERSION = 17, 8
TOLERANCE = 1e-4
"""Largest difference from PyTorch, as a share of a map's largest value; usual are 2e-6."""
CHECK_PX = (64, 96)

Maps = dict[int, Tensor]
Runner = Callable[[Tensor], Maps]
"""Maps an input (1, 3, height, width) to block number -> map (1, channel, rows, columns)."""


def open_runner(network: Lite0, blocks: Sequence[int], threads: int) -> Runner | None:
    """Return a function that computes blocks of the network in ONNX Runtime.

    Args:
        network: The PyTorch network.
        blocks: Numbers of the blocks whose maps are wanted.
        threads: Threads of a pass.

    Returns:
        None where ONNX Runtime is missing, fails or differs from PyTorch; a warning says so.
    """
    try:
        runner = _open_session(network, blocks, threads)
        difference = largest_difference(network, blocks, runner)
    except Exception as error:  # missing, an unknown processor, a version that lacks the opset
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    else:
        if difference <= TOLERANCE:
            return runner
        reason = f"it differs from PyTorch by {difference:.1g}"
    warnings.warn(
        f"the backbone runs in PyTorch, which takes twice as long as ONNX Runtime: {reason}",
        RuntimeWarning,
        stacklevel=2,
    )
    return None


@torch.inference_mode()
def largest_difference(network: Lite0, blocks: Sequence[int], runner: Runner) -> float:
    """Return the largest difference from PyTorch as a share of the largest value of a map."""
    x = torch.rand(1, 3, *CHECK_PX, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected, found = network(x, blocks), runner(x)
    shares = [(found[n] - expected[n]).abs().max() / expected[n].abs().max() for n in blocks]
    return float(torch.stack(shares).nan_to_num(torch.inf).max())


def _open_session(network: Lite0, blocks: Sequence[int], threads: int) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = False  # it would keep one for every size of picture
    options.log_severity_level = 3
    names = [f"block {number}" for number in blocks]
    session = onnxruntime.InferenceSession(
        write_graph(network, blocks), options, providers=["CPUExecutionProvider"]
    )

    def run(x: Tensor) -> Maps:
        maps = session.run(names, {"image": x.contiguous().numpy()})
        return {n: torch.from_numpy(values) for n, values in zip(blocks, maps, strict=True)}

    return run


def write_graph(network: Lite0, blocks: Sequence[int]) -> bytes:
    """Return an ONNX model: ``image`` (1, 3, height, width) to ``block N`` for the given blocks."""
    graph = _Graph()
    x = graph.conv("image", network.stem, (0, 0, 1, 1), relu6=True)
    outputs = []
    for number, module in enumerate(network.blocks[: max(blocks) + 1]):
        block: Any = module  # a Bottleneck, which an nn.ModuleList does not know
        left, right, top, bottom = block.pad
        y = x if block.expand is None else graph.conv(x, block.expand, relu6=True)
        y = graph.conv(y, block.depthwise, (top, left, bottom, right), relu6=True)
        y = graph.conv(y, block.project)
        x = graph.node("Add", [x, y]) if block.residual else y
        if number in blocks:
            name = graph.node("Identity", [x], f"block {number}")
            outputs.append(
                _value(name, (1, block.project.out_channels, name + " rows", name + " columns"))
            )
    return graph.model(outputs)


class _Graph:
    """Nodes and constants of a GraphProto; values are named by their number."""

    def __init__(self) -> None:
        self.nodes: list[bytes] = []
        self.constants: list[bytes] = []
        self.limits = [self.constant(torch.tensor(value)) for value in (0.0, 6.0)]

    def constant(self, values: Tensor) -> str:
        """Add a float32 tensor and return its name."""
        name = f"constant {len(self.constants)}"
        data = values.detach().contiguous().numpy().astype("<f4").tobytes()
        shape = b"".join(_field(1, size) for size in values.shape)
        self.constants.append(shape + _field(2, _FLOAT) + _field(8, name) + _field(9, data))
        return name

    def node(
        self, operator: str, inputs: Sequence[str], output: str = "", **attributes: int | tuple
    ) -> str:
        """Add a node and return the name of its output."""
        output = output or f"value {len(self.nodes)}"
        self.nodes.append(
            b"".join(_field(1, name) for name in inputs)
            + _field(2, output)
            + _field(4, operator)
            + b"".join(_field(5, _attribute(*pair)) for pair in attributes.items())
        )
        return output

    def conv(
        self, x: str, conv: nn.Conv2d, pads: Sequence[int] = (0, 0, 0, 0), *, relu6: bool = False
    ) -> str:
        """Add a convolution, padded by (top, left, bottom, right), and a ReLU6 if one follows."""
        assert conv.bias is not None
        inputs = [x, self.constant(conv.weight), self.constant(conv.bias)]
        y = self.node(
            "Conv", inputs, kernel_shape=conv.kernel_size, strides=conv.stride, pads=tuple(pads),
            group=conv.groups,
        )  # fmt: skip
        return self.node("Clip", [y, *self.limits]) if relu6 else y

    def model(self, outputs: Sequence[bytes]) -> bytes:
        """Return the ModelProto."""
        graph = b"".join(_field(1, node) for node in self.nodes) + _field(2, "backbone")
        graph += b"".join(_field(5, constant) for constant in self.constants)
        graph += _field(11, _value("image", (1, 3, "height", "width")))
        graph += b"".join(_field(12, output) for output in outputs)
        opset = _field(1, "") + _field(2, OPSET)
        return _field(1, IR_VERSION) + _field(7, graph) + _field(8, opset)


_FLOAT = 1  # TensorProto.DataType
_INT, _INTS = 2, 7  # AttributeProto.AttributeType


def _attribute(name: str, value: int | tuple[int, ...]) -> bytes:
    """Return an AttributeProto."""
    if isinstance(value, int):
        return _field(1, name) + _field(3, value) + _field(20, _INT)
    return _field(1, name) + b"".join(_field(8, each) for each in value) + _field(20, _INTS)


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    """Return a ValueInfoProto of a float32 tensor; a size that varies with the image has a name."""
    sizes = [_field(1, size) if isinstance(size, int) else _field(2, size) for size in shape]
    kind = _field(1, _FLOAT) + _field(2, b"".join(_field(1, size) for size in sizes))
    return _field(1, name) + _field(2, _field(1, kind))


def _field(number: int, value: int | str | bytes) -> bytes:
    """Return a field of a protocol buffer: an integer, or bytes with their length before them."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    """Return a number >= 0 in groups of seven bits, the lowest first."""
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
