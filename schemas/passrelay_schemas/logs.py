"""The log: JSON lines on stderr, each with one `action` word from a closed list; no bodies, tracebacks or accounts."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from typing import Any, TextIO

import structlog


class Action(StrEnum):
    """What a line is about: the words that operators search and alert on."""

    STARTED = "started"
    STOPPED = "stopped"
    NOT_STARTED = "not_started"
    METRICS_LISTENING = "metrics_listening"
    BROKER_CONNECTED = "broker_connected"
    BROKER_LOST = "broker_lost"
    BROKER_BLOCKED = "broker_blocked"
    BROKER_UNBLOCKED = "broker_unblocked"
    TOPOLOGY_MISSING = "topology_missing"
    PUBLISH_RETURNED = "publish_returned"
    PUBLISH_REFUSED = "publish_refused"
    CAPTURE_STARTED = "capture_started"
    CAPTURED = "captured"
    CAPTURE_PENDING = "capture_pending"
    CAPTURE_RESOLVED = "capture_resolved"
    CAPTURE_FAILED = "capture_failed"
    RECORD_QUARANTINED = "record_quarantined"
    RECORD_WAITS = "record_waits"
    SOURCE_DOWN = "source_down"
    SOURCE_UP = "source_up"
    SOURCE_RESTORED = "source_restored"
    SPOOL_FULL = "spool_full"
    SPOOL_CONVERTED = "spool_converted"
    NEWS_FAULT = "news_fault"
    KEYRING_READ = "keyring_read"
    KEYRING_FAULT = "keyring_fault"
    DIRECTORY_UP = "directory_up"
    DIRECTORY_DOWN = "directory_down"
    DIRECTORY_EXPIRES = "directory_expires"
    PAUSED = "paused"
    RESUMED = "resumed"
    BRAKE = "brake"
    OUTCOME = "outcome"
    RETRY = "retry"
    DEAD = "dead"
    BEHIND = "behind"
    UNSETTLED = "unsettled"
    IDM_NEWER = "idm_newer"
    VERSION_BACK = "version_back"
    AHEAD = "ahead"
    CLOCK_OFF = "clock_off"
    INTERNAL_ERROR = "internal_error"


def configure(level: str = "info", sink: TextIO | None = None) -> None:
    """Set the log up for this process; `sink` takes its lines in the place of stderr."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _drop_tracebacks,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # Not with print(), which writes the line feed by itself where PYTHONUNBUFFERED is set: a process that is killed
        # between the two would leave half a line, to which the next process adds its first.
        logger_factory=structlog.WriteLoggerFactory(sink or sys.stderr),
        cache_logger_on_first_use=False,
    )
    # pika and ldap3 log message contents at debug level; nothing of theirs is written.
    for library in ("pika", "ldap3"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)


def _drop_tracebacks(logger: Any, method: str, entry: Any) -> Any:
    # A traceback can carry local values into the log; errors are described by their own message.
    for name in ("exc_info", "stack_info", "exception"):
        entry.pop(name, None)
    return entry


class Log:
    """One component's log."""

    def __init__(self, component: str) -> None:
        # Not .bind(): that would keep the set-up of this moment, which before `configure` prints tracebacks to stdout.
        self._logger = structlog.get_logger(component=component)

    def debug(self, action: Action, **fields: Any) -> None:
        """Detail for a developer."""
        self._logger.debug("", action=action.value, **fields)

    def info(self, action: Action, **fields: Any) -> None:
        """Something that an operator may want to know."""
        self._logger.info("", action=action.value, **fields)

    def warning(self, action: Action, **fields: Any) -> None:
        """Something that heals by itself or soon needs a person."""
        self._logger.warning("", action=action.value, **fields)

    def error(self, action: Action, **fields: Any) -> None:
        """Something that needs a person; `repair` says what to do."""
        self._logger.error("", action=action.value, **fields)
