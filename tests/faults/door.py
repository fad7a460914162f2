"""One client's way to one server: it can be cut, swallow what goes in, be slow, or lead to another node."""

from __future__ import annotations

import asyncio

from tests.lab.network import Reservations
from tests.lab.proxy import Proxy


class Door(Proxy):
    """A proxy as a campaign needs it; what is true of it ends with `mend`."""

    def __init__(self, reservations: Reservations, target: int) -> None:
        self._delay = 0.0
        super().__init__(reservations, target)

    @property
    def target(self) -> int:
        """The port behind it."""
        return self._target

    def slow_down(self, seconds: float) -> None:
        """Each piece that the client sends waits so long."""
        self._delay = seconds

    def swallow(self) -> None:
        """Nothing more reaches the server, and the client is not told."""
        self.hold_after(0)

    def lead_to(self, port: int) -> None:
        """New connections go there; the old ones are reset."""
        if port != self._target:
            self._target = port
            self.reset()

    def reset(self) -> None:
        """Every connection is cut; new ones are taken at once."""
        self.cut()
        self.heal()

    def mend(self) -> None:
        """As at the beginning."""
        self._delay = 0.0
        if self._passing is not None:
            self.cut()
        self.heal()

    async def _pass(self) -> None:
        if self._delay:
            await asyncio.sleep(self._delay)
        await super()._pass()
