"""VGG19-BN at four widths: shapes, weights counted by hand, over-fitting, a pinned loss."""

import pytest
import torch
from torch import nn

from lineside.parts.models.patch_cnn.training import balanced_bce
from lineside.parts.models.patch_cnn.vgg import (
    LAST_MAPS,
    initialise,
    vgg19,
)


@pytest.mark.parametrize("size", [32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(size, channels):
    network = vgg19("vgg19_eighth", channels).eval()
    grids: list = []
    hook = lambda module, given, output: grids.append(output.shape)  # noqa: E731
    network.get_submodule(LAST_MAPS).register_forward_hook(hook)
    with torch.inference_mode():
        assert network(torch.zeros(2, channels, size, size)).shape == (2,)
    assert grids == [(2, 64, size // 16, size // 16)]


@pytest.mark.parametrize(
    ("architecture", "base"),
    [("vgg19_full", 64), ("vgg19_half", 32), ("vgg19_quarter", 16), ("vgg19_eighth", 8)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_weights_counted_by_hand(architecture, base, channels):
    maps = [base] * 2 + [2 * base] * 2 + [4 * base] * 4 + [8 * base] * 8
    convolutions = sum(9 * a * b for a, b in zip([channels, *maps], maps, strict=False))
    expected = convolutions + 2 * sum(maps) + 8 * base + 1
    assert sum(p.numel() for p in vgg19(architecture, channels).parameters()) == expected


def test_full_width_has_the_published_convolutions():
    # Simonyan and Zisserman 2015, table 2 counts 144 million, of which 20.0 in convolutions.
    sizes = [m.weight.numel() for m in vgg19("vgg19_full", 3).modules() if isinstance(m, nn.Conv2d)]
    assert len(sizes) == 16 and sum(sizes) == 20_018_880


def test_one_rectifier_per_place_not_in_place():
    rectifiers = [m for m in vgg19("vgg19_eighth").modules() if isinstance(m, nn.ReLU)]
    assert len(rectifiers) == 16 and not any(m.inplace for m in rectifiers)


def eight(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(8, 1, 32, 32, generator=generator)
    return x, torch.tensor([0.0, 1.0] * 4)


def test_over_fits_eight_samples():
    network = vgg19("vgg19_eighth")
    initialise(network, 0)
    x, y = eight()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        balanced_bce(network(x), y, 1.0).backward()
        optimizer.step()
    logits = network(x)
    assert float(balanced_bce(logits, y, 1.0).detach()) < 0.05
    assert torch.equal(logits > 0, y > 0.5)


def test_seeded_first_loss_is_pinned():
    network = vgg19("vgg19_eighth")
    before = torch.get_rng_state()
    initialise(network, 7)
    assert torch.equal(before, torch.get_rng_state())
    x, y = eight(7)
    loss = float(balanced_bce(network(x), y, 1.0).detach())
    assert loss == pytest.approx(0.79071, abs=2e-4)
    twin = vgg19("vgg19_eighth")
    initialise(twin, 7)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), twin.parameters()))  # noqa: B905
