"""The peers on the same servers: PassSync's algorithm, and Samba's own `samba-tool user syncpasswords`."""

from __future__ import annotations

from tests.bench import passsync, syncpasswords
from tests.bench.run import Run


def measure(run: Run) -> None:
    """Both, each against passrelay."""
    passsync.measure(run)
    syncpasswords.measure(run)
