"""The row of attacks in the robustness chapter, on a small random network and tiny pictures."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lineside.core.contract import Figure, Table
from lineside.core.explain.adversarial_attacks import outputs, predicted_class
from lineside.parts.data.items import PartImage
from lineside.parts.models.patch_cnn import vgg as networks
from lineside.parts.models.patch_cnn.patch_cnn import PatchCNN, build_network
from lineside.parts.report import robustness as chapter


def noise(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, 32, 32, generator=generator)


@pytest.fixture(scope="module")
def cnn():
    """A random network whose prediction hangs on little, so that attacks succeed."""
    network = build_network("vgg19_eighth", 1)
    networks.initialise(network, 0)
    found = PatchCNN(
        network=network.eval(), architecture="vgg19_eighth", crop_px=32, channels=1,
        mean=0.5, spread=0.3,
    )  # fmt: skip
    wrapped = chapter.OnPixels(network, 0.5, 0.3)
    with torch.no_grad():
        network.head.bias -= outputs(wrapped, noise(24, 0)).median()
    return found


def true_labels(cnn, pixels):
    return predicted_class(outputs(chapter.OnPixels(cnn.network, cnn.mean, cnn.spread), pixels))


def test_wrapped_network_gives_the_logits_of_the_cnn(cnn):
    pixels = noise(5, 2)
    wrapped = outputs(chapter.OnPixels(cnn.network, cnn.mean, cnn.spread), pixels)
    assert np.allclose(wrapped.numpy(), cnn.logits(pixels.numpy()), atol=1e-5)


def test_blocks_tell_attacks_rivals_and_the_caveat(cnn, monkeypatch):
    monkeypatch.setattr(chapter, "FEWEST_SUCCESSES", 2)
    pixels = noise(20, 1)
    blocks = chapter.attack_blocks(cnn, noise(24, 0), pixels, true_labels(cnn, pixels), seed=0)
    assert [type(block) for block in blocks] == [str, Table, Figure, str]
    text, table, figure, caveat = blocks
    assert "does not fit the predicted class" in text and "not a defence" in caveat
    assert len(table.columns) == len(table.rows[0]) == 5
    names = [cells[0] for cells in table.rows]
    assert names[0] == "FGSM 1/255" and names[-1] == "the same crops unchanged"
    flipped = [int(cells[1].split()[0]) for cells in table.rows[:4]]
    assert flipped[3] >= flipped[0] and flipped[2] >= 2
    assert all(cells[1].endswith("of 20") for cells in table.rows[:-1])
    assert figure.mime == "image/svg+xml" and "share" in figure.caption


def test_without_a_success_the_row_says_so(cnn):
    pixels = noise(20, 1)
    wrong = 1 - true_labels(cnn, pixels)
    blocks = chapter.attack_blocks(cnn, noise(24, 0), pixels, wrong, seed=0)
    assert [type(block) for block in blocks] == [str, Table, str]
    assert "0 of 0" in blocks[0] and "too few" in blocks[0]
    assert all(cells[2] == "too few" for cells in blocks[1].rows)


def test_too_few_clean_crops_of_a_class_are_told(cnn):
    pixels = noise(20, 1)
    blocks = chapter.attack_blocks(cnn, noise(6, 0), pixels, true_labels(cnn, pixels), seed=0)
    assert len(blocks) == 1 and "could not be attacked" in blocks[0]


def images(folder, count):
    """Pictures of parts, every second one with a masked defect."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        path = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (40, 50), dtype=np.uint8)).save(path)
        mask = None
        if number % 2:
            mask = folder / f"{number}.mask.png"
            shape = np.zeros((40, 50), dtype=np.uint8)
            shape[10:16, 20:27] = 255
            Image.fromarray(shape).save(mask)
        found.append(
            PartImage(
                id=path.name, path=path, label="spot" if number % 2 else "good",
                part=str(number), mask=mask,
            )
        )  # fmt: skip
    return tuple(found)


def study(items, *detectors):
    return SimpleNamespace(
        methods=[SimpleNamespace(model=SimpleNamespace(detector=d)) for d in detectors],
        split=SimpleNamespace(validation=items, calibration=(), test=items),
        run=SimpleNamespace(rng=np.random.default_rng),
        config=SimpleNamespace(seed=0),
    )


def test_the_row_is_cut_from_the_split_of_a_run(cnn, tmp_path, monkeypatch):
    items = images(tmp_path, 8)
    run = study(items, object(), cnn)
    run.run.rng = lambda name: np.random.default_rng(0)
    pixels, labels = chapter.cut_crops(cnn, items, np.random.default_rng(0))
    assert pixels.shape[1:] == (1, 32, 32) and pixels.dtype == torch.float32
    assert set(labels.tolist()) == {0, 1} and len(labels) == len(pixels)
    monkeypatch.setattr(chapter, "MOST_CROPS", 8)
    assert "could not be attacked" in chapter.attacks_on_patch_cnn(run)[0]
    run.split.validation = items[::2]
    assert "not attacked" in chapter.attacks_on_patch_cnn(run)[0]


def test_there_is_no_row_without_a_patch_cnn():
    assert chapter.attacks_on_patch_cnn(study((), object())) == ()
