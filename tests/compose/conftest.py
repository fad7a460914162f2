"""One engine and one demo for all tests of this folder. Where Docker cannot be had they skip and say why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose import stand_ins
from tests.compose.engine import Engine, demand_tools
from tests.compose.project import Project
from tests.lab.folder import LabFolder
from tests.lab.process import MissingServerError

_WHY_NOT = pytest.StashKey[str]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is of the ring `compose`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("compose")


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line of the run, so that nobody takes skipped tests for good ones."""
    why_not = config.stash.get(_WHY_NOT, None)
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if why_not is not None and terminal is not None:
        terminal.write_line(f"The tests marked compose were skipped. {why_not}")


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest, lab_folder: LabFolder) -> Iterator[Engine]:
    """An engine without any image or container; it is not started."""
    try:
        demand_tools()
    except MissingServerError as error:
        request.config.stash[_WHY_NOT] = str(error)
        pytest.skip("Docker cannot be had here, the last line says why")
    made = Engine(lab_folder.path / "docker")
    yield made
    made.stop()


@pytest.fixture(scope="session")
def project(engine: Engine, lab_folder: LabFolder) -> Project:
    """The demo, just started on an engine that was empty."""
    made = Project(engine, lab_folder.path / "checkout")
    engine.start(own_network=False)
    assert engine.docker("image", "ls", "--quiet") == ""
    compose, demo = made.folder / "docker-compose.yml", made.folder / "ops/compose/demo/Dockerfile"
    images = stand_ins.public_images(made.folder / "Dockerfile", compose, demo)
    stand_ins.make(engine, {image for image in images if not image.startswith("grafana/")})
    made.build()
    engine.stop()
    engine.start(own_network=True)
    made.up()
    return made
