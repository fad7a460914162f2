"""The consumer's handler against the lab's directory, as tests/integration has it."""

from __future__ import annotations

from tests.integration import test_handler

rig = test_handler.rig
