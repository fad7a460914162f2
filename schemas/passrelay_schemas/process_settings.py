"""The sections about the process itself: its keys, its log, its metrics, a consumer's work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from passrelay_schemas.setting_values import listen_address
from passrelay_schemas.settings_section import DEFAULT_DIRECTORY, Section


class KeysSettings(Section):
    """Key files."""

    directory: Path = DEFAULT_DIRECTORY / "keys"
    """`*.pub.json` of every key this host knows, `*.key` of its own."""
    passphrase_file: Path | None = None
    """File (mode 0600, or a credential of systemd or the container) with the passphrase of encrypted `*.key` files."""


class LogSettings(Section):
    """The log: JSON lines on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is written."""


class MetricsSettings(Section):
    """Prometheus metrics."""

    listen: Annotated[str, AfterValidator(listen_address)] | None = None
    """ADDRESS:PORT of the metrics page; port 0 takes a free one and logs it; unset: no page."""


_BESIDE_THE_WRITES = 7


class ConsumerTableSettings(Section):
    """The consumer process."""

    workers: Annotated[int, Field(ge=1, le=64)] = 4
    """Connections to each IdM server in use. Several events share each, so that the next one is opened and looked up
    while one is written."""
    prefetch: Annotated[int, Field(ge=1, le=2000)] | None = None
    """Events held at once; default: four for each in work."""
    brake: Annotated[int, Field(ge=2, le=10_000)] = 20
    """So many dead letters of one reason in a row, over different accounts, stop this consumer."""

    @property
    def held(self) -> int:
        """The effective prefetch."""
        return self.prefetch or 4 * self.threads

    @property
    def threads(self) -> int:
        """Events in work at once: some are opened, looked up or recorded while one is written on each connection.

        Not more: a server that takes long for a password has all of them to answer within [idm] timeout_seconds.
        """
        return self.workers + _BESIDE_THE_WRITES
