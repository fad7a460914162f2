"""What the tests say in their last lines about where they ran, also when several processes ran them (pytest-xdist)."""

from __future__ import annotations

from typing import Any

import pytest

REMARK = pytest.StashKey[str]()
"""In the stash of pytest's configuration: one line."""
_SENT_AS = "passrelay_remark"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In one of several processes: told to the first one."""
    sent: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if sent is not None and REMARK in session.config.stash:
        sent[_SENT_AS] = session.config.stash[REMARK]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """In the first process: another one has ended, perhaps without a last word."""
    if _SENT_AS in getattr(node, "workeroutput", {}):
        node.config.stash[REMARK] = node.workeroutput[_SENT_AS]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The line."""
    if REMARK in config.stash:
        terminalreporter.write_line(config.stash[REMARK])
