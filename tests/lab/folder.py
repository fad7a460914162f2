"""The throw-away folder of one lab, and the canary that every test password carries."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

CANARY = "Kanarie7"
"""Every test password contains this; `find_canary` greps every byte the system left behind for it."""


def canary_password(ending: str = "") -> str:
    """A fresh password that satisfies AD's complexity rule and carries the canary."""
    return f"{CANARY}-{secrets.token_urlsafe(9)}{ending}"


def _encodings(text: str) -> list[bytes]:
    plain = text.encode()
    utf16 = text.encode("utf-16-le")
    return [plain, utf16, plain.hex().encode(), utf16.hex().encode(), utf16.hex().upper().encode()]


def find_canary(paths: list[Path], needle: str = CANARY) -> tuple[int, int, list[str]]:
    """Search files below the paths for the canary as UTF-8, UTF-16LE and hex: (files, bytes, hits as `path:offset`)."""
    files = size = 0
    hits: list[str] = []
    for path in _files(paths):
        try:
            content = path.read_bytes()
        except OSError:
            continue
        files += 1
        size += len(content)
        for form in _encodings(needle):
            position = content.find(form)
            if position >= 0:
                hits.append(f"{path}:{position}")
    return files, size, hits


def _files(paths: list[Path]) -> Iterator[Path]:
    for root in paths:
        if root.is_file():
            yield root
        else:
            yield from (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())


class LabFolder:
    """A folder below the system's temporary folder, removed at the end unless `keep`."""

    def __init__(self, *, keep: bool = False) -> None:
        # Short, because Unix socket paths end at 107 bytes; world-searchable, because rabbitmq runs as its own user.
        self.path = Path(tempfile.mkdtemp(prefix="prlab-"))
        self.path.chmod(0o755)
        self.keep = keep

    def remove(self) -> None:
        """Remove the folder unless it was to be kept."""
        if not self.keep:
            shutil.rmtree(self.path, ignore_errors=True)
