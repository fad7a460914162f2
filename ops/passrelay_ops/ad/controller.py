"""One domain controller, read over LDAPS as an ordinary account ([domain.ad]); nothing is ever written to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import ldap3

from passrelay_consumer.connection import bind, call, close, connect, server_words
from passrelay_consumer.result_codes import DirectoryError
from passrelay_schemas.domain_settings import AdSettings
from passrelay_schemas.errors import UnavailableError
from passrelay_schemas.secret_file import read_secret_file

Attributes = Mapping[str, tuple[bytes, ...]]
"""An entry's values as they were sent, by attribute name in lower case; what has no value is left out."""
_PAGED, PAGE = "1.2.840.113556.1.4.319", 1000
"""Simple paged results (RFC 2696) and the largest page that AD gives (MaxPageSize, MS-ADTS 3.1.1.3.4.6)."""
_NO_SUCH_OBJECT = 32


class Controller:
    """A context with one bound connection. Every call raises DirectoryError with the server's own words.

    ConfigurationError when the password file cannot be used.
    """

    def __init__(self, url: str, ad: AdSettings) -> None:
        self.url = url
        self._ad = ad
        self._connection: ldap3.Connection | None = None

    def __enter__(self) -> Self:
        password = read_secret_file(self._ad.password_file, what="[domain.ad] password_file")
        self._connection = connect(self.url, self._ad)
        try:
            bind(self._connection, self._ad.bind_user, password.reveal())
        except DirectoryError:
            close(self._connection)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close(self._connection)

    def root(self) -> Attributes:
        """The rootDSE: defaultNamingContext, configurationNamingContext, dnsHostName and so on (MS-ADTS 3.1.1.3.2)."""
        return self.entry("", "*", "+") or {}

    def entry(self, dn: str, *attributes: str) -> Attributes | None:
        """One entry; None when there is none, or none that this account may see."""
        return next((found for _, found in self.search(dn, "(objectClass=*)", attributes, scope="BASE")), None)

    def search(
        self,
        base: str,
        search_filter: str,
        attributes: Sequence[str],
        *,
        scope: Literal["BASE", "LEVEL", "SUBTREE"] = "SUBTREE",
        page: int = PAGE,
    ) -> Iterator[tuple[str, Attributes]]:
        """DN and attributes of every entry that the filter (RFC 4515) hits; one page is in memory at a time."""
        wanted: dict[str, Any] = {"attributes": list(attributes) or ["1.1"]}
        if scope != "BASE":
            wanted["paged_size"] = page
        while True:
            connection = self._search(base, search_filter, scope, wanted)
            # Both before anybody sees an entry: he may ask for more on this very connection.
            found, controls = connection.response or [], connection.result.get("controls") or {}
            for item in found:
                if item["type"] == "searchResEntry":
                    raw: Mapping[str, list[bytes]] = item["raw_attributes"]
                    yield item["dn"], {name.lower(): tuple(values) for name, values in raw.items() if values}
            wanted["paged_cookie"] = controls.get(_PAGED, {}).get("value", {}).get("cookie")
            if not wanted["paged_cookie"]:
                return

    def _search(self, base: str, search_filter: str, scope: Any, wanted: dict[str, Any]) -> ldap3.Connection:
        connection = self._connection
        if connection is None:
            raise DirectoryError(None, f"{self.url}: not connected")
        call(connection, lambda: connection.search(base, search_filter, scope, **wanted))
        code = int(connection.result["result"])
        if code not in (0, _NO_SUCH_OBJECT):
            raise DirectoryError(code, server_words(connection))
        return connection


def reach(ad: AdSettings) -> Controller:
    """The first controller that lets us in, not entered yet; UnavailableError names every one that does not."""
    failures = []
    for url in ad.servers:
        try:
            with Controller(url, ad):
                return Controller(url, ad)
        except DirectoryError as error:
            failures.append(f"{url}: {error}")
    raise UnavailableError(f"no domain controller of [domain.ad] servers can be read: {'; '.join(failures)}")
