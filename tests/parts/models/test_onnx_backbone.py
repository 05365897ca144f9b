"""The backbone in ONNX Runtime: the maps of PyTorch, one thread where one is set, a fallback."""

import sys
import warnings

import numpy as np
import onnxruntime
import pytest
import torch

from lineside.parts.models import backbone, onnx_backbone

BLOCKS = (2, 4, 7, 10, 14, 15)


@pytest.fixture
def afresh():
    """Sessions of this test only."""
    backbone._runner.cache_clear()
    yield
    backbone._runner.cache_clear()


def picture(height=72, width=104, channels=3):
    return np.random.default_rng(0).random((height, width, channels)).astype(np.float32)


def pytorch_maps(image, blocks):
    with torch.inference_mode():
        return backbone.load_backbone()(backbone.to_input(image), blocks)


@pytest.mark.parametrize("shape", [(256, 256, 3), (192, 192, 1), (32, 224, 3), (64, 32, 1)])
def test_the_maps_are_those_of_pytorch(shape):
    run = onnx_backbone.open_runner(backbone.load_backbone(), BLOCKS, 1)
    image = picture(*shape)
    found, expected = run(backbone.to_input(image)), pytorch_maps(image, BLOCKS)
    for block in BLOCKS:
        assert found[block].shape == expected[block].shape
        scale = float(expected[block].abs().max())
        torch.testing.assert_close(found[block], expected[block], atol=2e-5 * scale, rtol=0)


def test_only_the_blocks_that_are_needed_are_computed():
    network = backbone.load_backbone()
    few, all_of_them = (onnx_backbone.write_graph(network, n) for n in ((2, 4), BLOCKS))
    assert len(few) < len(all_of_them) / 10


def test_a_pass_has_as_many_threads_as_pytorch(afresh, monkeypatch):
    seen = []
    session = onnxruntime.InferenceSession

    def spy(graph, options, **kwargs):
        seen.append(options.intra_op_num_threads)
        return session(graph, options, **kwargs)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            backbone.block_maps(picture(), (2,))
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2]


def test_without_onnx_runtime_pytorch_computes_the_maps(afresh, monkeypatch):
    expected = pytorch_maps(picture(), (2, 10))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.warns(RuntimeWarning, match="runs in PyTorch.*onnxruntime") as told:
        found = backbone.block_maps(picture(), (2, 10))
        backbone.block_maps(picture(), (2, 10))
    assert len(told) == 1 and "\n" not in str(told[0].message)
    for block in (2, 10):
        torch.testing.assert_close(found[block], expected[block][0], atol=1e-4, rtol=1e-4)


def test_an_onnx_runtime_that_differs_is_not_used(monkeypatch):
    network = backbone.load_backbone()
    write = onnx_backbone.write_graph

    def wrong(network, blocks):
        other = backbone.Lite0()
        other.load_state_dict(network.state_dict())
        with torch.no_grad():
            other.blocks[1].project.bias += 0.01
        return write(other, blocks)

    monkeypatch.setattr(onnx_backbone, "write_graph", wrong)
    with pytest.warns(RuntimeWarning, match="differs from PyTorch"):
        assert onnx_backbone.open_runner(network, (2,), 1) is None


def test_an_onnx_runtime_that_fails_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(onnx_backbone, "write_graph", lambda network, blocks: b"no graph")
    with pytest.warns(RuntimeWarning, match="runs in PyTorch") as told:
        assert onnx_backbone.open_runner(backbone.load_backbone(), (2,), 1) is None
    assert "\n" not in str(told[0].message)


def test_nothing_is_said_where_it_works():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert onnx_backbone.open_runner(backbone.load_backbone(), (2,), 1) is not None
