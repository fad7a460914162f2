"""The consumer's handler against the lab's directory, and the shipped broker, as tests/integration has them."""

from __future__ import annotations

from tests.integration import test_broker_setup, test_handler

rig = test_handler.rig
node = test_broker_setup.node
