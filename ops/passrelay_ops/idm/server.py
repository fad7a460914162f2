"""One IdM server, bound as whoever may look at its configuration and change it: by default its Directory Manager."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, Self

import ldap3

from passrelay_consumer.connection import bind, call, close, connect, server_words
from passrelay_consumer.result_codes import DirectoryError
from passrelay_ops.idm.ldif import Change, FromFile, Record, Value
from passrelay_ops.idm.login import Login
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.secret_file import read_secret_file

Attributes = Mapping[str, tuple[str, ...]]
"""An entry's values as text, by attribute name in lower case."""
_OPERATIONS = {"add": ldap3.MODIFY_ADD, "delete": ldap3.MODIFY_DELETE, "replace": ldap3.MODIFY_REPLACE}
_NO_SUCH_OBJECT = 32
_PAGED, _PAGE = "1.2.840.113556.1.4.319", 500
"""Simple paged results (RFC 2696)."""


class Server:
    """A context with one bound connection. Every call raises DirectoryError with the server's own words."""

    def __init__(self, url: str, idm: IdmSettings, login: Login) -> None:
        self.url = url
        self._idm = idm
        self._login = login
        self._connection: ldap3.Connection | None = None

    def __enter__(self) -> Self:
        self._connection = connect(self.url, self._idm)
        try:
            bind(self._connection, self._login.dn, self._login.password.reveal())
        except DirectoryError:
            close(self._connection)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close(self._connection)

    def entry(self, dn: str, *attributes: str) -> Attributes | None:
        """One entry, without what has no value; None when there is none, or none that this login may see."""
        found = [attributes for _, attributes in self._search(dn, "(objectClass=*)", "BASE", attributes)]
        return found[0] if found else None

    def below(
        self, dn: str, search_filter: str, *attributes: str, deep: bool = True
    ) -> Iterator[tuple[str, Attributes]]:
        """DN and attributes of every entry below that the filter (RFC 4515) hits, a page at a time."""
        return self._search(dn, search_filter, "SUBTREE" if deep else "LEVEL", attributes)

    def _search(
        self, dn: str, search_filter: str, scope: Literal["BASE", "LEVEL", "SUBTREE"], attributes: tuple[str, ...]
    ) -> Iterator[tuple[str, Attributes]]:
        wanted: dict[str, Any] = {"attributes": list(attributes) or ["1.1"]}
        if scope != "BASE":
            wanted["paged_size"] = _PAGE
        while True:
            connection = self._do(
                lambda opened: opened.search(dn, search_filter, scope, **wanted), also_good=_NO_SUCH_OBJECT
            )
            for item in connection.response or []:
                if item["type"] == "searchResEntry":
                    yield item["dn"], _attributes(item["raw_attributes"])
            controls = connection.result.get("controls") or {}
            wanted["paged_cookie"] = controls.get(_PAGED, {}).get("value", {}).get("cookie")
            if not wanted["paged_cookie"]:
                return

    def apply(self, record: Record) -> None:
        """Do what a change record says. Values that stand in a file are read now."""
        if record.kind == "add":
            content = {change.attribute: _values(change) for change in record.changes}
            self._do(lambda opened: opened.add(record.dn, attributes=content))
        elif record.kind == "delete":
            self._do(lambda opened: opened.delete(record.dn))
        else:
            changes: dict[str, list[tuple[str, list[bytes]]]] = {}
            for change in record.changes:
                changes.setdefault(change.attribute, []).append((_OPERATIONS[change.operation], _values(change)))
            self._do(lambda opened: opened.modify(record.dn, changes))

    def _do(self, operation: Callable[[Any], Any], also_good: int = 0) -> ldap3.Connection:
        connection = self._connection
        if connection is None:
            raise DirectoryError(None, f"{self.url}: not connected")
        call(connection, lambda: operation(connection))
        code = int(connection.result["result"])
        if code not in (0, also_good):
            raise DirectoryError(code, server_words(connection))
        return connection


def _attributes(raw: Mapping[str, list[bytes]]) -> Attributes:
    return {
        name.lower(): tuple(value.decode("utf-8", "replace") for value in values)
        for name, values in raw.items()
        if values
    }


def _values(change: Change) -> list[bytes]:
    return [_bytes(value) for value in change.values]


def _bytes(value: Value) -> bytes:
    if isinstance(value, FromFile):
        return read_secret_file(value.path, what="[idm] password_file").reveal().encode()
    return value.encode()
