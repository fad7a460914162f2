"""What holds for every test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

pytest_plugins = ["tests.lab.fixtures", "tests.lab.ipa_fixtures", "tests.lab.remark"]

settings.register_profile("passrelay", deadline=None)  # how long an example takes says something about the machine only
settings.load_profile("passrelay")


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """The settings of whoever runs the tests must not reach the programs under test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.upper().startswith("PASSRELAY_")]:
            patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def _log_of_one_test() -> Iterator[None]:
    """A command that runs inside the test sets the log up on a stderr that is closed when the command ends."""
    yield
    structlog.reset_defaults()
