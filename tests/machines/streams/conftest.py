"""What the tests of the streams start from: a learned fleet, its snapshots, an empty store."""

import pytest
from tests.machines.streaming import batch_of, learn_fleet

from lineside.machines.data import load_measurement
from lineside.machines.store import open_store


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    return learn_fleet(tmp_path_factory.mktemp("fleet"))


@pytest.fixture(scope="session")
def model(trained):
    return trained[0]


@pytest.fixture(scope="session")
def snapshots(trained):
    return [load_measurement(item) for item in trained[1]]


@pytest.fixture(scope="session")
def pump(snapshots):
    return [measurement for measurement in snapshots if measurement.machine == "pump"]


@pytest.fixture(scope="session")
def batch(trained):
    return batch_of(trained)


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path / "machines.db") as opened:
        yield opened
