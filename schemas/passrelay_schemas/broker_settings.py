"""The section [broker]: the RabbitMQ server, and how this host proves itself there."""

from __future__ import annotations

from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import model_validator

from passrelay_schemas.secret import Secret
from passrelay_schemas.setting_values import is_loopback, split_url
from passrelay_schemas.settings_section import Section


class BrokerSettings(Section):
    """The RabbitMQ server."""

    url: Secret
    """amqps://HOST[:PORT]/VHOST. amqp:// only to a loopback address; %2F is the default vhost."""
    ca_file: Path | None = None
    """PEM file with the CA that signed the broker's certificate. Needed with amqps://."""
    certificate_file: Path | None = None
    """PEM file with this host's client certificate: its common name is the broker's user (SASL EXTERNAL)."""
    key_file: Path | None = None
    """PEM file with the key of certificate_file."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        parts = split_url(self.url.reveal())
        if parts is None or parts.scheme not in {"amqp", "amqps"}:
            raise ValueError("url must look like amqps://broker.example:5671/passrelay")
        if parts.query or parts.fragment:
            raise ValueError("url takes nothing after the vhost; write ?, # and / in a password as %3F, %23 and %2F")
        if parts.scheme == "amqp" and not is_loopback(parts.hostname or ""):
            raise ValueError(f"url: clear-text amqp:// to {parts.hostname} is refused, only to loopback: use amqps://")
        if parts.scheme == "amqps" and self.ca_file is None:
            raise ValueError("ca_file is needed with amqps://: name the CA that signed the broker's certificate")
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file belong together: give both or none")
        return self

    @property
    def shown(self) -> str:
        """The address without user and password, for messages."""
        parts = urlsplit(self.url.reveal())
        port = f":{parts.port}" if parts.port else ""
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}{port}{parts.path}"
