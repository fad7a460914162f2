"""One whole lab: RabbitMQ, 389 Directory Server, Samba AD DC, and passrelay between them."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from tests.lab.broker import Broker
from tests.lab.certificates import CertificateAuthority
from tests.lab.directory import Directory
from tests.lab.folder import LabFolder
from tests.lab.network import Reservations
from tests.lab.relay import Relay
from tests.lab.samba import DomainController


class Lab:
    """A context: the servers run inside it and are gone afterwards, with their folder unless `keep`."""

    def __init__(self, *, samba: bool = True, storage_scheme: str | None = None, keep: bool = False) -> None:
        self.folder = LabFolder(keep=keep)
        self.reservations = Reservations()
        self.ca = CertificateAuthority(self.folder.path / "ca")
        self.broker = Broker(self.folder.path / "broker", self.reservations, self.ca)
        self.directory = Directory(
            self.folder.path / "directory", self.reservations, self.ca, storage_scheme=storage_scheme
        )
        self.dc = DomainController(self.folder.path, self.reservations, self.ca) if samba else None
        self.relay = Relay(self.folder.path / "relay", self.broker, self.directory)
        # The kernel stops a server when the thread that started it ends, so these threads live as long as the lab.
        self._threads = ThreadPoolExecutor(3, thread_name_prefix="lab")

    @property
    def versions(self) -> dict[str, str | None]:
        """For the documents' `servers`."""
        return {
            "rabbitmq": self.broker.version,
            "directory": self.directory.version,
            "samba": self.dc.version if self.dc else None,
        }

    def __enter__(self) -> Self:
        try:
            starts = [self.broker.start, self.directory.start, *([self.dc.start] if self.dc else [])]
            for future in [self._threads.submit(start) for start in starts]:
                future.result()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def stop(self) -> None:
        """Stop every process in good order; the folder stays, for whoever looks at what was left behind."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.broker.stop)
            stack.callback(self.directory.stop)
            if self.dc is not None:
                stack.callback(self.dc.stop)
            stack.callback(self.relay.close)

    def close(self) -> None:
        """Stop, and remove the folder."""
        try:
            self.stop()
        finally:
            self._threads.shutdown()
            self.reservations.release()
            self.folder.remove()
