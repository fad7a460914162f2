"""All dashboards, as the files of ops/grafana/dashboards have to be."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.dashboards import dead_letters, directory, overview, pipeline, producers

FOLDER = Path(__file__).resolve().parents[2] / "ops/grafana/dashboards"


def files() -> dict[str, str]:
    """What has to be in the folder, by file name."""
    rooms = (overview, pipeline, producers, directory, dead_letters)
    return {f"{board.uid}.json": board.text() for board in (room.board() for room in rooms)}


def mark(text: str) -> str:
    """The last line of a picture: of what dashboard it was drawn."""
    return f"<!-- SHA-256 of the dashboard: {hashlib.sha256(text.encode()).hexdigest()} -->\n"
