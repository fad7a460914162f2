"""A deployment for each acceptance module, on the session's servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.broker import Broker
from tests.lab.directory import Directory
from tests.lab.relay import Relay


@pytest.fixture
def relay(tmp_path: Path, shared_broker: Broker, shared_directory: Directory) -> Iterator[Relay]:
    """Empty queues and no process yet; every process is stopped at the end."""
    deployment = Relay(tmp_path / "relay", shared_broker, shared_directory)
    yield deployment
    deployment.close()
    shared_broker.purge_all()
