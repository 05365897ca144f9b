"""One thread per test process: two wait for each other, and a forked child would wait for ever."""

import os
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

PATTERN = r"(.+)_v\d"


class Shop:
    """Makes small pictures of parts: a grey grating, with a bright spot if faulty."""

    pattern = PATTERN
    train_flags = (
        "--methods", "gaussian", "--methods", "brightness", "--no-robustness",
        "--part-pattern", PATTERN,
    )  # fmt: skip

    def picture(self, path: Path, spot: float = 0.0, seed: int = 0, light: float = 0.0) -> Path:
        """Write one picture; `spot` is the brightness of the defect, in grey levels."""
        import numpy as np
        from PIL import Image

        rng = np.random.default_rng([seed, round(spot)])
        rows, columns = np.indices((96, 96))
        values = 110 + 20 * np.sin(columns / 7) + rng.normal(0, 4, (96, 96)) + light
        row, column = rng.integers(20, 76, 2)
        values[np.hypot(rows - row, columns - column) <= 7] += spot
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(path)
        return path

    def data(self, root: Path, good: int = 26, faulty: int = 10, seed: int = 1) -> Path:
        """Write a labelled folder: parts with two views each."""
        for label, count, spot in (("good", good, 0.0), ("defect/spot", faulty, 40.0)):
            for i in range(count):
                for view in (1, 2):
                    name = f"{label[0]}{i:02}_v{view}.png"
                    number = 1000 * seed + 2 * i + view
                    self.picture(root / label / name, spot + (i if spot else 0), number)
        return root


@pytest.fixture(scope="session")
def shop():
    return Shop()


@pytest.fixture(scope="session")
def trained(shop, tmp_path_factory):
    """The one trained run that all tests share; nobody may change it."""
    from lineside.cli import main

    root = tmp_path_factory.mktemp("trained")
    data = shop.data(root / "data")
    assert main(["parts", "train", str(data), "--out", str(root / "run"), *shop.train_flags]) == 0
    return root / "run"


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the trained run that a test may change."""
    import shutil

    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="session")
def postgres():
    """The URL of a PostgreSQL server; skips where none can be started."""
    from tests.databases import cluster

    with cluster() as url:
        yield url
